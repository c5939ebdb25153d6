"""The table under the part, a RANSAC plane, and the part: the points that stand on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from das3d_cli.data.candidates import (
    MIN_RIM,
    Candidate,
    Cells,
    cell_means,
    choose,
    deviation,
    find_candidates,
    hull_of,
    is_wall,
    rim_of,
    share_of_rim,
)
from das3d_cli.data.fill import enclosed, stray
from das3d_cli.data.parallax import are_parallel
from das3d_cli.errors import DataError, NothingFoundError

_FILLED = 0.8  # share of the image: more than a part without background takes
_JUMP = 1.02  # neighbours whose depths differ by more than 2 % belong to two surfaces
_ALIKE_M = 1e-3  # neighbours this close in depth belong to one surface
_DEEPEST = 0.02  # share of a cut-out part's points that may lie below the zero of its heights; a hole takes less
_AWAY_M = 1.0  # how far beyond the points a trial origin lies
_NEAR = 0.08  # share of the table's extent
_3X3 = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Table:
    """The table of one capture and the part that stands on it.

    Attributes:
        plane: (a, b, c, d), unit normal towards the camera: a*x + b*y + c*z + d is the height in metres.
        foreground: bool, (H, W): the measured pixels of the part.
        specks: bool, (H, W): measured pixels that would be the part's if more of them were together. They are so only
            where the missing ones around them are.
        seen: the table was measured; otherwise the plane stands in for it.
        fixture_share: as in `Geometry`.
    """

    plane: tuple[float, float, float, float]
    foreground: NDArray[np.bool_]
    specks: NDArray[np.bool_]
    seen: bool = True
    fixture_share: float | None = None

    @property
    def tilt_deg(self) -> float | None:
        """Angle between the normal and the optical axis, degrees; None if the table was not seen."""
        return None if not self.seen else float(np.degrees(np.arccos(min(1.0, abs(self.plane[2])))))


def find_part(xyz: NDArray[np.float32], *, plane_distance_m: float) -> Table:
    """Find the table in an organised point cloud, and the points that stand on it.

    Points within `plane_distance_m` of the plane, under it, or beside the table's area are background. The cut adapts
    to the sensor's noise only where that is a sizeable share of this distance. If the background was already removed
    from the capture, everything measured is the part.

    The table's upper side faces the origin, where a camera is. With parallel rays, z may be a height over anything:
    then both sides are tried, and the table that surrounds more of the scene is used.

    Args:
        xyz: float32, (H, W, 3), metres in the camera's frame (with parallel rays, in any frame), missing points NaN, at
            least one measured.
        plane_distance_m: points this near to the plane belong to the table.

    Raises:
        DataError: there is no table, or nothing stands on it.
    """
    measured = ~np.isnan(xyz[..., 2])
    found = [_tried(xyz, measured, 0.0, plane_distance_m)]
    if not _is_all(found[0], measured) and are_parallel(xyz):
        z = xyz[..., 2][measured]
        for origin in (float(z.max()) + _AWAY_M, float(z.min()) - _AWAY_M):
            found.append(_tried(xyz, measured, origin, plane_distance_m))
    tables = [table for table in found if isinstance(table, Table)]
    if not tables:
        raise found[0]  # type: ignore[misc]
    return max(tables, key=lambda table: _surrounding(table, xyz, measured, plane_distance_m))


def _tried(
    xyz: NDArray[np.float32], measured: NDArray[np.bool_], origin: float, plane_distance_m: float
) -> Table | DataError:
    """The table found with the origin at this z, or the error."""
    try:
        moved = xyz - np.array((0, 0, origin), np.float32) if origin else xyz
        table = _found(moved, measured, plane_distance_m)
    except DataError as error:
        return error
    a, b, c, d = table.plane
    return replace(table, plane=(a, b, c, d - c * origin))


def _is_all(found: Table | DataError, measured: NDArray[np.bool_]) -> bool:
    """Whether the part is everything measured except specks."""
    return isinstance(found, Table) and bool(found.foreground.sum() > 0.98 * measured.sum())


def _surrounding(table: Table, xyz: NDArray[np.float32], measured: NDArray[np.bool_], distance: float) -> int:
    """How many points at the rim of the measured area lie on the table; a part may be larger than the visible table."""
    every = max(1, min(measured.shape) // 100)
    on = np.abs(height_over(table.plane, xyz[::every, ::every])) < distance
    return int((rim_of(measured[::every, ::every]) & on).sum())


def _found(xyz: NDArray[np.float32], measured: NDArray[np.bool_], plane_distance_m: float) -> Table:
    cells = cell_means(xyz, measured)
    candidates = find_candidates(cells, plane_distance_m)
    table = choose(cells, candidates)
    if _is_cut_out(cells, measured, table):
        return cut_out(xyz, measured)
    if table is None:
        raise NothingFoundError(
            "no table found: there is no flat area with a part on it and nothing below it; capture the part on a table that"
            " is visible around it, or preprocess all parts with --set preprocess.foreground=whole or border"
        )
    walls = [other.plane for other in candidates if is_wall(cells, other, table, plane_distance_m)]
    foreground, specks = _standing_on(xyz, cells, table, walls, plane_distance_m)
    if not foreground.any():
        farthest = np.percentile(np.abs(cells.heights(table.plane)[cells.measured]), 99.9)
        known = (
            f", and no point lies farther from it than {farthest * 1000:.2g} mm" if farthest < plane_distance_m else ""
        )
        raise NothingFoundError(
            f"no part found: nothing rises more than {plane_distance_m * 1000:g} mm above the table{known}; check that a part is"
            " there. If parts are thin, preprocess all with a lower --set preprocess.plane_distance_mm; if they have no background,"
            " with --set preprocess.foreground=whole"
        )
    a, b, c, d = (float(v) for v in table.plane)
    return Table((a, b, c, d), foreground, specks)


def _is_cut_out(cells: Cells, measured: NDArray[np.bool_], table: Candidate | None) -> bool:
    """Whether the background was already removed: nothing measured at the border, no table around the part."""
    edge = max(1, min(measured.shape) // 100)
    at_frame = measured.sum() - measured[edge:-edge, edge:-edge].sum()
    if at_frame > 0.002 * measured.sum():
        return False
    if table is None:
        return True
    if not table.above.any():  # a flat part without background, or an empty table that fills all but the border
        return bool(hull_of(cells.measured).mean() < _FILLED)
    return share_of_rim(cells, table) < MIN_RIM


def cut_out(xyz: NDArray[np.float32], measured: NDArray[np.bool_]) -> Table:
    """All that was measured except specks, over a frontal plane through its farthest points, as the table is unknown.

    Neither stray points beside missing ones nor the very farthest of the others count: a hole would shift all depths.

    Raises:
        DataError: nothing but specks was measured.
    """
    part = without_specks(measured, measured)
    if not part.any():
        raise NothingFoundError("no part found: only a few scattered points were measured; capture the part again")
    z = np.where(part, xyz[..., 2], np.float32(np.nan))
    carried = part & ~stray(z, _ALIKE_M)
    farthest = np.quantile(np.abs(z[carried if carried.any() else part]), 1 - _DEEPEST)
    plane = (0.0, 0.0, -float(np.sign(np.median(z[part]))), float(farthest))
    return Table(plane, part, measured & ~part, seen=False)


def away(plane: tuple[float, float, float, float]) -> float:
    """Return 1 if z grows away from the viewer of this table, as with a camera, and -1 if it grows as heights do."""
    return -math.copysign(1.0, plane[2])


def height_over(plane: ArrayLike, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Heights (...) of points (..., 3) over a plane (a, b, c, d) with a unit normal."""
    a_b_c_d = np.asarray(plane, np.float32)
    return np.asarray(xyz @ a_b_c_d[:3] + a_b_c_d[3])


