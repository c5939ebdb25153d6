"""A data set's figures in the form of the DAS3D paper's Tables 1 to 5, beside the published ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from das3d_cli.benchmark import Speed
from das3d_cli.data.capture import MEAN, OVERALL
from das3d_cli.errors import some_of
from das3d_cli.evaluation import Outcome
from das3d_cli.metrics import FIGURES
from das3d_cli.report.formats import FigureTable, Row
from das3d_cli.report.published import SOURCE, categories_of, in_part, published, recognise
from das3d_cli.report.tables import REFERENCE_NOTE, TITLES

OURS = "ours"
_BLOCKS = {"rgb": "RGB only", "depth": "3D only", "both": "RGB+3D"}  # as the paper names them, in its order
_TIMED = "MVTec 3D-AD"  # the data set of Table 5
_METRICS = {"I-AUROC": "image_auroc", "AUPRO@30": "aupro_30_reference"}


def mean_figures(outcomes: Sequence[Outcome], expected: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each modality the mean of every figure over the expected categories; nan where one of them has no run."""
    means = {}
    for modality in _modalities(outcomes):
        found = _by_category(outcomes, modality)
        means[modality] = {figure: _mean(_figures(found, figure, expected)) for figure in FIGURES}
    return means


def overview(outcomes: Sequence[Outcome], expected: Sequence[str]) -> FigureTable:
    """All figures of every run: a column per category, and their mean."""
    shown = [category for category in expected if any(outcome.category == category for outcome in outcomes)]
    means = mean_figures(outcomes, expected)
    rows, notes = [], []
    for modality in _modalities(outcomes):
        found = _by_category(outcomes, modality)
        if lacking := [category for category in expected if category not in found]:
            notes.append(f"no mean of {_BLOCKS[modality]} for want of a run of {some_of(lacking)}")
        for figure in FIGURES:
            figures = [*_figures(found, figure, shown), means[modality][figure]]
            rows.append(Row((_BLOCKS[modality], TITLES[figure]), figures, ends=figure == FIGURES[-1]))
    columns = dict.fromkeys([*shown, MEAN], 3)
    return FigureTable("all figures", ("modality", "figure"), columns, rows, "; ".join(notes))


def expected_categories(wanted: Sequence[str]) -> list[str]:
    """The categories that a mean is taken over: of a data set that the paper knows all, else those asked for."""
    dataset = recognise(wanted)
    return categories_of(dataset) if dataset else sorted(wanted)


def paper_tables(outcomes: Sequence[Outcome], expected: Sequence[str]) -> list[FigureTable]:
    """Tables 1 and 2, or 3 and 4, with our rows among the published ones; our rows alone for another data set."""
    dataset = recognise(expected)
    return [_paper_table(outcomes, expected, dataset, metric) for metric in _METRICS]


def _paper_table(outcomes: Sequence[Outcome], expected: Sequence[str], dataset: str | None, metric: str) -> FigureTable:
    figure, columns = _METRICS[metric], [*expected, MEAN]
    theirs: dict[str, dict[str, dict[str, float]]] = {modality: {} for modality in _BLOCKS}
    number = ""
    for p in published():
        if (p.dataset, p.metric) == (dataset, metric):
            theirs[p.modality].setdefault(p.method, {})[p.category] = p.value
            number = f"Table {p.table}: "
    rows = []
    for modality, methods in theirs.items():
        found = _by_category(outcomes, modality)
        block = [
            ((_BLOCKS[modality], method), [values[column] for column in columns]) for method, values in methods.items()
        ]
        if found:
            ours = _figures(found, figure, expected)
            block.append(((_BLOCKS[modality], OURS), [*ours, _mean(ours)]))
        rows += _with_best_in_bold(block)
    of_pixels = figure.startswith("aupro")
    notes = [REFERENCE_NOTE] if of_pixels else []
    if dataset:
        notes.append(f"published rows from {SOURCE}; {dataset} is known by its categories' names alone")
    elif others := in_part(expected):
        notes.append(
            f"published rows stand beside one data set's categories alone: name those of {others[0]} with --category"
        )
    if dataset and of_pixels and any(outcome.settings["preprocess.frame"] != "image" for outcome in outcomes):
        notes.append("our pixels are those of the window round the part (preprocess.frame), theirs the whole image's")
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
        f"ours: {run} on {device}, median and percentiles of a batch without its preprocessing, memory: {kind};"
        f" detection figures: das3d evaluate; published rows from {SOURCE}, {_TIMED}, on other hardware"
    )
    return FigureTable("Table 5: time and memory", ("method", "batch"), numbers, rows, note)


def _with_best_in_bold(block: Sequence[tuple[tuple[str, str], list[float]]]) -> list[Row]:
    """The rows of one modality; the highest figure of a column, as it is printed, is bold."""
    if not block:
        return []
    best = [max((round(f, 3) for f in column if not math.isnan(f)), default=math.nan) for column in
            zip(*(figures for _, figures in block), strict=True)]  # fmt: skip
    rows = []
    for labels, figures in block:
        bold = frozenset(i for i, figure in enumerate(figures) if len(block) > 1 and round(figure, 3) == best[i])
        rows.append(Row(labels, figures, bold))
    return [*rows[:-1], rows[-1]._replace(ends=True)]


def _modalities(outcomes: Sequence[Outcome]) -> list[str]:
    return [modality for modality in _BLOCKS if any(outcome.modality == modality for outcome in outcomes)]


def _by_category(outcomes: Sequence[Outcome], modality: str) -> dict[str, Outcome]:
    return {outcome.category: outcome for outcome in outcomes if outcome.modality == modality}


def _figures(found: Mapping[str, Outcome], figure: str, categories: Sequence[str]) -> list[float]:
    return [
        getattr(found[category].metrics[OVERALL], figure) if category in found else math.nan for category in categories
    ]


def _mean(figures: Sequence[float]) -> float:
    return statistics.fmean(figures)
