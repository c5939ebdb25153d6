"""Modes in which good parts vary: principal components of their differences from the mean part.

A lamp or a camera that stands a little differently, a pose that is found a little beside, a part that bulges: each makes
good parts differ from the mean part in many pixels at once, and in the same ones every time. What a few such modes explain
of a difference is no defect.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

MODES = 4  # for colour, and as many for depth
# A mode that says how these parts differ, but not how others do, makes good parts trained on look better than new ones. So
# modes found in half of the parts must explain this share of how the other half differs.
_SHARED = 0.1
_SIDE = 64  # pixels that are looked at along either side: with as few, the share of a mode is known well
_CLIP = 3.0  # spreads that a single pixel's difference counts for at most, so that a defect moves no mode far
_REACH = 3.0  # standard deviations of the good parts that a mode reaches to
_IMAGES = (slice(0, 3), slice(3, 4))  # colour and depth, whose modes are independent


def principal_modes(apart: Tensor, spread: Tensor) -> Tensor:
    """Find the modes in which N parts vary, by their differences from the mean part.

    Args:
        apart: float32, (N, 4, S, S), differences in R, G, B and depth, in the mean part's pose.
        spread: (4, S, S), in multiples of which they are compared.

    Returns:
        (MODES, 4, S, S), in units of the images: what one standard deviation of each mode adds to the mean part. Zero
        where parts vary in fewer modes.
    """
    modes = apart.new_zeros(MODES, *apart.shape[1:])
    for image in _IMAGES:
        rows = (apart[:, image] / spread[image]).clamp(-_CLIP, _CLIP).flatten(1)
        main = _main(rows)[: _count(rows)]
        deviation = (rows @ main.T).square().mean(dim=0).sqrt()
        modes[: len(main), image] = (main * deviation[:, None]).view(-1, *spread[image].shape) * spread[image]
    return modes


def _main(rows: Tensor) -> Tensor:
    """The first principal components, of length 1, of N rows around zero: (MODES or N, the row's length)."""
    _, shares = torch.linalg.eigh(rows @ rows.T)  # of the parts, which are fewer than the pixels
    return normalize(shares.T.flip(0)[:MODES] @ rows, dim=1)


def _count(rows: Tensor) -> int:
    """In how many modes N rows vary: as many as either half of them shows by the other."""
    halves, found = (rows[::2], rows[1::2]), rows.new_zeros(MODES)
    for own, other in (halves, halves[::-1]):
        main = _main(own)
        found[: len(main)] += (other @ main.T).square().sum(dim=0)
    return int((found >= _SHARED * rows.square().sum().clamp_min(1e-9)).cumprod(dim=0).sum())


def explained(apart: Tensor, modes: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """What modes explain of the differences of B parts from their mean part.

    Args:
        apart: (B, 4, S, S), differences in R, G, B and depth.
        modes: (B, MODES, 4, S, S), as `principal_modes` finds them, in the parts' poses.
        noise: (B, 4, S, S), variance of what no mode explains.
        weight: (B, 1, S, S), 0 where parts are not compared.

    Returns:
        (B, 4, S, S), in units of `apart`.
    """
    every = max(1, apart.shape[-1] // _SIDE)
    some_apart, some_modes, some_noise, some_weight = (
        images[..., every // 2 :: every, every // 2 :: every] for images in (apart, modes, noise, weight)
    )
    scale = (some_noise + some_modes.square().sum(dim=1)).rsqrt() * some_weight
    seen = (some_apart * scale).clamp(-_CLIP, _CLIP)
    along = some_modes * scale[:, None]
    found = []
    for image in _IMAGES:
        own = along[:, :, image].flatten(2)
        length = own.square().sum(dim=2)
        share = (own @ seen[:, image].flatten(1)[..., None])[..., 0] / length.clamp_min(1e-6)
        share = share.clamp(-_REACH, _REACH)
        found.append((share[:, None] @ modes[:, :, image].flatten(2)).view_as(apart[:, image]))
    return torch.cat(found, dim=1)
