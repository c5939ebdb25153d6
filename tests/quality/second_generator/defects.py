"""Nine kinds of defect, each with a severity `s` from 0, barely visible, to 1, gross."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .field import CELLS, STEP, Array, Rng, noise
from .parts import Part


def _place(part: Part, rng: Rng, *, rim: bool = False) -> tuple[float, float]:
    """Row and column of a random place on the part, or at its rim."""
    inside = (part.height > 0.4 * part.height.max()).astype(np.uint8)
    if rim:
        whole = (part.height > 0).astype(np.uint8)
        inside = whole - cv2.erode(whole, np.ones((5, 5), np.uint8))
    else:
        inside = cv2.erode(inside, np.ones((9, 9), np.uint8))
    rows, columns = np.nonzero(inside)
    at = rng.integers(len(rows))
    return float(rows[at]), float(columns[at])


def _away(row: float, column: float) -> tuple[Array, Array, Array]:
    """Offsets from a place in rows and columns, and the distance, mm."""
    r, c = np.ogrid[:CELLS, :CELLS]
    dy, dx = ((r - row) * STEP).astype(np.float32), ((c - column) * STEP).astype(np.float32)
    return dy, dx, np.hypot(dy, dx)


def _line(part: Part, rng: Rng, length: float, width: float, bend: float) -> Array:
    """A line that starts at a random place on the part, (n, n): 1 in its middle, 0 beyond its width."""
    row, column = _place(part, rng)
    angle, canvas, step = rng.uniform(0, 6.3), np.full((CELLS, CELLS), 255, np.uint8), 1.0
    for _ in range(int(length / step)):
        angle += rng.normal(0, bend)
        to = row + step / STEP * np.sin(angle), column + step / STEP * np.cos(angle)
        ends = [(round(16 * b), round(16 * a)) for a, b in ((row, column), to)]
        cv2.line(canvas, ends[0], ends[1], 0, 1, cv2.LINE_8, 4)
        row, column = to
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 5) * STEP
    return np.asarray(np.clip(1 - distance / (width / 2 + STEP), 0, 1), np.float32)


def _blob(part: Part, rng: Rng, radius: float) -> Array:
    """An irregular spot, (n, n): 1 in its middle, falling to 0."""
    distance = _away(*_place(part, rng))[2]
    return np.asarray(
        np.clip(2.5 * (1 - distance / radius + 0.2 * noise(rng, radius)) * (distance < 1.6 * radius), 0, 1), np.float32
    )


def _deeper(part: Part, depth: Array, shade: Array | float = 1.0) -> Part:
    height = np.where(part.height > 0, np.clip(part.height - depth, 0, None), 0)
    return part._replace(height=height, colour=part.colour * np.asarray(shade, np.float32))


def _tinted(part: Part, where: Array, colour: Array) -> Part:
    return part._replace(colour=part.colour + where[..., None] * (colour - part.colour))


def _hole(part: Part, rng: Rng, s: float) -> Part:
    inside = _away(*_place(part, rng))[2] < 1.0 + 2.2 * s
    return _deeper(part, inside * (2 + 16 * s), np.where(inside, 0.5, 1)[..., None])


def _crack(part: Part, rng: Rng, s: float) -> Part:
    line = _line(part, rng, 8 + 16 * s, 0.5 + 0.6 * s, 0.5)
    return _deeper(part, line * (0.4 + 1.8 * s), 1 - 0.5 * line[..., None])


def _dent(part: Part, rng: Rng, s: float) -> Part:
    dy, dx, _ = _away(*_place(part, rng))
    size, angle = 2.5 + 3.5 * s, rng.uniform(0, 3.2)
    a, b = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    return _deeper(part, (0.4 + 1.8 * s) * np.exp(-((a / size) ** 2 + (b / (0.7 * size)) ** 2)))


def _bump(part: Part, rng: Rng, s: float) -> Part:
    dent = part.height - _dent(part, rng, s).height
    return part._replace(height=part.height + dent)


def _cut(part: Part, rng: Rng, s: float) -> Part:
    return _deeper(part, _line(part, rng, 7 + 16 * s, 0.8 + 1.2 * s, 0.0) * (0.8 + 3 * s))


def _chip(part: Part, rng: Rng, s: float) -> Part:
    distance = _away(*_place(part, rng, rim=True))[2] * (1 + 0.12 * noise(rng, 3))
    return _deeper(part, np.clip(2.5 + 4.5 * s - distance, 0, None) * (1.5 + 3 * s))


def _contamination(part: Part, rng: Rng, s: float) -> Part:
    blob = _blob(part, rng, 1.5 + 3 * s)
    raised = part._replace(height=part.height + (part.height > 0) * blob * (0.2 + 1.2 * s))
    return _tinted(raised, np.minimum(1, 2 * blob), rng.uniform(0.02, 0.8, 3).astype(np.float32))


def _stain(part: Part, rng: Rng, s: float) -> Part:
    tint = part.colour.mean(axis=(0, 1)) * rng.uniform(0.2, 0.7) + rng.uniform(0, 0.15, 3)
    return _tinted(part, _blob(part, rng, 2 + 4 * s) * np.float32(0.25 + 0.55 * s), tint.astype(np.float32))


def _scratch(part: Part, rng: Rng, s: float) -> Part:
    line = _line(part, rng, 8 + 20 * s, 0.5 + 0.4 * s, 0.03)
    bright = np.clip(part.colour * rng.choice([0.45, 1.8]) + rng.choice([0.0, 0.08]), 0, 1).astype(np.float32)
    return _tinted(_deeper(part, 0.06 * line), line * np.float32(0.35 + 0.6 * s), bright)


DEFECTS: dict[str, Callable[[Part, Rng, float], Part]] = {
    "hole": _hole, "crack": _crack, "dent": _dent, "bump": _bump, "cut": _cut, "chip": _chip,
    "contamination": _contamination, "stain": _stain, "scratch": _scratch,
}  # fmt: skip
