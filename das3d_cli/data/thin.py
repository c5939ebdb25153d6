"""Flat parts lower than the distance within which points usually belong to the table: boards, gaskets, sheets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.candidates import Cells, cell_means, choose, depth_noise, find_candidates
from das3d_cli.data.parallax import are_parallel

_BAND = 0.1  # share of the distance: points this near to the table always belong to it
_SHARE = 0.25  # share of all that stands on the table: less is a tall part's foot
_EVEN = 0.2  # share of its height: the most that a flat side deviates from it
_MOST = 0.6  # share of the low points on the flat side: less is a slope or an uneven table
_AT_BORDER = 0.05  # share of the border: a mat or a tray reaches it, a part lies within the image


def flat_height(xyz: NDArray[np.float32], distance: float) -> float | None:
    """Return the height of the part's flat side, metres, if much of the part is lower than `distance`.

    Args:
        xyz: float32, (H, W, 3), metres in the camera's frame, missing points NaN.
        distance: points this near to the table belong to it by default, metres.

    Returns:
        The height above the table; None if there is no such side, or the sensor is too noisy to tell. Also None with
        parallel rays: which side of a plane is up is then unknown, and a wide pocket would pass for a part.
    """
    if are_parallel(xyz):
        return None
    cells = cell_means(xyz, ~np.isnan(xyz[..., 2]))
    band = max(4 * depth_noise(cells), _BAND * distance)
    table = choose(cells, find_candidates(cells, band))
    if table is None:
        return None
    height = cells.heights(table.plane)
    level = cells.along(height) & (band < height) & (height < distance)
    standing = cells.measured & (height > band)
    if level.sum() <= _SHARE * standing.sum() or _at_border(cells, level) > _AT_BORDER:
        return None
    flat = float(np.median(height[level]))
    even = (np.abs(height[level] - flat) < _EVEN * flat).mean()
    return flat if flat > 2 * band and even > _MOST else None


def _at_border(cells: Cells, level: NDArray[np.bool_]) -> float:
    """Share of the measured cells at the image's border that are level."""
    border = cells.measured.copy()
    border[1:-1, 1:-1] = False
    return float((border & level).sum() / max(1, border.sum()))
