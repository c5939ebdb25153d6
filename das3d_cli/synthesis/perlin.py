"""Perlin gradient noise (Perlin 1985) for a batch: every item has its own lattice, scale and rotation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.affine import places
from das3d_cli.fused import fused
from das3d_cli.synthesis.random import ItemRandom


def perlin(random: ItemRandom, size: int, *, scale_max: int) -> Tensor:
    """Noise images with 2^0 to 2^scale_max lattice cells along each axis, the lattice turned at random.

    The sampling coordinates are turned, not the finished image, so nothing is interpolated twice.

    Args:
        random: one stream per item.
        size: side of the images, pixels.
        scale_max: largest power of two; drawn separately for the two axes.

    Returns:
        float32, (B, size, size), zero at lattice points, within about [-1, 1].
    """
    angle = random.uniform(low=-math.pi / 2, high=math.pi / 2)
    cells = torch.exp2(random.integers(2, high=scale_max + 1).to(angle.dtype))
    shift = random.uniform(2)
    reach = math.ceil(2**scale_max * math.sqrt(0.5))  # cells from the middle to a corner, however the lattice is turned
    lines = 2 * reach + 2
    gradient = random.fork(0).uniform(lines, lines, high=2 * math.pi)  # other draws stay in the stream's beginning
    return _noise(angle, cells, shift, gradient, size)


@fused
def _noise(angle: Tensor, cells: Tensor, shift: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Noise about the middle of a lattice.

    Within a cell it is the mean of what its corners' gradients g_i say of a place p, with weights w_i that ease from corner
    to corner: sum of w_i g_i (p - l_i) = p sum of w_i g_i - sum of w_i g_i l_i, where l_i is a corner's place. These
    sums are bilinear samples of g and g l at places that are eased likewise.

    Args:
        angle: (B,), of the lattice, radians.
        cells: (B, 2), along either axis of the image.
        shift: (B, 2), of the lattice, in [0, 1) cells.
        gradient: (B, L, L), their directions, radians; L is even and spans all places.
    """
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((cos, -sin, sin, cos), dim=1).view(-1, 2, 2)
    place = places(turn * (cells / 2)[:, :, None], shift, size)
    corner = place.floor()
    eased = corner + _fade(place - corner)

    lines = gradient.shape[-1]
    line = torch.arange(lines, device=angle.device) - (lines // 2 - 1)
    x, y = gradient.cos(), gradient.sin()
    lattice = torch.stack((x, y, -(x * line + y * line[:, None])), dim=1) * math.sqrt(2)
    grid = ((2 * eased - 1) / (lines - 1)).permute(0, 2, 3, 1)  # the middle of the lattice is between lines 0 and 1
    x, y, offset = F.grid_sample(lattice, grid, mode="bilinear", align_corners=True).unbind(dim=1)
    return torch.addcmul(torch.addcmul(offset, x, place[:, 0]), y, place[:, 1])


def _fade(t: Tensor) -> Tensor:
    """Perlin's quintic ease curve: flat to the second derivative at both ends."""
    return t * t * t * (t * (t * 6 - 15) + 10)
