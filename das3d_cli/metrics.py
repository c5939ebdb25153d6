"""How good anomaly scores and maps are: AUROC, average precision, F1-max and AUPRO.

Pixel figures are read off operating curves (`das3d_cli.curves`) through every threshold. AUPRO comes in two variants
that differ widely at small limits: "exact", and "reference", which takes 100 thresholds as published figures do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from das3d_cli.curves import Curve, Floats, area, sorted_scores
from das3d_cli.data.capture import GOOD, OVERALL, Masks, types_of

Variant = Literal["exact", "reference"]
# Figure -> false positive rate up to which AUPRO is taken.
LIMITS = {"aupro_30": 0.3, "aupro_10": 0.1, "aupro_05": 0.05, "aupro_01": 0.01}
REFERENCE_LIMITS = {f"{figure}_reference": limit for figure, limit in LIMITS.items()}
REFERENCE_THRESHOLDS = 100


class Metrics(NamedTuple):
    """The figures of one group of parts, each in 0..1, or nan where a class is absent.

    `samples` counts the parts of the group, without the good parts that a defect type is measured against.
    """

    image_auroc: float
    image_ap: float
    image_f1_max: float
    pixel_auroc: float
    pixel_ap: float
    aupro_30: float
    aupro_10: float
    aupro_05: float
    aupro_01: float
    aupro_30_reference: float
    aupro_10_reference: float
    aupro_05_reference: float
    aupro_01_reference: float
    samples: int


FIGURES = Metrics._fields[:-1]


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
    anomalous, values = _checked(truth, scores)
    if np.isnan(values).any():
        raise ValueError("anomaly scores must not be NaN")
    if anomalous.all() or not anomalous.any():
        return float("nan")
    return float(metric(anomalous.ravel(), values.ravel()))


def f1_max(truth: ArrayLike, scores: ArrayLike) -> float:
    """The best F1 score that a threshold can give; arguments as for `auroc`.

    Returns:
        A value in 0..1, or nan if a class is absent.
    """
    anomalous, values = _checked(truth, scores)
    return float(Curve.exact(values[anomalous], sorted_scores(values[~anomalous])).f1_max())


def roc_curve(truth: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """The ROC through every threshold; arguments as for `auroc`.

    Returns:
        False and true positive rates of its corners, float64, (K,) each, from (0, 0) to (1, 1); nan where a class is
        absent.
    """
    anomalous, values = _checked(truth, scores)
    return Curve.exact(values[anomalous], sorted_scores(values[~anomalous])).polyline()


def pro_curve(masks: ArrayLike, maps: ArrayLike) -> tuple[Floats, Floats]:
    """The per-region overlap curve (Bergmann et al., VISAPP 2022) through every threshold.

    The overlap is the mean, over the 8-connected regions of all masks, of the share of the region that is
    found; the false positive rate is that of all pixels outside the masks of all images.

    Args:
        masks: (N, H, W), true in the defects.
        maps: (N, H, W), higher is more anomalous.

    Returns:
        False positive rates and overlaps of its corners, float64, (K,) each, from (0, 0) to (1, 1); nan where there is
        no defect or no normal pixel.
    """
    return _Pixels.of(masks, maps).regions().polyline()


def pro_point(masks: ArrayLike, outlined: ArrayLike) -> tuple[float, float]:
    """The two rates of `pro_curve`, for pixels outlined as defective.

    Args:
        masks, outlined: bool, (N, H, W).

    Returns:
        False positive rate and overlap, each in 0..1, or nan where there is no normal pixel or no defect.
    """
    truth, found = np.asarray(masks, dtype=bool), np.asarray(outlined, dtype=bool)
    weights = region_weights(truth)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the nan of an absent class
        rate = np.sum(found & ~truth) / np.sum(~truth)
        overlap = np.sum(weights[found[truth]]) / np.sum(weights)
    return float(rate), float(overlap)


def aupro(masks: ArrayLike, maps: ArrayLike, limit: float = 0.3, variant: Variant = "exact") -> float:
    """Area under the per-region overlap curve, divided by `limit`; arguments as for `pro_curve`.

    Args:
        limit: the false positive rate, in (0, 1], up to which the area is taken; the curve is interpolated there.
        variant: "exact" runs through every threshold; "reference" through 100 of them, see `_Pixels.reference`.

    Returns:
        A value in 0..1, or nan without a defect or without a normal pixel.

    Raises:
        ValueError: the limit is outside (0, 1], or the variant is unknown.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit must be in (0, 1], a share and not percent; got {limit}")
    if variant not in get_args(Variant):
        raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}; got {variant}")
    pixels = _Pixels.of(masks, maps)
    points = pixels.regions().polyline() if variant == "exact" else pixels.reference()
    return float(area(*points, limit))


