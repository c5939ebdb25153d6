"""Defects in millimetres: an anomaly map read against the point cloud."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.parallax import are_parallel, fit_rays

# Of a region's length about it: there the rays are known, and the surface that the region lies in.
_SURROUNDINGS = (0.25, 1.0)
_SHORTEST = 16  # pixels; a smaller region has the surroundings of one as long as this
# Points of the part about a region that tell how far away it is; where there are fewer, the region's own serve.
_RING = 12
_SPREAD = 0.2  # of the region's own in every direction: the least that points must have to tell its size
_POINTS = 20_000  # at most that rays are fitted to
_UPRIGHT = 0.01  # of its scatter, added along the image's columns: a region as long as wide is else turned by rounding
_UNKNOWN = np.full((2, 2), np.nan)


@dataclass(frozen=True, eq=False)
class Surface:
    """What defects are measured on.

    Attributes:
        xyz: float32, (H, W, 3), metres in the camera's frame, NaN where missing.
        part: bool, (H, W): which pixels show the part.
        normal: unit normal of the table.
    """

    xyz: NDArray[np.float32]
    part: NDArray[np.bool_]
    normal: tuple[float, float, float]

    @functools.cached_property
    def parallel(self) -> bool:
        """Whether the points lie on parallel rays; about a single defect, where all may be equally far away, any would fit."""
        return are_parallel(self.xyz)


class Defect(NamedTuple):
    """One region of `defective` pixels.

    Attributes:
        score: the map's peak in the region, 0 to 1.
        row, column: the peak's place in the raw image, pixels.
        length_mm, width_mm: extent along and across the region's main direction, as on a plane parallel to the table as far away as
            the part is about the region; nan where too little was measured about it.
        area_mm2: area, likewise.
    """

    score: float
    row: int
    column: int
    length_mm: float
    width_mm: float
    area_mm2: float


def peak_level(anomaly_map: NDArray[np.float32], threshold: float, anomalous: bool) -> float:
    """What a defect's peak reaches on a part's map of any size: the threshold, or less where resizing lowered the peak."""
    return min(threshold, float(anomaly_map.max())) if anomalous else threshold


def defective(anomaly_map: NDArray[np.float32], threshold: float, outline: float) -> NDArray[np.bool_]:
    """Which pixels belong to a defect, by hysteresis: the threshold says whether there is one, the outline how far it goes.

    Args:
        anomaly_map: (H, W), 0 to 1.
        threshold: anomaly score that a defect's peak reaches.
        outline: value of the map that all of it reaches; no more than the threshold is asked for.

    Returns:
        (H, W): the connected regions at or over the outline whose peak is at or over the threshold.
    """
    # As verdicts are reached: a threshold just over a good part's score is not to be rounded to the map's precision, and to that score.
    exact = np.float64(threshold)
    over = anomaly_map >= min(outline, exact)
    count, labels = cv2.connectedComponents(over.astype(np.uint8), connectivity=8)
    reached = np.zeros(count, dtype=np.bool_)
    reached[labels[anomaly_map >= exact]] = True
    return np.asarray(reached[labels])


def find_defects(
    anomaly_map: NDArray[np.float32], surface: Surface | None, threshold: float, outline: float
) -> list[Defect]:
    """The connected regions of `defective` pixels, strongest first.

    Args:
        anomaly_map: (H, W), 0 to 1.
        surface: of the same size, what they are measured on; None where nothing was measured.
        threshold, outline: as for `defective`.
    """
    over = defective(anomaly_map, threshold, outline).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(over, connectivity=8)
    found = []
    for label in range(1, count):
        left, top, across, down, pixels = boxes[label].tolist()
        box = np.s_[top : top + down, left : left + across]
        region = labels[box] == label
        row, column = divmod(int(np.argmax(np.where(region, anomaly_map[box], -1.0))), across)
        score = float(anomaly_map[top + row, left + column])
        pitch = _pitch_m(np.asarray(labels, np.int32), label, box, surface) if surface else _UNKNOWN
        length, width = _extents_m(region, pitch)
        (a, b), (c, d) = pitch.tolist()
        area = pixels * abs(a * d - b * c)
        found.append(Defect(score, top + row, left + column, length * 1e3, width * 1e3, area * 1e6))
    return sorted(found, key=lambda defect: -defect.score)


def _pitch_m(labels: NDArray[np.int32], label: int, box: tuple[slice, slice], surface: Surface) -> NDArray[np.float64]:
    """How far the plane that a region lies in goes on from pixel to pixel.

    The rays say so, if it is known how far away the plane is, and that the part about the region says: within it there may be
    a hole, beside it a wall whose points lie under one another.

    Args:
        labels: (H, W), the region's own is `label`.
        box: the rows and the columns that the region takes up.

    Returns:
        (2, 2): a step one pixel down and one to the right, along two axes of the plane, metres; nan where too few points tell.
    """
    size, own = max(_SHORTEST, *(line.stop - line.start for line in box)), _covariance(labels[box] == label)
    for reach in _SURROUNDINGS:
        margin = round(reach * size)
        window = tuple(slice(max(0, line.start - margin), line.stop + margin) for line in box)
        region, points = labels[window] == label, surface.xyz[window]
        about = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_C, 3) <= margin
        part = ~np.isnan(points[..., 0]) & surface.part[window] & about
        around = part & ~region
        if around.sum() >= _RING and _spread_enough(pixels := _some_of(_distinct(points) & about), own):
            break
    else:
        if not _spread_enough(pixels := _some_of(_distinct(points) & about), own):
            return _UNKNOWN
        around = part
    chosen, at = (points[tuple(where.T)].astype(np.float64) for where in (pixels, _some_of(around)))
    if not len(at):  # what lies off the part is as far away as that
        anywhere = _some_of(surface.part & ~np.isnan(surface.xyz[..., 0]))
        at = surface.xyz[tuple(anywhere.T)].astype(np.float64)
    if not len(at):
        return _UNKNOWN
    normal = np.array(surface.normal)
    rays = fit_rays(pixels, chosen, parallel=surface.parallel)
    return rays.steps(_middle(region), normal, float(np.median(at @ normal)))


def _distinct(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (h, w) with a point that neither the one above nor the one to the left has: enlarged clouds repeat their points."""
    x, y = (np.ascontiguousarray(points[..., axis]) for axis in (0, 1))
    distinct = ~np.isnan(x)
    distinct[0], distinct[:, 0] = False, False
    distinct[1:] &= (x[1:] != x[:-1]) | (y[1:] != y[:-1])
    distinct[:, 1:] &= (x[:, 1:] != x[:, :-1]) | (y[:, 1:] != y[:, :-1])
    return distinct


