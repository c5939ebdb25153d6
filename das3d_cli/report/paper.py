"""A data set's figures in the form of the DAS3D paper's Tables 1 to 5, beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from das3d_cli.benchmark import Speed
from das3d_cli.data.capture import MEAN
from das3d_cli.errors import some_of
from das3d_cli.evaluation import OURS, Outcome
from das3d_cli.metrics import FIGURES
from das3d_cli.report.formats import FigureTable, Row
from das3d_cli.report.ours import BLOCKS, Ours, ours_of
from das3d_cli.report.published import SOURCE, categories_of, in_part, published, recognise
from das3d_cli.report.tables import REFERENCE_NOTE, TITLES

_TIMED = "MVTec 3D-AD"  # the data set of Table 5
_METRICS = {"I-AUROC": "image_auroc", "AUPRO@30": "aupro_30_reference"}


def overview(outcomes: Sequence[Outcome], expected: Sequence[str]) -> FigureTable:
    """All figures of all runs: a column per category, and one for their mean."""
    ours = ours_of(outcomes)
    several = len({row.method for row in ours}) > 1
    shown = [category for category in expected if any(category in row.runs for row in ours)]
    rows, notes = [], []
    for row in ours:
        whose = (BLOCKS[row.modality], *([row.method] if several else []))
        if lacking := [category for category in expected if category not in row.runs]:
            notes.append(f"no mean for {', '.join(whose)}, as there is no run of {some_of(lacking)}")
        for figure in FIGURES:
            for kind, of in row.kinds():
                figures = [*of(figure, shown)[:-1], of(figure, expected)[-1]]
                rows.append(Row((*whose, f"{TITLES[figure]}{kind}"), figures))
        rows[-1] = rows[-1]._replace(ends=True)
    texts = ("modality", *(["method"] if several else []), "figure")
    notes += [_tested(outcomes), *_about(ours)]
    return FigureTable("all figures", texts, dict.fromkeys([*shown, MEAN], 3), rows, "; ".join(notes))


def records(outcomes: Sequence[Outcome], expected: Sequence[str]) -> list[dict[str, Any]]:
    """Per row, each figure's mean over the expected categories and its standard deviation over seeds, as plain data."""
    return [
        {
            "method": row.method,
            "modality": row.modality,
            "seeds": row.seeds,
            "mean": {figure: row.means(figure, expected)[-1] for figure in FIGURES},
            "standard_deviation": {figure: row.deviations(figure, expected)[-1] for figure in FIGURES},
        }
        for row in ours_of(outcomes)
    ]


def _about(ours: Sequence[Ours]) -> Iterator[str]:
    return (note for row in ours for note in row.notes())


def _tested(outcomes: Sequence[Outcome]) -> str:
    """A note on the number of test parts per category."""
    parts = {outcome.category: len(outcome.verdicts) for outcome in outcomes}
    return f"test parts: {', '.join(f'{category} {count}' for category, count in parts.items())}"


def expected_categories(wanted: Sequence[str]) -> list[str]:
    """The categories that a mean is taken over: all those of a data set in the paper, else those asked for."""
    dataset = recognise(wanted)
    return categories_of(dataset) if dataset else sorted(wanted)


def paper_tables(outcomes: Sequence[Outcome], expected: Sequence[str]) -> list[FigureTable]:
    """Tables 1 and 2, or 3 and 4, with our rows among the published ones; our rows alone for another data set."""
    dataset = recognise(expected)
    return [_paper_table(outcomes, expected, dataset, metric) for metric in _METRICS]


