"""Five part families: organic and machined, uniform and varied, dark and light, textured and plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .field import Array, Rng, axis, noise, sampled


class Part(NamedTuple):
    """A part as fields over the table.

    Attributes:
        height: mm over the table, (n, n), 0 off the part.
        colour: reflectance, (n, n, 3).
        gloss: strength of the highlight.
        tilt: of the camera, degrees.
    """

    height: Array
    colour: Array
    gloss: float
    tilt: float


def _frame(rng: Rng) -> tuple[Array, Array]:
    """Coordinates in the frame of a randomly placed part, mm, (n, n) each."""
    along = axis()
    x, y = np.meshgrid(along - rng.normal(0, 2), along - rng.normal(0, 2))
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _dome(distance: Array, radius: Array | float) -> Array:
    """Height of a half circle at a distance from its centre."""
    return np.sqrt(np.clip(radius**2 - distance**2, 0, None))


def _paint(colour: tuple[float, float, float], shade: Array) -> Array:
    return np.clip(np.float32(colour) * shade[..., None], 0.01, 1).astype(np.float32)


def _bagel(rng: Rng) -> Part:
    x, y = _frame(rng)
    around, away = np.arctan2(y, x), np.hypot(x, y)
    away *= 1 + sum(rng.normal(0, 0.012) * np.cos(k * around + rng.uniform(0, 6.3)) for k in (1, 2, 3))
    height = 1.2 * _dome(away - 30, rng.normal(15, 0.4))
    part = height > 0
    height += part * (0.25 * noise(rng, 3) + 0.12 * noise(rng, 1))
    colour = _paint((0.50, 0.30, 0.14), 1 + 0.14 * noise(rng, 9) + 0.06 * noise(rng, 1.2))
    for _ in range(rng.integers(40, 70)):
        angle, of_axis = rng.uniform(0, 6.3), rng.normal(30, 6)
        seed = np.hypot((x - of_axis * np.cos(angle)) / 0.9, (y - of_axis * np.sin(angle)) / rng.uniform(1.2, 1.8))
        height += part * 0.7 * np.exp(-(seed**2))
        colour += (0.9 * np.exp(-(seed**4)))[..., None] * (np.float32((0.72, 0.62, 0.42)) - colour)
    return Part(np.where(part, np.clip(height, 0.5, None), 0), colour, 0.08, 6)


def _dowel(rng: Rng) -> Part:
    x, y = _frame(rng)
    radius, half = rng.normal(8.5, 0.05), rng.normal(44, 0.15)
    beyond = np.abs(x) - half
    height = radius + _dome(y, radius)
    height = np.where((np.abs(y) < radius) & (beyond < 0), height - np.clip(1.5 + beyond, 0, None), 0)
    grain = 0.10 * np.sin(2.4 * axis()[:, None] + 2.5 * noise(rng, 12, stretch=5)) + 0.05 * noise(rng, 0.8, stretch=12)
    grain = 1 + sampled(grain.astype(np.float32), x, y)
    return Part(np.where(height > 0, height + 0.03 * noise(rng, 1), 0), _paint((0.66, 0.48, 0.28), grain), 0.05, 10)


def _gland(rng: Rng) -> Part:
    x, y = _frame(rng)
    away, around = np.hypot(x, y), np.arctan2(y, x)
    hexagon = away * np.cos((around + np.pi / 6) % (np.pi / 3) - np.pi / 6)
    height = np.where(hexagon < 24, 13 - np.clip(hexagon - 22.5, 0, None), 0)
    ribs = 0.6 * (np.cos(36 * around) > 0)
    height = np.where(away < 18 + ribs, 24, height)
    height = np.where(away < 16.5, 24 + 2.5 * np.clip((16.5 - away) / 4, 0, 1), height)
    height = np.where(away < 10.5, 6 + 0.1 * rng.normal(), height)
    height = np.where((np.abs(y) < 1.2) & (x > 19) & (hexagon < 22), 12.2, height)  # a notch shows the orientation
    shade = 1 + 0.05 * noise(rng, 20) + 0.04 * noise(rng, 0.7)
    return Part(np.where(height > 0, height + 0.02 * noise(rng, 2), 0), _paint((0.055, 0.06, 0.07), shade), 0.30, 8)


def _carrot(rng: Rng) -> Part:
    x, y = _frame(rng)
    half, thick = rng.normal(44, 3), rng.normal(11, 1)
    along = np.clip((x + half) / (2 * half), 0, 1)
    y = y - rng.normal(0, 0.0022) * x**2 - 1.2 * np.sin(0.06 * x + rng.uniform(0, 6.3))
    radius = thick * (1 - along) ** rng.uniform(0.45, 0.7) * np.sqrt(np.clip(8 * along, 0, 1))
    radius = radius * (1 + 0.03 * np.sin(0.5 * x + 3 * noise(rng, 25)))
    height = np.where(np.abs(y) < radius, radius + _dome(y, radius), 0)
    rings = np.clip(noise(rng, 2.2) + 0.9 * np.sin(1.3 * x + 2 * noise(rng, 20)) - 1.6, 0, None)
    part = height > 0.5
    shade = 1 + 0.08 * noise(rng, 10) + 0.05 * noise(rng, 1) - 0.16 * np.clip(rings, 0, 1.5)
    height = height - 0.25 * rings + 0.08 * noise(rng, 2.5)
    return Part(np.where(part, np.clip(height, 0.5, None), 0), _paint((0.72, 0.33, 0.09), shade), 0.12, 4)


def _plate(rng: Rng) -> Part:
    x, y = _frame(rng)
    height = np.where((np.abs(x) < 40) & (np.abs(y) < 28), 7.0, 0.0)
    height -= np.where(height > 0, np.clip(np.maximum(np.abs(x) - 39, np.abs(y) - 27), 0, None), 0)
    away = np.hypot(x + 8, y)
    height = np.where(away < 13, 12 - np.clip(away - 12, 0, None), height)
    for at_x, at_y in ((-32, -20), (-32, 20), (32, -20), (32, 20)):
        height = np.where(np.hypot(x - at_x, y - at_y) < 3.6, 0, height)
    height = np.where((np.abs(x - 24) < 1.2) & (np.abs(y) < 14), 5.6, height)
    colour = _paint((0.52, 0.53, 0.55), 1 + 0.05 * noise(rng, 15) + 0.05 * noise(rng, 0.7))
    label = (np.abs(x - 12) < 5) & (np.abs(y) < 15)
    colour[label] = (0.10, 0.20, 0.48)
    strokes = label & (np.abs(x - 12) < 3) & ((np.sin(1.6 * y) > 0.4) | ((np.abs(x - 12) < 0.6) & (y > -9)))
    colour[strokes] = (0.85, 0.85, 0.85)
    return Part(np.where(height > 0, height + 0.015 * noise(rng, 1.5), 0), colour, 0.22, 14)


PARTS: dict[str, Callable[[Rng], Part]] = {
    "bagel": _bagel, "carrot": _carrot, "dowel": _dowel, "gland": _gland, "plate": _plate,
}  # fmt: skip
