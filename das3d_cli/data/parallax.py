"""Viewing rays derived from the points: how large a pixel is on the part, and how far high points are shifted in the
image against low ones (relief displacement in photogrammetry)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_POINTS = 20_000  # at most, to fit the camera to
_CLEARLY = 0.9  # at most this share of the parallel rays' error
_ACROSS = np.array([0.0, 0.0, 1.0])  # normal of planes perpendicular to the optical axis


def displacement(
    xyz: NDArray[np.float32], part: NDArray[np.bool_], upwards: tuple[float, float, float]
) -> tuple[float, float]:
    """Return how far the image of a point on the part moves per metre that the point rises.

    For each axis, rays through one point (a camera's) and parallel rays (a line scanner's) are fitted to the points,
    and the better fit is used.

    Args:
        xyz: (H, W, 3), metres, missing points NaN.
        part: bool, (H, W); measured points only.
        upwards: the unit vector along which the point rises, in the points' frame.

    Returns:
        x and y in pixels per metre; zero if the points do not determine it.
    """
    fits, middle = _fits(xyz), [float(xyz[..., axis][part].mean(dtype=np.float64)) for axis in range(3)]
    if not fits or middle[2] == 0:
        return 0.0, 0.0
    moved = []
    for axis, (parallel, off, central, error) in enumerate(fits):
        slope = (upwards[axis] - upwards[2] * middle[axis] / middle[2]) / middle[2]
        moved.append(float(parallel * upwards[axis] if off < error else central * slope))
    return moved[0], moved[1]


def pixel_pitch(xyz: NDArray[np.float32], part: NDArray[np.bool_]) -> float:
    """Return the pixel pitch in metres: the square root of a pixel's area at the part's mean distance.

    Measured perpendicular to the optical axis. The mean, as the median of a part with two levels jumps between them.

    Args:
        xyz, part: as for `displacement`.
    """
    return math.sqrt(max(abs(float(np.linalg.det(_steps_across(xyz, part)))), 1e-18))


def pixel_aspect(xyz: NDArray[np.float32], part: NDArray[np.bool_]) -> float:
    """Return the ratio of a pixel's longer to its shorter side, at least 1.

    A line scanner's profiles lie as far apart as the belt moves between them.

    Args:
        xyz, part: as for `displacement`.
    """
    down, right = np.linalg.norm(_steps_across(xyz, part), axis=1)
    return float(max(down, right) / max(min(down, right), 1e-9))


def _steps_across(xyz: NDArray[np.float32], part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`Rays.steps` on a plane perpendicular to the optical axis at the part's mean distance."""
    where = np.flatnonzero(part)
    pixels = np.stack(np.unravel_index(where[:: 1 + len(where) // _POINTS], part.shape), axis=1)
    points = xyz[tuple(pixels.T)].astype(np.float64)
    return fit_rays(pixels, points).steps(pixels.mean(axis=0), _ACROSS, float(points[:, 2].mean()))


class Rays(NamedTuple):
    """The viewing rays of some pixels.

    Attributes:
        central: the rays pass through the origin; otherwise they are parallel to z.
        slopes: (2, 2): change in x and y per pixel down and per pixel to the right; for central rays at z = 1.
        pixel, place: row and column of a reference pixel, and x and y of its ray, likewise.
    """

    central: bool
    slopes: NDArray[np.float64]
    pixel: NDArray[np.float64]
    place: NDArray[np.float64]

    def steps(self, pixel: NDArray[np.float64], normal: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
        """Return how far apart neighbouring pixels lie on a plane.

        Args:
            pixel: (2,): row and column of the place in question.
            normal: (3,): of the plane.
            distance: of the plane: the dot product of the normal and any of its points.

        Returns:
            (2, 2): the steps one pixel down and one to the right, along two axes of the plane, metres.
        """
        steps = np.column_stack([self.slopes, np.zeros(2)])
        ray = (
            np.append(self.place + (pixel - self.pixel) @ self.slopes, 1.0)
            if self.central
            else np.array([0.0, 0.0, 1.0])
        )
        steps -= np.outer(steps @ normal, ray) / (ray @ normal)
        if self.central:
            steps *= distance / (ray @ normal)
        return np.asarray(steps @ np.linalg.svd(normal[None])[2][1:].T)


def fit_rays(pixels: NDArray[np.intp], points: NDArray[np.float64], *, parallel: bool | None = None) -> Rays:
    """Fit rays to pixels (N, 2) and points (N, 3) by least squares; without `parallel`, of the kind that fits better.

    Parallel rays are fitted to x and y, central ones to x/z and y/z: down a part's walls, x and y hardly change.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # z may be a height over a table, and zero
        directions = points[:, :2] / points[:, 2:]
    places = {False: points[:, :2]}
    if not parallel and np.isfinite(directions).all():
        places = {True: directions} if parallel is False else places | {True: directions}
    fits = {central: _fit(pixels, its) for central, its in places.items()}
    best = min(fits, key=lambda central: fits[central][0])
    return Rays(best, fits[best][1], pixels.mean(axis=0), places[best].mean(axis=0))


def are_parallel(xyz: NDArray[np.float32]) -> bool:
    """Whether the rays to points (H, W, 3) are parallel along both axes; if so, nothing tells which way z grows."""
    return all(off < error for _, off, _, error in _fits(xyz) or [(0.0, 0.0, 0.0, 0.0)])


def meet(xyz: NDArray[np.float32]) -> bool:
    """Whether the rays to points (H, W, 3) clearly pass through one point; on level areas parallel ones fit as well."""
    return any(error < _CLEARLY * off for _, off, _, error in _fits(xyz))


def _fits(xyz: NDArray[np.float32]) -> list[tuple[float, float, float, float]]:
    """Per axis the scale and error of parallel rays, then those of rays through one point; empty without points."""
    width = xyz.shape[1]
    there = np.flatnonzero(np.abs(xyz[..., 2]) > 0)  # false for NaN
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


def _fit(pixels: NDArray[np.intp], places: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Relative squared error and slopes per pixel (2, 2) of a least-squares fit of places (N, 2) to pixels (N, 2)."""
    steps, places = pixels - pixels.mean(axis=0), places - places.mean(axis=0)
    # Summed explicitly: the last bits of a matrix product depend on the number of threads.
    squares, products = ((steps[:, :, None] * other[:, None, :]).sum(axis=0) for other in (steps, places))
    slopes = np.linalg.pinv(squares) @ products
    off = places - steps[:, :1] * slopes[0] - steps[:, 1:] * slopes[1]
    return float(np.square(off).sum() / max(np.square(places).sum(), 1e-18)), slopes


def _scale(coordinate: NDArray[np.float64], pixel: NDArray[np.float64]) -> tuple[float, float]:
    """Pixels per unit of a coordinate, by least squares, and their mean squared error."""
    coordinate, pixel = coordinate - coordinate.mean(), pixel - pixel.mean()
    square = float((coordinate * coordinate).sum())  # the last bits of a dot product depend on the number of threads
    scale = float((coordinate * pixel).sum()) / square if square > 0 else 0.0
    return scale, float(np.square(pixel - scale * coordinate).mean())
