"""From the network's logits to an anomaly map, a score and a threshold; train, evaluate and predict share it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from das3d_cli.batch import Batch, turned_left
from das3d_cli.device import autocast
from das3d_cli.model import Das3d, Output

Pass = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # from a `Batch`'s tensors to logits (B, 2, S, S)

# Largest relative difference between a part's scores alone and in a batch, on one CPU. In bfloat16, as on a GPU, it may
# be hundreds of times larger: there, and on another machine, the very part that set the threshold may just fail.
_ROUNDING = 1e-5
_CHUNK = {"cpu": 16, "cuda": 64}  # images in one forward pass: as many as a device needs to be busy


class Scored(NamedTuple):
    """N parts judged. maps: float32, (N, S, S), in [0, 1]; scores: float64, (N,), in [0, 1]."""

    maps: NDArray[np.float32]
    scores: NDArray[np.float64]


def judging(network: Das3d) -> Pass:
    """The forward pass of a network that is trained no further, in the device's precision.

    Its normalisations are folded into its convolutions for good, so results are rounded differently than in training.
    """
    network.fold()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def look(rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor) -> Tensor:
        with autocast(depth.device):
            output: Output = network(rgb, depth, foreground.float(), parallax)
        return output.logits

    return look


def score(look: Pass, batch: Batch, smoothing: float, views: int) -> Scored:
    """Judge a batch of any length; see `score_each` for the arguments."""
    return score_each(look, [batch], smoothing, views)


@torch.inference_mode()
def score_each(look: Pass, batches: Iterable[Batch], smoothing: float, views: int) -> Scored:
    """Judge batches of any length. While a GPU works on one, the last one's result is read and the next one prepared.

    Args:
        look: what `judging` returns, possibly launched as a CUDA graph.
        smoothing: as for `anomaly_maps`.
        views: how many times to look at each part, turned by a further quarter each time; the maps are averaged.
    """
    begun: list[_Judged] = []
    found: list[Scored] = []
    for batch in batches:
        begun.append(_Judged.begin(look, batch, smoothing, views))
        found += [judged.end() for judged in begun[:-1]]
        del begun[:-1]
    found += [judged.end() for judged in begun]
    return found[0] if len(found) == 1 else Scored(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


class _Judged(NamedTuple):
    """Maps and scores on their way to main memory, and the event that tells that a GPU has sent them."""

    maps: Tensor
    scores: Tensor
    sent: torch.cuda.Event | None

    @classmethod
    def begin(cls, look: Pass, batch: Batch, smoothing: float, views: int) -> _Judged:
        maps = _maps(look, batch, smoothing, views)
        scores = anomaly_scores(maps).double().to("cpu", non_blocking=True)
        fetched = maps.to("cpu", non_blocking=True)
        sent = torch.cuda.current_stream(maps.device).record_event() if maps.device.type == "cuda" else None
        return cls(fetched, scores, sent)

    def end(self) -> Scored:
        if self.sent is None:
            return Scored(self.maps.numpy(), self.scores.numpy())
        self.sent.synchronize()
        return Scored(self.maps.numpy().copy(), self.scores.numpy().copy())  # do not hold on to pinned memory


def _maps(look: Pass, batch: Batch, smoothing: float, views: int) -> Tensor:
    """The anomaly maps of a batch, (B, S, S), computed a chunk of parts at a time."""
    maps, chunk = [], _CHUNK[batch.depth.device.type]
    for some in zip(*(torch.split(tensor, max(1, chunk // views)) for tensor in batch), strict=True):
        seen = [quarter_turned(Batch(*some), n) for n in range(views)]
        rgb, depth, foreground, parallax = (torch.cat(tensors) for tensors in zip(*seen, strict=True))
        maps.append(anomaly_maps(look(rgb, depth, foreground, parallax), smoothing, views))
    return torch.cat(maps)


def quarter_turned(batch: Batch, count: int) -> Batch:
    """All samples turned to the left by `count` quarters."""
    parallax = batch.parallax
    for _ in range(count % 4):
        parallax = turned_left(parallax)
    rgb, depth, foreground = (torch.rot90(image, count, (2, 3)) for image in batch.images)
    return Batch(rgb, depth, foreground, parallax)


def anomaly_maps(logits: Tensor, smoothing: float, views: int = 1) -> Tensor:
    """Anomaly probability of every pixel, averaged over the views of a part and within a small window.

    This includes pixels off the part: what is missing from a part lies there.

    Args:
        logits: (V * B, 2, S, S): of B parts, then of the same B parts turned by a quarter, and so on.
        smoothing: side of the window as a share of the image side, not counting the middle pixel.
        views: V.

    Returns:
        float32, (B, S, S), in [0, 1], as the parts lie in the first view.
    """
    seen = logits.float().softmax(dim=1)[:, 1:].chunk(views)
    probability = torch.stack([torch.rot90(view, -n, (2, 3)) for n, view in enumerate(seen)]).mean(dim=0)
    reach = round(smoothing * logits.shape[-1] / 2)
    if reach:
        probability = F.avg_pool2d(probability, 2 * reach + 1, 1, reach, count_include_pad=False)
    return probability[:, 0]


def anomaly_scores(maps: Tensor) -> Tensor:
    """One score per part: the peak of its anomaly map. (B, S, S) to (B,)."""
    return maps.amax(dim=(1, 2))


def good_threshold(scores: NDArray[np.float64], good_share: float) -> float:
    """The lowest score that counts as anomalous, from N good parts' scores.

    It is just above the ceil((N + 1) * good_share)-th smallest, as in split conformal prediction: at least that share
    of unseen good parts is expected to pass, if N is large enough. If it is not, it is just above the largest.
    """
    rank = min(len(scores), _rank(len(scores), good_share))
    return float(np.nextafter(np.sort(scores)[rank - 1] * (1 + _ROUNDING), np.inf))


def _rank(count: int, good_share: float) -> int:
    """ceil((count + 1) * good_share), without the rounding error that may lift the product just over a whole number."""
    return max(1, math.ceil(round((count + 1) * good_share, 9)))


def fewest_parts(good_share: float) -> int:
    """The fewest parts with which `good_threshold` can promise the share; 0 for a share of 1, which no number can."""
    return next(n for n in itertools.count(1) if _rank(n, good_share) <= n) if good_share < 1 else 0


def threshold_scores(
    held_out: NDArray[np.float64], trained: NDArray[np.float64], good_share: float
) -> NDArray[np.float64]:
    """The scores that `good_threshold` should be given: of held-out good parts, after those of trained-on ones if need be.

    Held-out parts are enough where none of them decides alone. Fewer would let too many good parts fail (one in eleven
    scores above the largest of ten), or too many defective ones pass, if one of them is odd. Parts that a network was
    trained on score like new ones where parts are alike, but lower where they vary. So their log odds are raised by the
    median of the differences between a held-out and a trained-on part (Hodges and Lehmann 1963), if that is positive.
    """
    if not len(trained) or _rank(len(held_out), good_share) < len(held_out):
        return held_out
    held, known = _log_odds(held_out), _log_odds(trained)
    raised = known + max(0.0, float(np.median(held[:, None] - known)))
    return np.concatenate((1 / (1 + np.exp(-raised)), held_out))


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    inner: NDArray[np.float64] = np.clip(scores, 1e-9, 1 - 1e-9)
    return np.log(inner) - np.log1p(-inner)
