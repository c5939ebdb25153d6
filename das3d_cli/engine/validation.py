"""Validate a network during training, on good parts that it never saw and on synthetic defects made on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from das3d_cli.batch import Batch, Parts
from das3d_cli.engine import distributed
from das3d_cli.metrics import auroc, average_precision
from das3d_cli.modality import Modality
from das3d_cli.model import Das3d
from das3d_cli.scoring import Pass, good_threshold, judging, quarter_turned, score, threshold_scores
from das3d_cli.settings import Settings
from das3d_cli.synthesis.augment import augment
from das3d_cli.synthesis.random import ItemRandom

_CHUNK = 16  # maximum number of parts scored at a time
_RANKED_SIDE = 128  # pixels, to which larger maps are subsampled: ranking them whole would take most of the time
_KNOWN = 64  # maximum number of training parts that are scored
_BESIDE_TRAINING = 4  # images at a time, as a multiple of a training micro-batch: they need no gradients


class _Found(NamedTuple):
    """Results on P held-out parts, and on N versions of them with synthetic defects.

    Attributes:
        places: int64, (P,), indices of the parts among the held-out ones.
        good: float64, (P,), scores of the unchanged parts.
        turned: float64, (3 P,), scores of the parts after quarter turns; (0,) where these are not made.
        scores: float64, (N,), of the versions.
        anomalous: bool, (N,), whether a version has a defect.
        maps, masks: float32 and bool, (N, s, s), of the versions; s is below twice `_RANKED_SIDE` pixels.
    """

    places: NDArray[np.int64]
    good: NDArray[np.float64]
    turned: NDArray[np.float64]
    scores: NDArray[np.float64]
    anomalous: NDArray[np.bool_]
    maps: NDArray[np.float32]
    masks: NDArray[np.bool_]


def validate(
    network: Das3d, parts: Parts, trained: Parts, textures: Tensor, settings: Settings
) -> dict[str, float] | None:
    """Score held-out parts unchanged and with synthetic defects, which are the same in every call.

    With several processes each scores some of the parts, and the first one gets the combined result.

    Args:
        parts: the held-out parts.
        trained: the parts that the network is trained on, which help to set the threshold.

    Returns:
        image_auroc and pixel_ap; quality, their mean; threshold, from the scores of unchanged good parts;
        defects_found, the share of synthetic defects whose score reaches it; highest, the index of the
        highest-scoring of these good parts, counting those trained on first; second_highest, of their
        `threshold_scores`. None in all processes but the first.
    """
    look, device = judging(copy.deepcopy(network)), textures.device  # the same pass as a detector's
    judged = [
        _judge(look, places, batch, textures, settings)
        for places, batch in _batches(parts, torch.arange(len(parts)), device, settings)
    ]
    some = torch.linspace(0, len(trained) - 1, min(len(trained), _KNOWN)).round().long()
    looking = settings.score.smoothing, settings.views_taken
    known = [
        (places.cpu().numpy(), score(look, batch, *looking).scores)
        for places, batch in _batches(trained, some, device, settings)
    ]

    of_all = distributed.gathered((judged, known))
    if of_all is None:
        return None
    together = zip(*(one for own, _ in of_all for one in own), strict=True)
    held, good, turned, scores, anomalous, maps, masks = (np.concatenate(arrays) for arrays in together)
    of_trained = zip(*(one for _, own in of_all for one in own), strict=True)
    used, learnt = (np.concatenate(arrays) for arrays in of_trained)
    labels = np.concatenate((np.zeros(len(good) + len(turned), bool), anomalous))
    ranking = auroc(labels, np.concatenate((good, turned, scores)))
    precision = average_precision(masks.ravel(), maps.ravel())
    of_good = threshold_scores(good, learnt, settings.score.good_share)
    reached = good_threshold(of_good, settings.score.good_share)
    places = np.concatenate((used, len(trained) + held))[-len(of_good) :]
    return {
        "image_auroc": ranking,
        "pixel_ap": precision,
        "quality": (ranking + precision) / 2,
        "threshold": reached,
        "defects_found": float((scores[anomalous] >= reached).mean()),
        "highest": int(places[of_good == of_good.max()].min()),
        "second_highest": float(np.sort(of_good)[-2]),
    }


def _judge(look: Pass, places: Tensor, batch: Batch, textures: Tensor, settings: Settings) -> _Found:
    modality = settings.model.modality
    # Without dropout every version shows a defect, in both modalities or in one of them.
    seen: tuple[Modality, ...] = ("both", "rgb", "depth") if modality == "both" else (modality,)
    arguments = settings.synthesis.augmentation() | {"dropout": 0.0}
    looking = settings.score.smoothing, settings.views_taken
    # Parts that may lie at any angle are also scored after quarter turns, unless their views would be the same four:
    # with few scores, it would be chance which of two states of a network ranks higher.
    turns = range(1, 4 if settings.synthesis.rotate and settings.views_taken < 4 else 1)
    good = score(look, batch, *looking).scores
    turned = [score(look, quarter_turned(batch, n), *looking).scores for n in turns]
    found, masks = [], []
    for version in range(settings.train.validation_defects):
        random = ItemRandom.of(settings.seed + 1, version, places)
        made = augment(*batch.images, textures, random, modality=seen[version % len(seen)], **arguments)
        found.append(score(look, Batch(made.rgb, made.depth, made.foreground, batch.parallax), *looking))
        masks.append(made.mask[:, 0].cpu().numpy() > 0)
    maps, mask = np.concatenate([one.maps for one in found]), np.concatenate(masks)
    every = max(1, mask.shape[-1] // _RANKED_SIDE)
    ranked = np.s_[:, every // 2 :: every, every // 2 :: every]
    return _Found(
        places=places.cpu().numpy(),
        good=good,
        turned=np.concatenate((*turned, good[:0])),  # `turned` may be empty
        scores=np.concatenate([one.scores for one in found]),
        anomalous=np.asarray(mask.any(axis=(1, 2))),
        maps=maps[ranked].copy(),  # a view would keep all pixels in memory
        masks=mask[ranked].copy(),
    )


def _batches(parts: Parts, places: Tensor, device: torch.device, settings: Settings) -> Iterator[tuple[Tensor, Batch]]:
    """This process's share of the parts at `places`: their indices and images on the device, a few parts at a time."""
    own = places[distributed.rank() :: distributed.size()]
    images = _BESIDE_TRAINING * settings.train.micro_batch // distributed.size()
    count = max(1, min(_CHUNK, images // settings.views_taken))
    for some in torch.split(own, count) if len(own) else ():
        yield some.to(device), parts.take(some.to(parts.depth.device)).to(device).unpacked()
