"""Find the planes of a capture and score how well each would do as the table, on a coarse grid of cells."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_CELLS = 100  # along the longer side of the image
_CANDIDATES = 5
_SEED = 0
_RANSAC_POINTS, _RANSAC_ROUNDS = 1200, 300  # 99.9 % sure to find a plane that holds 30 % of the points
_FLAT_SLOPE = 0.35  # cells of the table slope by less than 20 degrees against its plane
_MIN_TABLE = 0.03  # least share of the measured cells on a table
_MAX_UNDER = 0.3  # most cells under the table, as a share of its own cells
MIN_RIM = 0.5  # least share of the rim of the measured area that a table makes up
_PARALLEL = 0.98  # cosine of 11 degrees
_LESS_LIKELY = 4  # times: how much lower the score of a plane under the best one may be
_3X3 = np.ones((3, 3), np.uint8)

_one_random_state = threading.Lock()  # Open3D has one random state for all threads


@dataclass(frozen=True)
class Cells:
    """Block means of the capture: points (h, w, 3) in metres or NaN, measured (h, w), side in pixels."""

    points: NDArray[np.float64]
    measured: NDArray[np.bool_]
    side: int

    @property
    def centres(self) -> tuple[slice, slice]:
        """Slices that pick the pixel in the middle of each cell."""
        first, (rows, columns) = self.side // 2, self.measured.shape
        return slice(first, rows * self.side, self.side), slice(first, columns * self.side, self.side)

    def heights(self, plane: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights over a plane, (h, w), metres."""
        return np.asarray(self.points @ plane[:3] + plane[3])

    def along(self, height: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Measured cells whose neighbourhood runs along the plane of these heights (assumed next to a missing cell)."""
        flat = self.measured.copy()
        for axis in (0, 1):
            ahead, behind, middle = [slice(None)] * 2, [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis], middle[axis] = slice(2, None), slice(None, -2), slice(1, -1)
            rise = np.abs(height[tuple(ahead)] - height[tuple(behind)])
            run = np.linalg.norm(self.points[tuple(ahead)] - self.points[tuple(behind)], axis=2)
            flat[tuple(middle)] &= ~(rise > _FLAT_SLOPE * run)
        return flat


@dataclass(frozen=True)
class Candidate:
    """A plane, the cells that lie on it and above it, its hull in the image, and its score as a table.

    The plane is (a, b, c, d) with the unit normal towards the camera. A score of 0 means that it cannot be a table.
    """

    plane: NDArray[np.float64]
    on: NDArray[np.bool_]
    above: NDArray[np.bool_]
    hull: NDArray[np.bool_]
    score: float


def cell_means(xyz: NDArray[np.float32], measured: NDArray[np.bool_]) -> Cells:
    """Means over square blocks, about a hundred along the longer side; a block needs a quarter of its points."""
    side = max(1, round(max(measured.shape) / _CELLS))
    height, width = max(1, measured.shape[0] // side), max(1, measured.shape[1] // side)
    known = measured[: height * side, : width * side]
    zeroed = cv2.copyTo(xyz[: height * side, : width * side], known.astype(np.uint8))
    share = cv2.resize(known.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    means = cv2.resize(zeroed, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64)
    enough = share >= 0.25
    points = np.full(means.shape, np.nan)
    points[enough] = means[enough] / share[enough, None]
    return Cells(points, enough, side)


def find_candidates(cells: Cells, distance: float) -> list[Candidate]:
    """Find planes, the largest first, each among the cells that lie on no earlier one.

    Args:
        distance: cells within this distance of a plane belong to it, metres.
    """
    found: list[Candidate] = []
    left, total = cells.measured.copy(), cells.measured.sum()
    # a band as wide as the distance would merge a thin part's top with the table
    band = float(np.clip(4 * depth_noise(cells), distance / 5, distance))
    while len(found) < _CANDIDATES and left.sum() >= max(12, _MIN_TABLE * total):
        plane = _ransac(cells.points[left], band)
        if plane is None:
            break
        candidate = _judge(cells, _refine(cells, plane, band), distance)
        found.append(candidate)
        explained = candidate.on | (candidate.above & candidate.hull)
        if candidate.score > 0 and explained.sum() > 0.97 * total:
            break
        left &= ~(np.abs(cells.heights(plane)) < distance)
    return found


def depth_noise(cells: Cells) -> float:
    """Standard deviation of the noise in the cells' depths, metres, from second differences, which are zero on a plane."""
    z = cells.points[..., 2]
    bends = np.abs(z[:, :-2] - 2 * z[:, 1:-1] + z[:, 2:])
    bends = bends[np.isfinite(bends)]
    return deviation(bends) / np.sqrt(6) if bends.size else 0.0


def deviation(sizes: NDArray[np.floating]) -> float:
    """Standard deviation of normal errors of these sizes, from their median, which is robust to outliers."""
    return 1.4826 * float(np.median(sizes))


def _ransac(points: NDArray[np.float64], band: float) -> NDArray[np.float64] | None:
    import open3d as o3d

    if len(points) > _RANSAC_POINTS:
        points = points[np.random.default_rng(_SEED).choice(len(points), _RANSAC_POINTS, replace=False)]
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    with _one_random_state:
        o3d.utility.random.seed(_SEED)
        # probability 1: no early stop, which would make the result depend on the number of threads
        plane = np.asarray(cloud.segment_plane(band, 3, _RANSAC_ROUNDS, probability=1.0)[0], dtype=np.float64)
    return _towards_camera(plane) if np.linalg.norm(plane[:3]) > 0 else None


def _towards_camera(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    plane = plane / np.linalg.norm(plane[:3])
    return plane if plane[3] >= 0 else -plane


def _refine(cells: Cells, plane: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Refit the plane by least squares to its flat inliers, within `least` or three times their spread if that is more."""
    band = least
    for _ in range(4):
        height = cells.heights(plane)
        points = cells.points[cells.along(height) & (np.abs(height) < band)]
        if len(points) < 12:
            break
        centre = points.mean(axis=0)
        normal = np.linalg.eigh(np.cov((points - centre).T))[1][:, 0]
        plane = _towards_camera(np.append(normal, -normal @ centre))
        spread = deviation(np.abs(points @ plane[:3] + plane[3]))
        band = max(3 * spread, least)
    return plane


def _judge(cells: Cells, plane: NDArray[np.float64], distance: float) -> Candidate:
    """Score a plane as a table by the geometric mean of the areas on it and above it.

    A part's top or side has nothing above it, and an opaque surface has nothing under it inside its own hull. The area
    above counts in full inside the plane's hull in the image, by a quarter outside it, and not at all from a third of the
    camera's height upwards (a table above the floor, for instance).
    """
    height = cells.heights(plane)
    on = cells.along(height) & (np.abs(height) < distance)
    on &= cv2.boxFilter(on.astype(np.float32), -1, (3, 3), borderType=cv2.BORDER_REPLICATE) > 0.5
    above = cells.measured & (height > distance)
    if on.sum() < max(12, _MIN_TABLE * cells.measured.sum()):
        return Candidate(plane, on, above, on, 0.0)
    hull = hull_of(on)
    under = cells.measured & (height < -2 * distance) & hull
    if under.sum() > _MAX_UNDER * on.sum():
        return Candidate(plane, on, above, hull, 0.0)
    standing = above & (height < plane[3] / 3)
    # half a cell more, as a part may be too small for the cells
    area = 0.5 + (standing & hull).sum() + 0.25 * (standing & ~hull).sum()
    score = float(np.sqrt((on.sum() - under.sum()) * area))
    return Candidate(plane, on, above, hull, score / 2 if _leans_down(cells, plane, on) else score)


def choose(cells: Cells, candidates: list[Candidate]) -> Candidate | None:
    """Choose the table: the best-scoring candidate, or a parallel one under it if only that one surrounds the scene.

    Where hardly any of the table shows, the top of a part with bosses on it scores higher than the table.
    """
    tables = sorted((one for one in candidates if one.score > 0), key=lambda one: -one.score)
    if not tables or share_of_rim(cells, tables[0]) >= MIN_RIM:
        return tables[0] if tables else None
    best = tables[0]
    for other in tables[1:]:
        under = np.median(cells.heights(best.plane)[other.on]) < 0 and other.plane[:3] @ best.plane[:3] > _PARALLEL
        if under and share_of_rim(cells, other) > MIN_RIM and other.score * _LESS_LIKELY > best.score:
            return other
    return best


def share_of_rim(cells: Cells, candidate: Candidate) -> float:
    """Share of the outermost measured cells that lie on the candidate's plane."""
    rim = rim_of(cells.measured)
    return float((rim & candidate.on).sum() / max(1, rim.sum()))


def rim_of(measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's pixels within two pixels of the border of its convex hull or of the image."""
    inner = cv2.erode(hull_of(measured).astype(np.uint8), _3X3, iterations=2, borderValue=0)
    return np.asarray(measured & (inner == 0))


def hull_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex hull of a mask's pixels, as a mask of the same size."""
    rows, columns = np.nonzero(mask)
    filled = np.zeros(mask.shape, np.uint8)
    if not len(rows):
        return mask
    cv2.fillConvexPoly(filled, cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32)), 1)
    return filled.astype(bool)


def _leans_down(cells: Cells, plane: NDArray[np.float64], on: NDArray[np.bool_]) -> bool:
    """Whether the normal clearly points to the image's lower border.

    Seen by an upright camera that looks down, a wall's normal does and a table's does not.
    """
    rows = np.nonzero(on)[0]
    with np.errstate(divide="ignore", invalid="ignore"):  # z is 0 on a height map's table
        y = cells.points[on][:, 1] / np.abs(cells.points[on][:, 2])
    if not np.isfinite(y).all():
        return False
    return bool(plane[1] * np.sign(np.cov(rows, y)[0, 1]) > 0.2)


def is_wall(cells: Cells, other: Candidate, table: Candidate, distance: float) -> bool:
    """Whether a plane bounds the scene behind the table: it is steep, and hardly anything was measured beyond it."""
    if abs(other.plane[:3] @ table.plane[:3]) > 0.5 or other.on.sum() < _MIN_TABLE * cells.measured.sum():
        return False
    beyond = cells.measured & (cells.heights(other.plane) < -4 * distance)
    return bool(beyond.sum() < 0.02 * other.on.sum())
