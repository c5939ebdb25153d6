"""A short piece of three-strand rope, a little bent, its ends wrapped with tape."""

from __future__ import annotations

import numpy as np

from generator.surface import Grid, Surface, mix, paint, smoothstep

from .pose import Pose

RADIUS, LENGTH, PITCH = 10.0, 104.0, 44.0


def rope(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    bend, sway, phase = rng.normal(0, 2.2), rng.normal(0, 1.2), rng.uniform(0, 2 * np.pi)
    line = bend * ((2 * x / LENGTH) ** 2 - 0.33) + sway * np.sin(2 * np.pi * x / LENGTH + phase)
    across = (y - line) * (1 + 0.02 * grid.noise(20, rng))
    along = x + 0.35 * grid.noise(18, rng)
    radius = RADIUS * (1 + rng.normal(0, 0.015))
    strand, offset = 0.50 * radius, 0.535 * radius
    twist = 2 * np.pi * along / PITCH * (1 + rng.normal(0, 0.015)) + rng.uniform(0, 2 * np.pi)

    height, yarn = np.zeros_like(x), np.zeros_like(x)
    for k in range(3):
        angle = twist + 2 * np.pi * k / 3
        side = across - offset * np.cos(angle)
        dome = strand**2 - side**2
        z = radius + offset * np.sin(angle) + np.sqrt(np.clip(dome, 0, None))
        lay = np.sin(9 * np.arcsin(np.clip(side / strand, -1, 1)) - 2 * np.pi * along / 5.2 + 2.1 * k)
        front = (dome > 0) & (z > height)
        height, yarn = np.where(front, z, height), np.where(front, lay, yarn)
    end = LENGTH / 2 - 0.35 * np.abs(grid.noise(4, rng)) - np.abs(x)
    fuzz = grid.noise(1.1, rng)
    height = np.where(height > 0, height + 0.16 * yarn + 0.10 * fuzz, 0.0)

    tape = smoothstep(10.5, 10.1, end + 0.25 * grid.noise(6, rng))
    wrapped = radius + np.sqrt(np.clip((1.03 * radius) ** 2 - across**2, 0, None))
    wrapped = wrapped + 0.5 * np.maximum(height - wrapped, -2.0) + 0.06 * grid.noise(3, rng)
    height = np.where((np.abs(across) < 1.0 * radius) & (tape > 0.5), wrapped, height)
    body = (height > 3.0) & (end > 0)

    tone = rng.normal(0, 0.02)
    shade = 1 + 0.11 * yarn + 0.08 * fuzz + 0.05 * grid.noise(9, rng)
    albedo = mix(
        paint((0.47 + tone, 0.375, 0.215 - tone), shade),
        (0.23, 0.15, 0.07),
        smoothstep(1.5, 2.4, grid.noise(2.6, rng)),
    )
    albedo = mix(albedo, paint((0.045, 0.12, 0.28), 1 + 0.04 * grid.noise(4, rng)), tape)
    gloss = 0.012 + 0.07 * tape
    return Surface(grid, np.where(body, height, 0.0), albedo, gloss, 20.0, core=(0.55, 0.46, 0.30))
