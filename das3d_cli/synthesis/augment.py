"""Dual-modality anomaly synthesis: Eq. 1, 2, 5 to 8 and 12, for a batch on any device.

random = ItemRandom.of(seed=0, step=0, indices=torch.arange(len(rgb)))
augmented = augment(rgb, depth, foreground, textures, random, **SynthesisSettings().augmentation())

`augment` makes one anomaly pair of each sample, as the paper does; `augment_often` puts several defects on a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from das3d_cli.batch import background_depth
from das3d_cli.modality import Modality
from das3d_cli.synthesis.patches import beyond, ellipses, pick_textures, within
from das3d_cli.synthesis.perlin import perlin
from das3d_cli.synthesis.random import ItemRandom
from das3d_cli.synthesis.skew_gaussian import covariance, filter_each, skew_kernel

_TO_TABLE = 1.5  # depth of a piercing defect, in depth ranges: through any part, with a narrow rim
# Where the noise stays below t_p, this share of its peak is the threshold, about as t_p is of a usual peak: patches are
# as large as usual, not specks that teach the network to guess.
_OF_LOW_PEAK = 0.6
_TINTS = 1 / 3  # share of tints among the soft defects
_SOFT_ASPECT = 3.0  # at most: longer ones are no longer dents
_STEEP = 0.75  # least strength per radius, in shares of depth range and side: flatter ones teach the network to guess
_FADED = 0.25  # share of a soft defect's peak below which annotators mark nothing
_TINT_BETA = 0.6  # factor of a tint's beta: without an edge a faint tint cannot be seen


class Augmented(NamedTuple):
    """What `augment` returns; B items of S x S pixels.

    Attributes:
        rgb: float32, (B, 3, S, S), I_a after augmentation dropout.
        depth: float32, (B, 1, S, S), Z_a after augmentation dropout.
        foreground: bool, (B, 1, S, S), M_f without what a defect removed.
        mask: float32, (B, 1, S, S), the refined mask after dropout: 1 where the pair is anomalous.
        ternary: float32, (B, 1, S, S), M_t: -1, 0 or 1.
        change: float32, (B, 1, S, S), p_z * Delta_Z, cut off where depths leave [0, 1], before dropout.
        refined: float32, (B, 1, S, S), M* before dropout.
    """

    rgb: Tensor
    depth: Tensor
    foreground: Tensor
    mask: Tensor
    ternary: Tensor
    change: Tensor
    refined: Tensor


class Drawn(NamedTuple):
    """One defect for each of B parts of S x S pixels, drawn but not yet applied.

    Attributes:
        ternary: float32, (B, 1, S, S), M_t: -1, 0 or 1; 0 or 1 for a defect that reaches through the part.
        change: float32, (B, 1, S, S), p_z * Delta_Z, zero off the part.
        pierced: bool, (B, 1, 1, 1), whether it reaches through the part.
        texture: float32, (B, 3, S, S), I_u of Eq. 8, in [0, 1].
        beta: float32, (B, 1, 1, 1), share of the part's own colour in Eq. 8.
        keep_rgb, keep_depth: bool, (B, 1, 1, 1), the signals d_I and d_Z of Eq. 12.
        soft: bool, (B, 1, 1, 1), whether it fades towards its rim, in colour as in depth.
    """

    ternary: Tensor
    change: Tensor
    pierced: Tensor
    texture: Tensor
    beta: Tensor
    keep_rgb: Tensor
    keep_depth: Tensor
    soft: Tensor


def augment(
    rgb: Tensor,
    depth: Tensor,
    foreground: Tensor,
    textures: Tensor,
    random: ItemRandom,
    *,
    change_threshold: float,
    **arguments: Any,
) -> Augmented:
    """Make a defect on each part of the batch, in both modalities, then drop modalities at random.

    Args:
        rgb: float32, (B, 3, S, S), in [0, 1], black off the part.
        depth: float32, (B, 1, S, S), in [0, 1].
        foreground: bool, (B, 1, S, S), M_f.
        textures: uint8, (T, 3, S, S), the images I_u of Eq. 8.
        random: one stream per item; the same stream makes the same defect at any place in a batch.

    The other arguments are those of `draw`.
    """
    defect = draw(foreground, textures, random, change_threshold=change_threshold, **arguments)
    return _make_each(rgb, depth, foreground, [defect], change_threshold)


def augment_often(
    rgb: Tensor,
    depth: Tensor,
    foreground: Tensor,
    textures: Tensor,
    random: ItemRandom,
    *,
    defects: int,
    normal_share: float,
    change_threshold: float,
    **arguments: Any,
) -> Augmented:
    """Augment each sample `defects` times, each time with its own defect and dropout; leave a share of them untouched.

    Args:
        defects: at least 1; more let one pass of the network learn from more defects.
        normal_share: chance that a sample stays untouched, in addition to that of Eq. 12.

    The other arguments, and what it returns, are those of `augment`; `change` is the sum over the defects.
    """
    several, of_each = foreground.repeat(defects, 1, 1, 1), random.forks(defects)
    drawn = draw(several, textures, of_each, change_threshold=change_threshold, **arguments)
    untouched = random.bernoulli(1, 1, 1, probability=normal_share).repeat(defects, 1, 1, 1)
    drawn = drawn._replace(keep_rgb=drawn.keep_rgb | untouched, keep_depth=drawn.keep_depth | untouched)
    each = [Drawn(*one) for one in zip(*(tensor.chunk(defects) for tensor in drawn), strict=True)]
    return _make_each(rgb, depth, foreground, each, change_threshold)


def draw(
    foreground: Tensor,
    textures: Tensor,
    random: ItemRandom,
    *,
    perlin_scale_max: int,
    mask_threshold: float,
    blobs_max: int,
    blob_radius_min: float,
    blob_radius_max: float,
    blob_aspect_max: float,
    skew_filter: bool,
    alpha_max: float,
    sigma_min: float,
    sigma_max: float,
    sigma_aspect_max: float,
    sigma_correlation: float,
    kernel_norm: Literal["sum", "peak"],
    strength_min: float,
    strength_max: float,
    strength_scale: Literal["log", "uniform"],
    change_threshold: float,
    pierced_share: float,
    soft_share: float,
    soft_radius_min: float,
    soft_radius_max: float,
    beta_max: float,
    dropout: float,
    modality: Modality = "both",
) -> Drawn:
    """Draw a defect for each part of the batch (Eq. 1, 2 and 5; the chances of Eq. 8 and 12).

    Args:
        foreground, textures, random: as for `augment`.
        modality: "rgb" or "depth" keeps the other modality normal, for training on one alone.

    The other arguments are described in `das3d_cli.settings.SynthesisSettings`.
    """
    part, size = foreground[:, 0], foreground.shape[-1]
    noise = perlin(random, size, scale_max=perlin_scale_max)
    noise, picked = _picked(noise, part, mask_threshold)
    picked = _keep_blobs(random, picked, blobs_max, blob_radius_min, blob_radius_max, blob_aspect_max)
    ternary = noise.sign() * picked
    sigmas = sigma_min * size, sigma_max * size
    smooth = (
        _smooth(random, ternary, alpha_max, sigmas, sigma_aspect_max, sigma_correlation) if skew_filter else ternary
    )
    at_random = random.log_uniform if strength_scale == "log" else random.uniform
    strength = at_random(1, 1, low=strength_min, high=strength_max)
    pierced = random.bernoulli(1, 1, probability=pierced_share)
    change = _strengthened(smooth, part, strength, pierced, change_threshold, to_peak=kernel_norm == "peak")
    texture = pick_textures(random, textures)
    beta = random.uniform(1, 1, 1, high=beta_max)
    ternary = torch.where(pierced, ternary.abs(), ternary)
    dropped = _dropped(random, dropout, modality)
    hard = torch.zeros_like(pierced[:, None])
    defect = Drawn(ternary[:, None], change[:, None], pierced[:, None], texture, beta, *dropped, soft=hard)
    if soft_share == 0:
        return defect
    dome, radius = _dome(random.fork(1), part, soft_radius_min, soft_radius_max)
    steep = torch.maximum(strength, _STEEP * radius)
    change = _strengthened(dome, part, steep, torch.zeros_like(pierced), change_threshold, to_peak=True)
    return _softened(random.fork(2), defect, dome.sign()[:, None], change[:, None], soft_share, modality)


def _softened(
    random: ItemRandom, defect: Drawn, ternary: Tensor, change: Tensor, share: float, modality: Modality
) -> Drawn:
    """Turn a share of the defects into soft ones: dents and bumps in depth alone, tints in colour alone."""
    soft = random.bernoulli(1, 1, 1, probability=share)
    tint = random.bernoulli(1, 1, 1, probability={"rgb": 1.0, "depth": 0.0}.get(modality, _TINTS))
    return Drawn(
        ternary=torch.where(soft, ternary, defect.ternary),
        change=torch.where(soft, change, defect.change),
        pierced=defect.pierced & ~soft,
        texture=defect.texture,
        beta=torch.where(soft, _TINT_BETA * defect.beta, defect.beta),
        keep_rgb=torch.where(soft, ~tint, defect.keep_rgb),
        keep_depth=torch.where(soft, tint, defect.keep_depth),
        soft=soft,
    )


def _picked(noise: Tensor, part: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Noise P on the part, and where |P| > t_p (Eq. 1), or over 0.6 of its peak if that is below t_p."""
    noise = noise * part
    height = noise.abs()
    peak = _peak(height)
    return noise, height > torch.where(peak > threshold, threshold, _OF_LOW_PEAK * peak)


