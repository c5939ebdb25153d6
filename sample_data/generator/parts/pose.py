"""Where a part lies on the table, and shapes in its own coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.surface import Array, Grid, segment_distance


@dataclass(frozen=True)
class Pose:
    """Rotation in the plane and position of the part's centre, in radians and mm."""

    angle: float
    x: float
    y: float

    def local(self, grid: Grid) -> tuple[Array, Array]:
        """(n, n) coordinates in the part's own frame."""
        dx, dy = grid.x - self.x, grid.y - self.y
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return cos * dx + sin * dy, -sin * dx + cos * dy


def wobble(angle: Array, orders: range, size: float, rng: np.random.Generator) -> Array:
    """Smooth periodic deviation of an outline: a random sum of harmonics, standard deviation about `size`."""
    out = np.zeros_like(angle)
    for k in orders:
        a, b = rng.normal(0, 1, 2) / k
        out += a * np.cos(k * angle) + b * np.sin(k * angle)
    norm = float(np.sqrt(sum(1 / k**2 for k in orders)))
    return out * (size / norm)


def rounded_box(x: Array, y: Array, width: float, depth: float, radius: float) -> Array:
    """Signed distance to a rectangle with rounded corners; negative inside."""
    qx, qy = np.abs(x) - width / 2 + radius, np.abs(y) - depth / 2 + radius
    outside: Array = np.hypot(np.clip(qx, 0, None), np.clip(qy, 0, None))
    return outside + np.minimum(np.maximum(qx, qy), 0) - radius


def polygon(x: Array, y: Array, sides: int, apothem: float) -> Array:
    """Signed distance (near enough) to a regular polygon; negative inside."""
    sector = 2 * np.pi / sides
    angle = np.arctan2(y, x)
    folded = (angle + sector / 2) % sector - sector / 2
    distance: Array = np.hypot(x, y) * np.cos(folded) - apothem
    return distance


# Strokes of a plain alphabet on a grid 4 wide and 6 high.
_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(0, 0), (2, 6), (4, 0)], [(0.8, 2.2), (3.2, 2.2)]],
    "D": [[(0, 0), (0, 6), (2.4, 6), (4, 4.4), (4, 1.6), (2.4, 0), (0, 0)]],
    "E": [[(4, 0), (0, 0), (0, 6), (4, 6)], [(0, 3), (3, 3)]],
    "G": [[(4, 5), (3, 6), (1, 6), (0, 5), (0, 1), (1, 0), (3, 0), (4, 1), (4, 3), (2.4, 3)]],
    "I": [[(2, 0), (2, 6)]],
    "L": [[(0, 6), (0, 0), (4, 0)]],
    "N": [[(0, 0), (0, 6), (4, 0), (4, 6)]],
    "R": [[(0, 0), (0, 6), (3, 6), (4, 5), (4, 4), (3, 3), (0, 3)], [(2, 3), (4, 0)]],
    "0": [[(1, 0), (0, 1), (0, 5), (1, 6), (3, 6), (4, 5), (4, 1), (3, 0), (1, 0)]],
    "1": [[(0.8, 4.8), (2, 6), (2, 0)]],
    "3": [[(0, 6), (4, 6), (2, 3.6), (4, 2.4), (4, 1), (3, 0), (0, 0)]],
    "5": [[(4, 6), (0, 6), (0, 3.4), (3, 3.4), (4, 2.4), (4, 1), (3, 0), (0, 0)]],
    "6": [[(3.6, 6), (1, 6), (0, 4.6), (0, 1), (1, 0), (3, 0), (4, 1), (4, 2.4), (3, 3.4), (0, 3.4)]],
    "7": [[(0, 6), (4, 6), (1.4, 0)]],
    "/": [[(0, 0), (4, 6)]],
    " ": [],
}


def letter_distance(x: Array, y: Array, letter: str, size: float) -> Array:
    """Distance of (x, y) to the strokes of a letter `size` mm high that is centred on the origin."""
    scale = size / 6
    best = np.full(x.shape, np.inf)
    for stroke in _STROKES[letter]:
        np.minimum(best, segment_distance(x / scale + 2, y / scale + 3, np.array(stroke)) * scale, out=best)
    return best
