"""The two forms a part takes on its way to the network: as captured, and ready for the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GOOD = "good"  # the label of a part without defect


@dataclass(frozen=True)
class RawCapture:
    """One part as the camera saw it; the two arrays are aligned pixel by pixel.

    Attributes:
        rgb: uint8, (H, W, 3), in the order red, green, blue.
        xyz: float32, (H, W, 3), metres in the camera's frame. A missing point is NaN in all three.
    """

    rgb: NDArray[np.uint8]
    xyz: NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """Where a sample came from: the table under the part, and the way back to raw pixels.

    Attributes:
        plane: (a, b, c, d), unit normal towards the camera: a*x + b*y + c*z + d is a point's height
            over the table in metres.
        tilt_deg: angle between the plane's normal and the optical axis, degrees.
        near_m, far_m: the depths in metres that were scaled to 0 and 1.
        raw_height, raw_width: size of the raw images in pixels.
        side: side in raw pixels of the square that the sample shows.
        pad_top, pad_left: rows and columns of that square before the raw image begins; negative where the square
            begins inside the raw image.
        missing_fraction: share of raw points without a measurement.
    """

    plane: tuple[float, float, float, float]
    tilt_deg: float
    near_m: float
    far_m: float
    raw_height: int
    raw_width: int
    side: int
    pad_top: int
    pad_left: int
    missing_fraction: float


@dataclass(frozen=True)
class Sample:
    """One part as the network sees it: a square of S x S pixels.

    Attributes:
        rgb: uint8, (S, S, 3); 0 outside the foreground.
        depth: float32, (S, S), in [0, 1]; the background holds the largest depth of the foreground.
        foreground: bool, (S, S): the part.
        valid: bool, (S, S): the depth here was measured, not filled from neighbours.
        geometry: how to go back to metres and to raw pixels.
        ground_truth: bool, (S, S): the defect, or None where there is no annotation.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    geometry: Geometry
    ground_truth: NDArray[np.bool_] | None = None
