"""Contact sheets: a labelled grid of pictures on light paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from das3d_cli.report.draw import (
    BOLD,
    FAINT,
    INK,
    REGULAR,
    Colour,
    Picture,
    blank,
    enlarge,
    letter,
    letter_width,
    paste,
    wrap,
)


class Tile(NamedTuple):
    """A picture in a sheet, uint8 (H, W, 3) RGB, with an optional caption below it."""

    picture: Picture
    caption: str = ""


_SMALLEST_TILE = 256
"""Pixels; smaller tiles are enlarged by a whole factor, so that small defects show and the lettering fits."""


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> Picture:
    """Draw a labelled grid.

    Args:
        rows: tiles from left to right; rows may differ in length and tiles in size.
        column_titles: one per column, or none.
        row_titles: one per row, or none.
        title: heading.
        notes: small print below the grid, one paragraph each.

    Returns:
        uint8, (H, W, 3), RGB.
    """
    tiles = [tile.picture for row in rows for tile in row]
    factor = max(1, -(-_SMALLEST_TILE // max(max(tile.shape[:2]) for tile in tiles)))
    cell_width = factor * max(tile.shape[1] for tile in tiles)
    size = min(24, max(13, cell_width // 16))
    gap, margin, line = size, 2 * size, round(1.35 * size)

    row_labels = [wrap(text, 9 * size, size, BOLD) for text in row_titles]
    label_width = max((letter_width(text, size, BOLD) + gap for label in row_labels for text in label), default=0)
    column_labels = [wrap(text, cell_width, size, BOLD) for text in column_titles]
    column_lines = max((len(label) for label in column_labels), default=0)
    cell_heights = [factor * max(tile.picture.shape[0] for tile in row) for row in rows]
    captions = [[wrap(tile.caption, cell_width, size) for tile in row] for row in rows]
    caption_heights = [line * max(len(caption) for caption in row) for row in captions]

    grid_left = margin + label_width
    columns = max(len(row) for row in rows)
    width = grid_left + columns * (cell_width + gap) - gap + margin
    heading = round(1.5 * size)
    title_lines = wrap(title, width - 2 * margin, heading, BOLD)
    note_lines = [text for note in notes for text in wrap(note, width - 2 * margin, size)]
    grid_top = margin + len(title_lines) * 2 * heading + (column_lines * line + gap // 2 if column_lines else 0)
    grid_height = sum(cell_heights) + sum(caption_heights) + gap * (len(rows) - 1)
    note_height = len(note_lines) * line + gap if note_lines else 0
    sheet = blank(grid_top + grid_height + note_height + margin, width)

    _write(sheet, title_lines, margin, margin + 0.8 * heading, 2 * heading, heading, weight=BOLD)
    for column, label in enumerate(column_labels):
        left = grid_left + column * (cell_width + gap)
        _write(sheet, label, left, grid_top - gap // 2 - (column_lines - 1) * line, line, size, weight=BOLD)
    top = grid_top
    for index, row in enumerate(rows):
        _write(sheet, row_labels[index] if index < len(row_labels) else [], margin, top + size, line, size, weight=BOLD)
        for column, tile in enumerate(row):
            left = grid_left + column * (cell_width + gap)
            paste(sheet, enlarge(tile.picture, factor), left, top)
            _write(sheet, captions[index][column], left, top + cell_heights[index] + size + 1, line, size)
        top += cell_heights[index] + caption_heights[index] + gap
    _write(sheet, note_lines, margin, top + size, line, size, colour=FAINT)
    return sheet


def _write(
    sheet: Picture, lines: Sequence[str], x: int, baseline: float, step: int, size: int, *,
    weight: int = REGULAR, colour: Colour = INK,
) -> None:  # fmt: skip
    """Write lines below each other, `step` pixels apart."""
    for number, text in enumerate(lines):
        letter(sheet, text, x, baseline + number * step, size, weight=weight, colour=colour)
