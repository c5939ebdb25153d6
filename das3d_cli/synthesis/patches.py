"""Elliptic patches, and the textures that fill them, for the defects of a batch on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from das3d_cli.synthesis.random import ItemRandom


def ellipses(
    random: ItemRandom, mask: Tensor, count: int, radius_min: float, radius_max: float, aspect_max: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw centres in the mask (flat indices), half lengths in pixels, aspect ratios and angles, (B, count) each."""
    size, centre = mask.shape[-1], pixels_of(random, mask, count)
    radius = random.log_uniform(count, low=radius_min * size, high=radius_max * size)
    aspect = random.log_uniform(count, low=1.0, high=aspect_max)
    return centre, radius, aspect, random.uniform(count, high=math.pi)


def pixels_of(random: ItemRandom, mask: Tensor, count: int) -> Tensor:
    """Draw pixels of each mask, (B, ..., S, S): flat indices, (B, count)."""
    rank = mask.flatten(1).cumsum(dim=1, dtype=torch.int32)
    ticket = (random.uniform(count) * rank[:, -1:]).int() + 1
    return torch.searchsorted(rank, ticket).clamp_max(mask.shape[-1] ** 2 - 1)


def within(picked: Tensor, centre: Tensor, radius: Tensor, aspect: Tensor, angle: Tensor, used: Tensor) -> Tensor:
    """The mask, (B, S, S), within the `used` ones of K ellipses, whose values are (B, K) each."""
    return picked & (beyond(picked.shape[-1], centre, radius, aspect, angle, used).amin(dim=1) <= 0)


def beyond(size: int, centre: Tensor, radius: Tensor, aspect: Tensor, angle: Tensor, used: Tensor) -> Tensor:
    """Squared distance of pixels from K ellipse centres, `aspect`-scaled across, minus radius squared: (B, K, S, S)."""
    axis = torch.arange(size, device=radius.device, dtype=radius.dtype)
    row = (axis - (centre // size)[..., None])[..., :, None]
    column = (axis - (centre % size)[..., None])[..., None, :]
    cos, sin, squeezed = (of[..., None, None] for of in (angle.cos(), angle.sin(), aspect**2))
    # (cos x + sin y)^2 + squeezed (cos y - sin x)^2 - radius^2, multiplied out: a product of thin matrices.
    of_rows = (sin**2 + squeezed * cos**2) * row**2 - torch.where(used, radius**2, -1.0)[..., None, None]
    of_columns = (cos**2 + squeezed * sin**2) * column**2
    of_both = 2 * cos * sin * (1 - squeezed) * row
    one_column, one_row = torch.ones_like(row), torch.ones_like(column)
    return torch.cat((of_rows, one_column, of_both), dim=-1) @ torch.cat((one_row, of_columns, column), dim=-2)


def pick_textures(random: ItemRandom, textures: Tensor) -> Tensor:
    """One texture per item, mirrored and transposed at random: float32, (B, 3, S, S), in [0, 1]."""
    return _texture(textures, random.integers(high=len(textures)), random.integers(high=4))


def _texture(textures: Tensor, which: Tensor, way: Tensor) -> Tensor:
    texture = textures.index_select(0, which)
    # Indexing whole items: torch.where over the four would take a CPU twenty times as long.
    ways = torch.cat((texture, texture.flip(3), texture.mT, texture.mT.flip(3)))
    return ways.index_select(0, way * len(way) + torch.arange(len(way), device=way.device)) / 255
