"""Defects as edits of a part's geometry or colour, made before anything is rendered.

Every kind is a function (surface, rng, severity) -> Surface; severity runs from 0, barely visible, to 1,
gross. Sizes are mm on parts of 60 to 100 mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from .parts.pose import wobble
from .surface import Array, Colour, Surface, mix, paint, segment_distance, smoothstep


def _between(low: float, high: float, severity: float) -> float:
    """Geometric interpolation."""
    return float(low * (high / low) ** severity)


def _spot(surface: Surface, rng: np.random.Generator, margin: float, steepest: float = 0.9) -> tuple[float, float]:
    """A random place on the part at least `margin` mm from its outline, on ground that is not too steep."""
    grid = surface.grid
    inside = ndimage.distance_transform_edt(surface.height > 3.0) * grid.step
    smooth = ndimage.gaussian_filter(surface.height, 1.0 / grid.step)
    dy, dx = np.gradient(smooth, grid.step)
    allowed = (inside > margin) & (np.hypot(dx, dy) < steepest) & (surface.height > 6.0)
    if not allowed.any():
        allowed = inside >= 0.8 * inside.max()
    rows, cols = np.nonzero(allowed)
    k = rng.integers(rows.size)
    return float(grid.offsets[cols[k]] + grid.cx), float(grid.offsets[rows[k]] + grid.cy)


def _blob(surface: Surface, at: tuple[float, float], radius: float, ragged: float, rng: np.random.Generator) -> Array:
    """Distance from `at` relative to the radius of an irregular, slightly elongated blob: 1 on its outline."""
    grid = surface.grid
    turn, stretch = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(1.0, 1.8))
    dx, dy = grid.x - at[0], grid.y - at[1]
    u = (np.cos(turn) * dx + np.sin(turn) * dy) / stretch
    v = (-np.sin(turn) * dx + np.cos(turn) * dy) * stretch
    outline = radius * np.clip(1 + wobble(np.arctan2(v, u), range(2, 7), ragged, rng), 0.4, 1.8)
    rho: Array = np.hypot(u, v) / outline
    return rho


def _path(at: tuple[float, float], length: float, bend: float, jag: float, rng: np.random.Generator) -> Array:
    """(k, 2) points of a wandering line of about `length` mm centred on `at`."""
    count = max(4, int(length / 1.2))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, count)) + rng.normal(0, jag, count)
    steps = length / count * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    points = np.cumsum(steps, axis=0)
    path: Array = points - points.mean(axis=0) + np.asarray(at)
    return path


def _line_distance(surface: Surface, points: Array, reach: float) -> tuple[Array, Array]:
    """Distance to a polyline where it is below `reach` (else inf), and a 0..1 taper towards its ends."""
    grid = surface.grid
    low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
    window = (grid.x > low[0]) & (grid.x < high[0]) & (grid.y > low[1]) & (grid.y < high[1])
    distance = np.full(window.shape, np.inf)
    distance[window] = segment_distance(grid.x[window], grid.y[window], points)
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    ends = np.full(window.shape, np.inf)
    for end in (points[0], points[-1]):
        ends[window] = np.minimum(ends[window], np.hypot(grid.x[window] - end[0], grid.y[window] - end[1]))
    return distance, smoothstep(0.0, 0.22 * length, np.where(np.isfinite(ends), ends, 0.0))


def _reshape(surface: Surface, height: Array, *, albedo: Array | None = None, gloss: Array | None = None) -> Surface:
    """The same part with a new height, and new colour and gloss if given; the table is unchanged."""
    return replace(
        surface,
        height=np.where(surface.height > 0, np.clip(height, 0.3, None), 0.0),
        albedo=surface.albedo if albedo is None else albedo,
        gloss=surface.gloss if gloss is None else gloss,
    )


def hole(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A narrow pit with steep walls."""
    radius, depth = _between(0.9, 2.6, severity), _between(1.8, 9.0, severity)
    at = _spot(surface, rng, margin=radius + 1.0)
    rho = _blob(surface, at, radius, 0.10, rng)
    pit = smoothstep(1.12, 0.72, rho)
    lip = 0.12 * np.exp(-(((rho - 1.25) / 0.25) ** 2))
    albedo = mix(surface.albedo, surface.core, 0.5 * pit)
    return _reshape(surface, surface.height - depth * pit + lip, albedo=albedo, gloss=surface.gloss * (1 - pit))


