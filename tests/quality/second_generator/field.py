"""Fields over the table: positions of their cells, noise, and lookup at points."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rng = np.random.Generator

SPAN, CELLS = 124.0, 744  # mm, and cells along each axis
STEP = SPAN / CELLS


def noise(rng: Rng, size: float, shape: tuple[int, int] = (CELLS, CELLS), stretch: float = 1.0) -> Array:
    """Smooth noise of unit variance, with structures of about `size` mm, `stretch` times as long along x."""
    cells = max(4, round(SPAN / size)), max(4, round(SPAN / size / stretch))
    coarse = rng.standard_normal(cells).astype(np.float32)
    noise = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise / noise.std(), np.float32)


def axis() -> Array:
    """Centres of a field's cells along an axis, mm from the centre of the table, (n,)."""
    return (np.arange(CELLS, dtype=np.float32) + 0.5) * STEP - SPAN / 2


def sampled(field: Array, x: Array, y: Array) -> Array:
    """Values of a field at points (x, y) of the table, mm; 0 beyond the field."""
    column, row = (((at + SPAN / 2) / STEP - 0.5).astype(np.float32) for at in (x, y))
    return np.asarray(cv2.remap(field, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)
