"""A small tyre: dark rubber ring with tread blocks, a bulging side wall, ribs and raised lettering."""

from __future__ import annotations

import numpy as np

from generator.surface import Array, Feature, Grid, Mask, Surface, mix, paint, smoothstep

from .pose import Pose, letter_distance, wobble

OUTER, INNER, TOP, BLOCKS = 37.0, 17.5, 22.0, 30
TEXTS = (("RIDGELAND", 90.0), ("165/70 R13", 270.0))
RUBBER = (0.030, 0.031, 0.034)


def _lettering(r: Array, angle: Array, size: float, radius: float) -> tuple[Array, list[Mask]]:
    """Relief of the lettering, 0..1, and a mask around each letter, (n, n) each."""
    raised = np.zeros_like(r)
    places = []
    pitch = 1.02 * size
    for text, middle in TEXTS:
        for k, letter in enumerate(text):
            centre = np.radians(middle) - (k - (len(text) - 1) / 2) * pitch / radius
            arc = ((angle - centre + np.pi) % (2 * np.pi) - np.pi) * radius
            window = (np.abs(arc) < size / 2) & (np.abs(r - radius) < 0.8 * size)
            distance = letter_distance(-arc[window], (r - radius)[window], letter, size)
            raised[window] = np.maximum(raised[window], smoothstep(0.75, 0.4, distance))
            if letter != " ":
                places.append(window)
    return raised, places


def tire(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    x = x + 0.25 * grid.noise(30, rng)
    y = y + 0.25 * grid.noise(30, rng)
    angle = np.arctan2(y, x)
    outer = OUTER * (1 + rng.normal(0, 0.008)) + wobble(angle, range(2, 5), 0.25, rng)
    r = np.hypot(x, y)
    inner = INNER + rng.normal(0, 0.15)
    bulge = rng.normal(0, 0.35)

    t = np.clip((r - inner) / (outer - inner), 0, 1)
    wall = TOP - 4.5 * np.clip(1 - t / 0.55, 0, None) ** 2 - (4.2 + bulge) * np.clip((t - 0.62) / 0.38, 0, None) ** 2
    wall = wall + 0.25 * grid.noise(25, rng)
    for radius, width in ((inner + 2.2, 0.5), (inner + 3.9, 0.45), (outer - 6.0, 0.5)):
        wall = wall + 0.55 * smoothstep(width, 0.15, np.abs(r - radius))

    bare = wall.copy()
    raised, places = _lettering(r, angle, 4.6, inner + 8.0)
    height = wall + 0.6 * raised

    # Tread: slanted slots cut the shoulder into blocks, every second one shorter.
    turn = (angle / (2 * np.pi) * BLOCKS + 0.035 * (outer - r)) % 1.0
    across = np.minimum(turn, 1 - turn) * 2 * np.pi * OUTER / BLOCKS
    block = np.floor(angle / (2 * np.pi) * BLOCKS + 0.035 * (outer - r)) % BLOCKS
    reach = np.where(block % 2 == 0, 5.0, 3.8)
    slot = smoothstep(0.95, 0.55, across) * smoothstep(reach + 0.5, reach - 0.3, outer - r)
    height = height - 5.5 * slot
    shoulder = outer - 0.35
    height = height - 1.4 * np.clip((r - shoulder + 1.6) / 1.6, 0, 1) ** 2
    inside = (r < shoulder) & (r > inner)
    inside &= ~((slot > 0.5) & (r > shoulder - 2.4))
    height = height + 0.05 * grid.fractal(1.6, 2, rng)
    height = np.where(inside, np.clip(height, 1.0, None), 0.0)

    dust = smoothstep(0.2, 2.2, grid.fractal(26, 3, rng)) * rng.uniform(0.05, 0.35)
    shade = 1 + 0.05 * grid.fractal(5, 3, rng) + 0.10 * raised + 0.04 * smoothstep(0.5, 0.2, np.abs(r - inner - 2.2))
    albedo = mix(paint(RUBBER, shade), (0.16, 0.15, 0.135), dust * (1 - 0.4 * slot))
    gloss = np.clip(0.055 * (1 - 1.6 * dust) + 0.02 * raised, 0.004, None)

    features = [Feature(w, np.where(inside, bare + 0.03 * grid.noise(1.2, rng), 0), albedo) for w in places[::3]]
    for k in range(0, BLOCKS, 5):
        stump = (block == k) & (outer - r < reach - 0.4) & inside
        features.append(Feature(stump, np.minimum(height, 13.5 + 0.3 * grid.noise(3, rng)), albedo))
    return Surface(grid, height, albedo, gloss, 16.0, core=(0.035, 0.035, 0.036), features=features)
