"""What procedural textures are made of: grey fields of noise, stripes, cells, cracks and the like.

A structure maps a generator and a size to a field in 0..1. Some imitate what is found on damaged parts (rust,
scratches, cracks, dust), the others are merely foreign to them. Fields are float32, (size, size); lengths are
shares of the side.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.float32]
Structure = Callable[[np.random.Generator, int], Field]


def _float32(values: ArrayLike) -> Field:
    return np.asarray(values, dtype=np.float32)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number so that every octave between the bounds is equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _unit(values: ArrayLike) -> Field:
    """Stretched to 0..1."""
    field = _float32(values)
    low, high = float(field.min()), float(field.max())
    return (field - low) / max(high - low, 1e-6)


def _noise(rng: np.random.Generator, size: int, scale: float, stretch: float = 1.0) -> Field:
    """Smooth noise with blobs of about `scale`, `stretch` times longer in one random direction."""
    if stretch == 1.0:
        cells = max(2, round(1 / scale) + 1)
        lattice = rng.random((cells, cells), dtype=np.float32)
        return _float32(cv2.resize(lattice, (size, size), interpolation=cv2.INTER_CUBIC))
    wide = int(np.ceil(1.5 * size))
    rows, columns = max(3, round(1.5 / scale)), max(3, round(1.5 / (scale * stretch)))
    lattice = rng.random((rows, columns), dtype=np.float32)
    field = cv2.resize(lattice, (wide, wide), interpolation=cv2.INTER_CUBIC)
    angle = float(rng.uniform(0, 180))
    turn = np.asarray(cv2.getRotationMatrix2D((wide / 2, wide / 2), angle, 1.0), dtype=np.float64)
    turn[:, 2] -= (wide - size) / 2
    return _float32(cv2.warpAffine(field, turn, (size, size), borderMode=cv2.BORDER_REFLECT))


def fractal(rng: np.random.Generator, size: int, scale: float, gain: float = 0.5, stretch: float = 1.0) -> Field:
    """Octaves of noise from `scale` down to two pixels, each `gain` times the one before; 0..1."""
    field, weight = np.zeros((size, size), np.float32), 1.0
    while weight > 0.05:
        field += weight * _noise(rng, size, scale, stretch)
        scale, weight = scale / 2, weight * gain
        if scale * size < 2:
            break
    return _unit(field)


def _axes(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Two coordinates in units of the side, turned by a random angle."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    return _float32(cos * x + sin * y), _float32(cos * y - sin * x)


def warp(rng: np.random.Generator, field: Field) -> Field:
    """The field bent along smooth noise."""
    size = len(field)
    scale, reach = log_uniform(rng, 0.1, 0.6), rng.uniform(0.05, 0.3)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    dx, dy = (reach * size * scale * (2 * _noise(rng, size, scale) - 1) for _ in range(2))
    bent = cv2.remap(field, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.clip(_float32(bent), 0, 1)


def relief(field: Field) -> Field:
    """The field as a surface lit from the upper left, about -1..1."""
    smooth = cv2.GaussianBlur(field, (0, 0), 1.0)
    slope = _float32(cv2.Sobel(smooth, cv2.CV_32F, 1, 0)) + _float32(cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return _float32(np.clip(-slope / (3 * slope.std() + 1e-6), -1, 1))


def _soften(rng: np.random.Generator, wave: Field) -> Field:
    """Map a wave in -1..1 to 0..1, shaped from round to square, with a random share above the middle."""
    sharpness = log_uniform(rng, 0.8, 12)
    return _unit(np.tanh(sharpness * (wave - rng.uniform(-0.5, 0.5))))


def _canvas(field: Field) -> NDArray[np.uint8]:
    """A field in 0..1 as a grey image to draw on."""
    return (field * 255).astype(np.uint8)


def _drawn(canvas: NDArray[np.uint8]) -> Field:
    return _float32(canvas / 255)


def _blotches(rng: np.random.Generator, size: int) -> Field:
    return fractal(rng, size, scale=log_uniform(rng, 0.06, 0.8), gain=rng.uniform(0.3, 0.75))


def _brushed(rng: np.random.Generator, size: int) -> Field:
    return fractal(rng, size, scale=log_uniform(rng, 0.012, 0.1), stretch=log_uniform(rng, 4, 30))


def _marble(rng: np.random.Generator, size: int) -> Field:
    u, _ = _axes(rng, size)
    turbulence = fractal(rng, size, scale=log_uniform(rng, 0.15, 0.8), gain=0.55)
    wave = np.sin(2 * np.pi * (u * log_uniform(rng, 0.7, 8) + rng.uniform(0.5, 4) * turbulence))
    return _unit(np.abs(wave) ** rng.uniform(0.3, 1.5))


def _stripes(rng: np.random.Generator, size: int) -> Field:
    u, _ = _axes(rng, size)
    bend = rng.uniform(0, 0.15) * _noise(rng, size, log_uniform(rng, 0.2, 0.8))
    return _soften(rng, np.sin(2 * np.pi * log_uniform(rng, 2, 24) * (u + bend)))


def _rings(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    centre = rng.uniform(-0.8, 0.8, 2)
    bend = rng.uniform(0, 0.2) * _noise(rng, size, 0.3)
    radius = _float32(np.hypot(u - centre[0], v - centre[1])) + bend
    return _soften(rng, np.sin(2 * np.pi * log_uniform(rng, 3, 20) * radius))


def _checks(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    across, along = log_uniform(rng, 2, 12), log_uniform(rng, 2, 12)
    columns, rows = np.floor(u * across).astype(int), np.floor(v * along).astype(int)
    if rng.random() < 0.5:
        values = ((columns + rows) % 2).astype(np.float32)
    else:
        values = rng.random((64, 64), dtype=np.float32)[rows % 64, columns % 64]
    from_centre = np.maximum(np.abs(u * across % 1 - 0.5), np.abs(v * along % 1 - 0.5))
    joint = from_centre > 0.5 - max(0.0, rng.uniform(-0.05, 0.1))
    return _float32(np.where(joint, rng.integers(2), 0.15 + 0.7 * values))


def _dots(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    pitch = log_uniform(rng, 3, 16)
    shift = 0.5 * (np.floor(v * pitch) % 2) * rng.integers(2)
    distance = np.hypot((u * pitch + shift) % 1 - 0.5, v * pitch % 1 - 0.5)
    return _unit(np.tanh(log_uniform(rng, 1, 15) * (rng.uniform(0.15, 0.45) - distance)))


def _spots(rng: np.random.Generator, size: int) -> Field:
    """Discs of all sizes on a cloudy ground: pores, drops, chips."""
    canvas = _canvas(0.4 * fractal(rng, size, scale=0.3))
    largest = log_uniform(rng, 0.015, 0.12) * size
    for _ in range(int(np.clip(0.15 * size**2 / largest**2, 5, 150))):
        x, y = rng.integers(0, size, 2).tolist()
        radius = max(1, round(largest * rng.random() ** 2))
        cv2.circle(canvas, (x, y), radius, int(rng.integers(120, 256)), -1, cv2.LINE_AA)
    return _drawn(canvas)


def _cells(rng: np.random.Generator, size: int) -> Field:
    """Voronoi cells: flat facets, domes, or a web of borders."""
    points = rng.random((int(log_uniform(rng, 8, 120)), 2), dtype=np.float32) * size
    seeds = np.full((size, size), 255, np.uint8)
    rows, columns = points.astype(int).T
    seeds[rows, columns] = 0
    distance, owner = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    kind = rng.integers(3)
    if kind == 0:
        return _float32(rng.random(int(owner.max()) + 1)[owner])
    if kind == 1:
        return _unit(distance)
    inside = cv2.morphologyEx(owner.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))) == 0
    to_border = _float32(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3))
    return _float32(np.exp(-to_border / (size * rng.uniform(0.008, 0.04))))


def _weave(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    threads = log_uniform(rng, 5, 24)
    over = (np.floor(u * threads) + np.floor(v * threads)) % 2
    across, along = (np.abs(np.sin(np.pi * threads * axis)) for axis in (u, v))
    tone = rng.uniform(0.5, 1.0)
    return _unit(np.where(over > 0, across * (0.6 + 0.4 * along), tone * along * (0.6 + 0.4 * across)))


def _cracks(rng: np.random.Generator, size: int) -> Field:
    """Jagged dark paths that branch, on a cloudy ground."""
    canvas = _canvas(0.6 + 0.4 * fractal(rng, size, scale=0.2))
    for _ in range(int(rng.integers(3, 12))):
        steps = int(rng.integers(12, 50))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.45, steps))
        stride = size * rng.uniform(0.015, 0.05)
        stride_xy = stride * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        path = rng.uniform(0, size, 2) + np.cumsum(stride_xy, axis=0)
        width = max(1, round(size * rng.uniform(0.004, 0.02)))
        cv2.polylines(canvas, [path.astype(np.int32)], False, int(rng.integers(0, 60)), width, cv2.LINE_AA)
        branch = path[steps // 2] + np.cumsum(rng.normal(0, stride, (steps // 2, 2)), axis=0)
        cv2.polylines(canvas, [branch.astype(np.int32)], False, int(rng.integers(0, 90)), 1, cv2.LINE_AA)
    return _drawn(canvas)


def _scratches(rng: np.random.Generator, size: int) -> Field:
    """Thin straight lines about one direction, on a calm ground."""
    canvas = _canvas(0.15 + 0.3 * fractal(rng, size, scale=0.4))
    direction, spread = rng.uniform(0, np.pi), log_uniform(rng, 0.03, 1.5)
    for _ in range(int(log_uniform(rng, 8, 120))):
        centre, angle = rng.uniform(0, size, 2), direction + rng.normal(0, spread)
        half = size * rng.uniform(0.05, 0.6) * np.array([np.cos(angle), np.sin(angle)])
        line = np.stack([centre - half, centre + half]).astype(np.int32)
        width = 1 if rng.random() < 0.8 else max(1, size // 64)
        cv2.polylines(canvas, [line], False, int(rng.integers(110, 256)), width, cv2.LINE_AA)
    return _drawn(canvas)


def _speckle(rng: np.random.Generator, size: int) -> Field:
    """Grains of dust: thresholded fine noise."""
    grain = rng.standard_normal((size, size), dtype=np.float32)
    smooth = cv2.GaussianBlur(grain, (0, 0), max(0.4, size * log_uniform(rng, 0.004, 0.02)))
    return _soften(rng, _float32(np.clip(_float32(smooth) / (2 * np.std(smooth)), -1, 1) - rng.uniform(0, 0.5)))


def _gradient(rng: np.random.Generator, size: int) -> Field:
    u, v = _axes(rng, size)
    ramp = u if rng.random() < 0.5 else np.hypot(u - rng.uniform(-0.5, 0.5), v - rng.uniform(-0.5, 0.5))
    return _unit(_unit(ramp) + rng.uniform(0, 0.3) * fractal(rng, size, scale=0.2))


def _rust(rng: np.random.Generator, size: int) -> Field:
    """Ragged islands with a rough inside on a smooth ground."""
    islands = fractal(rng, size, scale=log_uniform(rng, 0.12, 0.5), gain=0.65)
    rough = fractal(rng, size, scale=0.05, gain=0.8)
    edge = np.clip((islands - rng.uniform(0.35, 0.6)) * log_uniform(rng, 6, 30), 0, 1)
    return _unit(edge * (0.5 + 0.5 * rough) + 0.08 * (1 - edge) * rough)


def _plain(rng: np.random.Generator, size: int) -> Field:
    """Paint, oil or dust: one colour, hardly clouded."""
    calm = fractal(rng, size, scale=log_uniform(rng, 0.1, 1.0))
    return _float32(np.clip(rng.random() + rng.uniform(0.02, 0.15) * (calm - 0.5), 0, 1))


STRUCTURES: tuple[Structure, ...] = (
    _blotches,
    _brushed,
    _marble,
    _stripes,
    _rings,
    _checks,
    _dots,
    _spots,
    _cells,
    _weave,
    _cracks,
    _scratches,
    _speckle,
    _gradient,
    _rust,
    _plain,
)
