"""Find the pixels that show the part, by one of three rules for three kinds of scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Fixture, Foreground
from das3d_cli.data.fixture import without_fixture
from das3d_cli.data.plane import Table, cut_out, find_part, height_over, without_specks
from das3d_cli.errors import DataError, NothingFoundError

_FRAME = 1 / 50  # width of the border, share of the image's shorter side
_ROUNDS = 20  # refits of the border's plane without outliers
_UNEVEN = 4.0  # times the median height at the border: how far a surface that is not quite flat may rise
_LEAST_BORDER = 100  # measured points needed at the border


def find_foreground(
    xyz: NDArray[np.float32], rule: Foreground, *, plane_distance_m: float, fixture: Fixture | None = None
) -> Table:
    """Find the part and the surface that its heights are measured from.

    Args:
        xyz: float32, (H, W, 3), metres in the camera's frame, missing points NaN.
        rule: "table": what stands on a table, see `find_part`; "border": what is nearer to the camera than the surface
            at the image's border; "whole": all that was measured.
        plane_distance_m: points within this distance of the table, or of the border's surface, are background.
        fixture: is background, too.

    Raises:
        DataError: nothing was measured, there is no such surface, or nothing in front of it; or as `without_fixture`.
    """
    found = _found(xyz, rule, plane_distance_m)
    return found if fixture is None else without_fixture(found, fixture)


def _found(xyz: NDArray[np.float32], rule: Foreground, plane_distance_m: float) -> Table:
    measured = ~np.isnan(xyz[..., 2])
    if not measured.any():
        raise DataError("all points are missing; capture the part again")
    if rule == "table":
        return find_part(xyz, plane_distance_m=plane_distance_m)
    return _before_border(xyz, measured, plane_distance_m) if rule == "border" else cut_out(xyz, measured)


def _before_border(xyz: NDArray[np.float32], measured: NDArray[np.bool_], distance: float) -> Table:
    """What lies in front of a plane through the border, be it a slanted floor or a backdrop far behind the part.

    Rendered scenes have endless floors, backdrops and no sensor noise, none of which `find_part` expects; but their camera
    is aimed so that only background reaches the border.
    """
    width = max(1, round(min(measured.shape) * _FRAME))
    at_border = measured.copy()
    at_border[width:-width, width:-width] = False
    points = xyz[at_border & (xyz[..., 2] != 0)].astype(np.float64)
    if len(points) < _LEAST_BORDER:
        raise DataError("the image's border has too few points; preprocess with --set preprocess.foreground=whole")
    plane = _plane_of(points)
    height = height_over(plane, xyz)
    uneven = float(np.median(np.abs(points @ plane[:3] + plane[3])))
    before = measured & (height > max(distance, _UNEVEN * uneven))
    part = without_specks(before, before)
    if not part.any():
        raise NothingFoundError(
            f"no part found: nothing is more than {distance * 1000:g} mm in front of the surface at the image's border; check that a part"
            " is there, all of it within the image"
        )
    a, b, c, d = (float(v) for v in plane)
    return Table((a, b, c, d), part, before & ~part)


def _plane_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The plane (a, b, c, d) that most of the points lie on, with its unit normal towards the camera.

    On a plane, 1/z is linear in x/z and y/z; a fit of 1/z keeps far points from outweighing near ones.
    """
    x, y, z = points.T
    rays = np.stack([x / z, y / z, np.ones_like(z)], axis=1)
    kept = np.ones(len(points), bool)
    for _ in range(_ROUNDS):
        slopes = np.linalg.lstsq(rays[kept], 1 / z[kept], rcond=None)[0]
        off = np.abs(rays @ slopes * z - 1)
        kept = off <= max(4 * float(np.median(off)), 1e-6)
    return np.asarray(np.append(-slopes, 1.0) / np.linalg.norm(slopes))
