"""The test parts as cards: four pictures each, with name, verdict and score, the worst mistakes first."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree.ElementTree import Element

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.evaluation import Evaluation
from das3d_cli.report.draw import Picture
from das3d_cli.report.heatmap import blend
from das3d_cli.report.markup import image, percent, tag
from das3d_cli.report.pictures import Brightening, Mask, depth_picture, mask_picture

_SIDE = 256  # pixels: sharp on a phone, and 60 parts stay within a few megabytes


class Fate(NamedTuple):
    """Test parts with the same outcome.

    Attributes:
        name: one word, also the group's anchor on the page.
        right: whether the verdict was correct.
        meaning: which parts are in the group, and in which order.
        parts: indices into the split, in page order.
    """

    name: str
    right: bool
    meaning: str
    parts: list[int]


def fates_of(evaluation: Evaluation) -> tuple[Fate, Fate, Fate, Fate]:
    """The missed, rejected, found and passed parts; each group begins with what counts most against the detector."""
    scores, defective = evaluation.scored.scores, evaluation.defective
    missed, alarms = evaluation.missed(), evaluation.false_alarms()
    rising = sorted(range(len(scores)), key=lambda i: scores[i])
    falling = sorted(range(len(scores)), key=lambda i: -scores[i])
    return (
        Fate("missed", False, "Defective parts that were passed; the lowest score first.",
                [i for i in rising if i in missed]),
        Fate("rejected", False, "Good parts that were rejected (false alarms); the highest score first.",
                [i for i in falling if i in alarms]),
        Fate("found", True, "Defective parts that were rejected, as they should be; the lowest score first.",
                [i for i in rising if defective[i] and i not in missed]),
        Fate("passed", True, "Good parts that were passed, as they should be; the highest score first.",
                [i for i in falling if not defective[i] and i not in alarms]),
    )  # fmt: skip


def cards(evaluation: Evaluation, fate: Fate, light: Brightening) -> Element:
    """A section with the cards of one group, its photos brightened by `light`."""
    return tag(
        "section",
        tag("h3", f"{fate.name.capitalize()} ", tag("span", str(len(fate.parts)), class_="count")),
        tag("p", fate.meaning if fate.parts else "None.", class_="quiet"),
        *(_card(evaluation, fate, index, light) for index in fate.parts),
        id=fate.name,
    )


def heat_scale(threshold: float, outline: float) -> Picture:
    """The colour scale of the heat maps over black, from 0 on the left to 1 on the right."""
    values = np.tile(np.linspace(0, 1, 2 * _SIDE, dtype=np.float32), (16, 1))
    return blend(np.zeros((*values.shape, 3), np.uint8), values, threshold=threshold, outline=outline, anomalous=True)


def badge(fate: Fate) -> Element:
    """The group's name with a symbol, so that it can be read without colour."""
    sign = tag("span", "✓ " if fate.right else "✕ ", aria_hidden="true")
    return tag("span", sign, fate.name, class_="badge right" if fate.right else "badge wrong")


def _card(evaluation: Evaluation, fate: Fate, index: int, light: Brightening) -> Element:
    split, detector = evaluation.split, evaluation.detector
    name = f"{split.labels[index]} {split.names[index]}"
    part, depth, anomaly = split.foreground[index], split.depth[index], evaluation.scored.maps[index]
    truth = split.ground_truth[index]
    score = float(evaluation.scored.scores[index])
    rgb = _shown(light.shown(split.rgb[index]))
    heat = blend(
        rgb, anomaly, threshold=detector.threshold, outline=detector.outline,
        anomalous=bool(evaluation.rejected[index]),
    )  # fmt: skip
    marked = _marked(evaluation.outlined[index], part)
    pictures = (
        ("Photo", rgb, f"Photo of part {name}"),
        ("Depth", _shown(depth_picture(depth, part, _limits(depth[part]))), f"Depth of part {name}, near is bright"),
        ("Heat map", heat, f"Heat map of part {name}, {marked}"),
        ("Ground truth", _shown(mask_picture(truth, part)),
         f"Ground truth of part {name}, {'its defect in orange' if truth.any() else 'nothing marked'}"),
    )  # fmt: skip
    return tag(
        "article",
        tag("header", tag("h4", name), badge(fate), tag("p", "score ", tag("strong", f"{score:.3f}"))),
        tag(
            "div",
            *(tag("figure", image(shown, text), tag("figcaption", title)) for title, shown, text in pictures),
            class_="pictures",
        ),
        tag("p", f"Heat map: {marked}.", class_="quiet"),
        tag("p", f"Ground truth: {_defect(truth, evaluation.outlined[index], part)}.", class_="quiet")
        if truth.any()
        else None,
        class_="card",
    )


def _marked(reached: Mask, part: Mask) -> str:
    """What the heat map outlines, in words."""
    count, _, found, _ = cv2.connectedComponentsWithStats(reached.astype(np.uint8), connectivity=8)
    if count == 1:
        return "no place reaches the threshold"
    largest = f"{_share(found[1:, cv2.CC_STAT_AREA].max(), part)} of the part"
    if count == 2:
        return f"one place reaches the threshold, {largest}"
    return f"{count - 1} places reach the threshold, the largest {largest}"


def _defect(truth: Mask, reached: Mask, part: Mask) -> str:
    """The size of the ground truth and how much of it the heat map outlines, in words."""
    return f"a defect of {_share(truth.sum(), part)}, {percent(float(reached[truth].mean()))} of it outlined"


def _share(pixels: int, part: Mask) -> str:
    return f"{pixels / max(part.sum(), 1):.2%}"


def _limits(depths: NDArray[np.float32]) -> tuple[float, float]:
    """The depth range that shows the surface; the few deepest points are the part's rim."""
    near, far = np.percentile(depths, [1, 95]) if len(depths) else (0.0, 0.0)
    return float(near), float(far)


def _shown(picture: Picture) -> Picture:
    """Resize to `_SIDE`; pixels keep their positions and edges stay smooth."""
    how = cv2.INTER_AREA if picture.shape[0] > _SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (_SIDE, _SIDE), interpolation=how), dtype=np.uint8)
