"""What points tell of the rays that took them: how large they show a part, and which way what is high is moved against what is
low, the relief displacement of photogrammetry."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_POINTS = 20_000  # at most that the camera is fitted to
_CLEARLY = 0.9  # of the others' error at most
_ACROSS = np.array([0.0, 0.0, 1.0])  # the normal of planes across the optical axis


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
    fits, middle = _fits(xyz), [float(xyz[..., axis][part].mean(dtype=np.float64)) for axis in range(3)]
    if not fits or middle[2] == 0:
        return 0.0, 0.0
    moved = []
    for axis, (parallel, off, central, error) in enumerate(fits):
        slope = (upwards[axis] - upwards[2] * middle[axis] / middle[2]) / middle[2]
        moved.append(float(parallel * upwards[axis] if off < error else central * slope))
    return moved[0], moved[1]


def pixel_pitch(xyz: NDArray[np.float32], part: NDArray[np.bool_]) -> float:
    """What a pixel shows of a surface across the optical axis at the part's mean distance, metres: the root of its area.

    The mean, as the median of a part of two levels leaps from one to the other.

    Args:
        xyz, part: as for `displacement`.
    """
    return math.sqrt(max(abs(float(np.linalg.det(_steps_across(xyz, part)))), 1e-18))


def pixel_aspect(xyz: NDArray[np.float32], part: NDArray[np.bool_]) -> float:
    """How many times as long as wide a pixel is, or as wide as long, at least 1: profiles of a belt lie as far apart as it moves.

    Args:
        xyz, part: as for `displacement`.
    """
    down, right = np.linalg.norm(_steps_across(xyz, part), axis=1)
    return float(max(down, right) / max(min(down, right), 1e-9))


def _steps_across(xyz: NDArray[np.float32], part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """As `Rays.steps`, across the optical axis at the part's mean distance."""
    where = np.flatnonzero(part)
    pixels = np.stack(np.unravel_index(where[:: 1 + len(where) // _POINTS], part.shape), axis=1)
    points = xyz[tuple(pixels.T)].astype(np.float64)
    return fit_rays(pixels, points).steps(pixels.mean(axis=0), _ACROSS, float(points[:, 2].mean()))


class Rays(NamedTuple):
    """The rays that some pixels' points lie on.

    Attributes:
        central: they pass through the origin; else they are parallel to z.
        slopes: (2, 2): x and y of a step one pixel down and of one to the right, of central rays at z = 1.
        pixel, place: row and column of a pixel, and x and y of its ray.
    """

    central: bool
    slopes: NDArray[np.float64]
    pixel: NDArray[np.float64]
    place: NDArray[np.float64]

    def steps(self, pixel: NDArray[np.float64], normal: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
        """How far a plane goes on from pixel to pixel.

        Args:
            pixel: (2,): row and column, about which that is asked.
            normal: (3,): the plane's.
            distance: of the plane: the product of the normal and any of its points.

        Returns:
            (2, 2): a step one pixel down and one to the right, along two axes of the plane, metres.
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
    """The rays of pixels (N, 2) whose points are (N, 3), by least squares; if it is not known which, what fits better.

    Of parallel rays points tell, of rays through one point their directions, for down a part's walls its points do not move on.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # heights over a table may be zero
        directions = points[:, :2] / points[:, 2:]
    places = {False: points[:, :2]}
    if not parallel and np.isfinite(directions).all():
        places = {True: directions} if parallel is False else places | {True: directions}
    fits = {central: _fit(pixels, its) for central, its in places.items()}
    best = min(fits, key=lambda central: fits[central][0])
    return Rays(best, fits[best][1], pixels.mean(axis=0), places[best].mean(axis=0))


def are_parallel(xyz: NDArray[np.float32]) -> bool:
    """Whether the rays to points (H, W, 3) are so along both axes: then nothing says which way z grows."""
    return all(off < error for _, off, _, error in _fits(xyz) or [(0.0, 0.0, 0.0, 0.0)])


def meet(xyz: NDArray[np.float32]) -> bool:
    """Whether the rays to points (H, W, 3) clearly pass through one point; before a level surface parallel ones fit as well."""
    return any(error < _CLEARLY * off for _, off, _, error in _fits(xyz))


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


def _fit(pixels: NDArray[np.intp], places: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """How badly places (N, 2) follow their pixels (N, 2), and by how much they move from pixel to pixel, by least squares."""
    steps, places = pixels - pixels.mean(axis=0), places - places.mean(axis=0)
    # Summed up one by one: a matrix product's last bits depend on the number of threads.
    squares, products = ((steps[:, :, None] * other[:, None, :]).sum(axis=0) for other in (steps, places))
    slopes = np.linalg.pinv(squares) @ products
    off = places - steps[:, :1] * slopes[0] - steps[:, 1:] * slopes[1]
    return float(np.square(off).sum() / max(np.square(places).sum(), 1e-18)), slopes


def _scale(coordinate: NDArray[np.float64], pixel: NDArray[np.float64]) -> tuple[float, float]:
    """Pixels per unit of a coordinate, by least squares, and the mean square that they err by."""
    coordinate, pixel = coordinate - coordinate.mean(), pixel - pixel.mean()
    square = float((coordinate * coordinate).sum())  # a product's last bits depend on the number of threads
    scale = float((coordinate * pixel).sum()) / square if square > 0 else 0.0
    return scale, float(np.square(pixel - scale * coordinate).mean())
