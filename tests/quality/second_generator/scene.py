"""Make one capture, of a part that is damaged if asked, seen by a camera and measured; or a whole category."""

from __future__ import annotations

import functools
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from .defects import DEFECTS
from .field import SPAN, STEP, Array, Rng, noise, sampled
from .parts import PARTS, Part

COUNTS = {("train", "good"): 64, ("validation", "good"): 10, ("test", "good"): 20}
PER_DEFECT = 5
SIDE = 320  # pixels of a capture
_DISTANCE = 420.0  # of the camera, mm
_PLANES = 90  # heights at which a ray is tested against the surface
_VISIBLE_MM, _VISIBLE_COLOUR = 0.15, 0.035  # changes beyond these are visible
_FEWEST, _LARGEST = 12, 0.03  # fewest pixels of a defect, and its largest share of the image


class View(NamedTuple):
    """What the camera's (h, w) rays hit.

    Attributes:
        points: in the table's frame, mm, (h, w, 3).
        depth: along the camera's axis, mm.
        part: whether a ray hits the part.
    """

    points: Array
    depth: Array
    part: NDArray[np.bool_]


class _Camera(NamedTuple):
    centre: Array
    axes: Array  # right, down and forward, rows
    rays: Array  # (h, w, 3)

    @classmethod
    def tilted(cls, tilt: float, side: int) -> _Camera:
        t = np.radians(tilt)
        forward = np.array([0, np.sin(t), -np.cos(t)])
        right = np.array([1.0, 0, 0])
        axes = np.stack([right, np.cross(forward, right), forward]).astype(np.float32)
        at = ((np.arange(side) + 0.5) / side - 0.5) * SPAN / _DISTANCE
        u, v = np.meshgrid(at, at)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1).astype(np.float32) @ axes
        return cls((-_DISTANCE * forward).astype(np.float32), axes, rays)

    def see(self, height: Array, top: float | None = None) -> View:
        """What the rays hit on their way down from height `top`, mm, by default from above the highest point."""
        cx, cy, cz = self.centre
        top = float(height.max()) + 0.01 if top is None else top
        rx, ry, rz = np.moveaxis(self.rays, 2, 0)

        def under(z: Array | float) -> NDArray[np.bool_]:
            t = (z - cz) / rz
            return np.asarray(sampled(height, cx + t * rx, cy + t * ry) >= z)

        high, low = np.full(rz.shape, top, np.float32), np.zeros(rz.shape, np.float32)
        found = np.zeros(rz.shape, bool)
        for plane in np.linspace(top, 0, _PLANES)[1:]:
            new = under(float(plane)) & ~found
            low[new], found = plane, found | new
            high[~found] = plane
        for _ in range(6):
            middle = (low + high) / 2
            below = under(middle)
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        t = (low - cz) / rz
        points = self.centre + t[..., None] * self.rays
        return View(points.astype(np.float32), t, low > 0.2)


def _free(height: Array, points: Array, towards: Array) -> Array:
    """1 where light from the direction `towards` reaches the points, 0 in shadow, slightly blurred."""
    free, top = np.ones(points.shape[:2], np.float32), float(height.max())
    for travelled in np.arange(0.6, top / towards[2], 0.6):
        over = points + np.float32(travelled) * towards
        free[sampled(height, over[..., 0], over[..., 1]) > over[..., 2] + 0.15] = 0
    return np.asarray(cv2.GaussianBlur(free, (0, 0), 1.2), np.float32)


def _normals(height: Array) -> Array:
    smooth = cv2.GaussianBlur(height, (0, 0), 1.0)
    dy, dx = np.gradient(smooth, STEP)
    normals = np.stack([-dx, -dy, np.ones_like(dx)], axis=-1)
    return np.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True), np.float32)


def _direction(azimuth: float, elevation: float) -> Array:
    a, e = np.radians([azimuth, elevation])
    return np.float32([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])


def _photo(part: Part, camera: _Camera, rng: Rng) -> tuple[NDArray[np.uint8], Array]:
    """The image, uint8, (S, S, 3), and the highlights, (S, S), from twice as many rays per axis."""
    view = camera.see(part.height)
    x, y = view.points[..., 0], view.points[..., 1]
    normals = sampled(_normals(part.height), x, y)
    normals[~view.part] = (0, 0, 1)
    table = 0.16 + 0.01 * noise(rng, 1.0, view.depth.shape)
    reflects = np.where(view.part[..., None], sampled(part.colour, x, y), table[..., None])
    lamp = _direction(rng.normal(35, 6), rng.normal(52, 3))
    direct = np.clip(normals @ lamp, 0, None) * _free(part.height, view.points, lamp)
    half = lamp - camera.rays / np.linalg.norm(camera.rays, axis=-1, keepdims=True)
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    highlight = part.gloss * view.part * np.clip((normals * half).sum(axis=-1), 0, 1) ** 40
    around = 0.40 + 0.15 * normals[..., 2]
    light = rng.normal(1.0, 0.05) * (0.8 * direct + around)
    image = reflects * light[..., None] + highlight[..., None]
    image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    image = np.clip(1.15 * image, 0, 1) ** (1 / 2.2) + rng.normal(0, 0.012, image.shape)
    shining = cv2.resize(highlight.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), shining


