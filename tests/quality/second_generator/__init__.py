"""A held-out second generator, which shares only the file layout with that of `sample_data/`.

Height fields on a table under a tilted pinhole camera, lit from one side and measured by a projector on the other.
Defects are edits of height and colour, from barely visible to gross; the ground truth is where the part looks different
without light and noise.
"""
