"""A milled aluminium block: chamfered, stepped, with bores, a counterbore, a pocket and blind holes."""

from __future__ import annotations

import numpy as np

from generator.surface import Feature, Grid, Surface, paint, smoothstep

from .pose import Pose, rounded_box

WIDTH, DEPTH, TOP, SHELF = 86.0, 54.0, 21.0, 14.0
BLIND = ((-38.0, 21.0), (-38.0, -21.0), (-4.5, 21.0), (-4.5, -21.0))
BORES = ((36.0, 17.0), (36.0, -17.0))


def block(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    x, y = x + 0.03 * grid.noise(40, rng), y + 0.03 * grid.noise(40, rng)
    chamfer = rng.uniform(1.3, 1.7)
    edge = -rounded_box(x, y, WIDTH + rng.normal(0, 0.12), DEPTH + rng.normal(0, 0.12), 4.0)
    step = smoothstep(27.6, 28.4, x)
    height = TOP + (SHELF - TOP) * step
    height = height - np.clip(chamfer - edge, 0, chamfer) - np.clip(0.8 - np.abs(x - 27.4), 0, 0.8) * (x < 27.5)

    bore = np.hypot(x + 21.5, y)
    counter = 14.0 + rng.normal(0, 0.05)
    height = (
        height
        - 5.0 * smoothstep(counter + 0.2, counter - 0.2, bore)
        - np.clip(1 - np.abs(bore - counter), 0, 1) * (bore > counter)
    )
    height = np.where(bore < 8.5, 0.0, height)
    pocket = rounded_box(x - 12.0, y, 19.0, 36.0, 4.5)
    height = height - 9.5 * smoothstep(0.2, -0.2, pocket) - np.clip(0.7 - pocket, 0, 0.7) * (pocket > 0)

    without = height.copy()
    places = []
    for cx, cy in BLIND:
        r = np.hypot(x - cx, y - cy)
        height = height - 9.0 * smoothstep(2.5, 2.1, r) - np.clip(3.1 - r, 0, 0.7)
        places.append(r < 3.3)
    for cx, cy in BORES:
        r = np.hypot(x - cx, y - cy)
        height = np.where(r < 3.4, 0.0, height - np.clip(4.3 - r, 0, 0.8))
        places.append(r < 4.5)

    # The face mill leaves arcs; the pocket's end mill leaves a swirl.
    sweep = np.hypot(x - 160.0, y - rng.uniform(-15, 15))
    lay = np.sin(2 * np.pi * sweep / 2.3 + rng.uniform(0, 6) + 0.8 * grid.noise(30, rng))
    lay = lay * (0.6 + 0.4 * grid.noise(14, rng)) * (pocket > 0)
    swirl = np.sin(2 * np.pi * np.hypot(x - 12, y + rng.uniform(-8, 8)) / 2.0) * (pocket < 0)
    marks = lay + swirl
    inside = edge > 0
    height = np.where(inside & (height > 0.5), height + 0.007 * marks, 0.0)

    smudge = smoothstep(0.6, 2.4, grid.fractal(22, 3, rng)) * rng.uniform(0.02, 0.14)
    shade = 1 + 0.045 * marks + 0.025 * grid.noise(1.2, rng) - smudge + 0.03 * grid.noise(25, rng)
    albedo = paint((0.40, 0.405, 0.415), shade)
    gloss = np.clip(0.16 + 0.05 * marks - 0.4 * smudge, 0.02, None)
    features = [Feature(place, np.where(inside, without + 0.007 * marks, 0.0), albedo) for place in places]
    return Surface(grid, height, albedo, gloss, 18.0, core=(0.55, 0.555, 0.56), features=features)
