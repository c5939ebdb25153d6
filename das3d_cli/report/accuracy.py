"""The page's sections on the quality of scores and heat maps: figures with explanations, and charts."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.etree.ElementTree import Element

from das3d_cli.data.capture import OVERALL
from das3d_cli.evaluation import Evaluation
from das3d_cli.intervals import LEVEL, Interval
from das3d_cli.metrics import LIMITS, REFERENCE_LIMITS, pro_curve, pro_point, roc_curve
from das3d_cli.report.charts import rising_curve, score_histogram
from das3d_cli.report.formats import DASH
from das3d_cli.report.markup import percent, table, tag
from das3d_cli.report.tables import EXACT_NOTE, REFERENCE_NOTE


class _Figure(NamedTuple):
    title: str
    meaning: str


_FIGURES = {
    "image_auroc": _Figure("Image AUROC", "The chance that a defective part scores higher than a good one."),
    "image_ap": _Figure(
        "Image AP",
        "With the parts ranked by score: the share of defective ones among the highest scores, averaged down the list.",
    ),
    "image_f1_max": _Figure(
        "Image F1-max",
        "How well defective parts are found and good ones passed by the best threshold, chosen by looking at the test parts.",
    ),
    "pixel_auroc": _Figure("Pixel AUROC", "The chance that a spot on a defect glows more than a spot elsewhere."),
    "pixel_ap": _Figure(
        "Pixel AP",
        "How much of what glows is truly defective; strict, since defects are small and everything else is large.",
    ),
    "aupro_30": _Figure(
        "AUPRO 0.3",
        "How much of each defect the heat map covers, small ones counting as much as large ones,"
        " while at most 30% of everything else glows too.",
    ),
}
# The tables in the collapsed section: table title -> figure -> column title.
_IN_FULL = {
    "Parts and pixels": {name: title for name, (title, _) in _FIGURES.items() if name != "aupro_30"},
    f"AUPRO {EXACT_NOTE}": {figure: f"AUPRO {limit}" for figure, limit in LIMITS.items()},
    f"AUPRO {REFERENCE_NOTE}": {figure: f"AUPRO {limit}" for figure, limit in REFERENCE_LIMITS.items()},
}


def figures(evaluation: Evaluation) -> Element:
    """The main figures with explanations, a table of them per defect type, and a collapsed section with all figures."""
    overall, bounds = evaluation.metrics[OVERALL], evaluation.intervals[OVERALL]
    meanings = (
        tag("div", tag("dt", title),
            tag("dd", tag("strong", _number(getattr(overall, name))), _bounds(bounds[name]), tag("p", meaning)))
        for name, (title, meaning) in _FIGURES.items()
    )  # fmt: skip
    rows = (
        tag("tr", tag("th", kind, scope="row"), *(tag("td", _number(getattr(found, name))) for name in _FIGURES))
        for kind, found in evaluation.metrics.items()
    )
    several = (
        " If a part has several kinds, spots marked as another kind are left out." if evaluation.split.by_type else ""
    )
    return tag(
        "section",
        tag("h2", "Figures"),
        tag(
            "p",
            "They rate the scores and heat maps themselves, whatever the threshold, and run from 0 to 1, which is perfect;"
            f" an AUROC of 0.5 is no better than guessing. The {LEVEL:.0%} interval, in small print, is where the figure for very many"
            " such parts probably lies. With only tens of parts of a kind, all intervals except those of image AUROC are too narrow;"
            " an interval without any width is left out.",
        ),
        tag("dl", *meanings, class_="figures"),
        tag("h3", "By kind of defect"),
        tag(
            "p",
            f"Each kind compared with the good parts; a dash means that a figure is not defined.{several}",
            class_="quiet",
        ),
        table(["Kind", *(figure.title for figure in _FIGURES.values())], rows, class_="dense"),
        tag(
            "details",
            tag("summary", f"All figures with their {LEVEL:.0%} intervals"),
            tag("div", *(_in_full(evaluation, title, names) for title, names in _IN_FULL.items()), class_="full"),
        ),
    )


def _in_full(evaluation: Evaluation, title: str, names: dict[str, str]) -> Element:
    rows = []
    for kind, found in evaluation.metrics.items():
        bounds = evaluation.intervals[kind]
        cells = (tag("td", _number(getattr(found, name)), _bounds(bounds[name])) for name in names)
        rows.append(tag("tr", tag("th", kind, scope="row"), *cells))
    return table(["Kind", *names.values()], rows, title=title, class_="dense")


def charts(evaluation: Evaluation) -> Element:
    """The score histogram, and the ROC and PRO curves where their areas are defined."""
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
    defective, scores = evaluation.defective, evaluation.scored.scores
    chart = score_histogram(scores[~defective], scores[defective], evaluation.detector.threshold)
    return _chart(
        "The scores",
        chart,
        "Each bar counts the parts whose scores are close together; those right of the threshold are rejected."
        " The better the detector, the less the two colours overlap.",
    )


def _roc(evaluation: Evaluation, area: float) -> Element:
    defective, scores, rejected = evaluation.defective, evaluation.scored.scores, evaluation.rejected
    rate, share = float(rejected[~defective].mean()), float(rejected[defective].mean())
    at_threshold = f"The threshold in use finds {percent(share)} of the defective parts and rejects {percent(rate)} of the good ones."
    chart = rising_curve(
        *roc_curve(defective, scores),
        title="ROC curve",
        description=f"Area {area:.3f} of 1. {at_threshold}",
        x_title="good parts rejected",
        y_title="defective parts found",
        area_title=f"{_FIGURES['image_auroc'].title}: {area:.3f}",
        place=(rate, share),
        place_title=_threshold(evaluation),
    )
    return _chart(
        "Parts: the ROC curve",
        chart,
        "Each point is a threshold that could be chosen: a lower one finds more defective parts and rejects more good ones."
        f" {at_threshold}",
    )


def _pro(evaluation: Evaluation, area: float) -> Element:
    limit, masks, maps = LIMITS["aupro_30"], evaluation.split.ground_truth, evaluation.scored.maps
    rate, share = pro_point(masks, evaluation.outlined)
    sound = "under 0.01%" if 0 < rate < 1e-4 else f"{rate:.2%}"
    at_threshold = f"The threshold in use outlines {percent(share)} of a defect on average, and {sound} of the image around defects."
    chart = rising_curve(
        *pro_curve(masks, maps),
        title="PRO curve",
        description=f"Area {area:.3f} of 1, up to {limit:.0%} of the image around defects. {at_threshold}",
        x_title="image around defects that glows",
        y_title="share of a defect that glows",
        area_title=f"{_FIGURES['aupro_30'].title}: {area:.3f}",
        limit=limit,
        place=(rate, share),
        place_title=f"as outlined at {_threshold(evaluation)}",
    )
    return _chart(
        "Places: the PRO curve",
        chart,
        "The same for places on the parts: a lower threshold makes more of each defect glow, but also more of the image around it."
        f" Outlines extend beyond the threshold to where the glow ends, so their point lies off the curve. {at_threshold}",
    )


def _threshold(evaluation: Evaluation) -> str:
    return f"threshold {evaluation.detector.threshold:.3f}"


def _chart(title: str, chart: Element, meaning: str) -> Element:
    return tag("figure", tag("h3", title), chart, tag("figcaption", meaning), class_="chart")


def _number(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.3f}"


def _bounds(interval: Interval) -> Element | None:
    return None if math.isnan(interval[0]) else tag("small", "–".join(map(_number, interval)))
