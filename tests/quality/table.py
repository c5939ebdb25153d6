"""Results in one CSV, and the Markdown tables made from it."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

from experiments import STUDIES

FIELDS = ("preset", "experiment", "category", "seed", "kind", "samples", "image_auroc", "image_ap", "pixel_auroc",
          "pixel_ap", "aupro_30", "minutes", "settings")  # fmt: skip
_KEY = FIELDS[:5]
Row = dict[str, str]

_HEAD = """# Results of the detection benchmark

Image AUROC / AUPRO@0.3 on the test split: the mean, with the standard deviation where there are several seeds. Minutes are those of one
training, with several running side by side. `nox -s quality` writes this file from results.csv, which also holds the figures of each kind
of defect; CHOICES.md says what was tried on the way. Cookies have 45 defective test parts, but only 36 where results.csv counts 56
samples. Eight detectors that judged both sets have the same image AUROC in the mean, and 0.005 less AUPRO on the 45.

"""


def collect(results: Path, table: Path) -> list[Row]:
    """Merge the results' JSON files into the CSV, by preset, experiment, category, seed and kind of defect."""
    rows: dict[tuple[str, ...], Row] = {}
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = {tuple(row[name] for name in _KEY): row for row in csv.DictReader(file)}
    for path in sorted(results.glob("*/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for kind, metrics in record["metrics"].items():
            row = {name: str(record[name]) for name in ("preset", "experiment", "category", "seed")}
            row |= {"kind": kind, "minutes": f"{record['minutes']:.2f}", "settings": " ".join(record["settings"])}
            row |= {name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
            rows[tuple(row[name] for name in _KEY)] = row
    merged = [rows[key] for key in sorted(rows)]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged)
    return merged


def markdown(rows: list[Row]) -> str:
    """Every study as a table: a row per experiment, a column per category, mean and standard deviation over seeds."""
    parts = []
    for study in STUDIES:
        for preset in [study.preset] if study.preset else sorted({row["preset"] for row in rows}):
            of_study = [row for row in _pick(rows, preset=preset) if row["category"] in study.categories]
            shown = [name for name in study.experiments if _pick(of_study, experiment=name)]
            if len(shown) > 1 or (shown and study.preset):
                table = _table(of_study, study.categories, shown)
                parts.append(f"## {study.title} (preset {preset})\n\n{study.text}\n\n{table}")
    return _HEAD + "\n\n".join(parts) + "\n"


def _table(rows: list[Row], categories: Iterable[str], experiments: Iterable[str]) -> str:
    everything = {name: _pick(rows, experiment=name, kind="all") for name in experiments}
    categories = [name for name in categories if any(_pick(found, category=name) for found in everything.values())]
    lines = [
        "| | " + " | ".join(categories) + " | mean | pixel AUROC | minutes | seeds |",
        "|---" * (len(categories) + 5) + "|",
    ]
    for name, found in everything.items():
        seeds = sorted({row["seed"] for row in found})
        whole = [of_seed for seed in seeds if len(of_seed := _pick(found, seed=seed)) == len(categories)]
        cells = [_figures(_pick(found, category=category)) for category in categories]
        means = _figures([_mean_row(of_seed) for of_seed in whole])
        pixel, minutes = (
            _mean([row for of_seed in whole for row in of_seed], field) for field in ("pixel_auroc", "minutes")
        )
        counts = [count for category in categories if (count := len(_pick(found, category=category)))]
        least, most = min(counts), max(counts)
        beside = [means, _number(pixel, 3), _number(minutes, 1), f"{least} to {most}" if least < most else str(most)]
        lines.append(f"| {name} | " + " | ".join(cells + beside) + " |")
    return "\n".join(lines)


def _figures(rows: list[Row]) -> str:
    """Image AUROC / AUPRO, each with its spread over the seeds."""
    if not rows:
        return "–"
    return " / ".join(_spread([float(row[field]) for row in rows]) for field in ("image_auroc", "aupro_30"))


def _spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def _number(value: float, decimals: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def _mean_row(rows: list[Row]) -> Row:
    return {field: str(_mean(rows, field)) for field in ("image_auroc", "aupro_30")}


def _mean(rows: list[Row], field: str) -> float:
    values = [value for row in rows if not math.isnan(value := float(row[field]))]
    return statistics.fmean(values) if values else math.nan


def _pick(rows: list[Row], **wanted: str) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]
