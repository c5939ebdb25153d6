"""Files in the MVTec 3D-AD layout: <category>/<split>/<label>/{rgb/NNN.png, xyz/NNN.tiff, gt/NNN.png}."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from .scene import Capture


def write_capture(folder: Path, index: int, capture: Capture, *, ground_truth: bool, foreground: bool) -> None:
    """Write one capture below `folder` (.../<split>/<label>); each file appears whole or not at all."""
    name = f"{index:03d}"
    _replace(folder / "rgb" / f"{name}.png", encode_png(capture.rgb))
    if ground_truth:
        _replace(folder / "gt" / f"{name}.png", encode_png(255 * capture.ground_truth.astype(np.uint8)))
    if foreground:
        _replace(folder / "foreground" / f"{name}.png", encode_png(255 * capture.foreground.astype(np.uint8)))
    target = folder / "xyz" / f"{name}.tiff"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    write_xyz(temporary, capture.xyz)
    temporary.replace(target)


def write_xyz(path: Path, xyz: NDArray[np.float32]) -> None:
    """Write a float32 TIFF that plain tifffile reads, without its codec extras.

    One LZMA strip of byte-wise differences between neighbouring points (12 bytes apart): a quarter of the size with
    deflate.
    """
    filters = [
        {"id": lzma.FILTER_DELTA, "dist": 12},
        {"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 2, "pb": 2, "nice_len": 273},
    ]
    data = np.ascontiguousarray(xyz, dtype="<f4")

    def strips() -> Iterator[bytes]:
        yield lzma.compress(data.tobytes(), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)

    tifffile.imwrite(
        path, strips(), shape=data.shape, dtype=data.dtype, byteorder="<", compression="lzma",
        photometric="minisblack", planarconfig="contig", rowsperstrip=data.shape[0],
        metadata=None, software=False,
    )  # fmt: skip


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit grey (H, W) or RGB (H, W, 3) PNG; each row takes the filter with the smallest residual.

    Implemented here so that the same picture gives the same bytes whatever image library is installed.
    """
    height, width = image.shape[:2]
    pixels = image.reshape(height, width, -1).astype(np.int16)
    left, up, corner = (np.zeros_like(pixels) for _ in range(3))
    left[:, 1:], up[1:], corner[1:, 1:] = pixels[:, :-1], pixels[:-1], pixels[:-1, :-1]
    guess = left + up - corner
    far_left, far_up, far_corner = (np.abs(guess - other) for other in (left, up, corner))
    paeth = np.where((far_left <= far_up) & (far_left <= far_corner), left, np.where(far_up <= far_corner, up, corner))
    rows = np.stack([pixels - p for p in (np.zeros_like(pixels), left, up, (left + up) // 2, paeth)])
    rows = (rows & 255).astype(np.uint8).reshape(5, height, -1)
    cost = np.abs(rows.view(np.int8).astype(np.int32)).sum(-1)
    best = cost.argmin(0)
    body = np.concatenate([best.astype(np.uint8)[:, None], rows[best, np.arange(height)]], axis=1).tobytes()
    colour = 2 if image.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _deflate(body)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in chunks
    )


def _deflate(data: bytes) -> bytes:
    packed = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED):
        packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy)
        packed.append(packer.compress(data) + packer.flush())
    return min(packed, key=len)


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