def crack(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A jagged open line, sometimes with a branch."""
    length, width = _between(9.0, 28.0, severity), _between(0.45, 0.95, severity)
    at = _spot(surface, rng, margin=3.0)
    path = _path(at, length, bend=0.10, jag=0.55, rng=rng)
    lines = [path]
    if severity > 0.45 and rng.random() < 0.6:
        fork = path[len(path) // 2]
        branch = _path((0.0, 0.0), 0.4 * length, bend=0.1, jag=0.5, rng=rng)
        lines.append(branch - branch[0] + fork)
    depth = _between(0.9, 3.5, severity)
    gap = np.zeros_like(surface.height)
    for line in lines:
        distance, taper = _line_distance(surface, line, 2.0)
        gap = np.maximum(gap, np.clip(1 - distance / (width * (0.45 + 0.55 * taper)), 0, 1) * (0.35 + 0.65 * taper))
    depth_map = depth * smoothstep(0.0, 0.75, gap)
    dark = surface.albedo * (1 - 0.45 * smoothstep(0.15, 0.8, gap))[..., None]
    return _reshape(surface, surface.height - depth_map, albedo=dark, gloss=surface.gloss * (1 - 0.8 * gap))


def cut(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A clean cut by a blade: nearly straight, V-shaped, with one lip pushed up."""
    length, width = _between(6.0, 20.0, severity), _between(0.6, 1.3, severity)
    at = _spot(surface, rng, margin=2.5)
    path = _path(at, length, bend=0.025, jag=0.0, rng=rng)
    distance, taper = _line_distance(surface, path, 4.0)
    slit = np.clip(1 - distance / (width * (0.3 + 0.7 * taper)), 0, 1) * (taper > 0)
    direction = path[-1] - path[0]
    side = (surface.grid.x - path[0][0]) * direction[1] - (surface.grid.y - path[0][1]) * direction[0] > 0
    lip = _between(0.15, 0.6, severity) * taper * np.exp(-(((distance - 1.3 * width) / (0.6 * width)) ** 2)) * side
    albedo = mix(surface.albedo, surface.core, 0.6 * slit)
    height = surface.height - _between(1.0, 4.5, severity) * slit * (0.3 + 0.7 * taper) + lip
    return _reshape(surface, height, albedo=albedo, gloss=surface.gloss * (1 - slit))


def dent(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A smooth hollow that shows in depth; the colour is unchanged."""
    radius, depth = _between(2.4, 5.8, severity), _between(0.5, 2.6, severity)
    at = _spot(surface, rng, margin=0.8 * radius)
    rho = _blob(surface, at, radius, 0.05, rng)
    return _reshape(surface, surface.height - depth * np.cos(np.pi / 2 * np.clip(rho, 0, 1)) ** 2)


def bump(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A smooth swelling that shows in depth; the colour is unchanged."""
    radius, rise = _between(2.2, 5.4, severity), _between(0.5, 2.4, severity)
    at = _spot(surface, rng, margin=0.8 * radius)
    rho = _blob(surface, at, radius, 0.05, rng)
    return _reshape(surface, surface.height + rise * np.cos(np.pi / 2 * np.clip(rho, 0, 1)) ** 2)


_DIRT: tuple[Colour, ...] = (
    (0.60, 0.57, 0.48), (0.36, 0.22, 0.10), (0.10, 0.20, 0.07),
    (0.50, 0.10, 0.06), (0.08, 0.14, 0.34), (0.55, 0.42, 0.08),
)  # fmt: skip


def _foreign(surface: Surface, rng: np.random.Generator) -> Colour:
    """A colour that differs from the part's own."""
    own = surface.albedo[surface.height > 3].mean(axis=0) ** (1 / 2.2)
    far = [c for c in _DIRT if np.abs(np.asarray(c) ** (1 / 2.2) - own).max() > 0.2]
    return far[int(rng.integers(len(far)))]


def contamination(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A raised crumb or smear of foreign matter on the surface."""
    radius, thick = _between(1.4, 4.0, severity), _between(0.4, 2.0, severity) * rng.uniform(0.6, 1.2)
    at = _spot(surface, rng, margin=0.7 * radius)
    rho = _blob(surface, at, radius, 0.22, rng)
    body = smoothstep(1.05, 0.75, rho)
    lumpy = 1 + 0.25 * surface.grid.noise(1.8, rng)
    colour = paint(_foreign(surface, rng), 1 + 0.12 * surface.grid.noise(1.2, rng))
    height = surface.height + thick * lumpy * body * (1 - 0.35 * np.clip(rho, 0, 1) ** 2)
    albedo = mix(surface.albedo, colour, smoothstep(0.05, 0.5, body))
    return _reshape(surface, height, albedo=albedo, gloss=surface.gloss * (1 - body) + 0.02 * body)


def thread(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A fibre that lies on the part."""
    length, width = _between(9.0, 30.0, severity), _between(0.42, 0.75, severity)
    at = _spot(surface, rng, margin=2.0)
    distance, _ = _line_distance(surface, _path(at, length, bend=0.22, jag=0.0, rng=rng), 2.0)
    fibre = np.sqrt(np.clip(1 - (distance / width) ** 2, 0, 1))
    bed = ndimage.gaussian_filter(surface.height, 0.5 / surface.grid.step)
    height = np.where(fibre > 0, np.maximum(surface.height, bed + width * (0.3 + fibre)), surface.height)
    albedo = mix(surface.albedo, _foreign(surface, rng), smoothstep(0.0, 0.35, fibre))
    return _reshape(surface, height, albedo=albedo)


def stain(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A discoloured patch that shows in colour; the geometry is unchanged."""
    radius = _between(2.2, 5.0, severity)
    at = _spot(surface, rng, margin=0.6 * radius, steepest=2.0)
    rho = _blob(surface, at, radius, 0.16, rng)
    amount = smoothstep(1.15, 0.7, rho) * _between(0.30, 0.85, severity) * (1 + 0.12 * surface.grid.noise(2.0, rng))
    albedo = mix(surface.albedo, _foreign(surface, rng), np.clip(amount, 0, 1))
    return replace(surface, albedo=albedo, gloss=surface.gloss * (1 - 0.3 * np.clip(amount, 0, 1)))


def scratch(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """One to four thin, shallow parallel lines, brighter than the surface."""
    length, width = _between(8.0, 26.0, severity), _between(0.35, 0.6, severity)
    at = _spot(surface, rng, margin=2.0)
    path = _path(at, length, bend=0.05, jag=0.0, rng=rng)
    across = np.array([path[-1][1] - path[0][1], path[0][0] - path[-1][0]])
    across /= np.linalg.norm(across) + 1e-9
    line = np.zeros_like(surface.height)
    for k in range(1 + int(rng.integers(0, 4) * (0.3 + 0.7 * severity))):
        distance, taper = _line_distance(surface, path + across * (1.7 * k + rng.uniform(-0.3, 0.3)), 1.5)
        line = np.maximum(line, smoothstep(width, 0.4 * width, distance) * smoothstep(0.0, 0.5, taper))
    own = surface.albedo[surface.height > 3].mean()
    raw = np.asarray(surface.core) * 1.25 + (0.10 if own < 0.15 else 0.0)
    albedo = mix(surface.albedo, np.clip(raw, 0, 0.95), _between(0.35, 0.85, severity) * line)
    return _reshape(surface, surface.height - _between(0.1, 0.35, severity) * line, albedo=albedo)


def chip(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A piece broken off the part's edge."""
    grid = surface.grid
    inside = ndimage.distance_transform_edt(surface.height > 2.0) * grid.step
    outer = ~ndimage.binary_fill_holes(surface.height > 2.0)
    reach = _between(2.2, 5.5, severity)
    near_outside = ndimage.distance_transform_edt(~outer) * grid.step < 1.5
    rows, cols = np.nonzero(near_outside & (inside > 0) & (inside < 1.0))
    k = rng.integers(rows.size)
    at = (float(grid.offsets[cols[k]] + grid.cx), float(grid.offsets[rows[k]] + grid.cy))
    rho = _blob(surface, at, reach, 0.15, rng)
    floor = surface.height.max() * rng.uniform(0.15, 0.5)
    rough = 0.35 * grid.noise(2.2, rng) + 0.2 * grid.noise(1.0, rng)
    bite = floor + rough + (surface.height.max() - floor) * np.clip(rho, 0, None) ** 2.5
    broken = (bite < surface.height) & (rho < 1.2)
    fresh = smoothstep(0.1, 0.6, surface.height - bite) * broken
    albedo = mix(surface.albedo, paint(surface.core, 1 + 0.08 * grid.noise(1.0, rng)), fresh)
    height = np.where(broken, bite, surface.height)
    return _reshape(surface, height, albedo=albedo, gloss=surface.gloss * (1 - 0.7 * fresh))


def missing(surface: Surface, rng: np.random.Generator, severity: float) -> Surface:
    """A feature of the part is missing: a letter, a tread block, a rib, a bore."""
    feature = surface.features[int(rng.integers(len(surface.features)))]
    edge = smoothstep(0.0, 0.8, ndimage.gaussian_filter(feature.where.astype(float), 0.3 / surface.grid.step))
    height = surface.height + edge * (feature.height - surface.height)
    return _reshape(surface, height, albedo=mix(surface.albedo, feature.albedo, edge))


KINDS: dict[str, Callable[[Surface, np.random.Generator, float], Surface]] = {
    kind.__name__: kind for kind in (bump, chip, contamination, crack, cut, dent, hole, missing, scratch, stain, thread)
}
