"""Whether a photo lies on its points: where the part's outline in the one is, beside that in the other."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 256  # pixels of the longer side that it is looked for on
_REACH = 8  # of these pixels, to each side
_POINTS = 600  # of the outline, evenly spread
_LEAST = 50  # fewer of them tell nothing
_SURE = 0.6  # of what lies about a point of the outline, least share that was measured: half where a shadow begins at the part
_BLUR = 1.0  # of these pixels: the outlines of pixels have steps
_LEVEL = 8.0  # what a slope of a grey level a pixel is to `_slopes`


def photo_offset(
    rgb: NDArray[np.uint8], part: NDArray[np.bool_], measured: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """How far the outline that the photo shows lies from the part's own, where the photo changes most across it.

    Args:
        rgb: uint8, (H, W, 3).
        part: bool, (H, W).
        measured: bool, (H, W): has a point. Elsewhere the photo itself may have told where the part ends.

    Returns:
        x and y in pixels, at most `_REACH` of a part shown `_SIDE` wide; None where the image shows too little of the outline.
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
    told = change.any(axis=(1, 2))  # not where the photo is black or white about the outline
    if np.count_nonzero(told) < _LEAST:
        return None
    # By far less than in proportion: half an outline on a bright rim or a shadow's edge would outweigh the whole of it where it lies.
    change = np.log1p(change[told] / _LEVEL).mean(axis=0)
    row, column = (int(place) for place in np.unravel_index(change.argmax(), change.shape))
    return (
        (column - _REACH + _between(change[row], column)) / scale,
        (row - _REACH + _between(change[:, column], row)) / scale,
    )


def _small(image: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """A grey image or a mask, 0 to 255, so much smaller and a little blurred."""
    height, width = (max(1, round(length * scale)) for length in image.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small.astype(np.float32), (0, 0), _BLUR), np.float32)


def _slopes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """How it changes from column to column and from row to row, (2, H, W)."""
    return np.asarray([cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)], np.float32)


def _outline(mask: NDArray[np.float32], sure: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Unit normals and places (x, y) of the outline's sure points that are far enough from the border to look around them."""
    outlines, _ = cv2.findContours((mask >= 127.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([np.zeros((0, 2), np.int32), *(outline[:, 0] for outline in outlines)])
    height, width = mask.shape
    within = (points >= _REACH) & (points < (width - _REACH, height - _REACH))
    points = points[within.all(axis=1) & sure[points[:, 1], points[:, 0]]]
    points = points[:: max(1, -(-len(points) // _POINTS))]
    slopes = _slopes(mask)[:, points[:, 1], points[:, 0]].T
    return slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), np.float32(1e-9)), points


def _between(values: NDArray[np.float32], at: int) -> float:
    """How far beside the highest of the values the peak of a parabola through it and its two neighbours lies."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, peak, after = (float(value) for value in values[at - 1 : at + 2])
    bend = before - 2 * peak + after
    return (before - after) / (2 * bend) if bend else 0.0
