"""Flat parts lower than the distance at which points usually still belong to the table: boards, gaskets, sheets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.candidates import Cells, cell_means, choose, depth_noise, find_candidates
from das3d_cli.data.parallax import are_parallel

_BAND = 0.1  # of the distance: what this near to the table is the table in any case
_SHARE = 0.25  # of all that stands on the table: less than that is a tall part's foot
_EVEN = 0.2  # of its height: what a flat side differs from that at most
_MOST = 0.6  # of the low points lie on it: fewer are those of a slope or of an uneven table
_AT_BORDER = 0.05  # of the border: a mat or a tray reaches it, a part lies within the image


def flat_height(xyz: NDArray[np.float32], distance: float) -> float | None:
    """Height of a flat side that stands out of the table by less than `distance`, metres, if much of the part is that low.

    Args:
        xyz: float32, (H, W, 3), metres in the camera's frame, missing points NaN.
        distance: points this near to the table are taken for the table unless it is known better, metres.

    Returns:
        The height of the part's flat side; None where there is none, or the sensor is too noisy to tell. Of parallel rays it
        is not sought: which side of a plane is up is then unknown, and a wide pocket would do for a part.
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
    """Which share of the measured cells at the image's border is level."""
    border = cells.measured.copy()
    border[1:-1, 1:-1] = False
    return float((border & level).sum() / max(1, border.sum()))
