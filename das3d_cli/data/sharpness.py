"""How sharp a photo of a part is, compared with others of its kind."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_FINE, _COARSE = 1.0, 2.0  # pixels, standard deviations of the two filters: noise from pixel to pixel passes neither
_RIM = np.ones((5, 5), np.uint8)  # what is nearer to the part's rim than this reaches is not looked at
_LEAST = 100  # pixels; fewer say nothing


def sharpness(rgb: NDArray[np.uint8], part: NDArray[np.bool_]) -> float | None:
    """Mean contrast of details a few pixels wide, as a share of the part's brightness; blur takes these away first.

    Args:
        rgb: uint8, (H, W, 3), at the resolution that the network sees: a finer photo may be as much more blurred.
        part: bool, (H, W).

    Returns:
        About 0.01 to 0.03 for most surfaces; None if too little of the part is seen, or it is black.
    """
    weight = part.astype(np.float32)
    inner = cv2.erode(part.astype(np.uint8), _RIM) > 0
    grey = rgb.mean(axis=2, dtype=np.float32) * weight
    brightness = float(grey[inner].mean()) if inner.sum() >= _LEAST else 0.0
    if brightness < 1:
        return None
    fine, coarse = (_smooth(grey, sigma) / np.maximum(_smooth(weight, sigma), 1e-3) for sigma in (_FINE, _COARSE))
    return float(np.abs(fine - coarse)[inner].mean()) / brightness


def _smooth(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT), np.float32)
