"""How near to the table points still belong to it: less than usual under parts that are low, such as boards and biscuits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.candidates import cell_means, choose, depth_noise, deviation, find_candidates, rim_of
from das3d_cli.data.parallax import are_parallel
from das3d_cli.data.plane import Table, away, find_part, height_over
from das3d_cli.errors import DataError

_OF_HEIGHT = 0.25  # distance, as a share of the part's height
_TALLEST_PERCENT = 99.5  # of the part's points: a few may be bumps or stray
_NOISES = 6.0  # distance, at least, in standard deviations of the table's points; from here on `find_part` takes no special care
_UNEVEN = 1.5  # and in multiples of the height below which 99 % of the table's cells lie
_LOWER = 0.25  # share of the usual distance at which a part is looked for that is lower than that

_AWAY_M = 1.0  # how far above the table the origin is moved
_BAND = 0.1  # share of the usual distance: points this near to the table always belong to it
_SHARE = 0.25  # share of all that stands on the table: less is a tall part's foot
_EVEN = 0.2  # share of its height: the most that a flat side deviates from it
_MOST = 0.6  # share of the low points on the flat side: less is a slope or an uneven table
_AT_BORDER = 0.05  # share of the border: a mat or a tray reaches it, a part lies within the image


def fitting_distance(xyz: NDArray[np.float32], usual: float) -> float | None:
    """Return the distance, metres, within which points belong to the table under a part as low as this one.

    Half the height of the part's flat side if that is lower than `usual`: of a board, most would be lost otherwise.
    Else a quarter of the part's height, but no less than noise and the table's unevenness ask for.

    Args:
        xyz: float32, (H, W, 3), metres in the camera's frame, missing points NaN.
        usual: the distance for tall parts, metres.

    Returns:
        A distance below `usual`; None if `usual` fits, or no part is found.
    """
    table = _table_under_part(xyz, usual)
    if table is None and are_parallel(xyz):
        return None  # which side of a plane is up is unknown
    flat = flat_height(xyz if table is None else _facing(xyz, table), usual)
    if flat is not None or table is None:
        return flat and flat / 2
    height = height_over(table.plane, xyz)
    wanted = _OF_HEIGHT * float(np.percentile(height[table.foreground], _TALLEST_PERCENT))
    fitting = max(wanted, _least(xyz, table, usual))
    return fitting if fitting < usual else None


def _table_under_part(xyz: NDArray[np.float32], usual: float) -> Table | None:
    """The table found with the usual distance, or with a lower one if that finds a part that lies within the image.

    With parallel rays, the lower one is tried for heights alone, where z grows upwards: otherwise a wide pocket in a plate
    would pass for a part.
    """
    try:
        table = find_part(xyz, plane_distance_m=usual)
        return table if table.seen else None
    except DataError:
        pass
    low = _LOWER * usual
    try:
        table = find_part(xyz, plane_distance_m=low)
    except DataError:
        return None
    within = _at_border(table.foreground, ~np.isnan(xyz[..., 2])) <= _AT_BORDER and _least(xyz, table, usual) <= low
    upwards = not are_parallel(xyz) or away(table.plane) < 0
    return table if table.seen and within and upwards else None


def _facing(xyz: NDArray[np.float32], table: Table) -> NDArray[np.float32]:
    """The points, moved along z so that the origin is above the table, as with a camera."""
    _, _, c, d = table.plane
    return xyz if d > 0 else xyz - np.array((0, 0, (_AWAY_M - d) / c), np.float32)


def _least(xyz: NDArray[np.float32], table: Table, usual: float) -> float:
    """The distance, metres, below which points of the table would stand out of it."""
    cells = cell_means(xyz, ~np.isnan(xyz[..., 2]))
    height = np.abs(cells.heights(np.asarray(table.plane)))
    on = rim_of(cells.measured) & (height < usual)  # far from the part, whose foot may slope gently
    points = np.abs(height_over(table.plane, xyz[cells.centres]))[on]
    points = points[np.isfinite(points)]
    if not points.size:
        return usual
    return max(_NOISES * deviation(points), _UNEVEN * float(np.percentile(height[on], 99)))


def flat_height(xyz: NDArray[np.float32], usual: float) -> float | None:
    """Return the height of the part's flat side, metres, if much of the part is lower than `usual`.

    Args:
        xyz: float32, (H, W, 3), metres, missing points NaN. The table's upper side faces the origin.
        usual: the distance for tall parts, metres.

    Returns:
        The height above the table; None if there is no such side, or the sensor is too noisy to tell.
    """
    cells = cell_means(xyz, ~np.isnan(xyz[..., 2]))
    band = max(4 * depth_noise(cells), _BAND * usual)
    table = choose(cells, find_candidates(cells, band))
    if table is None:
        return None
    height = cells.heights(table.plane)
    level = cells.along(height) & (band < height) & (height < usual)
    standing = cells.measured & (height > band)
    if level.sum() <= _SHARE * standing.sum() or _at_border(level, cells.measured) > _AT_BORDER:
        return None
    flat = float(np.median(height[level]))
    even = (np.abs(height[level] - flat) < _EVEN * flat).mean()
    return flat if flat > 2 * band and even > _MOST else None


def _at_border(mask: NDArray[np.bool_], measured: NDArray[np.bool_]) -> float:
    """Share of the measured points at the image's border that are in the mask."""
    border = measured.copy()
    border[1:-1, 1:-1] = False
    return float((border & mask).sum() / max(1, border.sum()))
