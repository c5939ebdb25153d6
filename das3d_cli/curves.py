"""Operating curves: the shares of the anomalous and of the normal items that are found as the threshold falls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Counts at K thresholds, from the highest to one that all anomalous items reach; all float64.

    Leading axes hold several curves. Every figure is nan where a class is absent.

    Attributes:
        before: (..., K) number of normal items above each threshold.
        after: (..., K) number of normal items at or above it.
        found: (..., K) summed weight of the anomalous items at or above it.
        normals: (...,) number of normal items.
    """

    before: Floats
    after: Floats
    found: Floats
    normals: Floats

    @classmethod
    def exact(cls, anomalous: ArrayLike, normals: NDArray[np.generic], weights: ArrayLike | None = None) -> Curve:
        """Build one curve through every threshold.

        It rises only at the scores of anomalous items, so normal items are sorted once and then only counted.

        Args:
            anomalous: scores, any shape.
            normals: sorted scores, as `sorted_scores` gives them.
            weights: of the anomalous items; ones if not given.
        """
        scores = _known(np.asarray(anomalous).ravel())
        weight = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
        distinct, index = np.unique(scores, return_inverse=True)
        thresholds = distinct[::-1]
        return cls(
            before=(len(normals) - np.searchsorted(normals, thresholds, side="right")).astype(np.float64),
            after=(len(normals) - np.searchsorted(normals, thresholds, side="left")).astype(np.float64),
            found=np.bincount(index, weights=weight, minlength=len(distinct))[::-1].cumsum(),
            normals=np.array(float(len(normals))),
        )

    def polyline(self) -> tuple[Floats, Floats]:
        """Corners from (0, 0) to (1, 1): false positive rates and shares found, (..., 2 K + 2) each."""
        start, end = np.zeros((*self.found.shape[:-1], 1)), np.ones((*self.found.shape[:-1], 1))
        if not self.found.shape[-1]:
            return np.concatenate([start, end], axis=-1), np.concatenate([start, end * np.nan], axis=-1)
        found_before = np.concatenate([start, self.found[..., :-1]], axis=-1)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the nan of an absent class
            rates = _in_turn(self.before, self.after) / self.normals[..., None]
            shares = _in_turn(found_before, self.found) / self.found[..., -1:]
        return np.concatenate([start, rates, end], axis=-1), np.concatenate([start, shares, end], axis=-1)

    def auroc(self) -> Floats:
        """Area under the whole curve, (...,)."""
        return area(*self.polyline(), 1.0)

    def average_precision(self) -> Floats:
        """Precision averaged over the steps of recall, without interpolation, (...,); the weights must be ones."""
        if not self.found.shape[-1]:
            return np.full(self.found.shape[:-1], np.nan)
        precision = np.divide(self.found, self.found + self.after, out=np.zeros_like(self.found), where=self.found > 0)
        with np.errstate(invalid="ignore"):
            mean = np.sum(precision * np.diff(self.found, prepend=0.0), axis=-1) / self.found[..., -1]
        return np.where(self.normals > 0, mean, np.nan)

    def f1_max(self) -> Floats:
        """The best harmonic mean of precision and recall over all thresholds, (...,); the weights must be ones."""
        if not self.found.shape[-1]:
            return np.full(self.found.shape[:-1], np.nan)
        total = self.found[..., -1:]
        with np.errstate(invalid="ignore"):
            best = np.max(2 * self.found / (self.found + self.after + total), axis=-1)
        return np.where((self.normals > 0) & (total[..., 0] > 0), best, np.nan)


def area(rates: Floats, shares: Floats, limit: float) -> Floats:
    """Area under polylines (..., K) up to a false positive rate of `limit`, divided by `limit`, (...,).

    The segment that crosses the limit is cut there.
    """
    width = np.diff(rates)
    inside = np.clip(limit - rates[..., :-1], 0.0, width)
    cut = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    return np.asarray(np.sum(inside * (shares[..., :-1] + np.diff(shares) * cut / 2), axis=-1) / limit)


def sorted_scores(scores: ArrayLike) -> NDArray[np.generic]:
    """Scores of any shape, flat and sorted.

    Raises:
        ValueError: one is NaN.
    """
    return _known(np.sort(np.asarray(scores).ravel()))


def _known(scores: NDArray[np.generic]) -> NDArray[np.generic]:
    if np.isnan(scores).any():
        raise ValueError("anomaly scores must not be NaN")
    return scores


def _in_turn(first: Floats, second: Floats) -> Floats:
    return np.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)
