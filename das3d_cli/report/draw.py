"""What every picture needs: ink and paper, sans-serif lettering, and a file that is whole or not there."""

from __future__ import annotations

import contextlib
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.errors import UsageError
from das3d_cli.files import check_folder, encodable, write_whole

Picture = NDArray[np.uint8]
"""uint8, (H, W, 3), RGB."""

Colour = tuple[int, int, int]

PAPER: Colour = (250, 250, 248)
INK: Colour = (34, 38, 44)
FAINT: Colour = (112, 118, 126)
OUTSIDE: Colour = (229, 231, 234)
"""Where there is no part."""

REGULAR, BOLD = 400, 600

_START = 33  # bytes of a PNG that have to come first: its signature and its size
_SOFTWARE = b"tEXtSoftware\0das3d"
_MARK = struct.pack(">I", len(_SOFTWARE) - 4) + _SOFTWARE + struct.pack(">I", zlib.crc32(_SOFTWARE))


class _Faces(threading.local):
    """Each thread's own, for OpenCV sets the weight in the face itself and lets other threads run meanwhile."""

    def __init__(self) -> None:
        self.sans = cv2.FontFace("sans")


_faces = _Faces()


def blank(height: int, width: int, colour: Colour = PAPER) -> Picture:
    """A picture of one colour."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def letter(
    picture: Picture,
    text: str,
    x: float,
    baseline: float,
    size: int,
    *,
    weight: int = REGULAR,
    colour: Colour = INK,
) -> None:
    """Write `text` into the picture, from `x` on, `size` pixels high."""
    cv2.putText(picture, encodable(text), (round(x), round(baseline)), colour, _faces.sans, size, weight)


def letter_width(text: str, size: int, weight: int = REGULAR) -> int:
    """How many pixels `letter` will advance."""
    return int(cv2.getTextSize((0, 0), encodable(text), (0, 0), _faces.sans, size, weight)[2])


def wrap(text: str, width: int, size: int, weight: int = REGULAR) -> list[str]:
    """The text in lines of at most `width` pixels; a single word may be wider."""
    lines: list[str] = []
    for word in text.split():
        if lines and letter_width(f"{lines[-1]} {word}", size, weight) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def paste(picture: Picture, tile: Picture, left: int, top: int) -> None:
    """Lay the tile over the picture, which must be large enough."""
    height, width = tile.shape[:2]
    picture[top : top + height, left : left + width] = tile


def enlarge(picture: Picture, factor: int) -> Picture:
    """Scaled up by a whole factor, so that every source pixel is a block of factor x factor pixels."""
    if factor == 1:
        return picture
    height, width = picture.shape[:2]
    size = (width * factor, height * factor)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


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
    if other := next((path for path in (picture, *beside) if _is_there(path)), None):
        raise UsageError(f"{option}: would replace {other}, which das3d did not write; choose another place")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a file; whoever writes it will be told
        return False


def _is_own(path: Path) -> bool:
    """Whether `write_png` made this file."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return file.read(_START + len(_MARK))[_START:] == _MARK
    except (OSError, ValueError):  # a name that no file can have as well
        return False
