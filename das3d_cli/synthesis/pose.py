"""Turn and mirror whole samples, as parts lie on the table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from das3d_cli.affine import places, sampled
from das3d_cli.batch import Batch, on_part
from das3d_cli.synthesis.random import ItemRandom

_QUARTER = math.pi / 2


def turn(batch: Batch, random: ItemRandom, *, rotate: bool, flip: bool) -> Batch:
    """Turn every sample, and its parallax, by its own angle about the image centre; mirror half of them if `flip`.

    Resampling blurs, and test images are not blurred. So half of the samples turn by quarters, which does not, and
    the rest by any angle.
    """
    if not (rotate or flip):
        return batch
    reach = math.pi if rotate else 0.0
    angle, freely = random.uniform(low=-reach, high=reach), random.bernoulli(probability=0.5)
    mirrored = random.bernoulli(probability=0.5 if flip else 0.0)
    return _turned(batch, angle, freely, mirrored)


def _turned(batch: Batch, angle: Tensor, freely: Tensor, mirrored: Tensor) -> Batch:
    """Resample the part alone, so that its edge takes on nothing of the background: colours are black there, depths are made 0.

    Args:
        angle: (B,), radians, where `freely`; else to be rounded to quarters.
        freely, mirrored: bool, (B,).
    """
    angle = torch.where(freely, angle, (angle / _QUARTER).round() * _QUARTER)
    # Of quarters exactly 0 and 1: `affine.turning` has not what torch makes of their cosines.
    cos, sin = (torch.where(freely, x, x.round()) for x in (angle.cos(), angle.sin()))
    hand = 1 - 2 * mirrored.float()
    foreground = batch.foreground.float()
    image = torch.cat((batch.rgb, batch.depth * foreground, foreground), dim=1)
    matrix = torch.stack((hand * cos, -hand * sin, sin, cos), dim=1).view(-1, 2, 2)
    image = sampled(image, places(matrix, torch.zeros_like(batch.parallax), image.shape[-1]))
    x, y = batch.parallax.unbind(dim=1)
    parallax = torch.stack((hand * cos * x + sin * y, cos * y - hand * sin * x), dim=1)
    return Batch(*on_part(image[:, :3], image[:, 3:4], image[:, 4:]), parallax)
