"""The square that a sample shows: placed around the part, cut out of the raw image, resized, and mapped back to it."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Geometry
from das3d_cli.errors import DataError

_CRUMB = 0.01  # share of the part's area


def place_square(part: NDArray[np.bool_], window_px: float | None) -> tuple[int, int, int, float | None]:
    """Place the square around the part, bool, (H, W), with this side in pixels, or more if the part does not fit.

    Without a side, it is the whole image, padded.

    Returns:
        Side of the square, its rows and columns before the image, and diameter of the circle around the part, pixels;
        the last is None if the whole image is shown.
    """
    height, width = part.shape
    whole = max(height, width)
    if window_px is None:
        return whole, (whole - height) // 2, (whole - width) // 2, None
    row, column, radius = circle_around(part)
    if 2 * radius > window_px:  # a crumb elsewhere on the table must not push the part aside or make it look small
        row, column, radius = circle_around(_without_crumbs(part))
    side = max(round(window_px), math.ceil(2 * radius))
    return side, round(side / 2 - row), round(side / 2 - column), 2 * radius


def circle_around(part: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Row, column and radius of the smallest circle around a part, bool, (H, W), that is not empty; in pixels."""
    outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    (column, row), radius = cv2.minEnclosingCircle(np.concatenate(outlines))
    return float(row), float(column), float(radius) + 0.5  # from the centre of the outermost pixel to its edge


def cut_square(image: NDArray[Any], geometry: Geometry) -> NDArray[np.float32]:
    """Cut the square out of an image (H, W, ...) of any dtype: float32, (side, side, ...), zero beyond the image."""
    square = np.zeros((geometry.side, geometry.side, *image.shape[2:]), np.float32)
    of_image, inside = _overlap(geometry)
    square[inside] = image[of_image]
    return square


def resized(image: NDArray[np.float32], side: int, grow: int = cv2.INTER_LINEAR) -> NDArray[np.float32]:
    """Resize by area averages to shrink, by the interpolation `grow` to enlarge: linear for what must not overshoot."""
    how = cv2.INTER_AREA if side < image.shape[0] else grow
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), dtype=np.float32)


def to_raw(map_: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Map (S, S) values back to the raw image, (H, W): resized, placed where the square was cut out, zero elsewhere.

    A peak beyond the image, as of a part that the image cuts off, moves to the nearest pixel inside.
    """
    square = resized(np.asarray(map_, dtype=np.float32), geometry.side)
    raw = np.zeros((geometry.raw_height, geometry.raw_width), np.float32)
    inside, of_square = _overlap(geometry)
    raw[inside] = square[of_square]
    peak = np.unravel_index(int(square.argmax()), square.shape)
    nearest = tuple(
        min(max(int(place) - kept.start, 0), kept.stop - kept.start - 1) + shown.start
        for place, kept, shown in zip(peak, of_square, inside, strict=True)
    )
    raw[nearest] = max(raw[nearest], square[peak])
    return raw


def check_shown(truth: NDArray[np.bool_], geometry: Geometry) -> None:
    """Check that a defect, bool (H, W), is in the square, as the window may not cover a large piece that the part lost.

    Raises:
        DataError: most of it lies outside.
    """
    marked, shown = int(truth.sum()), int(cut_square(truth, geometry).sum())
    if shown < marked / 2:
        raise DataError(
            f"{1 - shown / marked:.0%} of what the ground truth marks lies outside the window around the part;"
            " preprocess the data with --set preprocess.frame=image"
        )


def resized_truth(truth: NDArray[np.bool_], geometry: Geometry, size: int) -> NDArray[np.bool_]:
    """Resize the defects in the square, bool (H, W), to `size`: pixels at least half covered by one are true.

    A defect that would lose most of its area or fall apart, such as a scratch thinner than a pixel, keeps all pixels
    that it touches; one too small to cover any keeps the pixel at its middle.
    """
    square, scale = cut_square(truth, geometry), size / geometry.side
    covered = resized(square, size) >= 0.5
    small = covered.copy()
    _, labels = cv2.connectedComponents(square.astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(labels)
    of_defect = labels[rows, columns]
    # Groups the pixels by defect, in row order: a speckled mask has thousands of defects.
    order = np.argsort(of_defect, kind="stable")
    scaled = np.floor((np.stack((rows, columns))[:, order] + 0.5) * scale).astype(int)
    for rows, columns in np.split(scaled, np.cumsum(np.bincount(of_defect)[1:-1]), axis=1) if order.size else ():
        area = len(rows) * scale**2
        long = max(np.ptp(rows), np.ptp(columns)) >= 2
        if scale < 1 and long and not _is_kept(covered, rows, columns, area):
            small[rows, columns] = True
        elif not covered[rows, columns].any():
            middle = len(rows) // 2
            small[rows[middle], columns[middle]] = True
    return small


def _overlap(geometry: Geometry) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that image and square share, as slices of the image and of the square."""
    of_image, of_square = [], []
    for length, before in ((geometry.raw_height, geometry.pad_top), (geometry.raw_width, geometry.pad_left)):
        start, stop = max(0, -before), min(length, geometry.side - before)
        of_image.append(slice(start, stop))
        of_square.append(slice(start + before, stop + before))
    return (of_image[0], of_image[1]), (of_square[0], of_square[1])


def _is_kept(covered: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp], area: float) -> bool:
    """Whether half of a defect with this area, which touches these pixels, is covered, and in one piece."""
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    own = np.zeros_like(covered)
    own[rows, columns] = True
    kept = (own & covered)[box].astype(np.uint8)
    return bool(kept.sum() >= area / 2) and cv2.connectedComponents(kept, connectivity=8)[0] == 2


def _without_crumbs(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part without pieces that are far smaller than its largest one."""
    _, pieces, found, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8), connectivity=8)
    areas = np.concatenate(([0], found[1:, cv2.CC_STAT_AREA]))
    return np.asarray(areas[pieces] > _CRUMB * areas.max())
