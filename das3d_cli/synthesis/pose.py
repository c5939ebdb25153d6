"""Turn and mirror whole samples at random."""

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

    Resampling blurs, but test images are not blurred. So half of the samples turn by quarters, which blurs nothing, and
    the rest by any angle.
    """
    if not (rotate or flip):
        return batch
    reach = math.pi if rotate else 0.0
    angle, freely = random.uniform(low=-reach, high=reach), random.bernoulli(probability=0.5)
    mirrored = random.bernoulli(probability=0.5 if flip else 0.0)
    return _turned(batch, angle, freely, mirrored)


def _turned(batch: Batch, angle: Tensor, freely: Tensor, mirrored: Tensor) -> Batch:
    """Resample with the black background's depth set to 0 as well, so that nothing of it bleeds into the part's edge.

    Args:
        angle: (B,), radians; rounded to quarters where not `freely`.
        freely, mirrored: bool, (B,).
    """
    angle = torch.where(freely, angle, (angle / _QUARTER).round() * _QUARTER)
    # Exactly 0 and +-1 for quarters, which `affine.turning` would miss by rounding errors.
    cos, sin = (torch.where(freely, x, x.round()) for x in (angle.cos(), angle.sin()))
    hand = 1 - 2 * mirrored.float()
    foreground = batch.foreground.float()
    image = torch.cat((batch.rgb, batch.depth * foreground, foreground), dim=1)
    matrix = torch.stack((hand * cos, -hand * sin, sin, cos), dim=1).view(-1, 2, 2)
    image = sampled(image, places(matrix, torch.zeros_like(batch.parallax), image.shape[-1]))
    x, y = batch.parallax.unbind(dim=1)
    parallax = torch.stack((hand * cos * x + sin * y, cos * y - hand * sin * x), dim=1)
    return Batch(*on_part(image[:, :3], image[:, 3:4], image[:, 4:]), parallax)
