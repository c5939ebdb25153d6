"""From files to one raw capture. Whatever is wrong with a file is one `DataError` that names it."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from das3d_cli.data.capture import RawCapture
from das3d_cli.errors import DataError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
FARTHEST_M = 20.0


def read_capture(rgb_path: Path, xyz_path: Path) -> RawCapture:
    """Read one part: a colour image and an organised point cloud of the same size.

    Raises:
        DataError: as `read_rgb` and `read_xyz`, or the two differ in size.
    """
    rgb, xyz = read_rgb(rgb_path), read_xyz(xyz_path)
    check_size(rgb_path, rgb, xyz)
    return RawCapture(rgb, xyz)


def check_size(name: Path | str, image: NDArray[Any], xyz: NDArray[np.float32]) -> None:
    """Raise a DataError unless the image called `name` covers the point cloud pixel by pixel."""
    if image.shape[:2] != xyz.shape[:2]:
        raise DataError(
            f"{name}: is {_extent(image.shape[:2])} pixels, but its point cloud is {_extent(xyz.shape[:2])}; "
            "both must show the same view at the same size"
        )


def read_xyz(path: Path) -> NDArray[np.float32]:
    """Read an organised point cloud from a floating-point TIFF.

    Returns:
        float32, (H, W, 3), metres in the camera's frame. A point stored as (0, 0, 0) or with any NaN is NaN
        in all three.

    Raises:
        DataError: missing, truncated or no TIFF; not (H, W, 3); not floating point; infinite values; every
            point missing; millimetres.
    """
    data = _read(path, "point cloud")
    if data.startswith(PNG_MAGIC):
        raise DataError(f"{path}: is a PNG, a TIFF point cloud is wanted here; swapped with the colour image?")
    if not data.startswith(TIFF_MAGICS):
        raise DataError(f"{path}: is not a TIFF file; save the point cloud as an H x W x 3 float32 TIFF")
    try:
        with _strict_tifffile():
            xyz: NDArray[Any] = tifffile.imread(io.BytesIO(data))
    except Exception as error:  # noqa: BLE001  (a damaged file can break the decoder anywhere)
        cause = str(error).partition("\n")[0]
        raise DataError(f"{path}: damaged or unsupported TIFF; export it again ({cause})") from None

    return as_points(xyz, str(path))


def as_points(xyz: NDArray[Any], name: str) -> NDArray[np.float32]:
    """An array as an organised point cloud, as `read_xyz` returns it; `name` is what errors call it.

    Raises:
        DataError: as `read_xyz`.
    """
    if xyz.ndim != 3 or xyz.shape[2] != 3:
        raise DataError(f"{name}: is {_extent(xyz.shape)}, but a point cloud is H x W x 3; store x, y and z")
    if xyz.dtype.kind != "f":
        raise DataError(f"{name}: holds {xyz.dtype} values; store x, y and z as float32 in metres")
    with np.errstate(over="ignore"):
        points: NDArray[np.float32] = np.array(xyz, np.float32)
    if np.isinf(points).any():
        raise DataError(f"{name}: holds infinite values; mark missing points as (0, 0, 0) or NaN")

    x, y, z = (
        points[..., 0],
        points[..., 1],
        points[..., 2],
    )  # one by one: any(axis=2) takes ten times as long
    missing = np.isnan(x) | np.isnan(y) | np.isnan(z) | ((x == 0) & (y == 0) & (z == 0))
    np.copyto(points, np.nan, where=missing[..., None])
    depths = np.abs(z[~missing])
    if not depths.size:
        raise DataError(f"{name}: every point is missing; capture the part again")
    middle = float(np.median(depths[:: 1 + depths.size // 10_000]))
    if middle > FARTHEST_M:
        raise DataError(f"{name}: median distance of {middle:.0f} looks like millimetres; convert to metres")
    return points


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a colour image from an 8-bit PNG.

    Returns:
        uint8, (H, W, 3), in the order red, green, blue.

    Raises:
        DataError: missing, truncated or no PNG; grey, 16-bit or with an alpha channel.
    """
    image = as_rgb(_read_png(path, "colour image"), str(path))
    return np.ascontiguousarray(image[..., ::-1])


def as_rgb(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """An array as an 8-bit colour image of three channels; `name` is what errors call it.

    Raises:
        DataError: as `read_rgb`.
    """
    if image.dtype != np.uint8:
        raise DataError(f"{name}: has {8 * image.dtype.itemsize} bits per channel; convert it to 8-bit RGB")
    if image.ndim == 2:
        raise DataError(f"{name}: is a grey image; 8-bit RGB is wanted")
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{name}: has an alpha channel or other than three; convert it to 8-bit RGB without transparency"
        )
    return image


def read_ground_truth(path: Path) -> NDArray[np.bool_]:
    """Read where the defect is from a PNG of any kind.

    Returns:
        bool, (H, W), true where any channel but alpha is above 0.

    Raises:
        DataError: missing, truncated or no PNG.
    """
    image = _read_png(path, "ground truth")
    colours = image[..., None] if image.ndim == 2 else image[..., :3]
    return np.asarray((colours > 0).any(axis=2))


def _read(path: Path, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a {what} is wanted here") from None
    except OSError as error:
        raise DataError(f"{path}: {what} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not data:
        raise DataError(f"{path}: is empty; copy or export it again")
    return data


@contextlib.contextmanager
def _strict_tifffile() -> Iterator[None]:
    """Raise what tifffile only logs: from a damaged file it returns what is left, or zeros."""
    reader = threading.get_ident()

    def judge(record: logging.LogRecord) -> bool:
        if record.thread == reader and record.levelno >= logging.ERROR:
            raise ValueError(record.getMessage())
        return record.thread != reader

    logger = logging.getLogger("tifffile")
    logger.addFilter(judge)
    try:
        yield
    finally:
        logger.removeFilter(judge)


def _read_png(path: Path, what: str) -> NDArray[Any]:
    data = _read(path, what)
    if data.startswith(TIFF_MAGICS):
        raise DataError(f"{path}: is a TIFF, a PNG {what} is wanted here; swapped with the point cloud?")
    if not data.startswith(PNG_MAGIC):
        raise DataError(f"{path}: is not a PNG file; save the {what} as PNG")
    try:
        pixels = PNG_MAGIC + b"".join(_pixel_chunks(data))
        image = cv2.imdecode(np.frombuffer(pixels, np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error):
        image = None
    if image is None:
        raise DataError(f"{path}: damaged or truncated PNG; copy or export it again")
    return np.asarray(image)


def _pixel_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the chunks that hold pixels, checked; libpng would print about bad ones and odd profiles."""
    start, kind = len(PNG_MAGIC), b""
    while kind != b"IEND":
        kind = data[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(data[start + 4 : end - 4]) != checksum:
            raise ValueError("damaged chunk")
        if kind in PIXEL_CHUNKS:
            yield data[start:end]
        start = end


def _extent(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
