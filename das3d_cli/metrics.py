"""How good anomaly scores and maps are: AUROC, average precision and AUPRO, exact over all thresholds.

All three are read off one curve: what share of the anomalous and of the normal items is found as the
threshold falls. It rises at the scores of anomalous items only, so the many normal pixels are sorted once and
then only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from das3d_cli.data.capture import GOOD

OVERALL = "all"


class Metrics(NamedTuple):
    """The figures of one group of parts, each in 0..1, or nan where a class is absent.

    `samples` counts the parts of the group, without the good parts that a defect type is measured against.
    """

    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_ap: float
    aupro_30: float
    samples: int


class _Curve(NamedTuple):
    """Corners of the ROC, from the highest threshold to the lowest; all float64.

    Attributes:
        normal_before: (K,) number of normal items above each distinct score of an anomalous item.
        normal_after: (K,) number of normal items at or above it.
        found: (K,) summed weight of the anomalous items at or above it.
        normals: number of normal items.
    """

    normal_before: NDArray[np.float64]
    normal_after: NDArray[np.float64]
    found: NDArray[np.float64]
    normals: int

    def area(self, limit: float = 1.0) -> float:
        """Area under the polyline up to a false positive rate of `limit`, divided by `limit`."""
        if not len(self.found) or not self.normals:
            return float("nan")
        corners = np.stack([self.normal_before, self.normal_after], axis=1).ravel() / self.normals
        heights = np.stack([np.concatenate([[0.0], self.found[:-1]]), self.found], axis=1).ravel() / self.found[-1]
        inside = corners < limit
        x = np.concatenate([[0.0], corners[inside], [limit]])
        y = np.concatenate([[0.0], heights[inside], [_height_at(limit, corners, heights)]])
        return float(np.trapezoid(y, x) / limit)

    def average_precision(self) -> float:
        """Precision averaged over recall; the weights must be ones."""
        if not len(self.found) or not self.normals:
            return float("nan")
        precision = self.found / (self.found + self.normal_after)
        return float(np.sum(precision * np.diff(self.found, prepend=0.0)) / self.found[-1])


def _height_at(limit: float, corners: NDArray[np.float64], heights: NDArray[np.float64]) -> float:
    """The height of the polyline just left of `limit`; past the last corner it stays where it was."""
    right = int(np.searchsorted(corners, limit, side="left"))
    if right == len(corners):
        return float(heights[-1])
    x0, y0 = (corners[right - 1], heights[right - 1]) if right else (0.0, 0.0)
    return float(y0 + (heights[right] - y0) * (limit - x0) / (corners[right] - x0))


def _sorted_normals(normal: ArrayLike) -> NDArray[np.generic]:
    scores = np.sort(np.asarray(normal).ravel())
    if len(scores) and np.isnan(scores[-1]):
        raise ValueError("anomaly scores must not be NaN")
    return scores


def _curve(anomalous: ArrayLike, normals: NDArray[np.generic], weights: ArrayLike | None = None) -> _Curve:
    """From scores of anomalous items with their weights (any shape) and the sorted ones of normal items."""
    scores = np.asarray(anomalous).ravel()
    if np.isnan(scores).any():
        raise ValueError("anomaly scores must not be NaN")
    weight = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    distinct, index = np.unique(scores, return_inverse=True)
    found = np.bincount(index, weights=weight, minlength=len(distinct))[::-1].cumsum()
    thresholds = distinct[::-1]
    return _Curve(
        normal_before=(len(normals) - np.searchsorted(normals, thresholds, side="right")).astype(np.float64),
        normal_after=(len(normals) - np.searchsorted(normals, thresholds, side="left")).astype(np.float64),
        found=found,
        normals=len(normals),
    )


def auroc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC: the chance that an anomalous item scores above a normal one, ties counting half.

    Args:
        truth: true where anomalous; any shape, so (N,) parts or (N, H, W) pixels.
        scores: of the same shape, higher is more anomalous.

    Returns:
        A value in 0..1, or nan if a class is absent.
    """
    return _ranking(roc_auc_score, truth, scores)


