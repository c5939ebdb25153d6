"""Resampling of turned and shifted images. Positions are in half sides: from the middle, in units of half the side."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


@functools.cache  # unbounded: a recorded CUDA graph reads the tensor by its address
def middles(size: int, device: torch.device) -> Tensor:
    """Centres of `size` pixels in a row, in half sides: (size,), from just above -1 to just below 1."""
    with torch.inference_mode(False):  # training uses it too, even if inference made it first
        return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1


def places(matrix: Tensor, offset: Tensor, size: int) -> Tensor:
    """Compute matrix @ pixel + offset for all pixels of square images, in half sides.

    Like torch's `affine_grid`, whose batched 2 x 2 products take 25 times as long on a CPU.

    Args:
        matrix: (B, 2, 2).
        offset: (B, 2).
        size: side S of the images, pixels.

    Returns:
        (B, 2, S, S), x and y in half sides; permuted to (B, S, S, 2), the grid for `grid_sample` without align_corners.
    """
    axis = middles(size, matrix.device).to(matrix.dtype)
    by_column = matrix[:, :, :1] * axis + offset[:, :, None]
    by_row = matrix[:, :, 1:] * axis
    return by_column[:, :, None, :] + by_row[:, :, :, None]


def turning(angle: Tensor) -> Tensor:
    """Matrices for `places` that turn images from the x towards the y axis: (B,), radians, to (B, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, sin, -sin, cos), dim=1).view(-1, 2, 2)


def sampled(images: Tensor, taken: Tensor) -> Tensor:
    """Sample images (B, C, S, S) at places (B, 2, S, S), x and y in half sides; zero outside the images."""
    grid = taken.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
