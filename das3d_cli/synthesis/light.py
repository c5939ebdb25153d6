"""Light that differs from part to part without any of them being defective."""

from __future__ import annotations

import torch
from torch import Tensor

from das3d_cli.synthesis.random import ItemRandom


def relight(rgb: Tensor, random: ItemRandom, amount: float) -> Tensor:
    """Change the lamps: overall brightness, colour balance, and a slow gradient across the image.

    Args:
        rgb: float32, (B, 3, S, S), in [0, 1]; black background stays black.
        random: one stream per item.
        amount: largest change of brightness, as a share; the gradient is half of it and the colours a quarter.
    """
    if amount == 0:
        return rgb
    gain = 1 + random.uniform(1, 1, 1, low=-amount, high=amount)
    balance = 1 + random.uniform(3, 1, 1, low=-amount / 4, high=amount / 4)
    slope = random.uniform(2, low=-amount / 2, high=amount / 2)
    axis = torch.linspace(-1, 1, rgb.shape[-1], device=rgb.device)
    gradient = 1 + slope[:, 0, None, None] * axis[:, None] + slope[:, 1, None, None] * axis
    return (rgb * gain * balance * gradient[:, None]).clamp(0, 1)
