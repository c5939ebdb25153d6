"""Pictures on disk, which say that das3d wrote them: it replaces and removes no others."""

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

_START = 33  # bytes of a PNG that have to come first: its signature and its size
_SOFTWARE = b"tEXtSoftware\0das3d"
_MARK = struct.pack(">I", len(_SOFTWARE) - 4) + _SOFTWARE + struct.pack(">I", zlib.crc32(_SOFTWARE))


def write_png(path: Path, picture: Picture) -> None:
    """Write the picture as PNG that says it is das3d's, whole or not at all.

    Raises:
        DataError: the file cannot be written there.
    """
    check_folder(path)
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    data = encoded.tobytes()
    write_whole(path, data[:_START] + _MARK + data[_START:])


def forget(path: Path) -> bool:
    """Remove what `write_png` wrote there, if it did: it would pass for a picture that is not made, or never comes to be."""
    if _is_own(path):
        with contextlib.suppress(OSError):
            path.unlink()
            return True
    return False


def check_replaceable(option: str, picture: Path, *beside: Path) -> None:
    """See that a picture, and what is written along with it, will replace nothing but what das3d wrote there before.

    Args:
        option: what asks for it, as the user gave it.

    Raises:
        UsageError: there is something else, a photo of a part perhaps.
    """
    if _is_own(picture):
        return
    if other := next((path for path in (picture, *beside) if is_there(path)), None):
        raise UsageError(f"{option}: would replace {other}, which das3d did not write; choose another place")


def _is_own(path: Path) -> bool:
    """Whether `write_png` made this file."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(_START + len(_MARK))[_START:] == _MARK
    except (OSError, ValueError):  # a name that no file can have as well
        return False
