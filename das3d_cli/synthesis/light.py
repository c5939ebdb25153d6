"""Changes of light from part to part, which are no defects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.synthesis.perlin import perlin
from das3d_cli.synthesis.random import ItemRandom

_COARSER = 4  # light patches, at least a quarter of the image wide, are computed this much coarser than it


def relight(rgb: Tensor, random: ItemRandom, amount: float) -> Tensor:
    """Change the light: overall brightness, colour balance, and where it falls on the part.

    Args:
        rgb: float32, (B, 3, S, S), in [0, 1]; black background stays black, and grey images grey.
        random: one stream per item.
        amount: largest change of brightness, as a share, both overall and in soft patches a quarter to the whole of the
            image wide; the colour balance changes by up to a quarter of it.

    Returns:
        float32, (B, 3, S, S), in [0, 1].
    """
    if amount == 0:
        return rgb
    gain = 1 + random.uniform(1, 1, 1, low=-amount, high=amount)
    balance = 1 + random.uniform(3, 1, 1, low=-amount / 4, high=amount / 4)
    coloured = (rgb.amax(dim=1) > rgb.amin(dim=1)).flatten(1).any(dim=1)[:, None, None, None]
    balance = torch.where(coloured, balance, 1.0)
    patches = perlin(random, rgb.shape[-1] // _COARSER, scale_max=2)
    patches = F.interpolate(1 + amount * patches[:, None], scale_factor=_COARSER, mode="bilinear", align_corners=False)
    return (rgb * (gain * balance) * patches).clamp(0, 1)
