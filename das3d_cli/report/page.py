"""An evaluation as one HTML page for people who decide about parts, readable on any screen, on paper and offline."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from das3d_cli import __version__
from das3d_cli.data.capture import GOOD
from das3d_cli.evaluation import Evaluation
from das3d_cli.files import check_folder, write_whole
from das3d_cli.intervals import LEVEL, share_interval
from das3d_cli.report.accuracy import charts, figures
from das3d_cli.report.cards import Fate, badge, cards, fates_of, heat_scale
from das3d_cli.report.draw import INK, PAPER
from das3d_cli.report.heatmap import ANOMALOUS, NORMAL
from das3d_cli.report.markup import document, image, percent, table, tag
from das3d_cli.report.pictures import DEFECT, Brightening
from das3d_cli.settings import FIELDS, Settings
from das3d_cli.sources import flatten

_SEEN = {"both": "photo and depth", "rgb": "only the photo", "depth": "only the depth"}
_COLOURS = {"paper": PAPER, "ink": INK, "wrong": ANOMALOUS, "right": NORMAL, "defect": DEFECT}


def write_page(path: Path, evaluation: Evaluation, run: str) -> None:
    """Write the page; equal evaluations give equal bytes.

    Args:
        run: where the model was loaded from, as shown on the page.

    Raises:
        DataError: the file cannot be written there.
    """
    check_folder(path)
    fates = fates_of(evaluation)
    body = tag(
        "main",
        _head(evaluation, fates, run),
        _verdicts(evaluation, fates),
        figures(evaluation),
        charts(evaluation),
        _gallery(evaluation, fates),
        _method(evaluation, run),
    )
    write_whole(path, document(f"{evaluation.detector.category}: inspection report", _style(), body))


def _head(evaluation: Evaluation, fates: tuple[Fate, ...], run: str) -> Element:
    missed, rejected, found, passed = fates
    defective, good = len(missed.parts) + len(found.parts), len(rejected.parts) + len(passed.parts)
    said = [
        *([f"{len(found.parts)} of {defective} defective parts found"] if defective else []),
        *([f"{len(rejected.parts)} of {good} good parts rejected"] if good else []),
    ]
    tiles = [_tile(found, "defective"), _tile(missed, "defective"), _tile(passed, "good"), _tile(rejected, "good")]
    return tag(
        "header",
        tag("p", f"{evaluation.detector.category} · inspection report", class_="eyebrow"),
        tag("h1", ", ".join(said)),
        tag(
            "p",
            f"A detector trained only on good parts has judged {defective + good} test parts"
            f"{'' if evaluation.known else ', none of them a copy of a training part'}. This page shows how often it was right,"
            " and every part.",
            class_="lead",
        ),
        *(tag("p", f"{note[0].upper()}{note[1:]}.", class_="lead") for note in evaluation.notes),
        tag("ul", *tiles, class_="tiles"),
        tag(
            "p",
            f"At threshold {evaluation.detector.threshold:.3f}, run {run}, das3d {__version__}: ",
            tag("a", "how this was measured", href="#method"),
            class_="quiet",
        ),
    )


def _tile(fate: Fate, kind: str) -> Element:
    number = len(fate.parts)
    text = tag("span", f"{kind} part" if number == 1 else f"{kind} parts")
    link = tag("a", tag("strong", str(number)), text, badge(fate), href=f"#{fate.name}")
    return tag("li", link, class_=None if number else "none")


def _verdicts(evaluation: Evaluation, fates: tuple[Fate, ...]) -> Element:
    wrong = {index for group in fates if not group.right for index in group.parts}
    rows = []
    for kind, parts in sorted(evaluation.split.kinds.items(), key=lambda item: item[0] == GOOD):
        mistakes = len(wrong.intersection(parts))
        cells = [tag("td", str(len(parts) - mistakes)), _mistakes(mistakes)]
        rejected_passed = cells[::-1] if kind == GOOD else cells
        rows.append(tag("tr", tag("th", kind, scope="row"), tag("td", str(len(parts))), *rejected_passed))
    several = " A part with several kinds of defect counts in the row of each." if evaluation.split.by_type else ""
    return tag(
        "section",
        tag("h2", "Verdicts by kind of part"),
        tag(
            "p",
            f"A part is rejected when its score reaches the threshold, {evaluation.detector.threshold:.3f}."
            f" Wrong verdicts are marked ✕.{several}",
        ),
        table(["Kind of part", "Parts", "Rejected", "Passed"], rows, class_="verdicts"),
        tag("p", _leeway(fates), class_="quiet"),
    )


def _leeway(fates: tuple[Fate, ...]) -> str:
    """Confidence intervals of the rates of defective parts found and good parts rejected, in words."""
    missed, rejected, found, passed = (len(group.parts) for group in fates)
    claims = [
        f"{what} {percent(low)} to {percent(high)} of {whom}"
        for what, hits, number, whom in (
            ("finds", found, found + missed, "such defective parts"),
            ("rejects", rejected, rejected + passed, "such good parts"),
        )
        if number
        for low, high in [share_interval(hits, number)]
    ]
    return (
        f"With {LEVEL:.0%} confidence, judging only by these parts, the detector {' and '.join(claims)};"
        " more test parts would narrow this down."
    )


def _mistakes(number: int) -> Element:
    return tag("td", f"✕ {number}", class_="wrong") if number else tag("td", "0")


def _gallery(evaluation: Evaluation, fates: tuple[Fate, ...]) -> Element:
    threshold, outline = evaluation.detector.threshold, evaluation.detector.outline
    light = Brightening.of(evaluation.split.rgb, evaluation.split.foreground)
    return tag(
        "section",
        tag("h2", "Every test part"),
        tag(
            "p",
            f"The detector saw {_SEEN[evaluation.detector.settings.model.modality]} of each part, cut out of its scene. In the depth"
            " pictures, near is bright. The heat map"
            " lies over the photo and glows where the detector suspects a defect; its peak is the part's score. The ground"
            " truth shows in orange where people marked the defect.",
            *(f" {note}" for note in light.notes),
        ),
        tag(
            "figure",
            image(
                heat_scale(threshold, outline),
                f"Colours of the heat maps: black at 0, yellow at 1, a line at {min(outline, threshold):.3f}",
            ),
            tag(
                "figcaption",
                *(
                    tag("span", text)
                    for text in ("0", f"places that reach {threshold:.3f} are outlined down to the line", "1")
                ),
            ),
            class_="scale",
        ),
        tag(
            "p",
            "Sizes are shares of the part's area as the camera saw it. For sizes in millimetres, which need the part's point cloud,"
            " use das3d predict.",
            class_="quiet",
        ),
        *(cards(evaluation, group, light) for group in fates),
    )


def _method(evaluation: Evaluation, run: str) -> Element:
    detector, labels = evaluation.detector, evaluation.split.labels
    s, good, kinds = detector.settings, labels.count(GOOD), len(evaluation.metrics) - 1
    window = "a window around the part" if s.preprocess.frame == "part" else "the whole image"
    facts = {
        "Run": run,
        "Category": detector.category,
        "Version": f"das3d {__version__}",
        "Test parts": f"{len(labels)}: {good} good, {len(labels) - good} defective"
        f" of {kinds} {'kind' if kinds == 1 else 'kinds'}",
        "Threshold": f"{detector.threshold:.3f}. Training set it so that {s.score.good_share:.0%} of good parts should pass, using good"
        " parts that it did not learn from and, if these are few, up to 64 of the others. The test parts had no influence on it.",
        "Judged by": f"{_SEEN[s.model.modality]}, {s.model.size} × {s.model.size} pixels of {window}",
        "Training": f"step {detector.step} of {s.train.steps}, the best in validation; {s.train.batch_size} parts per step, with"
        f" artificial defects; preset {s.preset}, seed {s.seed}",
    }
    return tag(
        "section",
        tag("h2", "How this was measured"),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in facts.items()), class_="facts"),
        tag("details", tag("summary", "All settings of the run"), _settings(s)),
        id="method",
    )


def _settings(settings: Settings) -> Element:
    rows = (
        tag("tr", tag("th", key, scope="row"), tag("td", str(value)), tag("td", FIELDS[key].description))
        for key, value in flatten(settings.model_dump(mode="json"))
    )
    return table(["Setting", "Value", "Meaning"], rows, class_="settings")


def _style() -> str:
    """The style sheet, with the colours of das3d's pictures."""
    colours = "".join(f"--{name}:rgb{colour};" for name, colour in _COLOURS.items())
    return f":root{{{colours}}}\n" + Path(__file__).with_name("page.css").read_text(encoding="utf-8")
