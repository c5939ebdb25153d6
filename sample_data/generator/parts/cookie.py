"""A chocolate-chip cookie: uneven round biscuit, browner at the rim, with dark chips in and on it."""

from __future__ import annotations

import numpy as np

from generator.surface import Array, Grid, Surface, mix, paint, smoothstep

from .pose import Pose, wobble

RADIUS, TOP = 33.0, 15.5
DOUGH = (0.50, 0.295, 0.125)
BROWN = (0.27, 0.115, 0.035)
CHOCOLATE = (0.050, 0.0195, 0.0095)


def _chip(x: Array, y: Array, size: float, rng: np.random.Generator) -> Array:
    """Signed distance to a rounded, irregular chunk; negative inside."""
    angle = rng.uniform(0, 2 * np.pi)
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    v = v * rng.uniform(1.0, 1.45)
    power = rng.uniform(2.0, 4.0)
    around = np.arctan2(v, u)
    radius = size * (1 + wobble(around, range(2, 5), 0.10, rng))
    out: Array = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power) - radius
    return out


def cookie(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    angle, r = np.arctan2(y, x), np.hypot(x, y)
    rim = RADIUS * (1 + rng.normal(0, 0.025)) * (1 + wobble(angle, range(2, 9), 0.022, rng)) + 0.35 * grid.noise(3, rng)
    t = np.clip(r / rim, 0, 1)
    top = TOP + rng.normal(0, 0.6)
    dome = 5.0 + (top - 5.0) * (1 - t**4.5) ** 0.6
    lumps = 0.55 * grid.noise(9, rng) + 0.35 * grid.noise(4, rng)
    crumb = 0.17 * grid.noise(1.9, rng) + 0.11 * grid.noise(1.0, rng)
    ridges = np.abs(grid.fractal(13, 2, rng))
    crackle = smoothstep(0.22, 0.0, ridges) * smoothstep(0.3, 1.3, grid.noise(16, rng))
    inside = r < rim
    height = dome + (lumps + crumb) * (0.5 + 0.5 * t) - 0.4 * crackle

    baked = smoothstep(0.62, 1.0, t + 0.05 * grid.noise(8, rng)) * 0.75 + 0.22 * smoothstep(0.2, 1.6, lumps)
    shade = 1 + 0.05 * grid.noise(2.2, rng) + 0.05 * grid.noise(0.9, rng) + 0.04 * grid.noise(12, rng)
    toast = np.clip(baked * rng.uniform(0.8, 1.2), 0, 1)
    albedo = mix(paint(DOUGH, shade * rng.uniform(0.94, 1.06)), BROWN, toast)
    albedo = mix(albedo, (0.24, 0.12, 0.045), 0.22 * crackle)
    gloss = np.full_like(r, 0.012)

    centres: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(13, 19))):
        for _ in range(30):
            radius, turn = rim.mean() * 0.84 * np.sqrt(rng.uniform(0.0, 1.0)), rng.uniform(0, 2 * np.pi)
            cx, cy = radius * np.cos(turn), radius * np.sin(turn)
            if all(np.hypot(cx - a, cy - b) > 8.0 for a, b in centres):
                break
        else:
            continue
        centres.append((cx, cy))
        size, proud = rng.uniform(2.0, 4.4), rng.uniform(0.5, 1.9)
        near = np.hypot(x - cx, y - cy) < 9.0
        distance = np.full_like(r, np.inf)
        distance[near] = _chip(x[near] - cx, y[near] - cy, size, rng)
        body = smoothstep(0.2, -0.25, distance)
        level = height[near & (distance < 0)].mean() if (distance < 0).any() else 0.0
        flat = level + proud - 0.5 * np.clip(1 + distance / size, 0, 1) ** 2 + 0.07 * grid.noise(2.5, rng)
        height = height - 0.35 * smoothstep(1.4, 0.2, distance) * (1 - body)
        height = height + body * (np.maximum(flat, height + 0.2) - height)
        albedo = mix(albedo, paint(CHOCOLATE, 1 + 0.12 * grid.noise(2.0, rng)), body)
        gloss = gloss + body * (0.034 - gloss)

    height = np.where(inside, np.clip(height, 2.0, None), 0.0)
    return Surface(grid, height, albedo, gloss, 14.0, core=(0.56, 0.36, 0.17))
