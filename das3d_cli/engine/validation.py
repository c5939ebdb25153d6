"""Judge a network while it trains: on good parts that it never saw, and on synthetic defects made on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from das3d_cli.batch import Batch, Parts
from das3d_cli.engine import distributed
from das3d_cli.metrics import auroc, average_precision
from das3d_cli.model import Das3d
from das3d_cli.scoring import evaluating, good_threshold, quarter_turned, score
from das3d_cli.settings import Modality, Settings
from das3d_cli.synthesis.augment import augment
from das3d_cli.synthesis.random import ItemRandom

_CHUNK = 16  # parts at a time, at most
_BESIDE_TRAINING = 4  # images, as a multiple of a training step's: they need no gradients


def validate(network: Das3d, parts: Parts, textures: Tensor, settings: Settings) -> dict[str, float]:
    """Score the parts as they are and with synthetic defects, which are the same at every call.

    Returns:
        image_auroc and pixel_ap; quality, their mean; threshold, from the scores of the parts as they are.
    """
    modality = settings.model.modality
    # Every version shows a defect, in both images or in one of them.
    seen: tuple[Modality, ...] = ("both", "rgb", "depth") if modality == "both" else (modality,)
    arguments = settings.synthesis.augmentation() | {"dropout": 0.0}
    looking = settings.score.smoothing, settings.views
    # Where parts lie as they fall, each is four, unless its views are the same of all four: few validation parts would set
    # a threshold by chance.
    turns = range(4 if settings.synthesis.rotate and settings.views < 4 else 1)
    goods, maps, scores, masks = [], [], [], []
    images = _BESIDE_TRAINING * settings.train.micro_batch // distributed.size()
    chunk = max(1, min(_CHUNK, images // settings.views))
    look = evaluating(network)
    for some in torch.split(torch.arange(len(parts)), chunk):
        batch = parts.take(some.to(parts.depth.device)).to(textures.device).unpacked()
        goods += [score(look, quarter_turned(batch, n), *looking).scores for n in turns]
        for version in range(settings.train.validation_defects):
            random = ItemRandom.of(settings.seed + 1, version, some.to(textures.device))
            made = augment(*batch.images, textures, random, modality=seen[version % len(seen)], **arguments)
            found = score(look, Batch(made.rgb, made.depth, made.foreground, batch.parallax), *looking)
            maps.append(found.maps)
            scores.append(found.scores)
            masks.append(made.mask[:, 0].cpu().numpy() > 0)
    good, mask = np.concatenate(goods), np.concatenate(masks)
    labels = np.concatenate((np.zeros(len(good), dtype=bool), mask.any(axis=(1, 2))))
    ranking = auroc(labels, np.concatenate((good, *scores)))
    precision = average_precision(mask.ravel(), np.concatenate(maps).ravel())
    return {
        "image_auroc": ranking,
        "pixel_ap": precision,
        "quality": (ranking + precision) / 2,
        "threshold": good_threshold(good, settings.score.good_share),
    }
