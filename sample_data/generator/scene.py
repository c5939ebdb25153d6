"""One capture: draw a part, a pose, a camera and lamps; break the part if asked; render; measure."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .camera import Camera, intersect, look_down, sample, to_camera
from .defects import KINDS
from .parts.families import FAMILIES, Family
from .parts.pose import Pose
from .sensor import expose, measure_depth, quantise
from .shading import albedo_at, draw_lighting, render, shrink
from .surface import Array, Grid, Mask, Surface

# An edit is visible where it changes depth, mm, or unlit colour, 0 to 1, by more than this.
VISIBLE_MM = 0.15
VISIBLE_COLOUR = 0.035
# Smallest and largest share of the part's pixels that a defect may take, and its fewest pixels.
SMALLEST, LARGEST, FEWEST = 0.001, 0.033, 12


@dataclass(frozen=True)
class Capture:
    """One measured part with its ground truth.

    Attributes:
        rgb: (H, W, 3) uint8.
        xyz: (H, W, 3) float32, metres, camera frame; (0, 0, 0) where missing.
        ground_truth: (H, W) bool, where a defect is visible in the ideal view.
        foreground: (H, W) bool, where the ideal view shows the part.
        camera: the camera that took it.
    """

    rgb: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    ground_truth: Mask
    foreground: Mask
    camera: Camera


def sample_rng(seed: int, category: str, split: str, label: str, index: int) -> np.random.Generator:
    """The capture's own random generator, which depends only on these arguments."""
    name = zlib.crc32(f"{category}/{split}/{label}".encode())
    return np.random.default_rng([seed, name, index])


def _camera(family: Family, height: int, width: int, rng: np.random.Generator) -> Camera:
    focal = family.fill * min(height, width) * (family.distance - 12.0) / family.size
    tilt_x, tilt_y = rng.normal(3.5, 1.6), rng.normal(-1.5, 1.6)
    rotation, translation = look_down(family.distance * (1 + rng.normal(0, 0.004)), tilt_x, tilt_y)
    # The image is a crop of a larger one: the principal point is near, not at, its middle.
    return Camera(height, width, focal, 0.515 * width, 0.48 * height, rotation, translation)


def _difference(good: Surface, bad: Surface, camera: Camera) -> Mask:
    """(H, W) mask of pixels in at least a quarter of which the edited part visibly differs from the good one."""
    (depth_a, points_a), (depth_b, points_b) = (intersect(s, camera, 2) for s in (good, bad))
    (on_a, colour_a), (on_b, colour_b) = albedo_at(good, points_a), albedo_at(bad, points_b)
    bare = np.abs(np.clip(colour_a, 0, 1) ** (1 / 2.2) - np.clip(colour_b, 0, 1) ** (1 / 2.2)).max(-1)
    changed = (np.abs(depth_a - depth_b) > VISIBLE_MM) | ((bare > VISIBLE_COLOUR) & (on_a * on_b > 0)) | (on_a != on_b)
    # Rays that graze an unedited edge may end on either side of it, so only edited places count.
    edited = ((good.height != bad.height) | (good.albedo != bad.albedo).any(-1)).astype(np.float64)
    seen = [sample(edited, good.grid, points[..., 0], points[..., 1]) > 0 for points in (points_a, points_b)]
    changed &= seen[0] | seen[1]
    out: Mask = shrink(changed.astype(np.float64), 2) >= 0.25
    return out


def _break(surface: Surface, kind: str, camera: Camera, rng: np.random.Generator) -> tuple[Surface, Mask]:
    """A damaged part and its defect mask, redrawn until the damage is visible and small."""
    part = (intersect(surface, camera)[1][..., 2] > 0.05).sum()
    for _ in range(25):
        bad = KINDS[kind](surface, rng, rng.uniform(0.25, 1.0))
        mask = ndimage.binary_dilation(_difference(surface, bad, camera))
        if max(SMALLEST * part, FEWEST) < mask.sum() < LARGEST * part:
            return bad, mask
    raise RuntimeError(f"no visible {kind} of fitting size after 25 tries")


def capture(
    category: str,
    split: str,
    label: str,
    index: int,
    *,
    seed: int = 0,
    resolution: tuple[int, int] = (160, 192),
) -> Capture:
    """Make one capture. The same arguments give the same arrays."""
    family, rng = FAMILIES[category], sample_rng(seed, category, split, label, index)
    height, width = resolution
    camera = _camera(family, height, width, rng)
    pixel = family.distance / camera.focal
    pose = Pose(rng.uniform(0, 2 * np.pi), *(family.size * rng.normal(0, 0.018, 2)))
    grid = Grid(0.5 * family.size * 1.08 + 3.0, 0.40 * pixel, pose.x, pose.y)
    surface = family.make(pose, grid, rng)
    lighting = draw_lighting(rng)

    ground_truth = np.zeros(resolution, dtype=bool)
    if label != "good":
        surface, ground_truth = _break(surface, label, camera, rng)
    view = render(surface, camera, lighting, np.asarray(family.table), rng)
    rgb = expose(shrink(view.radiance, 2), family.exposure, rng)
    projector = camera.centre + np.array([-0.20 * family.distance, 0.05 * family.distance, 0.0])
    brightness: Array = shrink(view.albedo, 2).mean(-1)
    depth, missing, foreground = measure_depth(surface, camera, brightness, projector, family.dropout, rng)
    return Capture(rgb, quantise(to_camera(camera, depth, missing)), ground_truth, foreground, camera)