def _paper_table(outcomes: Sequence[Outcome], expected: Sequence[str], dataset: str | None, metric: str) -> FigureTable:
    figure, columns = _METRICS[metric], [*expected, MEAN]
    theirs: dict[str, dict[str, dict[str, float]]] = {modality: {} for modality in BLOCKS}
    number = ""
    for p in published():
        if (p.dataset, p.metric) == (dataset, metric):
            theirs[p.modality].setdefault(p.method, {})[p.category] = p.value
            number = f"Table {p.table}: "
    rows, ours = [], ours_of(outcomes)
    for modality, methods in theirs.items():
        block = [_Line(method, [values[column] for column in columns]) for method, values in methods.items()]
        for row in (row for row in ours if row.modality == modality):
            block += [
                _Line(f"{row.method}{kind}", of(figure, expected), in_contest=not place)
                for place, (kind, of) in enumerate(row.kinds())
            ]
        rows += _with_best_in_bold(BLOCKS[modality], block)
    of_pixels = figure.startswith("aupro")
    notes = [*_about(ours), *([REFERENCE_NOTE] if of_pixels else [])]
    if dataset:
        notes.append(f"published rows from {SOURCE}; {dataset} is recognised only by its categories' names")
    elif others := in_part(expected):
        notes.append(
            f"published rows are shown only beside the categories of one data set: name those of {others[0]} with --category"
        )
    if dataset and of_pixels and any(outcome.settings["preprocess.frame"] != "image" for outcome in outcomes):
        notes.append(
            "our pixel figures cover the window around the part (preprocess.frame), the published ones the whole image"
        )
    return FigureTable(
        f"{number}{TITLES[figure]}{f', {dataset}' if dataset else ''}",
        ("modality", "method"), dict.fromkeys(columns, 3), rows, "; ".join(notes),
    )  # fmt: skip


def benchmark_table(speeds: Sequence[Speed], run: str, device: str, *, cuda: bool) -> FigureTable:
    """The paper's Table 5, with a row of ours for each batch size."""
    theirs: dict[str, dict[str, float]] = {p.method: {} for p in published() if p.table == "5"}
    for p in published():
        if p.method in theirs and (p.dataset, p.modality, p.category) == (_TIMED, "both", MEAN):
            theirs[p.method][p.metric] = p.value
    numbers = {"latency ms": 1, "p5 ms": 1, "p95 ms": 1, "parts/s": 1, "memory MB": 0, "I-AUROC": 3, "AUPRO@0.3": 3}
    unknown = math.nan
    rows = []
    for method, v in theirs.items():
        time, memory = 1000 * v["inference time (s)"], v["memory (MB)"]
        rows.append(Row((method, "-"), [time, unknown, unknown, unknown, memory, v["I-AUROC"], v["AUPRO@30"]]))
    rows[-1] = rows[-1]._replace(ends=True)
    rows += [Row((OURS, str(speed.batch_size)), [*speed[1:], unknown, unknown]) for speed in speeds]
    kind = "allocated on the GPU" if cuda else "growth of the process's peak RSS"
    note = (
        f"ours: {run} on {device}, median and percentiles of the time per batch, without preprocessing, memory: {kind};"
        f" for detection figures use das3d evaluate; published rows from {SOURCE}, {_TIMED}, on other hardware"
    )
    return FigureTable("Table 5: time and memory", ("method", "batch"), numbers, rows, note)


class _Line(NamedTuple):
    """A row of one modality. in_contest: its figures may be marked as the best."""

    method: str
    figures: list[float]
    in_contest: bool = True


def _with_best_in_bold(modality: str, block: Sequence[_Line]) -> list[Row]:
    """The rows of one modality, with the highest figure of each column, compared as printed, in bold."""
    if not block:
        return []
    contest = [line.figures for line in block if line.in_contest]
    best = [
        max((round(f, 3) for f in column if not math.isnan(f)), default=math.nan)
        for column in zip(*contest, strict=True)
    ]
    rows = []
    for line in block:
        bold = frozenset(
            place
            for place, figure in enumerate(line.figures)
            if line.in_contest and len(contest) > 1 and round(figure, 3) == best[place]
        )
        rows.append(Row((modality, line.method), line.figures, bold))
    return [*rows[:-1], rows[-1]._replace(ends=True)]
