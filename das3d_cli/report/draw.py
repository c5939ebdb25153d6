"""What every picture needs: colours, sans-serif text, pasting and enlarging."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.files import encodable

Picture = NDArray[np.uint8]
"""uint8, (H, W, 3), RGB."""

Colour = tuple[int, int, int]

PAPER: Colour = (250, 250, 248)
INK: Colour = (34, 38, 44)
FAINT: Colour = (112, 118, 126)
OUTSIDE: Colour = (229, 231, 234)
"""Where there is no part."""

REGULAR, BOLD = 400, 600


class _Faces(threading.local):
    """A font face per thread: OpenCV sets the weight in the face itself and lets other threads run meanwhile."""

    def __init__(self) -> None:
        self.sans = cv2.FontFace("sans")


_faces = _Faces()


def blank(height: int, width: int) -> Picture:
    """An empty picture."""
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


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
    """Write `text` into the picture, starting at `x`, `size` pixels high."""
    cv2.putText(picture, encodable(text), (round(x), round(baseline)), colour, _faces.sans, size, weight)


def letter_width(text: str, size: int, weight: int = REGULAR) -> int:
    """The width in pixels that `letter` takes for the text."""
    return int(cv2.getTextSize((0, 0), encodable(text), (0, 0), _faces.sans, size, weight)[2])


def wrap(text: str, width: int, size: int, weight: int = REGULAR) -> list[str]:
    """Break the text into lines of at most `width` pixels; a single word may be wider."""
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
    """Enlarge by an integer factor, so that every source pixel covers factor x factor pixels."""
    if factor == 1:
        return picture
    height, width = picture.shape[:2]
    size = (width * factor, height * factor)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
