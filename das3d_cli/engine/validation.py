"""Judge a network while it trains: on good parts that it never saw, and on synthetic defects made on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from das3d_cli.batch import Batch, Parts
from das3d_cli.engine import distributed
from das3d_cli.metrics import auroc, average_precision
from das3d_cli.model import Das3d
from das3d_cli.scoring import evaluating, quarter_turned, score, threshold
from das3d_cli.settings import Modality, Settings
from das3d_cli.synthesis.augment import augment
from das3d_cli.synthesis.random import ItemRandom

_CHUNK = 16  # parts at a time, at most
_RANKED_SIDE = 128  # pixels of a map along each axis that are ranked: all of a larger one would take most of the time
_KNOWN = 64  # of the parts that a network is trained on, at most, are scored
_BESIDE_TRAINING = 4  # images, as a multiple of a training step's: they need no gradients


def validate(network: Das3d, parts: Parts, trained: Parts, textures: Tensor, settings: Settings) -> dict[str, float]:
    """Score held-out parts as they are and with synthetic defects, which are the same at every call.

    Args:
        trained: the parts that the network is trained on, which help to set the threshold.

    Returns:
        image_auroc and pixel_ap; quality, their mean; threshold, from the scores of good parts as they are.
    """
    modality = settings.model.modality
    # Every version shows a defect, in both images or in one of them.
    seen: tuple[Modality, ...] = ("both", "rgb", "depth") if modality == "both" else (modality,)
    arguments = settings.synthesis.augmentation() | {"dropout": 0.0}
    looking = settings.score.smoothing, settings.views
    # Where parts lie as they fall, each is four, unless its views are the same of all four: few parts would rank two states
    # of a network by chance.
    turns = range(1, 4 if settings.synthesis.rotate and settings.views < 4 else 1)
    held_out, turned, maps, scores, masks = [], [], [], [], []
    look = evaluating(network)
    for some, batch in _batches(parts, torch.arange(len(parts)), textures.device, settings):
        held_out.append(score(look, batch, *looking).scores)
        turned += [score(look, quarter_turned(batch, n), *looking).scores for n in turns]
        for version in range(settings.train.validation_defects):
            random = ItemRandom.of(settings.seed + 1, version, some)
            made = augment(*batch.images, textures, random, modality=seen[version % len(seen)], **arguments)
            found = score(look, Batch(made.rgb, made.depth, made.foreground, batch.parallax), *looking)
            maps.append(found.maps)
            scores.append(found.scores)
            masks.append(made.mask[:, 0].cpu().numpy() > 0)
    good, mask = np.concatenate(held_out + turned), np.concatenate(masks)
    labels = np.concatenate((np.zeros(len(good), dtype=bool), mask.any(axis=(1, 2))))
    ranking = auroc(labels, np.concatenate((good, *scores)))
    every = max(1, mask.shape[-1] // _RANKED_SIDE)
    pixels = np.s_[:, every // 2 :: every, every // 2 :: every]
    precision = average_precision(mask[pixels].ravel(), np.concatenate(maps)[pixels].ravel())
    known = torch.linspace(0, len(trained) - 1, min(len(trained), _KNOWN)).round().long()
    learnt = [score(look, batch, *looking).scores for _, batch in _batches(trained, known, textures.device, settings)]
    return {
        "image_auroc": ranking,
        "pixel_ap": precision,
        "quality": (ranking + precision) / 2,
        "threshold": threshold(np.concatenate(held_out), np.concatenate(learnt), settings.score.good_share),
    }


def _batches(parts: Parts, places: Tensor, device: torch.device, settings: Settings) -> Iterator[tuple[Tensor, Batch]]:
    """Some of the parts, a few at a time, and their places, on the device."""
    images = _BESIDE_TRAINING * settings.train.micro_batch // distributed.size()
    for some in torch.split(places, max(1, min(_CHUNK, images // settings.views))):
        yield some.to(device), parts.take(some.to(parts.depth.device)).to(device).unpacked()