def _measured(part: Part, camera: _Camera, shining: Array, rng: Rng) -> Array:
    """Points in the camera's frame, float32, (S, S, 3), metres; (0, 0, 0) where nothing was measured."""
    view = camera.see(part.height)
    normals = sampled(_normals(part.height), view.points[..., 0], view.points[..., 1])
    facing = np.where(view.part, -(normals * camera.rays).sum(axis=-1), 1)
    lit = _free(part.height, view.points, _direction(180, 66))
    chance = 0.002 + 0.6 * (facing < 0.25) + 0.9 * (lit < 0.5) + 0.5 * (shining > 0.22)
    missing = cv2.GaussianBlur(rng.uniform(size=lit.shape).astype(np.float32), (0, 0), 0.6) < chance
    error = 0.05 * rng.standard_normal(lit.shape) + 0.03 * noise(rng, 1.5, lit.shape)
    depth = view.depth + np.round(error / 0.01) * 0.01
    points = (camera.rays @ camera.axes.T) * depth[..., None] / 1000
    points[missing] = 0
    return points.astype(np.float32)


def _visible(good: Part, bad: Part, camera: _Camera) -> NDArray[np.bool_]:
    """Where two parts look different without noise and shading, (S, S)."""
    # The same for both, because on steep walls it decides where a ray ends.
    top = float(max(good.height.max(), bad.height.max())) + 0.01
    seen = [camera.see(part.height, top) for part in (good, bad)]
    depth = np.abs(seen[0].depth - seen[1].depth) > _VISIBLE_MM
    colours = [sampled(part.colour, *np.moveaxis(view.points[..., :2], 2, 0)) ** (1 / 2.2) * view.part[..., None]
               for part, view in zip((good, bad), seen, strict=True)]  # fmt: skip
    return np.asarray(depth | (np.abs(colours[0] - colours[1]).max(axis=-1) > _VISIBLE_COLOUR))


def write(folder: Path, category: str, split: str, label: str, index: int) -> None:
    """Make and write one capture, which depends only on its name."""
    rng = np.random.default_rng([2, zlib.crc32(f"{category}/{split}/{label}".encode()), index])
    part = PARTS[category](rng)
    part = part._replace(height=part.height.astype(np.float32), colour=part.colour.astype(np.float32))
    tilt = part.tilt + rng.normal(0, 0.5)
    camera, fine = _Camera.tilted(tilt, SIDE), _Camera.tilted(tilt, 2 * SIDE)
    truth = np.zeros((SIDE, SIDE), bool)
    shown = part
    while label != "good" and not _FEWEST <= truth.sum() < _LARGEST * SIDE**2:
        shown = DEFECTS[label](part, rng, rng.uniform(0.15, 1.0))
        shown = shown._replace(height=shown.height.astype(np.float32), colour=shown.colour.astype(np.float32))
        truth = cv2.dilate(_visible(part, shown, camera).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    image, shining = _photo(shown, fine, rng)
    points = _measured(shown, camera, shining, rng)
    for name in ("rgb", "xyz", "gt")[: 3 if split == "test" else 2]:
        (folder / category / split / label / name).mkdir(parents=True, exist_ok=True)
    at = folder / category / split / label
    cv2.imwrite(str(at / "rgb" / f"{index:03}.png"), image[..., ::-1])
    tifffile.imwrite(at / "xyz" / f"{index:03}.tiff", points, photometric="rgb")
    if split == "test":
        cv2.imwrite(str(at / "gt" / f"{index:03}.png"), truth.astype(np.uint8) * 255)


def make(folder: Path, category: str, workers: int, *, more: bool = False) -> None:
    """Write a category in the layout of MVTec 3D-AD, or with `more` only further test parts, none of which it has."""
    counts = COUNTS | {("test", kind): PER_DEFECT for kind in DEFECTS}
    ranges = {place: range(count) for place, count in counts.items()}
    if more:
        tested = {place: count for place, count in counts.items() if place[0] == "test"}
        ranges = {place: range(count, count + (60 if place[1] == "good" else 12)) for place, count in tested.items()}
    jobs = [(split, label, index) for (split, label), indices in ranges.items() for index in indices]
    one = functools.partial(write, folder, category)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(one, *zip(*jobs, strict=True)))
