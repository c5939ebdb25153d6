"""PNG files marked as written by das3d, which replaces and removes no others."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from das3d_cli.errors import UsageError
from das3d_cli.files import check_folder, is_there, write_whole
from das3d_cli.report.draw import Picture

_START = 33  # bytes that must come first in a PNG: the signature and the header with the size
_SOFTWARE = b"tEXtSoftware\0das3d"
_MARK = struct.pack(">I", len(_SOFTWARE) - 4) + _SOFTWARE + struct.pack(">I", zlib.crc32(_SOFTWARE))


def write_png(path: Path, picture: Picture) -> None:
    """Write the picture as a PNG marked as das3d's, whole or not at all.

    Raises:
        DataError: the file cannot be written there.
    """
    check_folder(path)
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    data = encoded.tobytes()
    write_whole(path, data[:_START] + _MARK + data[_START:])


def forget(path: Path) -> bool:
    """Remove an old file of `write_png`, which would pass for a picture that is not made; returns whether it was removed."""
    if _is_own(path):
        with contextlib.suppress(OSError):
            path.unlink()
            return True
    return False


def check_replaceable(option: str, picture: Path, *beside: Path) -> None:
    """Check that a picture, and the files written beside it, would replace nothing but earlier output of das3d.

    Args:
        option: the command-line option that asks for it, as the user gave it.

    Raises:
        UsageError: there is something else, such as a photo of a part.
    """
    if _is_own(picture):
        return
    if other := next((path for path in (picture, *beside) if is_there(path)), None):
        raise UsageError(f"{option}: would replace {other}, which das3d did not write; choose another place")


def _is_own(path: Path) -> bool:
    """Whether `write_png` made this file."""
    try:
        if not path.is_file():  # opening a pipe would block
            return False
        with path.open("rb") as file:
            return file.read(_START + len(_MARK))[_START:] == _MARK
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return False
