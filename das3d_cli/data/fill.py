"""Missing points: which of them belong to the part, and the depth to fill in."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_ENCLOSED = 7  # at least so many of the eight views from a missing pixel must end at the part
_SIDE = 256  # pixels: limit of the longer side of GrabCut's image, as its time grows with the size
_MARGIN = 0.05  # of the part's length: the margin around it where the table's colours are learnt
_NEAR = 6  # pixels of that image: known pixels this near to unknown ones must be told apart
_TOLD_APART = 0.7  # least share of these that colour alone must classify correctly, for part and table each
# Where less than this share is, as with a grey part on a grey table, the table in the part's shadow looks like the part in
# places; so only a rim is taken as the part's, as wide as this share of the part's length, but at least these pixels.
_SURELY, _RIM, _RIM_PIXELS = 0.93, 0.01, 1.5
_COMPONENTS = 5  # of GrabCut's Gaussian mixtures, each with a weight, a mean and a covariance


def enclosed(measured: NDArray[np.bool_], foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Missing pixels inside the part, bool (H, W).

    From each missing pixel one looks along its row, column and diagonals to the first measured pixel. If at least seven of
    these eight views end at the part, the pixel is the part's. From a shadow on the table, beside the part or inside a
    ring, two or more views end at the table; a view that leaves the image counts as table.
    """
    inside, box = np.zeros_like(foreground), _box(foreground)
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


def part_coloured(
    rgb: NDArray[np.uint8], measured: NDArray[np.bool_], foreground: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Missing pixels that look like the part and touch it, bool (H, W): a rim in the projector's shadow, for instance.

    GrabCut (Rother, Kolmogorov and Blake 2004) learns the colours of part and table from pixels with points and classifies
    those without. If these colours fail to tell apart the known pixels nearby, no missing pixel is assigned to the part;
    if they do so less than surely, only those beside it are.

    Args:
        rgb: uint8, (H, W, 3).
        measured: bool, (H, W): the pixel has a point.
        foreground: bool, (H, W): the part as far as it was measured.
    """
    found, tight = np.zeros_like(foreground), _box(foreground)
    box = _box(foreground, 8 + int(_MARGIN * max(line.stop - line.start - 1 for line in tight)))
    missing, part = ~measured[box], foreground[box]
    if not missing.any():
        return found
    coloured, told_apart = _part_like(rgb[box], part, measured[box] & ~part)
    if told_apart < _TOLD_APART:
        return found
    if told_apart < _SURELY:
        length = max(line.stop - line.start for line in tight)
        coloured &= _within(part, max(_RIM_PIXELS, _RIM * length))
    count, regions = cv2.connectedComponents((part | coloured & missing).astype(np.uint8), connectivity=4)
    touching = np.zeros(count, np.bool_)
    touching[regions[part]] = True
    found[box] = missing & touching[regions]
    return found


def _within(mask: NDArray[np.bool_], distance: float) -> NDArray[np.bool_]:
    """Pixels, bool (H, W), no farther from the mask than that."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= distance)


def _box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice]:
    """Bounding box of a mask (H, W), grown by `margin` on every side; empty for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    around = margin if width else 0
    return (
        slice(max(0, top - around), top + height + around),
        slice(max(0, left - around), left + width + around),
    )


def _part_like(
    rgb: NDArray[np.uint8], part: NDArray[np.bool_], table: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], float]:
    """Pixels, bool (H, W), of the part's colours rather than the table's.

    Also the share of known pixels near unknown ones that these colours classify correctly, of part or table, whichever
    is less.
    """
    height, width = part.shape
    shrink = max(1.0, max(height, width) / _SIDE)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    known_part, known_table = (
        cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99 for mask in (part, table)
    )
    if not known_part.any() or not known_table.any():
        return np.zeros_like(part), 0.0
    labels = np.full(known_part.shape, cv2.GC_PR_BGD, np.uint8)
    labels[known_part], labels[known_table] = cv2.GC_FGD, cv2.GC_BGD
    image = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    of_table, of_part = np.zeros((1, 13 * _COMPONENTS)), np.zeros((1, 13 * _COMPONENTS))
    cv2.setRNGSeed(0)
    cv2.grabCut(image, labels, (0, 0, 0, 0), of_table, of_part, 1, cv2.GC_INIT_WITH_MASK)
    coloured = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    unknown = (~known_part & ~known_table).astype(np.uint8)
    near = cv2.dilate(unknown, np.ones((2 * _NEAR + 1,) * 2, np.uint8)) > 0
    least = 1.0
    for known, own, other in ((known_part, of_part, of_table), (known_table, of_table, of_part)):
        colours = image[known & near].astype(np.float64)
        rightly = _likelihood(colours, own) > _likelihood(colours, other)
        least = min(least, float(rightly.mean()) if len(rightly) else 1.0)
    share = cv2.resize(coloured.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(share > 0.5), least


def _likelihood(colours: NDArray[np.float64], mixture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Likelihoods (N,) of colours (N, 3) under a mixture as GrabCut stores it."""
    weights, means, covariances = np.split(mixture[0], [_COMPONENTS, 4 * _COMPONENTS])
    total = np.zeros(len(colours))
    for weight, mean, covariance in zip(weights, means.reshape(-1, 3), covariances.reshape(-1, 3, 3), strict=True):
        if weight > 0:
            apart = colours - mean
            distance = np.einsum("ni,ni->n", apart @ np.linalg.inv(covariance), apart)
            total += weight * np.exp(-distance / 2) / np.sqrt(np.linalg.det(covariance))
    return total


def _view_down(state: NDArray[np.int8]) -> NDArray[np.int8]:
    """The state of the first measured pixel up each pixel's column; 0 if there is none."""
    seen = np.zeros(state.shape, np.int8)
    last = np.zeros(state.shape[1], np.int8)
    for row, line in enumerate(state):
        np.copyto(last, line, where=line >= 0)
        seen[row] = last
    return seen


def _views_down(state: NDArray[np.int8]) -> NDArray[np.int8]:
    """The sum of these states up the column and both upward diagonals."""
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


def stray(depth: NDArray[np.float32], step: float) -> NDArray[np.bool_]:
    """Points beside missing ones with no neighbour at their depth, bool (H, W), as occur at the edge of a shadow.

    Filling from such a point would make a pit or a spike as wide as the gap.

    Args:
        depth: float32, (H, W), NaN where nothing was measured.
        step: neighbours that differ by less count as at the same depth.
    """
    missing = np.isnan(depth)
    beside = cv2.dilate(missing.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = np.nonzero(beside & ~missing)
    around = np.pad(depth, 1, constant_values=np.nan)
    alike = np.zeros(len(rows), int)
    for down, right in np.ndindex(3, 3):
        alike += np.abs(around[rows + down, columns + right] - depth[rows, columns]) < step
    found = np.zeros_like(missing)
    found[rows, columns] = alike == 1  # only itself
    return found


def fill(values: NDArray[np.float32], known: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill the wanted pixels of `values` (H, W) smoothly from the known ones; all others stay unchanged.

    The known pixels are averaged on ever coarser grids until no cell is empty; each finer grid takes the cells that it
    lacks from the next coarser one.
    """
    if not wanted.any():
        return values
    box = _box(wanted, 16)
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
