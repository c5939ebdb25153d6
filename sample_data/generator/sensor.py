"""The sensor model that turns an ideal view into a measurement: colour noise, depth noise and missing points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .camera import Camera, intersect, openness, sample
from .surface import Array, Mask, Surface

# Points are rounded to this step, finer than the noise, so that the low bits are zero and the file compresses well.
STEP_M = 2.0**-14


def expose(radiance: Array, exposure: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """8-bit image of linear radiance, with shot and read noise blurred as by demosaicing, and sRGB-like gamma."""
    signal = np.clip(radiance * exposure, 0, 1.2)
    noise = rng.standard_normal(signal.shape) * np.sqrt(0.00009 * signal + 2e-7)
    noise = ndimage.convolve1d(ndimage.convolve1d(noise, [0.25, 0.5, 0.25], axis=0), [0.25, 0.5, 0.25], axis=1)
    coded = np.clip(signal + noise, 0, 1) ** (1 / 2.2)
    return np.rint(255 * coded).astype(np.uint8)


def measure_depth(
    surface: Surface,
    camera: Camera,
    albedo: Array,
    projector: Array,
    dropout: float,
    rng: np.random.Generator,
) -> tuple[Array, Mask, Mask]:
    """Depth as a structured-light sensor measures it.

    Args:
        albedo: (H, W) brightness of what each pixel sees.
        projector: its position in the table's frame, mm.
        dropout: how easily this material loses points; 1 is usual.

    Returns:
        measured depth (H, W), mm; missing (H, W); foreground (H, W): the ray ends on the part.
    """
    depth, points = intersect(surface, camera)
    flat = points.reshape(-1, 3)
    foreground = points[..., 2] > 0.05
    to_light = projector - flat
    to_light /= np.linalg.norm(to_light, axis=1, keepdims=True)
    to_eye = camera.centre - flat
    to_eye /= np.linalg.norm(to_eye, axis=1, keepdims=True)

    slopes = sample(np.stack(surface.slopes, axis=-1), surface.grid, flat[:, 0], flat[:, 1])
    slopes[~foreground.ravel()] = 0
    normal = np.concatenate([-slopes, np.ones((len(flat), 1))], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    lit = np.clip((normal * to_light).sum(1), 0, 1).reshape(depth.shape)
    seen = np.clip((normal * to_eye).sum(1), 0, 1).reshape(depth.shape)
    mirror = to_light + to_eye
    mirror /= np.linalg.norm(mirror, axis=1, keepdims=True)
    gloss = sample(surface.gloss, surface.grid, flat[:, 0], flat[:, 1]) * foreground.ravel()
    glare = (gloss * np.clip((normal * mirror).sum(1), 0, 1) ** (4 * surface.shininess)).reshape(depth.shape)
    shadowed = openness(surface, flat, to_light, softness=0.01).reshape(depth.shape) < 0.5

    # Phase noise grows with the inverse of the signal; on slanted surfaces a pixel also spans a range of depths.
    signal = np.clip(albedo, 0.02, 1) * (0.15 + lit)
    sigma = 0.045 * (depth / 400) ** 2 * (0.75 + 0.1 / (signal + 0.08)) / np.clip(seen, 0.3, 1)
    fine = rng.standard_normal(depth.shape)
    wide = ndimage.gaussian_filter(rng.standard_normal(depth.shape), 1.3) * (2 * 1.3 * np.sqrt(np.pi))
    measured = depth + sigma * (0.75 * fine + 0.75 * wide)

    blotch = ndimage.gaussian_filter(rng.standard_normal(depth.shape), 1.0) * (2 * np.sqrt(np.pi))
    risk = -3.6 + 2.2 * (seen < 0.30) + 1.8 * (lit < 0.15) + 0.35 * dropout / (signal + 0.10) + 3.5 * glare
    jump = ndimage.maximum_filter(depth, 3) - ndimage.minimum_filter(depth, 3) > 4.0
    missing = shadowed | (blotch > 3.2 - 0.55 * (risk + 1.3 * jump + 2.6)) | (depth <= 0)
    return measured, missing, foreground


def quantise(xyz_mm: Array) -> NDArray[np.float32]:
    """Millimetres to metres, rounded to `STEP_M`."""
    return (np.rint(xyz_mm / 1000 / STEP_M) * STEP_M).astype(np.float32)
