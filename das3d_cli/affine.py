"""Where the pixels of turned and moved images are taken from."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


@functools.cache  # none is let go: a recorded CUDA graph reads it where it lay
def middles(size: int, device: torch.device) -> Tensor:
    """Where the middles of `size` pixels in a row are, in half sides: (size,), from just over -1 to just below 1."""
    with torch.inference_mode(False):  # whoever asks first, training uses it too
        return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1


def places(matrix: Tensor, offset: Tensor, size: int) -> Tensor:
    """Matrix times pixel plus offset, for all pixels of square images, a pixel in half sides from the middle.

    As torch's `affine_grid`, whose batched products of two by two take a CPU 25 times as long.

    Args:
        matrix: (B, 2, 2).
        offset: (B, 2).
        size: side S of the images, pixels.

    Returns:
        (B, 2, S, S), x and y; in half sides, and with its axes moved, what `grid_sample` takes without align_corners.
    """
    axis = middles(size, matrix.device).to(matrix.dtype)
    by_column = matrix[:, :, :1] * axis + offset[:, :, None]
    by_row = matrix[:, :, 1:] * axis
    return by_column[:, :, None, :] + by_row[:, :, :, None]


def turning(angle: Tensor) -> Tensor:
    """Where images that are turned from the x towards the y axis take their pixels from: (B,), radians, to (B, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, sin, -sin, cos), dim=1).view(-1, 2, 2)


def sampled(images: Tensor, taken: Tensor) -> Tensor:
    """Images (B, C, S, S) at places (B, 2, S, S), x and y in half sides; zero beyond the images."""
    grid = taken.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
