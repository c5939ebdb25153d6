"""Perlin gradient noise (Perlin 1985) for a batch: every item has its own lattice, scale and rotation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.affine import places, turning
from das3d_cli.synthesis.random import ItemRandom


def perlin(random: ItemRandom, size: int, *, scale_max: int) -> Tensor:
    """Noise images with 2^0 to 2^scale_max lattice cells along each axis, the lattice turned at random.

    The sampling coordinates are turned, not the finished image, so nothing is interpolated twice.

    Args:
        random: one stream per item.
        size: side of the images, pixels.
        scale_max: largest exponent; each axis draws its own.

    Returns:
        float32, (B, size, size), zero at lattice points, within about [-1, 1].
    """
    angle = random.uniform(low=-math.pi / 2, high=math.pi / 2)
    cells = torch.exp2(random.integers(2, high=scale_max + 1).to(angle.dtype))
    shift = random.uniform(2)
    reach = math.ceil(2**scale_max * math.sqrt(0.5))  # cells from the middle to a corner, however the lattice is turned
    lines = 2 * reach + 2
    # From a fork, which leaves the stream's first numbers to other draws.
    gradient = random.fork(0).uniform(lines, lines, high=2 * math.pi)
    return _noise(angle, cells, shift, gradient, size)


def _noise(angle: Tensor, cells: Tensor, shift: Tensor, gradient: Tensor, size: int) -> Tensor:
    """Perlin noise around the middle of a lattice, (B, size, size).

    At a point p within a cell whose corners l_i have gradients g_i, it is the mean of g_i (p - l_i) with weights w_i
    that ease from corner to corner: sum of w_i g_i (p - l_i) = p sum of w_i g_i - sum of w_i g_i l_i. Both sums are
    bilinear samples, of g and of g l, at points that are eased likewise.

    Args:
        angle: (B,), rotation of the lattice, radians.
        cells: (B, 2), lattice cells along either axis of the image.
        shift: (B, 2), of the lattice, in [0, 1) cells.
        gradient: (B, L, L), directions of the gradients, radians; L is even, and the lattice covers all pixels.
    """
    lines = gradient.shape[-1]
    # Coordinates count from the first line: none is negative, so the fractional part takes one operation.
    place = places(turning(-angle) * (cells / 2)[:, :, None], shift + (lines // 2 - 1), size)
    grid = torch.rsub(_eased(place), -1, alpha=-2 / (lines - 1)).permute(0, 2, 3, 1)

    line = torch.arange(lines, device=angle.device)
    x, y = gradient.cos(), gradient.sin()
    lattice = torch.stack((x, y, -(x * line + y * line[:, None])), dim=1) * math.sqrt(2)
    x, y, offset = F.grid_sample(lattice, grid, mode="bilinear", align_corners=True).unbind(dim=1)
    return torch.addcmul(torch.addcmul(offset, x, place[:, 0]), y, place[:, 1])


def _eased(place: Tensor) -> Tensor:
    """Coordinates >= 0 with their fraction t eased by Perlin's quintic, t^3 (t (6 t - 15) + 10).

    Its first two derivatives vanish at both ends. Written with as few operations on whole images as possible.
    """
    t = place.frac()
    ten, minus_one = (torch.full((), value, device=t.device) for value in (10.0, -1.0))
    rising = torch.addcmul(ten, t, torch.rsub(t, 15, alpha=6), value=-1)
    return torch.addcmul(place, t, torch.addcmul(minus_one, t * t, rising))
