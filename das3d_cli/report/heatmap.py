"""The heat map of one part: the anomaly map over its RGB image, with a legend and the verdict."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.measure import defective, peak_level, rounded
from das3d_cli.report.draw import (
    BOLD,
    FAINT,
    INK,
    PAPER,
    REGULAR,
    Colour,
    Picture,
    blank,
    enlarge,
    letter,
    letter_width,
    paste,
)

ANOMALOUS: Colour = (196, 60, 0)
NORMAL: Colour = (0, 110, 84)

_LEAST_WIDTH = 480
_STRONGEST = 0.72


class Placement(NamedTuple):
    """Where the raw image lies in a heat map.

    Raw pixel (row, column) is the block of `scale` x `scale` pixels whose upper left corner is at row
    `top + scale * row`, column `left + scale * column`. `size` is the height of the letters in pixels.
    """

    left: int
    top: int
    scale: int
    size: int


def placement(height: int, width: int) -> Placement:
    """The placement of a raw image of this size, in pixels."""
    scale = max(1, -(-_LEAST_WIDTH // max(height, width)))
    size = max(15, round(scale * max(height, width) / 45))
    return Placement(left=size, top=round(4.6 * size), scale=scale, size=size)


def blend(
    rgb: Picture,
    anomaly_map: NDArray[np.floating],
    *,
    threshold: float,
    outline: float,
    anomalous: bool,
    scale: int = 1,
) -> Picture:
    """Blend the anomaly map over the image: transparent where low, glowing where anomalous, with defects outlined.

    Args:
        rgb: uint8, (H, W, 3).
        anomaly_map: (H, W), in 0..1.
        threshold, outline: as for `das3d_cli.measure.defective`.
        anomalous: the verdict; if true, the peak is outlined even where resizing lowered it below the threshold.
        scale: integer factor to enlarge by.

    Returns:
        uint8, (scale * H, scale * W, 3), RGB.
    """
    picture = enlarge(rgb, scale)
    height, width = picture.shape[:2]
    values = np.asarray(cv2.resize(anomaly_map.astype(np.float32), (width, height)), dtype=np.float32)
    heat = _heat(values, threshold, outline)
    # Fully transparent below a quarter, so that a normal part looks as it is.
    opacity = (_STRONGEST * np.clip((heat - 0.25) / 0.35, 0, 1) ** 2)[..., None]
    blended: Picture = np.round((1 - opacity) * picture + opacity * _glow(heat)).astype(np.uint8)
    inside = defective(values, peak_level(values, threshold, anomalous), outline)
    thickness = max(1, round(max(height, width) / 500))
    # A white line within a black one shows on any part; both lie outside the region, so that a small one stays visible.
    for reach, colour in ((2 * thickness, 0), (thickness, 255)):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        blended[(cv2.dilate(inside.astype(np.uint8), disc) > 0) & ~inside] = colour
    return blended


def overlay(
    rgb: Picture,
    anomaly_map: NDArray[np.floating],
    *,
    threshold: float,
    outline: float,
    score: float,
    anomalous: bool,
    defect_mm: float | None = None,
    title: str = "",
) -> Picture:
    """The complete heat map of a part: verdict and figures, the blended image, and a colour legend.

    The image keeps the raw geometry; `placement(H, W)` gives its position and the integer factor by which a small one
    is enlarged.

    Args:
        rgb: uint8, (H, W, 3), the raw image.
        anomaly_map: (H, W), in 0..1, in the raw image's geometry.
        threshold: anomaly score from which a part is anomalous.
        outline: value of the map at which a defect is outlined.
        score: the part's anomaly score.
        anomalous: the verdict.
        defect_mm: longest extent of a defect in millimetres, if one is known.
        title: which part this is.

    Returns:
        uint8, (H', W', 3), RGB.
    """
    place = placement(*rgb.shape[:2])
    image = blend(rgb, anomaly_map, threshold=threshold, outline=outline, anomalous=anomalous, scale=place.scale)
    height, width = image.shape[:2]
    size = place.size
    verdict, colour = ("ANOMALOUS", ANOMALOUS) if anomalous else ("NORMAL", NORMAL)
    figures = f"score {score:.3f}    threshold {threshold:.3f}"
    if defect_mm is not None:
        figures += f"    defect {rounded(defect_mm)} mm"

    legend_left = place.left + width + size
    legend_width = size + round(0.8 * size) + letter_width("threshold", size)
    needed = max(letter_width(figures, size), letter_width(f"{verdict}   {title}", round(1.4 * size), BOLD))
    canvas = blank(place.top + height + size, max(legend_left + legend_width, place.left + needed) + size)
    big = round(1.4 * size)
    letter(canvas, verdict, place.left, 2.1 * size, big, weight=BOLD, colour=colour)
    letter(canvas, title, place.left + letter_width(f"{verdict}  ", big, BOLD), 2.1 * size, size, colour=FAINT)
    letter(canvas, figures, place.left, 3.8 * size, size)
    paste(canvas, image, place.left, place.top)
    _legend(canvas, legend_left, place.top, height, threshold, outline, size)
    return canvas


def _legend(canvas: Picture, left: int, top: int, height: int, threshold: float, outline: float, size: int) -> None:
    """Draw the colour bar, from 0 at the bottom to 1 at the top, with ticks and the threshold."""
    values = np.linspace(1, 0, height, dtype=np.float32)
    bar = np.repeat(_glow(_heat(values, threshold, outline))[:, None], size, axis=1)
    paste(canvas, np.round(bar).astype(np.uint8), left, top)
    text_left = left + size + round(0.8 * size)

    def mark(value: float, label: str, weight: int, colour: Colour) -> None:
        y = top + round((1 - value) * (height - 1))
        cv2.line(canvas, (left + size, y), (text_left - size // 4, y), colour, max(1, size // 12))
        baseline = min(max(y + 0.36 * size, top + 0.75 * size), top + height)
        letter(canvas, label, text_left, baseline, size, weight=weight, colour=colour)

    room = 1.4 * size / height
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        if abs(tick - threshold) > room:
            mark(tick, f"{tick:g}", REGULAR, FAINT)
    if 0 <= threshold <= 1:
        y = top + round((1 - threshold) * (height - 1))
        cv2.line(canvas, (left, y), (left + size - 1, y), PAPER, max(1, size // 8))
        mark(threshold, "threshold", BOLD, INK)


def _heat(values: NDArray[np.float32], threshold: float, outline: float) -> NDArray[np.float32]:
    """Map values to 0..1: the threshold to 0.5, where the colours change character, and the outline to 0.25 or more."""
    middle = float(np.clip(threshold, 1e-6, 1 - 1e-6))
    low = min(max(outline, 0.0), middle / 2)
    return np.interp(values, [0.0, low, middle, 1.0], [0.0, 0.25, 0.5, 1.0]).astype(np.float32)


def _glow(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Black, violet, red, orange, yellow: brightness always increases, so that hues need not be told apart."""
    colours = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(colours[..., ::-1], dtype=np.float32).reshape(*heat.shape, 3)