def _strengthened(
    change: Tensor, part: Tensor, strength: Tensor, pierced: Tensor, change_threshold: float, *, to_peak: bool
) -> Tensor:
    """p_z * Delta_Z on the part; a defect that reaches through it is as deep as that requires."""
    change = change * part
    height = change.abs()
    peak = _peak(height).clamp_min(1e-6)
    factor = torch.where(pierced, _TO_TABLE / peak, strength / peak if to_peak else strength)
    # The maximum keeps a faint defect from being removed altogether by Eq. 7.
    return torch.where(pierced, height, change) * torch.maximum(factor, 1.001 * change_threshold / peak)


def _make_each(
    rgb: Tensor, depth: Tensor, foreground: Tensor, defects: Sequence[Drawn], change_threshold: float
) -> Augmented:
    """Apply defects to good parts, one on top of the other."""
    background = background_depth(depth * foreground)
    first, *others = defects
    made = _make(rgb, depth, foreground, background, first, change_threshold)
    for defect in others:
        following = _make(made.rgb, made.depth, made.foreground, background, defect, change_threshold)
        made = _together(made, following)
    return made._replace(rgb=made.rgb * made.foreground)  # no colour where the part is gone


def _make(
    rgb: Tensor, depth: Tensor, foreground: Tensor, background: Tensor, defect: Drawn, change_threshold: float
) -> Augmented:
    """Apply a defect to parts that may have others already (Eq. 6 to 8), then drop modalities (Eq. 12)."""
    deeper = depth + defect.change
    gone = (deeper >= 1) & (defect.change >= change_threshold) & foreground & defect.pierced
    # Depths end at 0 and 1: a change that is cut off there is none, and must not be marked as one.
    change = torch.where(foreground, deeper.clamp(0, 1) - depth, 0.0)
    height, peak = change.abs(), defect.change.abs().amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    least = torch.where(defect.soft, _FADED * peak, 0.0).clamp_min(change_threshold)
    refined = ((height >= least) | gone).to(depth.dtype)
    opacity = torch.where(defect.soft, height / peak, refined)
    gone &= ~defect.keep_depth  # the foreground is derived from the depth
    return Augmented(
        rgb=torch.lerp(rgb, defect.texture, opacity * ((1 - defect.beta) * ~defect.keep_rgb)),
        depth=torch.where(gone, background, torch.addcmul(depth, change, (~defect.keep_depth).to(depth.dtype))),
        foreground=foreground & ~gone,
        mask=refined * ~(defect.keep_rgb & defect.keep_depth),
        ternary=defect.ternary,
        change=change,
        refined=refined,
    )


