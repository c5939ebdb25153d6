"""Missing points: which of them belong to the part, and what depth they had."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_ENCLOSED = 7  # of the eight views from a missing pixel, so many must end at the part


def enclosed(measured: NDArray[np.bool_], foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Missing pixels inside the part, bool (H, W).

    From each missing pixel one looks along the rows, the columns and the diagonals to the first measured
    pixel; seven of eight views that end at the part make it the part's. A shadow on the table beside the part
    or inside a ring sees the table in two or more; what leaves the image counts as table.
    """
    rows, columns = np.nonzero(foreground)
    inside = np.zeros_like(foreground)
    if not len(rows):
        return inside
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    missing = ~measured[box]
    if not missing.any():
        return inside
    # 1: the view ends at the part, 0: it ends elsewhere, -1: not measured, look on
    state = np.where(measured[box], foreground[box].astype(np.int8), np.int8(-1))
    votes = _views_down(state) + _views_down(state[::-1])[::-1]
    across = np.ascontiguousarray(state.T)
    votes += (_view_down(across) + _view_down(across[::-1])[::-1]).T
    inside[box] = missing & (votes >= _ENCLOSED)
    return inside


def _view_down(state: NDArray[np.int8]) -> NDArray[np.int8]:
    """The state of the first measured pixel up each pixel's column."""
    seen = np.zeros(state.shape, np.int8)
    last = np.zeros(state.shape[1], np.int8)
    for row, line in enumerate(state):
        np.copyto(last, line, where=line >= 0)
        seen[row] = last
    return seen


def _views_down(state: NDArray[np.int8]) -> NDArray[np.int8]:
    """The same up the column and both diagonals, added up."""
    total = np.zeros(state.shape, np.int8)
    straight, left, right = (np.zeros(state.shape[1], np.int8) for _ in range(3))
    for row, line in enumerate(state):
        known = line >= 0
        left[:-1], left[-1] = left[1:], 0
        right[1:], right[0] = right[:-1], 0
        for last in (straight, left, right):
            np.copyto(last, line, where=known)
        total[row] = straight + left + right
    return total


def fill(values: NDArray[np.float32], known: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """`values` (H, W) with the wanted pixels filled smoothly from the known ones; all others unchanged.

    Averages of the known pixels are taken on ever coarser grids until none is empty, and each finer grid
    takes what it lacks from the next coarser one.
    """
    rows, columns = np.nonzero(wanted)
    if not len(rows):
        return values
    margin = 16
    box = (
        slice(max(0, rows.min() - margin), rows.max() + 1 + margin),
        slice(max(0, columns.min() - margin), columns.max() + 1 + margin),
    )
    if not known[box].any():
        box = (slice(None), slice(None))
    weight = known[box].astype(np.float32)
    filled = values.copy()
    filled[box] = np.where(wanted[box], _pull(np.where(known[box], values[box], np.float32(0)), weight), values[box])
    return filled


def _pull(values: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` where the weight is 1, a smooth continuation where it is 0."""
    height, width = weight.shape
    if weight.all() or max(height, width) == 1:
        return values
    size = ((width + 1) // 2, (height + 1) // 2)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(values * weight, size, interpolation=cv2.INTER_AREA) / np.maximum(share, np.float32(1e-6))
    coarse = _pull(np.asarray(mean, dtype=np.float32), (share > 0).astype(np.float32))
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.where(weight > 0, values, smooth), dtype=np.float32)
