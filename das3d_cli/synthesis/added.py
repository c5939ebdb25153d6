"""Material where a good part has none: filled holes, burrs, and what sticks to an edge.

The paper's defects change a part or take something away. What has too much of it is learnt from these.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.batch import background_depth
from das3d_cli.modality import Modality
from das3d_cli.synthesis.patches import beyond, ellipses, pick_textures
from das3d_cli.synthesis.random import ItemRandom

_REACH = 1 / 16  # about how far from the part material is added, as a share of the side: to a small hole's middle
_ASPECT_MAX = 3.0
_ENCLOSED = 0.6  # least share of the window that the part fills around a hole or slot; beside an edge it is half
# Height of what is added, from that of the part around it (0) to that of the part's lowest point (1), which stands for
# the table.
_HEIGHTS = (-0.2, 0.7)
_COARSER = 4  # means around pixels are computed this much coarser than the images
_NONE = 1e-6  # less than the share of one pixel


class Added(NamedTuple):
    """B parts with material added, as in `das3d_cli.batch.Batch`; mask: bool, (B, 1, S, S), where it was added."""

    rgb: Tensor
    depth: Tensor
    foreground: Tensor
    mask: Tensor


def add_material(
    rgb: Tensor,
    depth: Tensor,
    foreground: Tensor,
    textures: Tensor,
    random: ItemRandom,
    *,
    share: float,
    radius_min: float,
    radius_max: float,
    modality: Modality = "both",
) -> Added:
    """Fill an elliptic patch of the background beside some parts, or in their holes, in both modalities.

    Half of the patches lie in holes and slots, if there are any: beside the whole outline, these are small. The depth
    of a patch follows the part around it; its colour is between that of the part around it and a texture.

    Args:
        rgb: float32, (B, 3, S, S), in [0, 1], black off the part.
        depth: float32, (B, 1, S, S), in [0, 1].
        foreground: bool, (B, 1, S, S).
        textures: uint8, (T, 3, S, S).
        random: one stream per item.
        share: chance that a part gets a patch; it gets none if it has no background.
        radius_min, radius_max: bounds of the patch's half length, as shares of the side.
        modality: "rgb" adds nothing, since the foreground is derived from the depth; "depth" leaves the RGB as it is.
    """
    nothing = torch.zeros_like(foreground)
    if share == 0 or modality == "rgb":
        return Added(rgb, depth, foreground, nothing)
    size = foreground.shape[-1]
    around, filled = _around(torch.cat((rgb, depth), dim=1), foreground)
    beside = (filled > _NONE) & ~foreground
    enclosed = beside & (filled > _ENCLOSED)
    sought = enclosed.flatten(1).any(dim=1)[:, None, None, None] & random.bernoulli(1, 1, 1, probability=0.5)
    patch = ellipses(random, torch.where(sought, enclosed, beside)[:, 0], 1, radius_min, radius_max, _ASPECT_MAX)
    added = beside & (beyond(size, *patch, torch.ones_like(patch[0], dtype=torch.bool)) <= 0)
    added &= random.bernoulli(1, 1, 1, probability=share)
    height = random.uniform(1, 1, 1, low=_HEIGHTS[0], high=_HEIGHTS[1]).to(depth.dtype)
    own = random.uniform(1, 1, 1).to(rgb.dtype)
    colour = torch.lerp(pick_textures(random, textures).to(rgb.dtype), around[:, :3], own)
    deep = torch.lerp(around[:, 3:], background_depth(depth * foreground), height).clamp(0, 1)
    return Added(
        rgb=rgb if modality == "depth" else torch.where(added, colour, rgb),
        depth=torch.where(added, deep, depth),
        foreground=foreground | added,
        mask=added,
    )


def _around(images: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the images' pixels on the part in a square window around each pixel, and the window's share of these."""
    on_part = part.to(images.dtype)
    means = F.avg_pool2d(torch.cat((images * on_part, on_part), dim=1), _COARSER)
    reach = max(1, round(_REACH * means.shape[-1]))
    means = F.avg_pool2d(means, 2 * reach + 1, 1, reach)
    means = F.interpolate(means, scale_factor=_COARSER, mode="bilinear", align_corners=False)
    share = means[:, -1:]
    return means[:, :-1] / share.clamp_min(_NONE), share
