"""Figures as tables for a terminal, and as plain data for JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from das3d_cli.data.summary import Summary
from das3d_cli.metrics import OVERALL, Metrics

_METRIC_TITLES = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "aupro_30": "AUPRO@0.3",
}


def metrics_table(results: Mapping[str, Metrics], title: str) -> Table:
    """One row for all parts, then one per defect type; a figure that is undefined is a dash."""
    table = _table(title, texts=["defect type"], numbers=[*_METRIC_TITLES.values(), "samples"])
    for name, metrics in results.items():
        figures = [_number(getattr(metrics, field), 3) for field in _METRIC_TITLES]
        overall = name == OVERALL
        table.add_row(
            Text(name), *figures, str(metrics.samples), style="bold" if overall else None, end_section=overall
        )
    return table


def preprocess_table(summary: Summary, title: str = "preprocessed") -> Table:
    """One row per category, split and label ("new" were made now), and one for what a category could not use."""
    table = _table(
        title,
        texts=["category", "split", "label"],
        numbers=["samples", "new", "missing", "tilt mean", "tilt max"],
    )
    failed = Counter(failure.category for failure in summary.failures)
    for category in sorted({row.category for row in summary.rows} | set(failed)):
        for row in (row for row in summary.rows if row.category == category):
            figures = (
                f"{row.missing_fraction:.1%}",
                _number(row.tilt_mean_deg, 1, "°"),
                _number(row.tilt_max_deg, 1, "°"),
            )
            table.add_row(Text(category), row.split, Text(row.label), str(row.samples), str(row.new), *figures)
        if failed[category]:
            table.add_row(Text(category), "", "failed", str(failed[category]), style="bold red")
        table.add_section()
    return table


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float, decimals: int, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}{unit}"
