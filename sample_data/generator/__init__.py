"""Renders captures of parts on a table: colour image, organised point cloud, ground truth."""
