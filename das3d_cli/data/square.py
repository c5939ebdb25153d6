"""The square that a sample shows: cut out of the raw image, resized, and laid back where it was cut out."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Geometry
from das3d_cli.errors import DataError


def cut_square(image: NDArray[Any], geometry: Geometry) -> NDArray[np.float32]:
    """The square cut out of an image (H, W, ...) of any kind of number, zero beyond it: float32, (side, side, ...)."""
    square = np.zeros((geometry.side, geometry.side, *image.shape[2:]), np.float32)
    of_image, inside = _overlap(geometry)
    square[inside] = image[of_image]
    return square


def resized(image: NDArray[np.float32], side: int, grow: int = cv2.INTER_LINEAR) -> NDArray[np.float32]:
    """Area averages when it shrinks; when it grows interpolation, linear for what must not overshoot."""
    how = cv2.INTER_AREA if side < image.shape[0] else grow
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), dtype=np.float32)


def to_raw(map_: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """An (S, S) map in the raw image's own (H, W): resized to the square and laid where it was cut out, else zero.

    A peak beyond the image, of a part that the image cuts off, goes to the nearest pixel within.
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
    """See that a defect, bool (H, W), is in the square: of a part that lost a large piece the window may show the rest alone.

    Raises:
        DataError: most of it is not.
    """
    marked, shown = int(truth.sum()), int(cut_square(truth, geometry).sum())
    if shown < marked / 2:
        raise DataError(
            f"{1 - shown / marked:.0%} of what the ground truth marks lies outside the window around the part;"
            " preprocess the data with --set preprocess.frame=image"
        )


def resized_truth(truth: NDArray[np.bool_], geometry: Geometry, size: int) -> NDArray[np.bool_]:
    """Where a defect, bool (H, W), is in the square resized to `size`: pixels at least half covered by it.

    One that would lose most of itself or fall apart, as a scratch thinner than a pixel, keeps all that it touches, one too small for any
    the one at its middle.
    """
    square, scale = cut_square(truth, geometry), size / geometry.side
    covered = resized(square, size) >= 0.5
    small = covered.copy()
    _, labels = cv2.connectedComponents(square.astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(labels)
    of_defect = labels[rows, columns]
    order = np.argsort(of_defect, kind="stable")  # the pixels of each together, by rows: a speckled mask has thousands
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
    """Whether of a defect of this area, which touches these pixels, half is covered, in one piece."""
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    own = np.zeros_like(covered)
    own[rows, columns] = True
    kept = (own & covered)[box].astype(np.uint8)
    return bool(kept.sum() >= area / 2) and cv2.connectedComponents(kept, connectivity=8)[0] == 2
