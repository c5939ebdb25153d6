"""Which way a camera sees what is high moved against what is low: the relief displacement of photogrammetry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_POINTS = 20_000  # at most that the camera is fitted to


def displacement(
    xyz: NDArray[np.float32], part: NDArray[np.bool_], upwards: tuple[float, float, float]
) -> tuple[float, float]:
    """How far the image of a point of the part moves per metre that the point rises.

    The points tell what took them, axis by axis: rays through one point, as a camera's, or parallel ones, as a line
    scanner's; what fits them better counts.

    Args:
        xyz: (H, W, 3), metres, missing points NaN.
        part: bool, (H, W); holds measured points alone.
        upwards: the unit vector along which the point rises, in the frame of the points.

    Returns:
        x and y in pixels per metre; zero where the points do not tell.
    """
    fits, middle = _fits(xyz), xyz[part].mean(axis=0, dtype=np.float64)
    if not fits or middle[2] == 0:
        return 0.0, 0.0
    moved = []
    for axis, (parallel, off, central, error) in enumerate(fits):
        slope = (upwards[axis] - upwards[2] * middle[axis] / middle[2]) / middle[2]
        moved.append(float(parallel * upwards[axis] if off < error else central * slope))
    return moved[0], moved[1]


def are_parallel(xyz: NDArray[np.float32]) -> bool:
    """Whether the rays to points (H, W, 3) are so along both axes: then nothing says which way z grows."""
    return all(off < error for _, off, _, error in _fits(xyz) or [(0.0, 0.0, 0.0, 0.0)])


def _fits(xyz: NDArray[np.float32]) -> list[tuple[float, float, float, float]]:
    """Of each axis the scale of parallel rays and how far they are off, and the same of rays through one point; none of no points."""
    width = xyz.shape[1]
    there = np.flatnonzero(np.abs(xyz[..., 2]) > 0)  # NaN is not
    there = there[:: max(1, -(-len(there) // _POINTS))]
    points, pixels = xyz.reshape(-1, 3)[there].astype(np.float64), (there % width, there // width)
    return [
        (
            *_scale(points[:, axis], pixel.astype(np.float64)),
            *_scale(points[:, axis] / points[:, 2], pixel.astype(np.float64)),
        )
        for axis, pixel in enumerate(pixels)
        if len(there)
    ]


def _scale(coordinate: NDArray[np.float64], pixel: NDArray[np.float64]) -> tuple[float, float]:
    """Pixels per unit of a coordinate, by least squares, and the mean square that they err by."""
    coordinate, pixel = coordinate - coordinate.mean(), pixel - pixel.mean()
    square = float((coordinate * coordinate).sum())  # a product's last bits depend on the number of threads
    scale = float((coordinate * pixel).sum()) / square if square > 0 else 0.0
    return scale, float(np.square(pixel - scale * coordinate).mean())
