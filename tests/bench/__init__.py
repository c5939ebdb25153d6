"""Speed of das3d, compared with other implementations of the same tasks: `nox -s bench`."""
