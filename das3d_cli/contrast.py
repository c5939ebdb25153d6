"""Local contrast on the part: differences that are too faint in the image itself."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_CONTRAST_GAIN = 20.0  # brings a depth contrast of a few hundredths to order one
_COLOUR_GAIN = 8.0  # brings a colour difference of a tenth to order one
_WIDTHS = (16, 8)  # of the surroundings a pixel is compared with, as divisors of the image side


def depth_contrast(depth: Tensor, foreground: Tensor) -> Tensor:
    """Local contrast and slopes of the depth on the part, which are too faint in the depth itself.

    Args:
        depth: (B, 1, S, S), in [0, 1].
        foreground: (B, 1, S, S), 0 or 1.

    Returns:
        (B, 4, S, S), zero off the part: depth minus its mean over the part in squares of 1/16 and 1/8 of the side,
        and the differences to the next pixel right and below, all scaled to order one.
    """
    slopes = [2 * _slope(depth, foreground, axis) for axis in (-1, -2)]
    return (torch.cat([*_contrasts(depth, foreground), *slopes], dim=1) * _CONTRAST_GAIN).clamp(-4, 4)


def rgb_contrast(rgb: Tensor, foreground: Tensor) -> Tensor:
    """Local contrast of the colours, independent of the part's own colour.

    Args:
        rgb: (B, 3, S, S), in [0, 1].
        foreground: (B, 1, S, S), 0 or 1.

    Returns:
        (B, 6, S, S), zero off the part: RGB minus its mean over the part in squares of 1/16 and 1/8 of the side,
        scaled to order one.
    """
    return (torch.cat(_contrasts(rgb, foreground), dim=1) * _COLOUR_GAIN).clamp(-4, 4)


def _contrasts(image: Tensor, foreground: Tensor) -> list[Tensor]:
    """The image (B, C, S, S) minus its mean over the part within each of `_WIDTHS`; zero off the part."""
    return local_contrasts(image, foreground, *(image.shape[-1] // share // 2 for share in _WIDTHS))


def local_contrast(image: Tensor, foreground: Tensor, reach: int) -> Tensor:
    """The image (B, C, S, S) minus its mean over the part within `reach` pixels; zero off the part."""
    return local_contrasts(image, foreground, reach)[0]


def local_contrasts(image: Tensor, foreground: Tensor, *reaches: int) -> list[Tensor]:
    """As `local_contrast`, for several reaches."""
    means = box_means(torch.cat((image * foreground, foreground), dim=1), *reaches)
    return [(image - mean[:, :-1] / mean[:, -1:].clamp_min(1e-6)) * foreground for mean in means]


def _slope(depth: Tensor, foreground: Tensor, axis: int) -> Tensor:
    """Difference to the next pixel along an axis; zero where either is off the part, and at the last pixel."""
    size = depth.shape[axis] - 1
    step = depth.narrow(axis, 1, size) - depth.narrow(axis, 0, size)
    both = foreground.narrow(axis, 1, size) * foreground.narrow(axis, 0, size)
    return F.pad(step * both, (0, 1) if axis == -1 else (0, 0, 0, 1))


def box_means(image: Tensor, *reaches: int) -> list[Tensor]:
    """Means of images (B, C, S, S), in [-4, 4], over squares of 2 * reach + 1 pixels, per reach; zero off the image."""
    if image.device.type == "cpu":
        return _summed_means(image, *reaches)
    return [_banded_mean(image, reach) for reach in reaches]


def _summed_means(image: Tensor, *reaches: int) -> list[Tensor]:
    """Means from a summed-area table (Crow 1984), whose cost does not grow with the reach.

    In integers, which lose nothing: sums that overflow 32 bits wrap back in the differences, which stay within 31.
    """
    size, farthest = image.shape[-1], max(reaches)
    steps = 2.0 ** min(16, 29 - ((2 * farthest + 1) ** 2).bit_length())
    beyond = (farthest + 1, farthest)
    total = F.pad((image * steps).round().int(), beyond * 2)
    total = total.cumsum(-1, dtype=torch.int32).cumsum(-2, dtype=torch.int32)
    means = []
    for reach in reaches:
        first, last = farthest - reach, farthest + reach + 1
        rows = total.narrow(-2, last, size) - total.narrow(-2, first, size)
        squares = rows.narrow(-1, last, size) - rows.narrow(-1, first, size)
        means.append(squares.to(image.dtype) * (1 / (steps * (2 * reach + 1) ** 2)))
    return means


def _banded_mean(image: Tensor, reach: int) -> Tensor:
    """Mean as a product with a banded matrix on either side, in a third of the time that sums take on a GPU."""
    down, along = (_band(size, reach, image.device) for size in image.shape[-2:])
    with torch.autocast(image.device.type, enabled=False):
        return down @ image.float() @ along


@functools.cache
def _band(size: int, reach: int, device: torch.device) -> Tensor:
    """Matrix that averages over 2 * reach + 1 of `size` pixels: (size, size)."""
    with torch.inference_mode(False):  # training uses it too, even if inference made it first
        axis = torch.arange(size, device=device)
        return ((axis[:, None] - axis).abs() <= reach).float() / (2 * reach + 1)
