"""The part in front of the surface at the image's border: slanted floors, backdrops, and scenes without one."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from das3d_cli.data import foreground
from das3d_cli.errors import DataError

find_foreground = partial(foreground.find_foreground, plane_distance_m=0.005)
FOCAL = 711.11
SHAPE = (120, 160)


def scene(
    background: str, *, at: tuple[int, int] = (60, 80), radius: int = 30
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Points of a spherical cap before a background, without noise or gaps, metres; and the cap's pixels."""
    rows, columns = np.indices(SHAPE)
    x, y = (columns - 80) / FOCAL, (rows - 60) / FOCAL
    if background == "floor":  # inclined by 35 degrees
        normal = np.array([0.0, -np.sin(np.radians(35)), -np.cos(np.radians(35))])
        z = -2.0 / (x * normal[0] + y * normal[1] + normal[2])
    else:
        z = np.full(SHAPE, 9.0 if background == "far" else 2.6)
    distance = np.hypot(rows - at[0], columns - at[1]) / radius
    cap = z.min() - 0.03 - 0.1 * np.sqrt(np.clip(1 - distance**2, 0, 1))
    part = distance < 1
    z = np.where(part, cap, z)
    return np.stack([x * z, y * z, z], axis=2).astype(np.float32), part


@pytest.mark.parametrize("background", ["floor", "far", "wall"])
def test_all_that_is_before_it_is_the_part(background: str) -> None:
    xyz, part = scene(background)
    found = find_foreground(xyz, "border")
    assert np.array_equal(found.foreground, part)
    height = xyz @ np.float32(found.plane[:3]) + np.float32(found.plane[3])
    assert np.abs(height[~part]).max() < 1e-4
    assert found.tilt_deg == pytest.approx(35 if background == "floor" else 0, abs=0.05)


def test_a_part_that_reaches_over_the_border_does_not_bend_the_surface() -> None:
    xyz, part = scene("floor", at=(60, 8), radius=40)
    assert np.array_equal(find_foreground(xyz, "border").foreground, part)


def test_a_surface_that_is_not_quite_flat_stays_background() -> None:
    xyz, part = scene("wall")
    waves = 0.008 * np.sin(np.indices(SHAPE)[1] / 7)
    xyz[~part] *= (1 + waves[~part, None] / 2.6).astype(np.float32)
    assert np.array_equal(find_foreground(xyz, "border").foreground, part)


def test_points_that_are_near_it_belong_to_it() -> None:
    xyz, part = scene("wall")
    xyz[50:55, 10:15] *= 1 - 0.004 / 2.6
    assert np.array_equal(find_foreground(xyz, "border").foreground, part)
    assert find_foreground(xyz, "border", plane_distance_m=0.003).foreground[50:55, 10:15].all()


def test_heights_of_zero_at_the_border_of_a_height_map_are_passed_over() -> None:
    rows, columns = np.indices((120, 160)).astype(np.float64)
    part = np.hypot(rows - 60, columns - 80) < 25
    z = np.where(part, 0.45, 0.5)
    z[0, ::7] = 0
    xyz = np.stack([columns * 1e-3, rows * 1e-3, z], axis=2).astype(np.float32)
    with np.errstate(divide="raise", invalid="raise"):
        found = find_foreground(xyz, "border")
    assert np.array_equal(found.foreground[1:], part[1:])


def test_the_whole_is_all_that_was_measured() -> None:
    xyz, _ = scene("floor")
    xyz[:20, :30] = np.nan
    assert np.array_equal(find_foreground(xyz, "whole").foreground, ~np.isnan(xyz[..., 2]))


def test_what_has_no_such_surface_is_told() -> None:
    xyz, part = scene("wall")
    cut_out = np.where(part[..., None], xyz, np.nan)
    with pytest.raises(
        DataError, match=r"border has too few points; preprocess with --set preprocess\.foreground=whole"
    ):
        find_foreground(cut_out, "border")
    with pytest.raises(DataError, match="nothing is more than 5 mm in front of the surface"):
        find_foreground(scene("wall", at=(900, 900))[0], "border")
    with pytest.raises(DataError, match="all points are missing"):
        find_foreground(np.full_like(xyz, np.nan), "border")
