"""Light that differs from part to part without any of them being defective."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from das3d_cli.synthesis.perlin import perlin
from das3d_cli.synthesis.random import ItemRandom

_COARSER = 4  # by how much patches of light, a quarter of the image wide at least, are coarser than the image


def relight(rgb: Tensor, random: ItemRandom, amount: float) -> Tensor:
    """Change the lamps: overall brightness, colour balance, and where on the part the light falls.

    Args:
        rgb: float32, (B, 3, S, S), in [0, 1]; black background stays black.
        random: one stream per item.
        amount: largest change of brightness, as a share, both overall and of soft patches as wide as a quarter to the
            whole of the image; the colours change by a quarter of it.

    Returns:
        float32, (B, 3, S, S), in [0, 1].
    """
    if amount == 0:
        return rgb
    gain = 1 + random.uniform(1, 1, 1, low=-amount, high=amount)
    balance = 1 + random.uniform(3, 1, 1, low=-amount / 4, high=amount / 4)
    patches = perlin(random, rgb.shape[-1] // _COARSER, scale_max=2)
    patches = F.interpolate(1 + amount * patches[:, None], scale_factor=_COARSER, mode="bilinear", align_corners=False)
    return (rgb * (gain * balance) * patches).clamp(0, 1)
