"""The data of a training: good parts from the cache, and synthetic defects on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from das3d_cli.batch import Batch, Parts
from das3d_cli.data.cache import Cache, Inputs, fingerprints, load_split
from das3d_cli.data.capture import GOOD
from das3d_cli.engine.feed import placed
from das3d_cli.errors import DataError, UsageError
from das3d_cli.settings import Settings
from das3d_cli.synthesis.added import add_material
from das3d_cli.synthesis.augment import Augmented, augment_often
from das3d_cli.synthesis.cut import cut_off
from das3d_cli.synthesis.light import relight
from das3d_cli.synthesis.pose import turn
from das3d_cli.synthesis.random import ItemRandom
from das3d_cli.synthesis.textures import folder_textures, procedural_textures

_HELD_OUT = 0.15  # share of the training parts that stands in for a missing validation split


@dataclass(frozen=True)
class Data:
    """What a training reads.

    Attributes:
        train, validation: good parts to learn from and to validate on.
        textures: uint8, (T, 3, S, S), on the device.
        names, fingerprints: of all these parts, those of `train` first.
    """

    train: Parts
    validation: Parts
    textures: Tensor
    names: tuple[str, ...]
    fingerprints: tuple[str, ...]


def check_preprocessing(settings: Settings, cache: Cache) -> None:
    """Check that preprocessing settings given explicitly are those that the cache was made with.

    Raises:
        UsageError: one is not.
    """
    for name in sorted(settings.preprocess.model_fields_set):
        wanted, made = getattr(settings.preprocess, name), getattr(cache.manifest.settings, name)
        if wanted != made:
            raise UsageError(
                f"settings.preprocess.{name}: set to {wanted}, but {cache.folder} was made with {made};"
                " run das3d preprocess with the same settings first"
            )


def load_data(settings: Settings, cache: Cache, device: torch.device) -> Data:
    """Load the good parts of train and validation, and the textures.

    The parts go to a GPU if they fit into the share `hardware.cache_share` of its free memory. Without a validation
    split, a fixed share of the training parts, picked by the seed, is held out instead, each with all its samples.

    Raises:
        DataError: the cache lacks good parts.
        UsageError: the model's size does not divide the cache's, or the cache lacks images that the model needs.
    """
    size, cached = settings.model.size, cache.manifest.settings.size
    if cached % size:
        instead = "" if cached % settings.model.least_size else f"use {cached}, or "
        raise UsageError(
            f"settings.model.size: {size} does not divide the cache's {cached} pixels; {instead}preprocess with --size {size}"
        )
    cache.require(settings.model.modality)
    train, names = _good(cache, "train"), _names(cache, "train")
    if cache.samples("validation"):
        validation, held_out = _good(cache, "validation"), _names(cache, "validation")
    else:
        held = _held_out(cache, settings.seed)
        train, validation = _some(train, ~held), _some(train, held)
        names, held_out = names[~held], names[held]
    if len(train[0]) == 0 or len(validation[0]) == 0:
        raise DataError(f"{cache.folder}: needs at least two good parts in train, or one each in train and validation")
    s = settings.synthesis
    make = procedural_textures if s.textures is None else lambda *args: folder_textures(s.textures, *args)
    textures = torch.from_numpy(make(s.texture_count, size, settings.seed)).permute(0, 3, 1, 2).contiguous()
    if cache.manifest.usual.grey:  # else any colour would give a synthetic defect away, and real ones have none
        textures = textures.float().mean(dim=1, keepdim=True).round().to(torch.uint8).expand_as(textures).contiguous()
    seen = (*fingerprints(train), *fingerprints(validation))
    stacked = [Parts.stack(*arrays, size=size, device=torch.device("cpu")) for arrays in (train, validation)]
    if device.type == "cuda":
        stacked = placed(stacked, device, settings.hardware.cache_share * torch.cuda.mem_get_info(device)[0])
    named = tuple(np.concatenate((names, held_out)).tolist())
    return Data(train=stacked[0], validation=stacked[1], textures=textures.to(device), names=named, fingerprints=seen)


def synthesised(
    batch: Batch,
    places: Tensor,
    step: Tensor | int,
    textures: Tensor,
    settings: Settings,
    normal_share: float,
    *,
    compared: bool,
) -> tuple[Batch, Augmented]:
    """Turn and relight good parts; return these and their augmented versions.

    Args:
        places: indices of the parts in their step's batch, (B,); with step and seed they determine the random draws.
        normal_share: share of the parts that get no defect, except that material may be added or a piece broken off.
        compared: whether the network compares parts with a mean part, which shows what is broken off without training.
    """
    s, modality = settings.synthesis, settings.model.modality
    of_pose, of_light, of_defects, of_added, of_cut = ItemRandom.of(settings.seed, step, places).split(5)
    batch = turn(batch, of_pose, rotate=s.rotate, flip=s.flip)
    batch = batch._replace(rgb=relight(batch.rgb, of_light, s.relight))
    batch, left, missing = cut_off(batch, of_cut, share=0 if compared or modality == "rgb" else s.cut_share)
    grown = add_material(
        *left.images, textures, of_added, share=s.added_share, radius_min=s.blob_radius_min,
        radius_max=s.blob_radius_max, modality=modality,
    )  # fmt: skip
    made = augment_often(
        grown.rgb, grown.depth, grown.foreground, textures, of_defects, modality=modality, defects=s.defects,
        normal_share=normal_share, **s.augmentation(),
    )  # fmt: skip
    added = grown.mask & made.foreground  # where a defect has pierced added material, nothing is left to find
    mask, refined = (torch.where(grown.mask, added.to(one.dtype), one) for one in (made.mask, made.refined))
    mask, refined = (torch.maximum(one, (missing & ~made.foreground).to(one.dtype)) for one in (mask, refined))
    return batch, made._replace(mask=mask, refined=refined)


def _held_out(cache: Cache, seed: int) -> NDArray[np.bool_]:
    """Which good training samples to hold out for validation, (N,); those of one part stay together."""
    names = [record.part or record.name for record in cache.good("train")]
    parts = list(dict.fromkeys(names))
    order = np.random.default_rng(seed).permutation(len(parts))
    held = {parts[place] for place in order[: max(1, round(_HELD_OUT * len(parts)))]}
    return np.array([name in held for name in names], bool)


def _names(cache: Cache, split: str) -> NDArray[np.str_]:
    """Names of the samples that `_good` returns, (N,)."""
    return np.array([f"{split}/{GOOD}/{record.name}" for record in cache.good(split)])


def _good(cache: Cache, name: str) -> Inputs:
    split = load_split(cache, name)
    good = np.array([label == GOOD for label in split.labels])
    if good.all():  # a copy of thousands of samples takes gigabytes
        return split.inputs
    return _some(split.inputs, good)


def _some(inputs: Inputs, chosen: NDArray[np.bool_]) -> Inputs:
    rgb, depth, foreground, parallax = inputs
    return rgb[chosen], depth[chosen], foreground[chosen], parallax[chosen]
