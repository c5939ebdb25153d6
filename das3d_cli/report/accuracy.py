"""The part of the page that judges scores and heat maps themselves: figures with their meanings, and charts."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import GOOD
from das3d_cli.evaluation import Evaluation, defect_masks
from das3d_cli.metrics import OVERALL, pro_curve, roc_curve
from das3d_cli.report.charts import rising_curve, score_histogram
from das3d_cli.report.markup import table, tag

_PRO_LIMIT = 0.3  # that of the figure aupro_30


class _Figure(NamedTuple):
    title: str
    meaning: str


_FIGURES = {
    "image_auroc": _Figure("Image AUROC", "The chance that a defective part scores higher than a good one."),
    "image_ap": _Figure(
        "Image AP",
        "With the parts ranked by score: how few good ones stand among the defective, averaged down the list.",
    ),
    "pixel_auroc": _Figure("Pixel AUROC", "The chance that a spot on a defect glows more than a spot elsewhere."),
    "pixel_ap": _Figure(
        "Pixel AP", "How much of what glows is truly defective; strict, since defects are small and all else is large."
    ),
    "aupro_30": _Figure(
        "AUPRO 0.3",
        "How much of each defect the heat map covers, small ones counting as much as large ones,"
        " while at most 30% of all sound spots glow with it.",
    ),
}


def figures(evaluation: Evaluation) -> Element:
    """The figures over all parts in words, and those of each kind of defect in a table."""
    overall = evaluation.metrics[OVERALL]
    meanings = (
        tag("div", tag("dt", title), tag("dd", tag("strong", _number(getattr(overall, name))), f" {meaning}"))
        for name, (title, meaning) in _FIGURES.items()
    )
    rows = (
        tag("tr", tag("th", kind, scope="row"), *(tag("td", _number(getattr(found, name))) for name in _FIGURES))
        for kind, found in evaluation.metrics.items()
    )
    return tag(
        "section",
        tag("h2", "Figures"),
        tag(
            "p",
            "They judge the scores and heat maps themselves, whatever the threshold, and run from 0 to 1, which is perfect;"
            " an AUROC of 0.5 is guessing.",
        ),
        tag("dl", *meanings, class_="figures"),
        tag("h3", "By kind of defect"),
        tag("p", "Each kind against the good parts; a dash where a figure is not defined.", class_="quiet"),
        table(["Kind", *(figure.title for figure in _FIGURES.values())], rows, class_="dense"),
    )


def charts(evaluation: Evaluation) -> Element:
    """The scores about the threshold, and the curves for which there are both good and defective parts."""
    overall = evaluation.metrics[OVERALL]
    return tag(
        "section",
        tag("h2", "Charts"),
        tag(
            "div",
            _scores(evaluation),
            None if math.isnan(overall.image_auroc) else _roc(evaluation, overall.image_auroc),
            None if math.isnan(overall.aupro_30) else _pro(evaluation, overall.aupro_30),
            class_="charts",
        ),
    )


def _scores(evaluation: Evaluation) -> Element:
    defective, scores = _defective(evaluation), evaluation.scored.scores
    chart = score_histogram(scores[~defective], scores[defective], evaluation.detector.threshold)
    return _chart(
        "The scores",
        chart,
        "One bar counts the parts whose scores lie close together; what lies right of the threshold is rejected."
        " The better the detector, the less the two colours overlap.",
    )


def _roc(evaluation: Evaluation, area: float) -> Element:
    defective, scores = _defective(evaluation), evaluation.scored.scores
    rejected = evaluation.detector.anomalous(scores)
    rate, share = float(rejected[~defective].mean()), float(rejected[defective].mean())
    chart = rising_curve(
        *roc_curve(defective, scores),
        title="ROC curve",
        description=f"Area {area:.3f} of 1. At the threshold {share:.0%} of the defective parts are found"
        f" and {rate:.0%} of the good ones rejected.",
        x_title="good parts rejected",
        y_title="defective parts found",
        threshold_at=(rate, share),
    )
    return _chart(
        "Parts: the ROC curve",
        chart,
        "Each point is a threshold that could be chosen: a lower one finds more defective parts and rejects more good ones."
        " The area below the curve is the Image AUROC.",
    )


def _pro(evaluation: Evaluation, area: float) -> Element:
    chart = rising_curve(
        *pro_curve(defect_masks(evaluation.split), evaluation.scored.maps),
        title="PRO curve",
        description=f"Area {area:.3f} of 1, up to {_PRO_LIMIT:.0%} of the sound surface.",
        x_title="sound surface that glows",
        y_title="share of a defect that glows",
        limit=_PRO_LIMIT,
    )
    return _chart(
        "Places: the PRO curve",
        chart,
        "The same for places on the parts: the more of each defect glows, the more sound surface glows with it."
        " The area below the curve, as a share of the whole, is the AUPRO.",
    )


def _chart(title: str, chart: Element, meaning: str) -> Element:
    return tag("figure", tag("h3", title), chart, tag("figcaption", meaning), class_="chart")


def _defective(evaluation: Evaluation) -> NDArray[np.bool_]:
    return np.array([label != GOOD for label in evaluation.split.labels])


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