def average_precision(truth: ArrayLike, scores: ArrayLike) -> float:
    """Precision averaged over the steps of recall, without interpolation; arguments as for `auroc`.

    Returns:
        A value in 0..1, or nan if a class is absent.
    """
    return _ranking(average_precision_score, truth, scores)


def _ranking(metric: Callable[..., float], truth: ArrayLike, scores: ArrayLike) -> float:
    anomalous, values = np.asarray(truth, dtype=bool), np.asarray(scores)
    if anomalous.shape != values.shape:
        raise ValueError(f"labels {anomalous.shape} and scores {values.shape} differ in shape")
    if np.isnan(values).any():
        raise ValueError("anomaly scores must not be NaN")
    if anomalous.all() or not anomalous.any():
        return float("nan")
    return float(metric(anomalous.ravel(), values.ravel()))


def aupro(masks: ArrayLike, maps: ArrayLike, limit: float = 0.3) -> float:
    """Area under the per-region overlap curve (Bergmann et al., VISAPP 2022), exact, divided by `limit`.

    The overlap is the mean, over the 8-connected regions of all masks, of the share of the region that is
    found; the false positive rate is that of all pixels outside the masks of all images. The curve runs
    through every threshold and is interpolated linearly at the limit.

    Args:
        masks: (N, H, W), true in the defects.
        maps: (N, H, W), higher is more anomalous.
        limit: the false positive rate, in (0, 1], up to which the area is taken.

    Returns:
        A value in 0..1, or nan without a defect or without a normal pixel.
    """
    truth, values = np.asarray(masks, dtype=bool), np.asarray(maps)
    if truth.shape != values.shape or truth.ndim != 3:
        raise ValueError(f"masks {truth.shape} and maps {values.shape} must both be (N, H, W)")
    return _curve(values[truth], _sorted_normals(values[~truth]), _region_weights(truth)).area(limit)


def _region_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 / size of the region that each anomalous pixel lies in, in the order of `maps[masks]`."""
    weights = [np.empty(0)]
    for mask in masks:
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            inside = regions[mask]
            weights.append(1.0 / np.bincount(inside)[inside])
    return np.concatenate(weights)


def evaluate(
    labels: Sequence[str], scores: ArrayLike, maps: NDArray[np.float32], masks: NDArray[np.bool_]
) -> dict[str, Metrics]:
    """The figures of a test split, over all parts and for each defect type against the good parts.

    Args:
        labels: "good" or a defect type, one per part.
        scores: (N,) anomaly scores.
        maps: (N, H, W) float32 anomaly maps.
        masks: (N, H, W) bool ground truth; all false for a good part.

    Returns:
        Figures under "all", then under each defect type in sorted order.
    """
    names, values = np.asarray(labels, dtype=str), np.asarray(scores)
    types = sorted(set(names.tolist()) - {GOOD})
    groups = {OVERALL: np.ones(len(names), dtype=bool)} | {t: (names == t) | (names == GOOD) for t in types}
    results = {}
    for name, group in groups.items():
        samples = len(names) if name == OVERALL else int((names == name).sum())
        results[name] = _metrics(names[group] != GOOD, values[group], maps[group], masks[group], samples)
    return results


def _metrics(
    anomalous: NDArray[np.bool_],
    scores: NDArray[np.generic],
    maps: NDArray[np.float32],
    masks: NDArray[np.bool_],
    samples: int,
) -> Metrics:
    normals, inside = _sorted_normals(maps[~masks]), maps[masks]
    pixels, regions = _curve(inside, normals), _curve(inside, normals, _region_weights(masks))
    return Metrics(
        image_auroc=auroc(anomalous, scores),
        image_ap=average_precision(anomalous, scores),
        pixel_auroc=pixels.area(),
        pixel_ap=pixels.average_precision(),
        aupro_30=regions.area(limit=0.3),
        samples=samples,
    )
