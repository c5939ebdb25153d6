"""A second generator, made after all was chosen, which shares nothing with that of `sample_data/` but the files' layout.

Height fields on a table under a tilted pinhole camera, lit from one side and measured by a projector on the other. Defects are edits of
height and colour, from barely visible to gross; the truth is where the part, without light and noise, looks different.
"""
