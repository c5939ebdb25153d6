"""Decode files into arrays, completely or not at all.

The exception is a JPEG that is damaged in the middle, as JPEGs have no checksum. Whatever is wrong with a file is raised
as one `DataError` that names it.
"""

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

from das3d_cli.errors import DataError
from das3d_cli.files import reason

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_END, _TRAILER = b"\xff\xd9", 4096  # bytes; some cameras append a few to the image


def read_bytes(path: Path, what: str) -> bytes:
    """Read a file's contents; `what` names the expected kind of file in errors.

    Raises:
        DataError: missing, empty or not readable.
    """
    try:
        # Reading a pipe blocks until somebody writes to it, and a device may have no end; the shell's own pipes, in /dev,
        # have a writer.
        if path.is_char_device() or (path.is_fifo() and not path.is_relative_to("/dev")):
            raise DataError(f"{path}: is a pipe or a device; store the {what} in a file")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a {what} is expected here") from None
    except OSError as error:
        raise DataError(f"{path}: {what} cannot be read: {reason(error)}") from None
    if not data:
        raise DataError(f"{path}: is empty; copy or export it again")
    return data


def decode_tiff(path: Path, data: bytes) -> NDArray[Any]:
    """The TIFF's array, as stored.

    Raises:
        DataError: damaged, truncated or of a kind that cannot be read.
    """
    try:
        with _strict_tifffile():
            array: NDArray[Any] = tifffile.imread(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (a damaged file can break the decoder anywhere)
        cause = str(error).partition("\n")[0]
        raise DataError(f"{path}: damaged or unsupported TIFF; export it again ({cause})") from None
    if not array.size:
        raise DataError(f"{path}: is a TIFF without an image; export it again")
    return array


def decode_image(path: Path, data: bytes, what: str, *, upright: bool = False) -> NDArray[Any]:
    """The pixels of a PNG or JPEG as stored, in OpenCV's channel order; `upright` turns a JPEG as its EXIF data says.

    Raises:
        DataError: damaged, truncated or neither of the two.
    """
    if data.startswith(TIFF_MAGICS):
        raise DataError(f"{path}: is a TIFF, but a PNG {what} is expected here; swapped with the point cloud?")
    if data.startswith(PNG_MAGIC):
        chunks = _pixel_chunks(data)
        kind, pixels = "PNG", PNG_MAGIC + b"".join(chunks) if chunks else b""
    elif data.startswith(JPEG_MAGIC):
        kind, pixels = "JPEG", data if _JPEG_END in data[-_TRAILER:] else b""
    else:
        raise DataError(f"{path}: is not a PNG file; save the {what} as PNG")
    try:
        how = cv2.IMREAD_ANYCOLOR if upright and kind == "JPEG" else cv2.IMREAD_UNCHANGED
        image = cv2.imdecode(np.frombuffer(pixels, np.uint8), how) if pixels else None
    except cv2.error as error:
        if short_of_memory(error):
            raise MemoryError from None
        image = None
    if image is None:
        raise DataError(f"{path}: damaged or truncated {kind}; copy or export it again")
    return np.asarray(image)


def short_of_memory(error: cv2.error) -> bool:
    """Whether OpenCV ran out of memory, by the text: `code` is a class attribute, set by the last error of any thread."""
    return f"({cv2.Error.STS_NO_MEM}:" in str(error)


class _Reader(threading.local):
    """Whether this thread is reading a file."""

    reads = False


_reader = _Reader()


def _judge(record: logging.LogRecord) -> bool:
    """Raise what tifffile only logs: for a damaged file it returns what is left, or zeros."""
    if _reader.reads and record.levelno >= logging.ERROR:
        raise ValueError(record.getMessage())
    return not _reader.reads


# Never removed: if a thread removed a filter while another one logs, the logger could skip the next filter.
logging.getLogger("tifffile").addFilter(_judge)


@contextlib.contextmanager
def _strict_tifffile() -> Iterator[None]:
    _reader.reads = True
    try:
        yield
    finally:
        _reader.reads = False


def _pixel_chunks(data: bytes) -> list[bytes]:
    """The chunks that hold pixels, or none if any chunk is damaged; libpng would print about bad ones and odd profiles."""
    start, kind, chunks = len(PNG_MAGIC), b"", []
    while kind != b"IEND":
        kind = data[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(data[start + 4 : end - 4]) != checksum:
            return []
        if kind in _PIXEL_CHUNKS:
            chunks.append(data[start:end])
        start = end
    return chunks
