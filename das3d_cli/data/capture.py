"""A part as captured and as the network sees it, with the terms that describe it: labels, units, cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from das3d_cli.modality import Modality

GOOD = "good"  # the label of a part without defect
# Reserved names, used next to a data set's own defect types and categories.
OVERALL, MEAN = "all", "mean"

Foreground = Literal["table", "border", "whole"]
Masks = Mapping[str, NDArray[np.bool_]]  # defect type -> its mask on a part
UNITS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}  # in metres


@dataclass(frozen=True)
class Camera:
    """The pinhole camera that took a depth image; lengths in pixels.

    Attributes:
        fx, fy: focal lengths.
        cx, cy: principal point; None: the image's middle.
        scale: metres per stored unit of depth; None: the unit is that of the other captures.
    """

    fx: float
    fy: float
    cx: float | None = None
    cy: float | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Fixture:
    """What holds the parts and stands in the same place in all captures, all of `width` x `height` pixels.

    Attributes:
        outlines: polygons around it, each of corners (x, y) in pixels; one within another encloses what is not the fixture.
        taken: share of all that stands on the table, median of the captures.
    """

    width: int
    height: int
    outlines: tuple[tuple[tuple[int, int], ...], ...]
    taken: float


@dataclass(frozen=True)
class Form:
    """What all captures of a category share, so that a new one can be read and preprocessed alike.

    Attributes:
        modalities: what a capture consists of: "both", "rgb" or "depth".
        foreground: how the part is told from its surroundings, see `das3d_cli.data.foreground`.
        unit: of the stored coordinates, a key of `UNITS`.
        camera: of the depth images; None where the captures are point clouds or several cameras took them.
        pitch_m: least and greatest size of a pixel on the part, metres; None where samples show the whole image.
        plane_distance_m: points within this distance of the table belong to it, metres.
        fixture: what stands on the table beside the part and is ignored; None without one.
    """

    plane_distance_m: float = field(kw_only=True)
    modalities: Modality = "both"
    foreground: Foreground = "table"
    unit: str = "m"
    camera: Camera | None = None
    pitch_m: tuple[float, float] | None = None
    fixture: Fixture | None = None

    @classmethod
    def of_saved(cls, tree: Mapping[str, Any]) -> Form:
        """Restore a form from the tree that `dataclasses.asdict` made of it."""
        camera, fixture = tree["camera"], tree["fixture"]
        return cls(**{**tree, "camera": camera and Camera(**camera), "fixture": fixture and Fixture(**fixture)})


@dataclass(frozen=True)
class RawCapture:
    """One part as the camera saw it; the two arrays are aligned pixel by pixel, and one of them may be None.

    Attributes:
        rgb: uint8, (H, W, 3), in the order red, green, blue.
        xyz: float32, (H, W, 3), metres in the camera's frame. A missing point is NaN in all three coordinates.
    """

    rgb: NDArray[np.uint8] | None
    xyz: NDArray[np.float32] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = next(array.shape[:2] for array in (self.rgb, self.xyz) if array is not None)
        return height, width


def is_grey(rgb: NDArray[np.uint8]) -> bool:
    """Whether the colours of images, uint8, (..., 3), are equal everywhere."""

    def equal(some: NDArray[np.uint8]) -> bool:
        return bool((some[..., 0] == some[..., 1]).all() and (some[..., 1] == some[..., 2]).all())

    return equal(rgb[..., ::16, :]) and equal(rgb)  # colours mostly show in any few pixels


@dataclass(frozen=True)
class Geometry:
    """Where a sample came from: the table under the part, the way back to raw pixels, and measurements of the capture.

    Attributes:
        plane: (a, b, c, d), unit normal towards the camera: a*x + b*y + c*z + d is a point's height
            over the table in metres. None without points.
        tilt_deg: angle between the plane's normal and the optical axis, degrees; None without points or a visible table.
        near_m, far_m: the depths in metres that were scaled to 0 and 1; None without points.
        raw_height, raw_width: size of the raw images in pixels.
        side: side in raw pixels of the square that the sample shows.
        pad_top, pad_left: rows and columns of that square before the raw image begins; negative where the square
            begins inside the raw image.
        missing_fraction: share of raw points without a measurement.
        parallax: how far a point's image moves as the point rises from depth 1 to depth 0, x and y in half sides of the
            square; zero without points.
        within: the part does not reach the image's border.
        measured_fraction: share of the part's pixels that have a point; 1 if the capture has no point cloud.
        clipped_fraction: share of the part's points that are nearer than `near_m` or farther than `far_m`.
        pitch_m: size of a pixel on the part, metres; None without points.
        span_m: diameter of the smallest circle around the part, metres; None without points or if the whole image is shown.
        gap_m: diameter of the largest circle inside the part without a point, metres; None without points.
        brightness: mean of the part's colours, 0 to 255; None without a colour image.
        photo_offset: shift of the part's outline in the photo from that of its points, x and y in raw pixels, see
            `das3d_cli.data.alignment`; None if it cannot be told, or without points or colour image.
        grey: the image has no colours; None without one.
        tint: (red - blue) / (red + green + blue) of the part's mean colour; None without a colour image.
        sharpness: see `das3d_cli.data.sharpness`; None without a colour image, or where it cannot be told.
        fixture_share: share of the fixture's area that stands out of the table; None without a fixture.
    """

    plane: tuple[float, float, float, float] | None
    tilt_deg: float | None
    near_m: float | None
    far_m: float | None
    raw_height: int
    raw_width: int
    side: int
    pad_top: int
    pad_left: int
    missing_fraction: float
    parallax: tuple[float, float]
    within: bool = True
    measured_fraction: float = 1.0
    clipped_fraction: float = 0.0
    pitch_m: float | None = None
    span_m: float | None = None
    gap_m: float | None = None
    brightness: float | None = None
    photo_offset: tuple[float, float] | None = None
    grey: bool | None = None
    tint: float | None = None
    sharpness: float | None = None
    fixture_share: float | None = None


@dataclass(frozen=True)
class Sample:
    """One part as the network sees it: a square of S x S pixels.

    Attributes:
        rgb: uint8, (S, S, 3); 0 outside the foreground. Without an RGB image, mid-grey on the part.
        depth: float32, (S, S), in [0, 1]; the background holds the largest depth of the foreground. Without points,
            0.5 everywhere.
        foreground: bool, (S, S): the part.
        valid: bool, (S, S): the depth here was measured, not filled from neighbours.
        geometry: how to go back to metres and to raw pixels.
        ground_truth: bool, (S, S): the defect, or None where there is no annotation.
        by_type: for a part with several defect types, the mask of each, bool, (S, S), within `ground_truth`; else empty.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    geometry: Geometry
    ground_truth: NDArray[np.bool_] | None = None
    by_type: Masks = field(default_factory=dict)


def types_of(labels: Sequence[str], by_type: Mapping[int, Masks]) -> list[tuple[str, ...]]:
    """The defect types of each part: none for a good one, else the one that its label names.

    A part has several only where each has its own mask, whatever the label looks like.

    Args:
        labels: "good" or the defect type, one per part.
        by_type: index among the labels -> the masks, for parts with several types.
    """
    return [() if label == GOOD else tuple(by_type.get(i, (label,))) for i, label in enumerate(labels)]
