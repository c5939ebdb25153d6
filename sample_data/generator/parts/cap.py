"""A moulded cap in light plastic: hexagonal foot, ribbed grip, recessed face with letters, slotted boss."""

from __future__ import annotations

import numpy as np

from generator.surface import Feature, Grid, Surface, paint, smoothstep

from .pose import Pose, letter_distance, polygon

FOOT, TOP, GRIP, RIBS = 9.0, 23.0, 22.5, 36
TEXT = "GRANDE 16"


def cap(pose: Pose, grid: Grid, rng: np.random.Generator) -> Surface:
    x, y = pose.local(grid)
    angle, r = np.arctan2(y, x), np.hypot(x, y)
    shrink = 1 + rng.normal(0, 0.004)
    hexagon = -polygon(x, y, 6, 27.5 * shrink)
    foot = FOOT - np.clip(1.2 - hexagon, 0, 1.2) - 2.2 * np.clip((r - 29.0) / 3.5, 0, 1) ** 2

    rib = 0.5 + 0.5 * np.cos(RIBS * angle)
    grip = GRIP * shrink - 0.95 * (1 - smoothstep(0.15, 0.75, rib)) * smoothstep(17.0, 19.0, r)
    inward = grip - r
    crown = TOP - np.clip(1.4 - inward, 0, 1.4) ** 2 / 1.4 + 0.12 * grid.noise(30, rng)
    plain = GRIP * shrink - 0.95 - r
    bald = TOP - np.clip(1.4 - plain, 0, 1.4) ** 2 / 1.4

    face = -2.6 * smoothstep(16.6, 16.0, r) - 0.5 * np.clip(1 - np.abs(r - 18.4) / 0.4, 0, 1)
    boss = 2.2 * smoothstep(6.4, 5.6, r)
    turn = rng.uniform(0, np.pi)
    across = np.abs(np.cos(turn) * x + np.sin(turn) * y)
    slot = 2.4 * smoothstep(1.1, 0.7, across) * (r < 5.4)
    letters, places = np.zeros_like(r), []
    for k, letter in enumerate(TEXT):
        centre = np.radians(90.0 - 40.0 * k)
        arc = ((angle - centre + np.pi) % (2 * np.pi) - np.pi) * 11.3
        window = (np.abs(arc) < 3.6) & (np.abs(r - 11.3) < 4.2)
        distance = letter_distance(-arc[window], (r - 11.3)[window], letter, 5.4)
        letters[window] = np.maximum(letters[window], 0.7 * smoothstep(0.85, 0.45, distance))
        if letter != " ":
            places.append(window)

    top = crown + face + boss - slot
    height = np.where(inward > 0, top + letters, np.where(hexagon > 0, foot, 0.0))
    gate = 0.35 * smoothstep(1.3, 0.9, np.hypot(x - 20.3, y)) * (inward > 0)
    height = height + gate

    shade = 1 + 0.015 * grid.noise(20, rng) + 0.012 * grid.noise(1.5, rng)
    flow = 0.03 * np.sin(3 * angle + 0.12 * r + rng.uniform(0, 6)) * rng.uniform(0, 1)
    tone = rng.normal(0, 0.012)
    albedo = paint((0.60 + tone, 0.595, 0.555 - tone), shade + flow)
    gloss = np.full_like(r, 0.13)
    features = [Feature(place, np.where(inward > 0, top, height), albedo) for place in places]
    boss_gone = np.where(r < 6.6, TOP - 2.6 + 0.12 * grid.noise(30, rng), height)
    features.append(Feature(r < 6.6, boss_gone, albedo))
    for k in range(0, RIBS, 9):
        away = np.abs((angle - 2 * np.pi * k / RIBS + np.pi) % (2 * np.pi) - np.pi)
        sheared = np.where(plain > 0, bald, foot)
        features.append(Feature((away < 1.55 * np.pi / RIBS) & (r > 20.4) & (inward > 0), sheared, albedo))
    return Surface(grid, height, albedo, gloss, 28.0, core=(0.66, 0.655, 0.62), features=features)
