"""Perlin gradient noise (Perlin 1985) for a batch: every item has its own lattice, scale and rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from das3d_cli.fused import fused
from das3d_cli.synthesis.random import ItemRandom

_PERIOD = 64  # lattice cells before the noise repeats, a power of two
_LAST = _PERIOD - 1


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
    cells = torch.exp2(random.integers(2, high=scale_max + 1).float())
    shift = random.uniform(2, high=float(_PERIOD))
    directions = random.uniform(_PERIOD * _PERIOD, high=2 * math.pi)
    return _noise(angle, cells, shift, directions, size)


@fused
def _noise(angle: Tensor, cells: Tensor, shift: Tensor, directions: Tensor, size: int) -> Tensor:
    axis = (torch.arange(size, device=angle.device) + 0.5) / size - 0.5
    step_x, step_y = (cells[:, place, None] * axis for place in (0, 1))
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x = (cos * step_x + shift[:, :1])[:, None, :] - (sin * step_x)[:, :, None]
    y = (sin * step_y + shift[:, 1:])[:, None, :] + (cos * step_y)[:, :, None]

    along_x, along_y = directions.cos(), directions.sin()
    left, top = x.floor(), y.floor()
    columns, rows = _wrapped(left.long()), [row * _PERIOD for row in _wrapped(top.long())]
    across, down = x - left, y - top
    from_columns, from_rows = (across, across - 1), (down, down - 1)

    def corner(i: int, j: int) -> Tensor:
        place = (rows[j] + columns[i]).flatten(1)
        gradient_x, gradient_y = (g.gather(1, place).view_as(x) for g in (along_x, along_y))
        return torch.addcmul(gradient_x * from_columns[i], gradient_y, from_rows[j])

    blend_x, blend_y = _fade(across), _fade(down)
    upper = torch.lerp(corner(0, 0), corner(1, 0), blend_x)
    lower = torch.lerp(corner(0, 1), corner(1, 1), blend_x)
    return torch.lerp(upper, lower, blend_y) * math.sqrt(2)


def _wrapped(first: Tensor) -> tuple[Tensor, Tensor]:
    """A lattice line and the next one, within the period."""
    return first & _LAST, (first + 1) & _LAST


def _fade(t: Tensor) -> Tensor:
    """Perlin's quintic ease curve: flat to the second derivative at both ends."""
    return t * t * t * (t * (t * 6 - 15) + 10)