def _together(first: Augmented, last: Augmented) -> Augmented:
    """Merge two augmentations, the second applied to the first's result: its images, and where either changed them."""
    return Augmented(
        rgb=last.rgb,
        depth=last.depth,
        foreground=last.foreground,
        mask=torch.maximum(first.mask, last.mask),
        ternary=torch.where(last.ternary == 0, first.ternary, last.ternary),
        change=first.change + last.change,
        refined=torch.maximum(first.refined, last.refined),
    )


def _peak(images: Tensor) -> Tensor:
    return images.amax(dim=(1, 2), keepdim=True)


def _keep_blobs(
    random: ItemRandom, picked: Tensor, count: int, radius_min: float, radius_max: float, aspect_max: float
) -> Tensor:
    """Keep the mask within 1 to `count` ellipses centred on it; a count of 0 keeps all of it."""
    if count == 0:
        return picked
    drawn = ellipses(random, picked, count, radius_min, radius_max, aspect_max)
    used = torch.arange(count, device=picked.device) <= random.integers(high=count)[:, None]
    return within(picked, *drawn, used)


def _dome(random: ItemRandom, part: Tensor, radius_min: float, radius_max: float) -> tuple[Tensor, Tensor]:
    """A dome on each part, 1 up or down, level at its rim, (B, S, S), and its radius, share of the side, (B, 1, 1)."""
    centre, radius, aspect, angle = ellipses(random, part, 1, radius_min, radius_max, _SOFT_ASPECT)
    outside = beyond(part.shape[-1], centre, radius, aspect, angle, torch.ones_like(centre, dtype=torch.bool))[:, 0]
    radius, up = radius[..., None], random.bernoulli(1, 1, probability=0.5)
    dome = (-outside / radius**2).clamp_min(0) ** 2
    return torch.where(up, -dome, dome), radius / part.shape[-1]