def _standing_on(
    xyz: NDArray[np.float32],
    cells: Cells,
    table: Candidate,
    walls: list[NDArray[np.float64]],
    distance: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Measured points above the table, cut at the distance or at three times the noise where that is more; and specks."""
    height = height_over(table.plane, xyz)
    noise = _noise(xyz[..., 2], height, cells, table)
    noisy = noise > distance / 6
    some_noisy = bool(noisy[cells.centres].any())
    if some_noisy:
        height = height - _bend(cells, table, distance, height.shape)
    low = np.maximum(np.float32(distance), 3 * noise)
    mask = height > low
    for wall in walls:
        mask &= height_over(wall, xyz) > np.maximum(np.float32(4 * distance), 6 * noise)
    above = _over_area(xyz, mask, cells, table)
    mask = without_specks(above, above & (height > low + 2 * noise))
    specks = above & ~mask
    if some_noisy and mask.any():
        mask = _with_foot(mask, noisy, np.asarray(height / low))
    return mask, specks & ~mask


def _noise(z: NDArray[np.float32], height: NDArray[np.float32], cells: Cells, table: Candidate) -> NDArray[np.float32]:
    """Standard deviation of the heights, (H, W), metres: measured on the table and proportional to the depth.

    The error of a triangulated depth grows with its square, but the share of it that enters the heights over a table
    seen at a slant falls with the depth.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # z may be 0 on the table of a height map
        ratio = np.abs(height[cells.centres] / z[cells.centres])[table.on]
    ratio = ratio[np.isfinite(ratio)]
    return np.float32(deviation(ratio) if ratio.size else 0) * np.abs(z)


def _bend(cells: Cells, table: Candidate, distance: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The table's height as a noisy sensor distorts it, (H, W), metres: a third-order polynomial in row and column."""
    height = cells.heights(table.plane)
    on, flat = table.on, cells.along(height)
    rows, columns = (np.linspace(-1, 1, n) for n in height.shape)
    terms = np.stack([np.outer(rows**i, columns**j) for i in range(4) for j in range(4 - i)])
    for _ in range(4):
        weights = np.linalg.lstsq(terms[:, on].T, height[on], rcond=None)[0]
        bend = np.tensordot(weights, terms, axes=1)
        on = flat & (np.abs(height - bend) < distance)
    bend = np.clip(bend, -4 * distance, 4 * distance).astype(np.float32)
    return np.asarray(cv2.resize(bend, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))


def _over_area(xyz: NDArray[np.float32], mask: NDArray[np.bool_], cells: Cells, table: Candidate) -> NDArray[np.bool_]:
    """The mask without what stands beside the table.

    A part that crosses the image's border, or stands at the table's edge, hides the table under itself. So a surface
    without a jump in depth is kept whole if more than a third of it is over the table's area, or if it begins there or
    close by and is either mostly level or small. Of other surfaces, only the points over the area are kept.
    """
    axes = np.linalg.svd(table.plane[None, :3])[2][1:].T  # (3, 2): two directions along the table
    places = cells.points @ axes
    area = cv2.convexHull(places[table.on].astype(np.float32))
    if np.count_nonzero(_beside(area, places[table.above])) <= 2:
        return mask
    z = np.where(mask, np.abs(xyz[..., 2]), np.float32(1e6))
    smooth = mask & (z < _JUMP * cv2.erode(z, _3X3))
    count, labels = cv2.connectedComponents(smooth.astype(np.uint8), connectivity=4)
    in_cells = np.where(cells.measured, labels[cells.centres], 0)
    level = cells.along(cells.heights(table.plane))
    whole = np.zeros(count, bool)
    for label in np.unique(in_cells[in_cells > 0]):
        its = in_cells == label
        beside = _beside(area, places[its])
        small = np.ptp(places[its], axis=0).max() < np.ptp(area, axis=(0, 1)).max() / 3
        begins = beside.min() < _NEAR and (level[its].mean() > 0.5 or small)
        whole[label] = begins or np.mean(beside == 0) > 1 / 3
    kept = whole[labels]
    rest = mask & ~kept
    kept[rest] = _beside(area, xyz[rest] @ axes.astype(np.float32)) == 0
    return np.asarray(kept)


def _beside(area: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far points (N, 2) lie outside a convex polygon, (N,), as a share of its extent, at most 0.1.

    Looked up in a raster.
    """
    grid, margin = 256, 26
    origin, extent = area.min(axis=(0, 1)), float(np.ptp(area, axis=(0, 1)).max())
    scale = (grid - 1) / max(extent, 1e-9)
    outside = np.ones((grid + 2 * margin, grid + 2 * margin), np.uint8)
    cv2.fillConvexPoly(outside, np.rint((area - origin) * scale + margin).astype(np.int32), 0)
    distance = np.minimum(cv2.distanceTransform(outside, cv2.DIST_L2, 3) / grid, 0.1)
    where = np.clip(np.rint((points - origin) * scale + margin), 0, len(outside) - 1).astype(np.int32)
    return np.asarray(distance[where[:, 1], where[:, 0]], dtype=np.float32)


def without_specks(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's connected components that are large enough and hold enough seeds."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    smallest = max(6.0, 4e-5 * mask.size)
    seeded = np.bincount(labels[seeds], minlength=count)
    keep = (stats[:, cv2.CC_STAT_AREA] >= smallest) & (seeded >= smallest / 2)
    keep[0] = False
    return np.asarray(keep[labels])


def _with_foot(mask: NDArray[np.bool_], noisy: NDArray[np.bool_], level: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask plus what a noisy sensor loses of a part's foot: a pixel around it, and floors inside it (a bowl's).

    Such a sensor smears the foot over neighbouring pixels. `level` is the height relative to the cut; it must exceed
    0.5, for a floor on average.
    """
    ring = cv2.dilate(mask.astype(np.uint8), _3X3).astype(bool)
    foot = mask | (noisy & ring & (level > 0.5))
    rest = noisy & ~foot & (np.abs(level) < 2)
    count, labels = cv2.connectedComponents(rest.astype(np.uint8), connectivity=4)
    excess = np.bincount(labels[rest], weights=level[rest] - 0.5, minlength=count)
    floor = rest & (excess > 0)[labels]
    return np.asarray(foot | (floor & enclosed(~np.isnan(level) & ~floor, foot)))
