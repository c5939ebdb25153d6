"""Alignment of a photo with its points: the shift between the part's outlines in the two."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 256  # pixels: the part is shrunk to this longer side for the search
_REACH = 8  # search range in each direction, in these pixels
_POINTS = 600  # outline points used at most, evenly spread
_LEAST = 50  # outline points; fewer are not enough to judge by
_SURE = 0.6  # least measured share around an outline point; where a shadow begins at the part, half is measured
_BLUR = 1.0  # sigma in these pixels: smooths the steps of a pixelated outline
_ALIKE = 0.9  # of the best shift's lead over the median: another one that fits as well makes both uncertain
_APART = 2  # pixels of shift from the best, beyond which another one is sought
_LEVEL = 8.0  # value of `_slopes` for a slope of one grey level per pixel


def photo_offset(
    rgb: NDArray[np.uint8], part: NDArray[np.bool_], measured: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Find the shift of the part's outline at which the photo changes most across it.

    Args:
        rgb: uint8, (H, W, 3).
        part: bool, (H, W).
        measured: bool, (H, W): the pixel has a point. Elsewhere the outline may stem from the photo itself.

    Returns:
        x and y in pixels of `rgb`, from the outline of `part` to that in the photo, each at most `_REACH` pixels of the
        shrunk image; None where the photo shows too little of the outline, or changes as much at another shift, as where
        a part has straight edges or its own shadow beside it.
    """
    left, top, width, height = cv2.boundingRect(part.astype(np.uint8))
    if not width:
        return None
    scale = min(1.0, _SIDE / max(width, height))
    margin = int(np.ceil((_REACH + 2) / scale))
    rows = slice(max(top - margin, 0), top + height + margin)
    columns = slice(max(left - margin, 0), left + width + margin)
    grey = _small(cv2.cvtColor(rgb[rows, columns], cv2.COLOR_RGB2GRAY), scale)
    mask = _small(part[rows, columns] * np.uint8(255), scale)
    across, points = _outline(mask, _small(measured[rows, columns] * np.uint8(255), scale) >= _SURE * 255)
    if len(points) < _LEAST:
        return None
    slopes = _slopes(grey)
    steps = np.arange(-_REACH, _REACH + 1)
    y = points[:, 1, None, None] + steps[:, None]
    x = points[:, 0, None, None] + steps
    change = np.abs(across[:, 0, None, None] * slopes[0, y, x] + across[:, 1, None, None] * slopes[1, y, x])
    told = change.any(axis=(1, 2))  # not where the photo is black or white around the outline
    if np.count_nonzero(told) < _LEAST:
        return None
    # Logarithmic, or half an outline on a bright rim or a shadow's edge would outweigh a whole one in the right place.
    change = np.log1p(change[told] / _LEVEL).mean(axis=0)
    row, column = (int(place) for place in np.unravel_index(change.argmax(), change.shape))
    if _is_uncertain(change, row, column):
        return None
    return (
        (column - _REACH + _between(change[row], column)) / scale,
        (row - _REACH + _between(change[:, column], row)) / scale,
    )


def _small(image: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """Scale a grey image or mask, 0 to 255, by `scale` and blur it slightly."""
    height, width = (max(1, round(length * scale)) for length in image.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small.astype(np.float32), (0, 0), _BLUR), np.float32)


def _slopes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Horizontal and vertical Sobel gradients, (2, H, W)."""
    return np.asarray([cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)], np.float32)


def _outline(mask: NDArray[np.float32], sure: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Unit normals and positions (x, y), each (N, 2), of the `sure` outline points at least `_REACH` from the border."""
    outlines, _ = cv2.findContours((mask >= 127.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([np.zeros((0, 2), np.int32), *(outline[:, 0] for outline in outlines)])
    height, width = mask.shape
    within = (points >= _REACH) & (points < (width - _REACH, height - _REACH))
    points = points[within.all(axis=1) & sure[points[:, 1], points[:, 0]]]
    points = points[:: max(1, -(-len(points) // _POINTS))]
    slopes = _slopes(mask)[:, points[:, 1], points[:, 0]].T
    return slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), np.float32(1e-9)), points


def _is_uncertain(change: NDArray[np.float32], row: int, column: int) -> bool:
    """Whether the best of the shifts, at this row and column, has a rival: another peak nearly as high, and not close by."""
    others = change == cv2.dilate(change, np.ones((3, 3), np.uint8))
    others[max(0, row - _APART) : row + _APART + 1, max(0, column - _APART) : column + _APART + 1] = False
    lead = change - np.median(change)
    return bool(others.any() and lead[others].max() >= _ALIKE * lead[row, column])


def _between(values: NDArray[np.float32], at: int) -> float:
    """Offset from the maximum, at index `at`, to the peak of a parabola through it and its two neighbours."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, peak, after = (float(value) for value in values[at - 1 : at + 2])
    bend = before - 2 * peak + after
    return (before - after) / (2 * bend) if bend else 0.0
