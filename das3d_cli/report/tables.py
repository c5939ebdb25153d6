"""Tables of figures: for one run, and for several runs side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from das3d_cli.data.capture import OVERALL
from das3d_cli.evaluation import Outcome
from das3d_cli.metrics import LIMITS, REFERENCE_LIMITS, Metrics
from das3d_cli.report.formats import FigureTable, Row
from das3d_cli.settings import IDLE, SEED

TITLES = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1_max": "I-F1-max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    **{figure: f"AUPRO@{limit}" for figure, limit in LIMITS.items()},
    **{figure: f"AUPRO@{limit} (reference)" for figure, limit in REFERENCE_LIMITS.items()},
}
_SEVERAL_NOTE = "a part with several types of defect counts for each, without the pixels of the others"
EXACT_NOTE = "exact: every threshold"
REFERENCE_NOTE = "reference: 100 thresholds, as published figures use"
_FIRST = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro_30")
_COMPARED = ("image_auroc", "pixel_auroc", "aupro_30")
_LABELS = ("defect type", "parts", "95 %")


def run_tables(outcome: Outcome) -> list[FigureTable]:
    """One run's main figures and all its AUPRO, for all parts and for each defect type, with 95 % intervals."""
    title = f"{outcome.category}: {outcome.metrics[OVERALL].samples} test parts"
    first = {TITLES[figure]: figure for figure in _FIRST}
    limits = {f"exact@{limit}": figure for figure, limit in LIMITS.items()}
    limits |= {f"reference@{limit}": figure for figure, limit in REFERENCE_LIMITS.items()}
    notes = [_SEVERAL_NOTE] if any(len(verdict["types"]) > 1 for verdict in outcome.verdicts) else []
    return [
        FigureTable(
            title, _LABELS, dict.fromkeys(first, 3), _rows_of_run(outcome, list(first.values())), "; ".join(notes)
        ),
        FigureTable(
            f"{outcome.category}: AUPRO",
            _LABELS,
            dict.fromkeys(limits, 3),
            _rows_of_run(outcome, list(limits.values())),
            "; ".join([EXACT_NOTE, REFERENCE_NOTE, *notes]),
        ),
    ]


def _rows_of_run(outcome: Outcome, figures: Sequence[str]) -> list[Row]:
    rows = []
    for name, metrics in outcome.metrics.items():
        bounds, parts = outcome.intervals[name], str(metrics.samples)
        rows += [
            Row((name, parts, ""), [getattr(metrics, figure) for figure in figures]),
            Row((name, parts, "from"), [bounds[figure][0] for figure in figures]),
            Row((name, parts, "to"), [bounds[figure][1] for figure in figures], ends=True),
        ]
    return rows


def comparison_table(outcomes: Sequence[Outcome]) -> FigureTable:
    """Runs side by side, one per row with the settings in which they differ; below, means of runs that differ only in seed."""
    numbers: dict[str, int] = {}
    for figure in _COMPARED:
        numbers |= {f"{TITLES[figure]}{bound}": 3 for bound in ("", " from", " to")}
    rows, notes = [], ["from, to: 95 % interval; AUPRO is exact"]
    alike: dict[tuple[str, str], list[tuple[object, Outcome]]] = {}
    for outcome, told in zip(outcomes, differing_settings(outcomes), strict=True):
        metrics, bounds = outcome.metrics[OVERALL], outcome.intervals[OVERALL]
        figures = [value for figure in _COMPARED for value in (getattr(metrics, figure), *bounds[figure])]
        rows.append(Row((outcome.run, outcome.category, _as_assignments(told)), figures))
        but_seed = {key: value for key, value in told.items() if key != SEED}
        alike.setdefault((outcome.category, _as_assignments(but_seed)), []).append((told.get(SEED), outcome))
    for (category, text), seeds in alike.items():
        if unfit := _no_mean_for(seeds):
            notes.append(f"no mean for {f'{category} {text}'.strip()}: {unfit}")
        elif len(seeds) > 1:
            rows += _rows_of_seeds(category, text, [outcome.metrics[OVERALL] for _, outcome in seeds])
    return FigureTable("runs side by side", ("run", "category", "settings"), numbers, rows, "; ".join(notes))


def _no_mean_for(seeds: Sequence[tuple[object, Outcome]]) -> str:
    """Why runs that differ only in seed must not be averaged; "" if they may."""
    if len({outcome.seen for _, outcome in seeds}) > 1:
        return "the runs were trained on different good parts"
    if len(dict(seeds)) < len(seeds):
        return "a seed occurs twice and would count twice"
    return ""


def _rows_of_seeds(category: str, text: str, runs: Sequence[Metrics]) -> list[Row]:
    """Mean and standard deviation of the figures of at least two runs, without intervals."""
    figures = np.array([[getattr(metrics, figure) for figure in _COMPARED] for metrics in runs])
    rows = []
    for name, values in (
        (f"mean of {len(runs)} seeds", figures.mean(axis=0)),
        ("standard deviation", figures.std(axis=0, ddof=1)),
    ):
        rows.append(
            Row((name, category, text), [value for own in values.tolist() for value in (own, math.nan, math.nan)])
        )
    return rows


def _as_assignments(settings: Mapping[str, object]) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
    )


def differing_settings(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Per run, the settings in which the runs differ, dotted key -> value."""
    keys = [
        key
        for key, value in outcomes[0].settings.items()
        if not key.startswith(IDLE) and any(other.settings[key] != value for other in outcomes)
    ]
    return [{key: outcome.settings[key] for key in keys} for outcome in outcomes]
