"""Defects in millimetres: regions of an anomaly map, measured on the point cloud."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.parallax import are_parallel, fit_rays

# Margins around a region, in multiples of its length, whose points give the rays and the surface's distance; the second
# is tried where the first holds too few.
_SURROUNDINGS = (0.25, 1.0)
_SHORTEST = 16  # pixels; shorter regions get the margins of one this long
# Least number of points of the part around a region to take its distance from; with fewer, the region's own are added.
_RING = 12
_SPREAD = 0.2  # least spread of the points in every direction, in multiples of the region's own, to tell its size
_POINTS = 20_000  # points at most that rays are fitted to
# Share of a region's scatter, added along the image's columns: else rounding decides the axes of one as long as wide.
_UPRIGHT = 0.01
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
        """Whether the points lie on parallel rays, judged by all: around one defect, at one distance, any would fit."""
        return are_parallel(self.xyz)


class Defect(NamedTuple):
    """One region of `defective` pixels.

    Attributes:
        score: the map's peak in the region, 0 to 1.
        row, column: the peak's place in the raw image, pixels.
        length_mm, width_mm: extent along and across the region's main direction, on a plane parallel to the table at
            the distance of the part around the region; nan where too few points were measured there.
        area_mm2: area, likewise.
    """

    score: float
    row: int
    column: int
    length_mm: float
    width_mm: float
    area_mm2: float

    @property
    def extent(self) -> str:
        """Its size in words."""
        if math.isnan(self.length_mm):
            return "size unknown, because points are missing"
        return f"{rounded(self.length_mm)} x {rounded(self.width_mm)} mm, {rounded(self.area_mm2)} mm2"


def rounded(size: float) -> str:
    """A size with one decimal; below 1 with two, as small parts need."""
    return f"{size:.1f}" if size >= 1 else f"{size:.2f}"


def peak_level(anomaly_map: NDArray[np.float32], threshold: float, anomalous: bool) -> float:
    """Threshold for a defect's peak on a resized map, lowered where resizing took an anomalous part's peak below it."""
    return min(threshold, float(anomaly_map.max())) if anomalous else threshold


def defective(anomaly_map: NDArray[np.float32], threshold: float, outline: float) -> NDArray[np.bool_]:
    """Pixels that belong to a defect, by hysteresis: the threshold tells if there is one, the outline how far it goes.

    Args:
        anomaly_map: (H, W), 0 to 1.
        threshold: anomaly score that a defect's peak reaches.
        outline: value of the map that all its pixels reach; capped at the threshold.

    Returns:
        (H, W): the connected regions at or over the outline whose peak is at or over the threshold.
    """
    # In float64, as for verdicts: a threshold just above a good part's score could be rounded to that score in float32.
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
        surface: what they are measured on, of the same size; None where there are no points.
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
    """Steps from pixel to pixel on the plane that a region lies in.

    Differences of neighbouring points would mislead: the region may hold a hole, and beside it there may be a wall
    whose points lie below one another. So rays are fitted, and the part around the region gives the plane's distance.

    Args:
        labels: (H, W), with `label` in the region.
        box: the rows and columns that the region spans.

    Returns:
        (2, 2): a step one pixel down and one to the right, along two axes of the plane, metres; nan if points
        are too few.
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
    if not len(at):  # a region off the part is taken to be as far away as the part
        anywhere = _some_of(surface.part & ~np.isnan(surface.xyz[..., 0]))
        at = surface.xyz[tuple(anywhere.T)].astype(np.float64)
    if not len(at):
        return _UNKNOWN
    normal = np.array(surface.normal)
    rays = fit_rays(pixels, chosen, parallel=surface.parallel)
    return rays.steps(_middle(region), normal, float(np.median(at @ normal)))


def _distinct(points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (h, w) whose point differs from the ones above and to the left: upsampled clouds repeat their points."""
    x, y = (np.ascontiguousarray(points[..., axis]) for axis in (0, 1))
    distinct = ~np.isnan(x)
    distinct[0], distinct[:, 0] = False, False
    distinct[1:] &= (x[1:] != x[:-1]) | (y[1:] != y[:-1])
    distinct[:, 1:] &= (x[:, 1:] != x[:, :-1]) | (y[:, 1:] != y[:, :-1])
    return distinct


def _some_of(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Pixels (N, 2) of a mask (h, w), evenly subsampled to at most `_POINTS`."""
    where = np.flatnonzero(mask)
    chosen = np.linspace(0, len(where) - 1, min(len(where), _POINTS)).astype(np.intp)
    return np.stack(np.unravel_index(where[chosen], mask.shape), axis=1)


def _spread_enough(pixels: NDArray[np.intp], covariance: NDArray[np.float64]) -> bool:
    """Whether pixels (N, 2) can size a region of this covariance: not too few, not in a line, not all at one end."""
    if len(pixels) < 3:
        return False
    own = covariance + np.eye(2) / 12  # even a single pixel has an extent
    return bool(np.linalg.eigvalsh(np.cov(pixels.T, bias=True) - _SPREAD**2 * own)[0] > 0)


def _middle(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Row and column of a region's centroid, (2,)."""
    sums = cv2.moments(region.astype(np.uint8), binaryImage=True)
    return np.array([sums["m01"], sums["m10"]]) / sums["m00"]


def _covariance(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Covariance of the rows and columns of a region's pixels, (2, 2)."""
    sums = cv2.moments(region.astype(np.uint8), binaryImage=True)
    return np.array([[sums["mu02"], sums["mu11"]], [sums["mu11"], sums["mu20"]]]) / sums["m00"]


def _extents_m(region: NDArray[np.bool_], pitch: NDArray[np.float64]) -> tuple[float, float]:
    """Length and width of a region (h, w) of this pitch (2, 2), metres.

    All its pixels are taken to lie on one plane: holes and cuts lack points, and at the part's outline the depth jumps
    to the table's.
    """
    if np.isnan(pitch).any():
        return float("nan"), float("nan")
    scatter, down = pitch.T @ _covariance(region) @ pitch, pitch[0] / np.linalg.norm(pitch[0])
    _, axes = np.linalg.eigh(scatter + _UPRIGHT * np.trace(scatter) * np.outer(down, down))
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    places = np.concatenate(outlines)[:, 0, ::-1] @ pitch  # OpenCV gives x, y
    extents = np.ptp(places @ axes, axis=0) + np.linalg.norm(pitch @ axes, axis=0)  # from pixel centres to edges
    length, width = sorted(extents.tolist(), reverse=True)
    return length, width
