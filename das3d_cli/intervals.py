"""95 % confidence intervals of a test split's figures: analytic for image AUROC and shares, bootstrapped for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri

from das3d_cli.curves import Curve, Floats, area
from das3d_cli.data.capture import GOOD, Masks
from das3d_cli.metrics import LIMITS, REFERENCE_LIMITS, REFERENCE_THRESHOLDS, groups, region_weights

LEVEL = 0.95
_ROUNDING = 1e-9
_RESAMPLES = 1000
_LEVELS = 256  # thresholds of the grid, from each class
_CHUNK = 100  # resamples at a time
_CLOSE = 1e-9  # the search for bounds stays this far from a figure of 0 or 1, which is itself a root of `beyond`

Interval = tuple[float, float]


def intervals(
    labels: Sequence[str],
    scores: ArrayLike,
    maps: NDArray[np.float32],
    masks: NDArray[np.bool_],
    by_type: Mapping[int, Masks] | None = None,
    *,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """95 % intervals of the figures that `metrics.evaluate` gives for the same arguments.

    For image AUROC see `auroc_interval`. All other figures use the percentile bootstrap with 1000 resamples: parts are
    drawn with replacement, good ones from the good and defective ones from the defective. Image figures are recomputed
    exactly. For pixel figures each part is reduced once to its pixel counts and its regions' summed shares over a grid
    of some 500 thresholds, and a resample sums those of its parts. The grid holds every part's highest normal score and
    is densest where false positives are few, so these figures lie within about a thousandth of the exact ones.

    Returns:
        Lower and upper bound for each group and figure; nan where the figure is undefined, or where a class has only
        one part, which cannot be resampled.
    """
    names, values = np.asarray(labels, dtype=str), np.asarray(scores, dtype=np.float64)
    images, (grid, normal, sizes) = _of_images(values, names != GOOD), _of_normals(maps, masks)
    results = {}
    for name, (parts, defects) in groups(labels, masks, by_type):
        weights = _draws(names[parts] != GOOD, seed)
        pixels, regions = (
            _Counts(normal[parts], found, sizes[parts]) for found in _of_defects(maps, parts, defects, grid)
        )
        its_images = images.pick(parts)
        drawn = [
            _figures(its_images.sum(chunk), pixels.sum(chunk), regions.sum(chunk))
            for chunk in np.split(weights, range(_CHUNK, len(weights), _CHUNK))
        ]
        defective = int((names[parts] != GOOD).sum())
        auroc = float(its_images.sum(np.ones((1, len(parts)))).auroc()[0])
        results[name] = {"image_auroc": auroc_interval(auroc, defective, len(parts) - defective)}
        results[name] |= {figure: _bounds(np.concatenate([d[figure] for d in drawn])) for figure in drawn[0]}
    return results


def auroc_interval(auroc: float, defective: int, good: int) -> Interval:
    """95 % interval of an AUROC for these counts: Newcombe's fifth method (Statistics in Medicine 25, 2006, p. 559).

    Like `share_interval` it does not shrink to a point when all parts are ranked correctly, and unlike the bootstrap it
    is wide enough for few parts. It is nan where a class has fewer than two parts.
    """
    if min(defective, good) < 2 or np.isnan(auroc):
        return float("nan"), float("nan")
    half, quantile = (defective + good) / 2 - 1, ndtri((1 + LEVEL) / 2)

    def beyond(true: float) -> float:
        """Squared distance of the figure from `true`, minus the squared distance that 95 % of splits stay within."""
        spread = 1 + half * (1 - true) / (2 - true) + half * true / (1 + true)
        return float((auroc - true) ** 2 - quantile**2 * true * (1 - true) * spread / (defective * good))

    low = brentq(beyond, 0.0, min(auroc, 1 - _CLOSE)) if auroc > 0 else 0.0
    high = brentq(beyond, max(auroc, _CLOSE), 1.0) if auroc < 1 else 1.0
    return float(low), float(high)


def share_interval(hits: int, number: int) -> Interval:
    """95 % Clopper-Pearson interval of a share observed as `hits` of `number` > 0 parts.

    Unlike the bootstrap interval it does not shrink to a point when the outcome is the same for all parts.
    """
    tail = (1 - LEVEL) / 2
    low = betaincinv(hits, number - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, number - hits, 1 - tail) if hits < number else 1.0
    return float(low), float(high)


class _Counts(NamedTuple):
    """What each of N parts adds to a curve of K thresholds, highest first.

    Attributes:
        normal: (N, K) number of its normal items that reach each threshold.
        found: (N, K) summed weight of its anomalous items that reach it.
        normals: (N,) number of its normal items.
    """

    normal: Floats
    found: Floats
    normals: Floats

    def pick(self, parts: NDArray[np.intp]) -> _Counts:
        return _Counts(*(array[parts] for array in self))

    def sum(self, weights: Floats) -> Curve:
        """The curves of B resamples; weights (B, N) say how often each one holds each part."""
        after = weights @ self.normal
        before = np.concatenate([np.zeros((len(after), 1)), after[:, :-1]], axis=1)
        return Curve(before, after, weights @ self.found, weights @ self.normals)


def _of_images(scores: Floats, anomalous: NDArray[np.bool_]) -> _Counts:
    reached = scores[:, None] >= np.unique(scores)[::-1]
    normal, found = (np.where(of_class[:, None], reached, 0.0) for of_class in (~anomalous, anomalous))
    return _Counts(normal, found, np.where(anomalous, 0.0, 1.0))


def _of_normals(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> tuple[NDArray[np.float32], Floats, Floats]:
    """The grid, (K,), and for each part its normal pixels above each threshold, (N, K), and in total, (N,)."""
    ordered = [np.sort(anomaly_map[~mask]) for anomaly_map, mask in zip(maps, masks, strict=True)]
    grid = _grid(ordered, maps[masks])
    normal = [len(scores) - np.searchsorted(scores, grid, side="right") for scores in ordered]
    return grid, np.array(normal, dtype=np.float64), np.array([float(len(scores)) for scores in ordered])


def _of_defects(
    maps: NDArray[np.float32], parts: NDArray[np.intp], defects: NDArray[np.bool_], grid: NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """Defective pixels of a group's parts above each threshold, and the summed shares of their regions, (n, K) each."""
    scores = [maps[part][mask] for part, mask in zip(parts, defects, strict=True)]
    found = [_exceeding(values, np.ones(len(values)), grid) for values in scores]
    shares = [_exceeding(v, region_weights(mask[None]), grid) for v, mask in zip(scores, defects, strict=True)]
    return np.array(found), np.array(shares)


