"""Turn and mirror whole samples, as parts lie on the table."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.batch import Batch, background_depth, turned_left
from das3d_cli.fused import fused
from das3d_cli.synthesis.random import ItemRandom


def turn(batch: Batch, random: ItemRandom, *, rotate: bool, flip: bool) -> Batch:
    """Turn every sample by its own angle about the image centre; mirror half of them if `flip`.

    Resampling blurs, and test images are not blurred. So half of the samples turn by quarters, which is exact, and
    the rest by any angle.
    """
    mirrored = random.bernoulli(1, 1, 1, probability=0.5) if flip else None
    if not rotate:
        return batch if mirrored is None else _mirrored(batch, mirrored)
    half, quarter = random.bernoulli(1, 1, 1, probability=0.5), random.bernoulli(1, 1, 1, probability=0.5)
    angle = random.uniform(low=-math.pi / 4, high=math.pi / 4)
    freely = random.bernoulli(1, 1, 1, probability=0.5)
    return _turned(batch, mirrored, half, quarter, freely, angle)


@fused
def _mirrored(batch: Batch, mirrored: Tensor) -> Batch:
    image, parallax = torch.cat((batch.rgb, batch.depth, batch.foreground.float()), dim=1), batch.parallax
    image = torch.where(mirrored, image.flip(3), image)
    across = torch.stack((-parallax[:, 0], parallax[:, 1]), dim=1)
    return _unstack(image, torch.where(mirrored[:, 0, 0], across, parallax))


@fused
def _turned(
    batch: Batch, mirrored: Tensor | None, half: Tensor, quarter: Tensor, freely: Tensor, angle: Tensor
) -> Batch:
    if mirrored is not None:
        batch = _mirrored(batch, mirrored)
    image, parallax = torch.cat((batch.rgb, batch.depth, batch.foreground.float()), dim=1), batch.parallax
    image = torch.where(half, image.flip((2, 3)), image)
    image = torch.where(quarter, image.transpose(2, 3).flip(2), image)
    parallax = torch.where(half[:, 0, 0], -parallax, parallax)
    parallax = torch.where(quarter[:, 0, 0], turned_left(parallax), parallax)
    exact = _unstack(image, parallax)
    turned = _rotated(exact, angle)
    rgb, depth, foreground = (torch.where(freely, a, b) for a, b in zip(turned.images, exact.images, strict=True))
    return Batch(rgb, depth, foreground, torch.where(freely[:, 0, 0], turned.parallax, parallax))


def _unstack(image: Tensor, parallax: Tensor) -> Batch:
    return Batch(image[:, :3], image[:, 3:4], image[:, 4:] > 0.5, parallax)


def _rotated(batch: Batch, angle: Tensor) -> Batch:
    """Resample the part alone (weighted by the foreground), so that its edge takes on nothing of the background."""
    foreground = batch.foreground.float()
    image = torch.cat((batch.rgb * foreground, batch.depth * foreground, foreground), dim=1)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack((cos, -sin, zero, sin, cos, zero), dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weight = image[:, 4:]
    inside = weight >= 0.5
    scale = torch.where(inside, 1 / weight.clamp_min(1e-6), 0.0)
    depth = image[:, 3:4] * scale
    x, y = batch.parallax.unbind(dim=1)
    parallax = torch.stack((cos * x + sin * y, cos * y - sin * x), dim=1)
    return Batch(image[:, :3] * scale, torch.where(inside, depth, background_depth(depth)), inside, parallax)