def _smooth(
    random: ItemRandom,
    ternary: Tensor,
    alpha_max: float,
    sigmas: tuple[float, float],
    aspect_max: float,
    correlation: float,
) -> Tensor:
    """G_s * M_t of Eq. 5, with a unit-sum filter per item (Eq. 3 and 4); `sigmas` bounds its deviations, in pixels."""
    alpha = random.uniform(2, low=-alpha_max, high=alpha_max)
    sigma = random.log_uniform(2, low=sigmas[0], high=sigmas[1])
    sigma = torch.minimum(sigma, aspect_max * sigma.amin(dim=1, keepdim=True))
    cross = random.uniform(low=-correlation, high=correlation)
    kernel = skew_kernel(alpha, covariance(sigma, cross), math.ceil(3 * sigmas[1]))
    return filter_each(ternary.to(kernel.dtype), kernel)


def _dropped(random: ItemRandom, dropout: float, modality: Modality) -> tuple[Tensor, Tensor]:
    """The signals d_I and d_Z of Eq. 12, bool, (B, 1, 1, 1)."""
    keep_rgb = random.bernoulli(1, 1, 1, probability=dropout)
    keep_depth = random.bernoulli(1, 1, 1, probability=dropout)
    if modality == "rgb":
        return keep_rgb, torch.ones_like(keep_depth)
    if modality == "depth":
        return torch.ones_like(keep_rgb), keep_depth
    return keep_rgb, keep_depth
