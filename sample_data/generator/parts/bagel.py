"""A bagel: a fat glazed ring, browner on top, sprinkled with sesame."""

from __future__ import annotations

import numpy as np

from generator.surface import Grid, Surface, mix, paint, smoothstep

from .pose import Pose, wobble


def bagel(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    angle, r = np.arctan2(y, x), np.hypot(x, y)
    outer = 43.0 * (1 + rng.normal(0, 0.02)) * (1 + wobble(angle, range(2, 6), 0.02, rng))
    away = 1 - smoothstep(10.0, 43.0, r)  # the hole sits a little off the middle
    shift = np.hypot(x - rng.normal(0, 1.3) * away, y - rng.normal(0, 1.3) * away)
    inner = rng.uniform(9.5, 12.5) * (1 + wobble(angle, range(2, 6), 0.07, rng))
    t = np.clip((shift - inner) / (outer - inner), 0, 1)
    across = 2 * t - 1
    crown = 8.5 + rng.uniform(17.5, 20.0) * np.clip(1 - np.abs(across) ** 2.4, 0, 1) ** 0.55
    crown = crown * (1 + 0.05 * wobble(angle, range(1, 5), 1.0, rng))
    blister = smoothstep(1.3, 2.3, grid.noise(5, rng))
    height = crown + 0.35 * grid.noise(10, rng) + 0.10 * grid.noise(3, rng) + 0.25 * blister
    body = (t > 0) & (t < 1)

    bake = np.clip(0.55 * (1 - across**2) + 0.22 * grid.fractal(16, 3, rng) + rng.normal(0.15, 0.08), 0, 1)
    albedo = mix(paint((0.52, 0.30, 0.10), 1 + 0.03 * grid.noise(2, rng)), (0.24, 0.085, 0.022), bake)
    albedo = mix(albedo, (0.58, 0.38, 0.16), 0.35 * blister)
    gloss = 0.05 + 0.02 * grid.noise(12, rng)

    placed = 0
    while placed < 85:
        radius, turn = rng.uniform(13, 40), rng.uniform(0, 2 * np.pi)
        placed += 1
        cx, cy = pose.x + radius * np.cos(turn), pose.y + radius * np.sin(turn)
        col, row = int((cx - grid.cx + grid.half) / grid.step), int((cy - grid.cy + grid.half) / grid.step)
        k = int(2.2 / grid.step)
        box = np.s_[row - k : row + k + 1, col - k : col + k + 1]
        facing = rng.uniform(0, np.pi)
        dx, dy = grid.x[box] - cx, grid.y[box] - cy
        u, v = np.cos(facing) * dx + np.sin(facing) * dy, -np.sin(facing) * dx + np.cos(facing) * dy
        dome = 1 - (u / 1.55) ** 2 - (v / (0.85 + 0.18 * u / 1.55)) ** 2
        height[box] += 0.75 * np.sqrt(np.clip(dome, 0, 1))
        albedo[box] = mix(albedo[box], (0.68, 0.55, 0.33), smoothstep(0.0, 0.25, dome))
    return Surface(grid, np.where(body, np.clip(height, 2, None), 0.0), albedo, gloss, 16.0, core=(0.66, 0.53, 0.31))
