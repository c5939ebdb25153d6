"""How fast das3d is, side by side with what others do for the same end: `nox -s bench`."""