def _some_of(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Pixels (N, 2) of a mask (h, w), evenly spaced where there are more than `_POINTS`."""
    where = np.flatnonzero(mask)
    chosen = np.linspace(0, len(where) - 1, min(len(where), _POINTS)).astype(np.intp)
    return np.stack(np.unravel_index(where[chosen], mask.shape), axis=1)


def _spread_enough(pixels: NDArray[np.intp], covariance: NDArray[np.float64]) -> bool:
    """Whether pixels (N, 2) tell the size of a region of this covariance: they are neither few nor in a line nor all at one end."""
    if len(pixels) < 3:
        return False
    own = covariance + np.eye(2) / 12  # a region of one pixel has its breadth
    return bool(np.linalg.eigvalsh(np.cov(pixels.T, bias=True) - _SPREAD**2 * own)[0] > 0)


def _middle(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Row and column of a region's centroid, (2,)."""
    sums = cv2.moments(region.astype(np.uint8), binaryImage=True)
    return np.array([sums["m01"], sums["m10"]]) / sums["m00"]


def _covariance(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of the rows and the columns of a region's pixels: (2, 2)."""
    sums = cv2.moments(region.astype(np.uint8), binaryImage=True)
    return np.array([[sums["mu02"], sums["mu11"]], [sums["mu11"], sums["mu20"]]]) / sums["m00"]


def _extents_m(region: NDArray[np.bool_], pitch: NDArray[np.float64]) -> tuple[float, float]:
    """Length and width of a region (h, w) of this pitch (2, 2), metres.

    All its pixels count, on one surface: holes and cuts lack points, and across the part's outline its depth leaps to the table's.
    """
    if np.isnan(pitch).any():
        return float("nan"), float("nan")
    scatter, down = pitch.T @ _covariance(region) @ pitch, pitch[0] / np.linalg.norm(pitch[0])
    _, axes = np.linalg.eigh(scatter + _UPRIGHT * np.trace(scatter) * np.outer(down, down))
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    places = np.concatenate(outlines)[:, 0, ::-1] @ pitch  # rows and columns
    extents = np.ptp(places @ axes, axis=0) + np.linalg.norm(pitch @ axes, axis=0)  # a place is a pixel wide
    length, width = sorted(extents.tolist(), reverse=True)
    return length, width
