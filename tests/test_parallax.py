"""How the image of a rising point moves, derived from the points alone, with any kind of camera."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from das3d_cli.data.parallax import are_parallel, displacement, meet

HEIGHT, WIDTH = 90, 120
FOCAL, MIDDLE = 150.0, np.array([64.0, 41.0])
TABLE = np.array([0.0, 0.0, 0.4])  # a point on the table, metres
SIDE = 0.0015  # side of a line scanner's pixel, metres


def pinhole(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (N, 2), x and y, at which a camera sees points (N, 3)."""
    return FOCAL * points[:, :2] / points[:, 2:] + MIDDLE


def scanner(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same for parallel rays, where x is zero at the image's left edge."""
    return points[:, :2] / SIDE


def scene(camera: str, normal: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Points (H, W, 3) of a block about 20 mm high on a tilted table, and its mask (H, W)."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    block = (np.abs(u - 80) < 15) & (np.abs(v - 30) < 12)
    height = np.where(block, 0.020 + 0.002 * np.sin(u / 3), 0.0)
    if camera == "pinhole":
        rays = np.stack(((u - MIDDLE[0]) / FOCAL, (v - MIDDLE[1]) / FOCAL, np.ones_like(u)), axis=2)
        xyz = rays * ((TABLE @ normal + height) / (rays @ normal))[..., None]
    else:
        x, y = SIDE * u, SIDE * v
        z = (TABLE @ normal + height - x * normal[0] - y * normal[1]) / normal[2]
        xyz = np.stack((x, y, z), axis=2)
    return xyz.astype(np.float32), block


@pytest.mark.parametrize("camera", ["pinhole", "scanner"])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.08, 0.0), (-0.05, 0.12)])
def test_a_raised_point_is_seen_where_it_is_said_to_be(camera: str, tilt: tuple[float, float]) -> None:
    normal = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
    xyz, block = scene(camera, normal)
    noise = np.random.default_rng(0)
    xyz += 1e-4 * noise.standard_normal(xyz.shape).astype(np.float32)
    xyz[noise.random(block.shape) < 0.1] = np.nan
    measured = block & ~np.isnan(xyz[..., 2])
    found = displacement(xyz, measured, tuple(normal.tolist()))
    middle = xyz[measured].mean(axis=0, dtype=np.float64)
    project = {"pinhole": pinhole, "scanner": scanner}[camera]
    before, after = project(np.stack((middle, middle + 0.001 * normal)))
    assert np.abs(0.02 * np.array(found) - 20 * (after - before)).max() < 0.05  # pixels, over the block's height


def test_a_line_scanner_that_sweeps_a_fan_has_parallel_rays_along_one_axis_alone() -> None:
    rows, columns = np.mgrid[:60, :80].astype(np.float64)
    z = 0.4 + 0.02 * np.sin(rows / 5) * np.cos(columns / 7)
    fan = np.stack(((columns - 40) / 150 * z, rows * SIDE, z), axis=2).astype(np.float32)
    through_one = np.stack(((columns - 40) / 150 * z, (rows - 30) / 150 * z, z), axis=2).astype(np.float32)
    parallel = np.stack((columns * SIDE, rows * SIDE, z), axis=2).astype(np.float32)
    assert [are_parallel(xyz) for xyz in (fan, through_one, parallel)] == [False, False, True]
    assert [meet(xyz) for xyz in (fan, through_one, parallel)] == [True, True, False]


def test_a_large_image_is_looked_at_in_part_and_gives_the_same() -> None:
    normal = np.array([0.06, -0.03, -1.0]) / np.linalg.norm([0.06, 0.03, 1.0])
    xyz, block = scene("pinhole", normal)
    coarse = displacement(xyz, block, tuple(normal.tolist()))
    fine = displacement(
        np.kron(xyz, np.ones((4, 4, 1), np.float32)), np.kron(block, np.ones((4, 4))) > 0, tuple(normal.tolist())
    )
    np.testing.assert_allclose(fine, 4 * np.array(coarse), atol=3)