class _Pixels(NamedTuple):
    """Pixels of N maps. normals: sorted normal scores; inside: scores in defects; weights: 1 / size of their region."""

    normals: NDArray[np.generic]
    inside: NDArray[np.generic]
    weights: Floats

    @classmethod
    def of(cls, masks: ArrayLike, maps: ArrayLike, marked: ArrayLike | None = None) -> _Pixels:
        """Pixels that are `marked`, but not in the masks, are left out."""
        truth, values = np.asarray(masks, dtype=bool), np.asarray(maps)
        if truth.shape != values.shape or truth.ndim != 3:
            raise ValueError(f"masks {truth.shape} and maps {values.shape} must both be (N, H, W)")
        normal = ~(truth if marked is None else np.asarray(marked, dtype=bool))
        return cls(sorted_scores(values[normal]), values[truth], region_weights(truth))

    def regions(self) -> Curve:
        return Curve.exact(self.inside, self.normals, self.weights)

    def reference(self) -> tuple[Floats, Floats]:
        """The overlap curve as the code published with MVTec 3D-AD samples it.

        Its thresholds are equally spaced in the sorted normal scores, a defective pixel must exceed them to be found,
        and the false positive rate is the threshold's rank, even among equal scores.
        """
        if not len(self.normals) or not len(self.inside):
            return np.array([0.0, 1.0]), np.array([0.0, np.nan])
        places = np.linspace(0, len(self.normals) - 1, REFERENCE_THRESHOLDS, dtype=int)[::-1]
        order = np.argsort(self.inside)
        missed = np.concatenate([[0.0], np.cumsum(self.weights[order])])
        reached = missed[np.searchsorted(self.inside[order], self.normals[places], side="right")]
        rates, overlaps = 1 - (places + 1) / len(self.normals), 1 - reached / missed[-1]
        return np.append(rates, 1.0), np.append(overlaps, 1.0)


def region_weights(masks: NDArray[np.bool_]) -> Floats:
    """1 / size of the region that each anomalous pixel lies in, in the order of `maps[masks]`."""
    weights = [np.empty(0)]
    for mask in masks:
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            inside = regions[mask]
            weights.append(1.0 / np.bincount(inside)[inside])
    return np.concatenate(weights)


class Group(NamedTuple):
    """The parts behind a row of figures. parts: indices of its n parts, (n,); defects: their masks, bool, (n, H, W)."""

    parts: NDArray[np.intp]
    defects: NDArray[np.bool_]


def evaluate(
    labels: Sequence[str],
    scores: ArrayLike,
    maps: NDArray[np.float32],
    masks: NDArray[np.bool_],
    by_type: Mapping[int, Masks] | None = None,
) -> dict[str, Metrics]:
    """The figures of a test split, over all parts and for each defect type against the good parts.

    A part with several types counts in the figures of each. Its pixels that are marked, but not as that type, are
    neither defective nor normal there and are left out.

    Args:
        labels: "good" or a defect type, one per part.
        scores: (N,) anomaly scores.
        maps: (N, H, W) float32 anomaly maps.
        masks: (N, H, W) bool ground truth; all false for a good part.
        by_type: for parts with several types, index of the part -> defect type -> its (H, W) bool mask, within `masks`;
            their labels only say that they are not good.

    Returns:
        Figures under "all", then under each defect type in sorted order.
    """
    names, values = np.asarray(labels, dtype=str), np.asarray(scores)
    results = {}
    for name, (parts, defects) in groups(labels, masks, by_type):
        anomalous = names[parts] != GOOD
        samples = len(names) if name == OVERALL else int(anomalous.sum())
        pixels = _Pixels.of(defects, maps[parts], masks[parts])
        results[name] = _metrics(anomalous, values[parts], pixels, samples)
    return results


def groups(
    labels: Sequence[str], masks: NDArray[np.bool_], by_type: Mapping[int, Masks] | None = None
) -> Iterator[tuple[str, Group]]:
    """Yield the group of "all", then of each defect type; arguments as for `evaluate`."""
    several = by_type or {}
    types = types_of(labels, several)
    yield OVERALL, Group(np.arange(len(types)), masks)
    for name in sorted({name for own in types for name in own}):
        parts = [i for i, own in enumerate(types) if name in own or not own]
        yield name, Group(np.array(parts), np.stack([several[i][name] if i in several else masks[i] for i in parts]))


def _metrics(anomalous: NDArray[np.bool_], scores: NDArray[np.generic], pixels: _Pixels, samples: int) -> Metrics:
    curve = Curve.exact(pixels.inside, pixels.normals)
    exact, reference = pixels.regions().polyline(), pixels.reference()
    return Metrics(
        image_auroc=auroc(anomalous, scores),
        image_ap=average_precision(anomalous, scores),
        image_f1_max=f1_max(anomalous, scores),
        pixel_auroc=float(curve.auroc()),
        pixel_ap=float(curve.average_precision()),
        **{figure: float(area(*exact, limit)) for figure, limit in LIMITS.items()},
        **{figure: float(area(*reference, limit)) for figure, limit in REFERENCE_LIMITS.items()},
        samples=samples,
    )


def _checked(truth: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
    anomalous, values = np.asarray(truth, dtype=bool), np.asarray(scores)
    if anomalous.shape != values.shape:
        raise ValueError(f"labels {anomalous.shape} and scores {values.shape} differ in shape")
    return anomalous, values
