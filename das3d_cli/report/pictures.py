"""Arrays as pictures: depth, relief, masks and changes, in colours that colour-blind people can tell apart."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from das3d_cli.data.capture import RawCapture
from das3d_cli.data.plane import away
from das3d_cli.report.draw import OUTSIDE, Picture

Mask = NDArray[np.bool_]

DEFECT = (213, 94, 0)
PART = (196, 202, 210)

_BRIGHT, _AT_MOST = 230, 3.0  # brightness that dark parts are brought to, and the largest factor

_CLAY = [(28, 32, 42), (104, 106, 112), (186, 182, 175), (255, 252, 244)]
_BLUES = [(5, 48, 97), (33, 102, 172), (107, 172, 209)]
_REDS = [(244, 150, 112), (178, 24, 43), (103, 0, 31)]
_BLUE_WHITE_RED = [*_BLUES, (255, 255, 255), *_REDS]


def picture_of(capture: RawCapture, plane: tuple[float, float, float, float] | None) -> Picture:
    """A picture of a raw capture, uint8, (H, W, 3): its RGB image or, without one, a relief of its points.

    plane: of the table, by which z is known to be depth or height; None: depth.
    """
    if capture.rgb is not None or capture.xyz is None:
        return np.asarray(capture.rgb)
    depth = (away(plane) if plane else 1.0) * capture.xyz[..., 2]
    near, far = np.nanpercentile(depth, [1, 99])
    return shaded_relief((depth - near) / max(far - near, 1e-9), ~np.isnan(depth))


class Brightening(NamedTuple):
    """Factor by which images of dark parts are brightened for viewing."""

    factor: float

    @classmethod
    def of(cls, images: NDArray[np.uint8], foreground: Mask) -> Brightening:
        """The factor, 1 to 3 to one decimal, that brings the 99th percentile of the parts' brightness to a fixed value.

        Args:
            images: uint8, (N, H, W, 3), to be shown side by side; one factor keeps them comparable.
            foreground: (N, H, W), the parts.
        """
        counts = np.zeros(256, np.int64)
        for image, part in zip(images, foreground, strict=True):
            counts += np.bincount(image[part].max(axis=-1), minlength=256)
        light = int(np.searchsorted(counts.cumsum(), 0.99 * counts.sum()))
        return cls(round(min(max(_BRIGHT / light, 1.0), _AT_MOST), 1) if light else 1.0)

    def shown(self, image: NDArray[np.uint8]) -> Picture:
        """The image, brightened by the factor."""
        return np.minimum(np.round(image * self.factor), 255).astype(np.uint8)

    @property
    def notes(self) -> list[str]:
        """Notes to show beside the images; none if they are unchanged."""
        return [f"Photos are shown {self.factor:g} times as bright."] if self.factor > 1 else []


def depth_picture(depth: NDArray[np.floating], foreground: Mask, limits: tuple[float, float] | None = None) -> Picture:
    """Depth in colour, near bright and far dark.

    Args:
        depth: (H, W), larger is farther.
        foreground: (H, W), the part; all else is neutral grey.
        limits: the depths shown brightest and darkest, to compare pictures; by default the part's own.
    """
    inside = depth[foreground] if foreground.any() else np.zeros(1)
    near, far = limits or (float(inside.min()), float(inside.max()))
    nearness = 1 - np.clip((depth - near) / max(far - near, 1e-9), 0, 1)
    # The darkest end of the colour map is left out, because its hues cannot be told apart.
    shades = cv2.applyColorMap((30 + 225 * nearness).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return _on_part(np.asarray(shades[..., ::-1]), foreground)


def shaded_relief(depth: NDArray[np.floating], foreground: Mask) -> Picture:
    """The surface as matt clay, lit from the upper left.

    Args:
        depth: (H, W), larger is farther, scaled to about 0..1 over the part.
        foreground: (H, W), the part; all else is neutral grey.
    """
    from scipy.ndimage import distance_transform_edt  # takes longer to load than to draw a heat map

    if not foreground.any():
        return _on_part(np.zeros((*depth.shape, 3), np.uint8), foreground)
    # Extend the surface beyond the part's border, or the step to the background would outshine the part.
    rows, columns = distance_transform_edt(~foreground, return_distances=False, return_indices=True)
    surface = cv2.GaussianBlur(depth[rows, columns].astype(np.float32), (0, 0), 0.8)
    # A change of depth by 1 over the picture's longer side is a slope of 45 degrees.
    down, right = np.gradient(np.asarray(surface) * max(depth.shape))
    normal = np.stack([right, down, np.ones_like(down)], axis=-1)
    light = np.array([-1.0, -1.0, 1.6]) / np.linalg.norm([-1.0, -1.0, 1.6])
    lit = (normal @ light) / np.linalg.norm(normal, axis=-1)
    return _on_part(_ramp(0.12 + 0.88 * np.clip(lit, 0, 1), _CLAY), foreground)


def mask_picture(mask: Mask, foreground: Mask) -> Picture:
    """A mask in vermilion over the grey part."""
    picture = _on_part(np.broadcast_to(np.array(PART, np.uint8), (*mask.shape, 3)), foreground)
    picture[mask] = DEFECT
    return picture


def ternary_picture(mask: NDArray[np.signedinteger] | NDArray[np.floating], foreground: Mask) -> Picture:
    """The ternary mask of Eq. 1 or 2 as in the paper's Fig. 3: -1 blue, 0 white, +1 red."""
    return signed_picture(0.72 * np.sign(mask), foreground, limit=1.0)


def signed_picture(change: ArrayLike, foreground: Mask, limit: float | None = None) -> Picture:
    """A signed change, blue below and red above zero, which is white.

    Args:
        change: (H, W).
        foreground: (H, W), the part; unchanged pixels outside it are neutral grey.
        limit: the absolute change shown darkest; by default the largest.
    """
    values = np.asarray(change, dtype=np.float32)
    bound = float(np.abs(values).max()) if limit is None else limit
    picture = _ramp(0.5 + 0.5 * np.clip(values / max(bound, 1e-9), -1, 1), _BLUE_WHITE_RED)
    return _on_part(picture, foreground | (values != 0))


def _on_part(picture: Picture, foreground: Mask) -> Picture:
    return np.where(foreground[..., None], picture, np.array(OUTSIDE, np.uint8))


def _ramp(values: NDArray[np.floating], stops: list[tuple[int, int, int]]) -> Picture:
    """Values in 0..1 as colours, linear between evenly spaced stops."""
    positions = np.linspace(0, 1, len(stops))
    channels = [np.interp(values, positions, channel) for channel in zip(*stops, strict=True)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)
