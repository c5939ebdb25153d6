"""The scene of one capture: a square patch of table, and a part on it as height, colour and gloss per grid point.

Lengths are millimetres, colours linear RGB reflectances. The table is the plane z = 0, z points up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Colour = tuple[float, float, float]


class Grid:
    """A square of the table, centred on (cx, cy), sampled every `step` mm."""

    def __init__(self, half: float, step: float, cx: float = 0.0, cy: float = 0.0) -> None:
        self.step, self.cx, self.cy = step, cx, cy
        self.n = 2 * int(np.ceil(half / step)) + 1
        self.half = (self.n // 2) * step
        self._half = half

    @cached_property
    def offsets(self) -> Array:
        """(n,) distance of the columns (and rows) from the centre, mm."""
        return np.asarray((np.arange(self.n) - self.n // 2) * self.step, dtype=np.float64)

    @property
    def x(self) -> Array:
        return np.broadcast_to(self.offsets[None, :] + self.cx, (self.n, self.n))

    @property
    def y(self) -> Array:
        return np.broadcast_to(self.offsets[:, None] + self.cy, (self.n, self.n))

    def noise(self, cell: float, rng: np.random.Generator) -> Array:
        """(n, n) smooth noise of mean 0 and variance 1 whose bumps are about `cell` mm wide.

        A cubic B-spline over a lattice of normal deviates. The lattice depends on the patch, not on its sampling: the
        same `rng` gives the same surface at any resolution.
        """
        nodes = int(2 * self._half / cell) + 5
        basis = _bspline((self.offsets + self._half + self.step) / cell + 1.0, nodes)
        bumps: Array = basis @ rng.standard_normal((nodes, nodes)) @ basis.T
        return bumps / 0.48

    def fractal(self, cell: float, octaves: int, rng: np.random.Generator, fall: float = 0.5) -> Array:
        """Sum of `octaves` noises, each of half the cell and `fall` times the weight; variance about 1."""
        weights = fall ** np.arange(octaves)
        layers = [w * self.noise(cell / 2**k, rng) for k, w in enumerate(weights)]
        total: Array = np.sum(layers, axis=0)
        return total / float(np.sqrt((weights**2).sum()))


def _bspline(at: Array, nodes: int) -> Array:
    distance = np.abs(at[:, None] - np.arange(nodes)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


class Feature(NamedTuple):
    """Something a part should have, and how the part looks without it."""

    where: Mask
    height: Array
    albedo: Array


@dataclass(frozen=True)
class Surface:
    """A part on the table.

    Attributes:
        height: (n, n) mm over the table; 0 is the table.
        albedo: (n, n, 3) linear reflectance of the part.
        gloss: (n, n) strength of the specular lobe.
        shininess: exponent of that lobe.
        core: colour of the material inside, seen where a piece has broken off.
        features: what the "missing" defect can take away.
    """

    grid: Grid
    height: Array
    albedo: Array
    gloss: Array
    shininess: float
    core: Colour
    features: list[Feature] = field(default_factory=list)

    @cached_property
    def slopes(self) -> tuple[Array, Array]:
        """dz/dx and dz/dy."""
        dy, dx = np.gradient(self.height, self.grid.step)
        return np.asarray(dx), np.asarray(dy)


def smoothstep(low: float | Array, high: float | Array, value: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between (also with low > high)."""
    t: Array = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def mix(base: Array, colour: Colour | Array, amount: Array) -> Array:
    """Blend (..., 3) colours: `amount` (...) of `colour` over `base`."""
    target: Array = np.asarray(colour)
    return base + amount[..., None] * (target - base)


def paint(colour: Colour, shade: Array) -> Array:
    """One colour times a (n, n) brightness."""
    out: Array = np.clip(shade, 0.0, None)[..., None] * np.asarray(colour)
    return out


def segment_distance(x: Array, y: Array, points: Array) -> Array:
    """Distance of every (x, y) to a polyline of (k, 2) points, mm."""
    best = np.full(x.shape, np.inf)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        np.minimum(best, (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2, out=best)
    distance: Array = np.sqrt(best)
    return distance
