"""A potato: a lopsided lump with eyes, netted brown skin, freckles and a little soil."""

from __future__ import annotations

import numpy as np

from generator.surface import Grid, Surface, mix, paint, smoothstep

from .pose import Pose, wobble


def potato(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    long, short = 41.0 * (1 + rng.normal(0, 0.05)), 30.0 * (1 + rng.normal(0, 0.06))
    x = x + rng.uniform(-0.004, 0.004) * y**2
    angle = np.arctan2(y / short, x / long)
    rho = np.hypot(x / long, y / short) / (1 + wobble(angle, range(2, 6), 0.045, rng))
    lean = 1 + 0.10 * rng.normal() * x / long + 0.08 * rng.normal() * y / short
    thick, belly = rng.uniform(21, 25), rng.uniform(9, 12)
    height = belly + thick * np.sqrt(np.clip(1 - rho**2.3, 0, 1)) * lean
    height = height + 0.8 * grid.noise(18, rng) + 0.28 * grid.noise(7, rng) + 0.10 * grid.fractal(2.4, 2, rng)

    eyes = np.zeros_like(x)
    for _ in range(int(rng.integers(4, 8))):
        radius, turn = 0.8 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        cx, cy = long * radius * np.cos(turn), short * radius * np.sin(turn)
        facing = rng.uniform(0, 2 * np.pi)
        u = np.cos(facing) * (x - cx) + np.sin(facing) * (y - cy)
        v = -np.sin(facing) * (x - cx) + np.cos(facing) * (y - cy)
        size = rng.uniform(0.8, 1.25)
        pit = np.exp(-((u / (2.6 * size)) ** 2) - (v / (1.2 * size)) ** 2)
        brow = np.exp(-((u / (3.4 * size)) ** 2) - ((v - 2.2 * size - 0.06 * u**2) / (0.8 * size)) ** 2)
        height = height - 1.0 * size * pit + 0.5 * size * brow
        eyes = np.maximum(eyes, pit)

    net = smoothstep(0.28, 0.0, np.abs(grid.fractal(4.5, 2, rng))) * smoothstep(-0.5, 1.2, grid.noise(14, rng))
    freckles = smoothstep(1.9, 2.4, grid.noise(1.7, rng))
    soil = smoothstep(0.3, 3.2, grid.fractal(16, 3, rng)) * rng.uniform(0.1, 0.5)
    shade = rng.uniform(0.93, 1.07) * (1 + 0.06 * grid.noise(10, rng) + 0.05 * grid.noise(1.3, rng))
    albedo = mix(paint((0.43, 0.285, 0.135), shade), (0.30, 0.18, 0.075), 0.45 * net)
    albedo = mix(albedo, (0.16, 0.085, 0.035), np.clip(0.6 * freckles + 0.5 * eyes, 0, 0.8))
    albedo = mix(albedo, (0.17, 0.115, 0.07), soil)
    gloss = np.full_like(x, 0.02)
    return Surface(grid, np.where(rho < 1, height, 0.0), albedo, gloss, 12.0, core=(0.66, 0.56, 0.27))