def _grid(ordered: list[NDArray[np.float32]], anomalous: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thresholds, highest first; the last one is below every score."""
    normals = np.sort(np.concatenate(ordered))
    chosen = [scores[-1:] for scores in ordered]
    if len(normals):
        ranks = np.geomspace(1, len(normals), _LEVELS).astype(int)
        chosen.append(normals[-ranks])
    if len(anomalous):
        chosen.append(np.quantile(anomalous, np.linspace(0, 1, _LEVELS)).astype(np.float32))
    return np.append(np.unique(np.concatenate(chosen))[::-1], np.float32(-np.inf))


def _exceeding(scores: NDArray[np.float32], weights: Floats, grid: NDArray[np.float32]) -> Floats:
    """Summed weight of the scores above each threshold of the grid."""
    order = np.argsort(scores)
    under = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(under[-1] - under[np.searchsorted(scores[order], grid, side="right")])


def _draws(anomalous: NDArray[np.bool_], seed: int) -> Floats:
    """How often each resample draws each of N parts, (B, N); nan where a class has only one part."""
    random = np.random.default_rng(seed)
    weights = np.zeros((_RESAMPLES, len(anomalous)))
    for of_class in (anomalous, ~anomalous):
        size = int(of_class.sum())
        if size:
            weights[:, of_class] = (
                np.nan if size == 1 else random.multinomial(size, np.full(size, 1 / size), _RESAMPLES)
            )
    return weights


def _figures(images: Curve, pixels: Curve, regions: Curve) -> dict[str, Floats]:
    """All figures except image AUROC for B resamples, (B,) each."""
    exact, reference = regions.polyline(), _reference(regions)
    return {
        "image_ap": images.average_precision(),
        "image_f1_max": images.f1_max(),
        "pixel_auroc": pixels.auroc(),
        "pixel_ap": pixels.average_precision(),
        **{figure: area(*exact, limit) for figure, limit in LIMITS.items()},
        **{figure: area(*reference, limit) for figure, limit in REFERENCE_LIMITS.items()},
    }


def _reference(curve: Curve) -> tuple[Floats, Floats]:
    """Overlap curves sampled at the false positive rates of the reference's thresholds, (B, 101) each."""
    rates = np.append(np.arange(REFERENCE_THRESHOLDS) / (REFERENCE_THRESHOLDS - 1), 1.0)
    read = [np.interp(rates, x, y) for x, y in zip(*curve.polyline(), strict=True)]
    return np.broadcast_to(rates, (len(read), len(rates))), np.array(read)


def _bounds(drawn: Floats) -> Interval:
    """The interval that holds the middle 95 % of the draws; nan where all are equal, which would suggest certainty."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.clip(np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), 0, 1)
    return (float(low), float(high)) if high - low > _ROUNDING else (float("nan"), float("nan"))
