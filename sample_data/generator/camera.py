"""A pinhole camera over a table, and where its rays meet a height field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .surface import Array, Grid, Mask, Surface


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels (x right, y down, z forward); pose `camera = rotation @ table + translation`, mm."""

    height: int
    width: int
    focal: float
    cx: float
    cy: float
    rotation: Array
    translation: Array

    @property
    def centre(self) -> Array:
        """The camera's position in the table's frame, mm."""
        at: Array = -self.rotation.T @ self.translation
        return at

    def directions(self, supersample: int = 1) -> Array:
        """(H*s, W*s, 3) rays in the camera's frame with z = 1, through the centres of (sub-)pixels."""
        v = (np.arange(self.height * supersample) + 0.5) / supersample - 0.5
        u = (np.arange(self.width * supersample) + 0.5) / supersample - 0.5
        x = np.broadcast_to((u - self.cx) / self.focal, (v.size, u.size))
        y = np.broadcast_to(((v - self.cy) / self.focal)[:, None], (v.size, u.size))
        return np.stack([x, y, np.ones_like(x)], axis=-1)


def look_down(distance: float, tilt_x: float, tilt_y: float) -> tuple[Array, Array]:
    """Pose of a camera whose axis meets the table's origin at `distance` mm; tilts in degrees."""
    a, b = np.radians([tilt_x, tilt_y])
    down = np.diag([1.0, -1.0, -1.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return about_x @ about_y @ down, np.array([0.0, 0.0, distance])


def _nearest(field: Array, grid: Grid, x: Array, y: Array) -> Array:
    last = grid.n - 1
    col = np.clip((x - grid.cx + grid.half) / grid.step + 0.5, 0, last).astype(np.int32)
    row = np.clip((y - grid.cy + grid.half) / grid.step + 0.5, 0, last).astype(np.int32)
    out: Array = field.ravel()[row * grid.n + col]
    return out


def sample(field: Array, grid: Grid, x: Array, y: Array) -> Array:
    """Bilinear lookup of an (n, n) or (n, n, c) field at table points; outside it, the border values are used."""
    col = np.clip((x - grid.cx + grid.half) / grid.step, 0, grid.n - 1.001)
    row = np.clip((y - grid.cy + grid.half) / grid.step, 0, grid.n - 1.001)
    c0, r0 = col.astype(np.int32), row.astype(np.int32)
    fx, fy = col - c0, row - r0
    flat = field.reshape(grid.n * grid.n, -1) if field.ndim == 3 else field.ravel()
    if field.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    at = r0 * grid.n + c0
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    bottom = flat[at + grid.n] * (1 - fx) + flat[at + grid.n + 1] * fx
    out: Array = top * (1 - fy) + bottom * fy
    return out


def intersect(surface: Surface, camera: Camera, supersample: int = 1) -> tuple[Array, Array]:
    """First hit of every ray with the part or the table.

    Each ray is marched from the height of the part's top down to the table in steps of about one grid cell, then the
    first crossing is bisected.

    Returns:
        depth (h, w) along the camera's z, mm, and the hit points (h, w, 3) in the table's frame, mm.
    """
    grid, height = surface.grid, surface.height
    rays = camera.directions(supersample) @ camera.rotation  # row vectors: equals rotation.T @ ray
    shape, rays = rays.shape[:2], rays.reshape(-1, 3)
    origin, top = camera.centre, float(height.max()) + 1e-3
    start, end = (top - origin[2]) / rays[:, 2], -origin[2] / rays[:, 2]
    depth = end.copy()

    reach = grid.half + grid.step
    on_patch = np.ones(len(rays), dtype=bool)
    for axis, centre in ((0, grid.cx), (1, grid.cy)):
        first = origin[axis] + start * rays[:, axis] - centre
        last = origin[axis] + end * rays[:, axis] - centre
        on_patch &= (np.minimum(first, last) < reach) & (np.maximum(first, last) > -reach)
    active = np.flatnonzero(on_patch)
    drift = np.abs((end - start)[:, None] * rays[:, :2])[active].max(initial=0.0)
    steps = int(np.clip(np.ceil(drift / grid.step * 1.4), 24, 400))

    def over(index: NDArray[np.intp], t: Array, lookup: Callable[[Array, Grid, Array, Array], Array]) -> Array:
        x, y, z = (origin[k] + t * rays[index, k] for k in range(3))
        above: Array = z - lookup(height, grid, x, y)
        return above

    hit_index, hit_step = [], []
    for step in range(1, steps + 1):
        t = start[active] + (end - start)[active] * (step / steps)
        below = over(active, t, _nearest) <= 0
        hit_index.append(active[below])
        hit_step.append(np.full(int(below.sum()), step))
        active = active[~below]
    index, at = np.concatenate(hit_index), np.concatenate(hit_step)
    span = (end - start)[index] / steps
    low = start[index] + span * np.maximum(at - 1.5, 0)
    high = start[index] + span * np.minimum(at + 0.5, steps)
    for _ in range(9):
        middle = (low + high) / 2
        below = over(index, middle, sample) <= 0
        high, low = np.where(below, middle, high), np.where(below, low, middle)
    depth[index] = (low + high) / 2
    points = origin + depth[:, None] * rays
    return depth.reshape(shape), points.reshape(*shape, 3)


def openness(surface: Surface, points: Array, towards: Array, softness: float, bias: float = 0.25) -> Array:
    """How freely points see a light, (m,): 1 free, 0 blocked, in between in the soft edge of a shadow.

    Args:
        points: (m, 3) on the surface, mm.
        towards: (m, 3) or (3,) unit vectors to the light.
        softness: tangent of half the light's angular size.
        bias: height over the surface at which a ray starts, mm; keeps a surface from shadowing itself.
    """
    grid, top = surface.grid, float(surface.height.max())
    towards = np.broadcast_to(towards, points.shape)
    free = np.ones(len(points))
    # Only rays that are over the patch while still below the part's top can be blocked.
    rise = (top - points[:, 2]) / np.clip(towards[:, 2], 1e-6, None)
    near = np.ones(len(points), dtype=bool)
    for axis, centre in ((0, grid.cx), (1, grid.cy)):
        start = points[:, axis] - centre
        end = start + rise * towards[:, axis]
        near &= (np.minimum(start, end) < grid.half) & (np.maximum(start, end) > -grid.half)
    active = np.flatnonzero(near)
    travelled = 1.5 * grid.step
    while active.size:
        p, d = points[active], towards[active]
        z = p[:, 2] + travelled * d[:, 2] + bias
        gap = z - _nearest(surface.height, grid, p[:, 0] + travelled * d[:, 0], p[:, 1] + travelled * d[:, 1])
        free[active] = np.minimum(free[active], 0.5 + 0.5 * gap / (softness * travelled + 1e-9))
        active = active[(z < top) & (free[active] > 0)]
        travelled += max(grid.step, 0.06 * travelled)
    return np.clip(free, 0.0, 1.0)


def to_camera(camera: Camera, depth: Array, missing: Mask) -> Array:
    """(H, W, 3) points in the camera's frame from depth along z; (0, 0, 0) where missing."""
    xyz: Array = camera.directions() * depth[..., None]
    xyz[missing] = 0.0
    return xyz
