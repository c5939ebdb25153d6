"""Which way a camera sees what is high moved against what is low: the relief displacement of photogrammetry."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_POINTS = 20_000  # at most that the camera is fitted to


def displacement(
    xyz: NDArray[np.float32], part: NDArray[np.bool_], normal: tuple[float, float, float]
) -> tuple[float, float]:
    """How far the image of a point of the part moves per metre that the point rises from the table.

    The points tell what took them: rays through one point, as a camera's, or parallel ones, as a line scanner's; what
    fits them better counts.

    Args:
        xyz: (H, W, 3), metres, missing points NaN.
        part: bool, (H, W); holds measured points alone.
        normal: of the table, towards the camera.

    Returns:
        x and y in pixels per metre; zero where the points do not tell.
    """
    step = max(1, math.isqrt(xyz.shape[0] * xyz.shape[1] // _POINTS))
    some = xyz[::step, ::step].astype(np.float64)
    measured = ~np.isnan(some[..., 2])
    points, (v, u) = some[measured], step * np.array(np.nonzero(measured), np.float64)
    x, y, z = xyz[part].mean(axis=0, dtype=np.float64)
    (sx, error_x), (sy, error_y) = _scale(points[:, 0], u), _scale(points[:, 1], v)
    (fx, off_x), (fy, off_y) = _scale(points[:, 0] / points[:, 2], u), _scale(points[:, 1] / points[:, 2], v)
    if error_x + error_y < off_x + off_y:
        return float(sx * normal[0]), float(sy * normal[1])
    return float(fx / z * (normal[0] - normal[2] * x / z)), float(fy / z * (normal[1] - normal[2] * y / z))


def _scale(coordinate: NDArray[np.float64], pixel: NDArray[np.float64]) -> tuple[float, float]:
    """Pixels per unit of a coordinate, by least squares, and the mean square that they err by."""
    coordinate, pixel = coordinate - coordinate.mean(), pixel - pixel.mean()
    square = float(coordinate @ coordinate)
    scale = float(coordinate @ pixel) / square if square > 0 else 0.0
    return scale, float(np.square(pixel - scale * coordinate).mean())
