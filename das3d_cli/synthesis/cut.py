"""Break a piece off some parts: along a line, as cleanly as a knife or as rough as a tear."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.batch import Batch, background_depth
from das3d_cli.synthesis.patches import pixels_of
from das3d_cli.synthesis.perlin import perlin
from das3d_cli.synthesis.random import ItemRandom

_LEAST, _MOST = 0.02, 0.3  # share of the part that may be broken off
_SLANT = 0.8  # radians: how far the line may be turned from the perpendicular to the way out from the part's middle
_ROUGH = (0.001, 0.04)  # height of the line's teeth, share of the side
_COARSER, _SCALE_MAX = 2, 4  # of the noise that they follow


class Cut(NamedTuple):
    """B parts before and after; missing: bool, (B, 1, S, S), what was broken off."""

    whole: Batch
    left: Batch
    missing: Tensor


def cut_off(batch: Batch, random: ItemRandom, *, share: float) -> Cut:
    """Break a piece off some parts, and move these so that what is left lies where a part would.

    Preprocessing centres parts, so a piece missing from one that stays where it was would show by its place. A part that
    reaches the border is not moved: it was not centred, and beyond the border nothing is known.

    Args:
        batch: float32, see `Batch`.
        random: one stream per item.
        share: chance that a line is drawn. About a fifth of the pieces are too small or too large, and are left.
    """
    part = batch.foreground
    if share == 0:
        return Cut(batch, batch, torch.zeros_like(part))
    missing = part & (_beyond_line(part, random) > 0)
    lost = missing.flatten(1).sum(dim=1) / part.flatten(1).sum(dim=1).clamp_min(1)
    chosen = random.bernoulli(probability=share) & (lost > _LEAST) & (lost < _MOST)
    missing &= chosen[:, None, None, None]
    edges = torch.stack((part[:, 0, 0], part[:, 0, -1], part[:, 0, :, 0], part[:, 0, :, -1]), dim=1)
    at_border = edges.flatten(1).any(dim=1)
    moved = torch.where(at_border[:, None], 0.0, _middle(part) - _middle(part & ~missing)).round().long()
    rgb, depth, part, missing = (_moved(image, moved) for image in (batch.rgb, batch.depth, part, missing))
    left = part & ~missing
    return Cut(
        Batch(rgb, _with_background(depth, part), part, batch.parallax),
        Batch(rgb * left, _with_background(depth, left), left, batch.parallax),
        missing,
    )


def _beyond_line(part: Tensor, random: ItemRandom) -> Tensor:
    """How far each pixel lies beyond a random line through the part, (B, 1, S, S), in pixels."""
    size = part.shape[-1]
    at = pixels_of(random, part, 1)
    axis = torch.arange(size, device=part.device, dtype=torch.float32)
    weight = part[:, 0].float()
    total = weight.sum(dim=(1, 2)).clamp_min(1)
    middle = [(weight.sum(dim=other) @ axis) / total for other in (2, 1)]
    row, column = at[:, 0] // size, at[:, 0] % size
    out = torch.atan2(row - middle[0], column - middle[1]) + random.uniform(low=-_SLANT, high=_SLANT)
    down, along = out.sin()[:, None, None], out.cos()[:, None, None]
    height = random.log_uniform(1, 1, low=_ROUGH[0] * size, high=_ROUGH[1] * size)
    noise = perlin(random, size // _COARSER, scale_max=_SCALE_MAX)[:, None]
    teeth = F.interpolate(noise, scale_factor=_COARSER, mode="bilinear", align_corners=False)[:, 0]
    beyond = (axis[:, None] - row[:, None, None]) * down + (axis - column[:, None, None]) * along
    return (beyond + height * teeth)[:, None]


def _middle(mask: Tensor) -> Tensor:
    """Row and column of the middle of the smallest box around each mask, (B, 2)."""
    size = mask.shape[-1]
    place = torch.arange(size, device=mask.device)
    used = torch.stack((mask.any(dim=3), mask.any(dim=2)), dim=1)[:, :, 0]  # (B, 2, S)
    first, last = torch.where(used, place, size).amin(dim=2), torch.where(used, place, -1).amax(dim=2)
    return (first + last) / 2


def _moved(image: Tensor, by: Tensor) -> Tensor:
    """Images (B, C, S, S) moved down and to the right by whole pixels, (B, 2); zero where nothing was."""
    size = image.shape[-1]
    rows, columns = (torch.arange(size, device=image.device) - by[:, axis, None] for axis in (0, 1))
    inside = ((rows >= 0) & (rows < size))[:, None, :, None] & ((columns >= 0) & (columns < size))[:, None, None, :]
    rows, columns = (places.clamp(0, size - 1) for places in (rows, columns))
    image = image.gather(2, rows[:, None, :, None].expand_as(image))
    return image.gather(3, columns[:, None, None, :].expand_as(image)) * inside


def _with_background(depth: Tensor, part: Tensor) -> Tensor:
    return torch.where(part, depth, background_depth(depth * part))
