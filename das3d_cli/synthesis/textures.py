"""The foreign textures I_u that colour a synthetic defect (Eq. 8): a procedural bank, or a folder of images.

A procedural texture is one of `STRUCTURES`, coloured by a random palette, perhaps bent, tinted and lit, and
grained.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.errors import DataError
from das3d_cli.synthesis.structures import STRUCTURES, Field, Structure, fractal, log_uniform, relief, warp

Textures = NDArray[np.uint8]

# A file that cannot be decoded raises one error that names it; OpenCV's messages would not.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})


def procedural_textures(count: int, size: int, seed: int) -> Textures:
    """A bank of made-up textures, varied in colour, contrast, scale and structure.

    Texture i depends on `size`, `seed` and i alone, so a longer bank begins with the shorter one.

    Args:
        count: number of textures.
        size: side in pixels.
        seed: any non-negative integer.

    Returns:
        uint8, (count, size, size, 3), RGB.
    """
    order = np.random.default_rng(seed).permutation(len(STRUCTURES))
    bank = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        # Structures take turns, so that even a small bank holds every one of them.
        structure = STRUCTURES[order[index % len(order)]]
        bank[index] = _texture(np.random.default_rng((seed, index)), size, structure)
    return bank


def folder_textures(folder: Path, count: int, size: int, seed: int) -> Textures:
    """Random square crops of the images below a folder (DTD for instance), scaled to `size`.

    Every image is used before one is used twice.

    Args:
        folder: searched recursively for JPEG, PNG, BMP and TIFF files; hidden ones are skipped.
        count: number of textures.
        size: side in pixels.
        seed: any non-negative integer.

    Returns:
        uint8, (count, size, size, 3), RGB.

    Raises:
        DataError: the folder is missing or holds no image, or an image cannot be decoded.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of textures; name a folder with images in it")
    paths = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES and p.name[0] != "." and p.is_file()
    )
    if not paths:
        raise DataError(f"{folder}: no texture images (jpg, png, bmp or tiff) in this folder or those in it")
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(len(paths)) for _ in range(-(-count // len(paths)))]
    picks = [pick for order in rounds for pick in order.tolist()][:count]
    bank = np.empty((count, size, size, 3), np.uint8)
    for index, pick in enumerate(picks):
        bank[index] = _random_crop(rng, _read_rgb(paths[pick]), size)
    return bank


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    try:
        # Decoded from memory, because imread cannot open every path that Python can.
        bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        bgr = None
    if bgr is None:
        raise DataError(f"{path}: cannot be read as an image; remove it from the texture folder or replace it")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _random_crop(rng: np.random.Generator, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    longest = min(height, width)
    side = int(rng.integers(min(size, longest), longest, endpoint=True))
    top = int(rng.integers(0, height - side, endpoint=True))
    left = int(rng.integers(0, width - side, endpoint=True))
    crop = image[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(crop, (size, size), interpolation=interpolation).astype(np.uint8, copy=False)


def _texture(rng: np.random.Generator, size: int, structure: Structure) -> NDArray[np.uint8]:
    field = structure(rng, size)
    if rng.random() < 0.3:
        field = warp(rng, field)
    colour = _colour(field, _palette(rng))
    if rng.random() < 0.3:
        tint = fractal(rng, size, scale=log_uniform(rng, 0.3, 1.0))
        colour *= 1 + rng.uniform(0.1, 0.4) * (tint[..., None] - 0.5)
    if rng.random() < 0.25:
        colour *= 1 + rng.uniform(0.15, 0.5) * relief(field)[..., None]
    grain = rng.standard_normal((size, size, 1 if rng.random() < 0.7 else 3), dtype=np.float32)
    colour += log_uniform(rng, 0.002, 0.05) * grain
    rendered: NDArray[np.uint8] = (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
    return rendered


def _palette(rng: np.random.Generator) -> NDArray[np.float32]:
    """(K, 3) RGB stops in 0..1 about one base colour, from calm to glaring."""
    tone = rng.choice(["vivid", "muted", "dark", "light", "grey"])
    saturation, value = {
        "vivid": (rng.uniform(0.6, 1.0), rng.uniform(0.5, 1.0)),
        "muted": (rng.uniform(0.2, 0.55), rng.uniform(0.3, 0.8)),
        "dark": (rng.uniform(0.0, 0.8), rng.uniform(0.04, 0.3)),
        "light": (rng.uniform(0.0, 0.35), rng.uniform(0.8, 1.0)),
        "grey": (rng.uniform(0.0, 0.08), rng.uniform(0.1, 0.9)),
    }[str(tone)]
    stops = int(rng.integers(2, 6))
    contrast = log_uniform(rng, 0.1, 1.4)
    # Uniform hues would be a third green; rust, wood, skin and brass lie between red and yellow.
    hue = np.interp(rng.random(), [0.0, 0.4, 0.6, 0.85, 1.0], [0.0, 60.0, 170.0, 260.0, 360.0])
    hue_spread = rng.choice([4.0, 20.0, 60.0, 180.0], p=[0.35, 0.3, 0.15, 0.2]) * min(1.0, 2 * contrast)
    hues = (hue + rng.uniform(-hue_spread, hue_spread, stops)) % 360
    saturations = saturation * (1 + 0.5 * contrast * rng.uniform(-1, 1, stops))
    # Evenly spread values keep the wanted contrast; a shift holds them in range instead of clipping them flat.
    values = value + min(contrast, 0.9) * (np.linspace(-0.5, 0.5, stops) + rng.uniform(-0.1, 0.1, stops))
    values -= max(0.0, float(values.max()) - 1) + min(0.0, float(values.min()) - 0.02)
    hsv = np.stack([hues, np.clip(saturations, 0, 1), np.clip(values, 0, 1)], axis=-1)
    rgb = np.asarray(cv2.cvtColor(hsv.astype(np.float32)[None], cv2.COLOR_HSV2RGB)[0], dtype=np.float32)
    return rng.permutation(rgb) if rng.random() < 0.5 else rgb[:: int(rng.choice([-1, 1]))]


def _colour(field: Field, palette: NDArray[np.float32]) -> Field:
    """(S, S, 3): the field looked up in the palette, linear between stops."""
    steps = np.linspace(0, len(palette) - 1, 256)
    ramp = np.stack([np.interp(steps, np.arange(len(palette)), channel) for channel in palette.T], axis=-1)
    lookup: Field = ramp.astype(np.float32)[(field * 255).astype(np.uint8)]
    return lookup
