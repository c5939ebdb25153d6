"""The result of preprocessing as a table; kept apart from the figures of detectors, which take seconds to import."""

from __future__ import annotations

import math
from collections import Counter

from rich.table import Table
from rich.text import Text

from das3d_cli.data.summary import Summary
from das3d_cli.files import on_a_line
from das3d_cli.report.formats import DASH


def preprocess_table(summary: Summary) -> Table:
    """One row per category, split and label ("new": samples made by this run), and one for a category's failures."""
    table = Table(title=Text("preprocessed"), title_justify="left")
    for name in ("category", "split", "label"):
        table.add_column(name, no_wrap=True)
    for name in ("samples", "new", "missing", "tilt mean", "tilt max"):
        table.add_column(name, justify="right", no_wrap=True)
    failed = Counter(failure.category for failure in summary.failures)
    for category in sorted({row.category for row in summary.rows} | set(failed)):
        for row in (row for row in summary.rows if row.category == category):
            figures = (
                f"{row.missing_fraction:.1%}" if row.missing_fraction < 1 else DASH,  # images alone have no points
                _degrees(row.tilt_mean_deg),
                _degrees(row.tilt_max_deg),
            )
            table.add_row(
                Text(on_a_line(category)),
                row.split,
                Text(on_a_line(row.label)),
                str(row.samples),
                str(row.new),
                *figures,
            )
        if failed[category]:
            table.add_row(Text(on_a_line(category)), "", "failed", str(failed[category]), style="bold red")
        table.add_section()
    return table


def _degrees(angle: float) -> str:
    return DASH if math.isnan(angle) else f"{angle:.1f}°"
