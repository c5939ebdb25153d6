"""What the colour camera sees: lamps with shadows, sky light with ambient occlusion, a specular lobe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .camera import Camera, intersect, openness, sample
from .surface import Array, Grid, Surface, paint


@dataclass(frozen=True)
class Lighting:
    """One key lamp with shadows, one weak fill lamp opposite to it, and a sky."""

    key: Array
    fill: Array
    key_power: float
    fill_power: float
    sky_power: float
    tint: Array


def lamp(azimuth: float, elevation: float) -> Array:
    """Unit vector towards a lamp; degrees."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])


def draw_lighting(rng: np.random.Generator) -> Lighting:
    azimuth = 130.0 + rng.uniform(-22, 22)
    elevation = rng.uniform(44, 58)
    return Lighting(
        key=lamp(azimuth, elevation),
        fill=lamp(azimuth + 180 + rng.uniform(-30, 30), 55.0),
        key_power=1.0 * rng.uniform(0.92, 1.08),
        fill_power=0.28 * rng.uniform(0.85, 1.15),
        sky_power=0.42 * rng.uniform(0.9, 1.1),
        tint=1.0 + np.array([1.0, 0.0, -1.0]) * rng.normal(0.0, 0.012),
    )


def ambient_occlusion(surface: Surface) -> Array:
    """(n, n) share of the sky each grid point sees, estimated from its depth below its surroundings."""
    grid, height = surface.grid, surface.height
    free = np.ones_like(height)
    for radius, weight in ((0.9, 0.55), (2.5, 0.8), (7.0, 0.7)):
        around = ndimage.gaussian_filter(height, radius / grid.step, truncate=2.5)
        free *= np.exp(-weight * np.clip(around - height, 0, None) / (2.2 * radius))
    return free


def table_albedo(grid: Grid, colour: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Colour of the table at the points (x, y): a matt, slightly mottled sheet."""
    far = Grid(3 * grid.half, 3 * grid.half / 60)
    cloud = 1 + 0.035 * far.noise(18.0, rng) + 0.02 * far.noise(5.0, rng)
    return paint((colour[0], colour[1], colour[2]), sample(cloud, far, x, y))


@dataclass(frozen=True)
class View:
    """The ideal image per (sub-)pixel, before sensor effects: depth (mm), on_part (0, 1), albedo, radiance."""

    depth: Array
    on_part: Array
    albedo: Array
    radiance: Array


def albedo_at(surface: Surface, points: Array) -> tuple[Array, Array]:
    """Part mask, (h, w), 0 or 1, and colour of the part, (h, w, 3), at hit points."""
    on_part = (points[..., 2] > 0.05).astype(np.float64)
    return on_part, sample(surface.albedo, surface.grid, points[..., 0], points[..., 1])


def render(
    surface: Surface,
    camera: Camera,
    lighting: Lighting,
    table: Array,
    rng: np.random.Generator,
    supersample: int = 2,
) -> View:
    """The ideal view of a part on its table, (H*s, W*s)."""
    depth, points = intersect(surface, camera, supersample)
    grid = surface.grid
    x, y = points[..., 0], points[..., 1]
    on_part, colour = albedo_at(surface, points)
    ground = table_albedo(grid, table, x, y, rng)
    albedo = np.where(on_part[..., None] > 0, colour, ground)

    fields = np.stack([*surface.slopes, ambient_occlusion(surface), surface.gloss], axis=-1)
    dx, dy, sky, gloss = np.moveaxis(sample(fields, grid, x, y), -1, 0)
    flat = on_part == 0
    dx, dy, gloss = np.where(flat, 0, dx), np.where(flat, 0, dy), np.where(flat, 0, gloss)
    normal = np.stack([-dx, -dy, np.ones_like(dx)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    view = camera.centre - points
    view /= np.linalg.norm(view, axis=-1, keepdims=True)

    lit = openness(surface, points.reshape(-1, 3), lighting.key, softness=0.12).reshape(depth.shape)
    lamps = ((lighting.key, lighting.key_power, lit), (lighting.fill, lighting.fill_power, 0.4 + 0.6 * sky))
    diffuse = lighting.sky_power * sky * (0.55 + 0.45 * normal[..., 2])
    specular = 0.10 * lighting.sky_power * gloss * sky * (1 - normal[..., 2]) ** 2
    for direction, power, free in lamps:
        facing = np.clip(normal @ direction, 0, None)
        half = view + direction
        half /= np.linalg.norm(half, axis=-1, keepdims=True)
        lobe = np.clip((normal * half).sum(-1), 0, None) ** surface.shininess
        diffuse = diffuse + power * facing * free
        specular = specular + power * gloss * lobe * free * (facing > 0)
    radiance = (albedo * diffuse[..., None] + specular[..., None]) * lighting.tint
    return View(depth, on_part, albedo, radiance)


def shrink(image: Array, factor: int) -> Array:
    """Mean over factor x factor sub-pixels."""
    h, w = image.shape[0] // factor, image.shape[1] // factor
    out: Array = image.reshape(h, factor, w, factor, *image.shape[2:]).mean(axis=(1, 3))
    return out
