"""The results of preprocessing a data set."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from das3d_cli.data.cache import Record
from das3d_cli.data.capture import Form
from das3d_cli.data.layouts import Failure


@dataclass(frozen=True)
class Row:
    """One line of the summary: the samples of one category, split and label. Tilts are nan without points."""

    category: str
    split: str
    label: str
    samples: int
    new: int
    skipped: int
    missing_fraction: float
    tilt_mean_deg: float
    tilt_max_deg: float


@dataclass(frozen=True)
class Summary:
    """What `build` did: a row per category, split and label, the parts that could not be used, how each category's
    captures were read, and notes on odd ones, one line each."""

    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    forms: dict[str, Form] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def rows_of(category: str, records: Iterable[Record], new: Collection[str]) -> list[Row]:
    """Sum up one category's records; `new` holds the paths of those that were not in the cache before."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.split, record.label), []).append(record)
    rows = []
    for (split, label), group in groups.items():
        fresh = sum(record.path in new for record in group)
        missing = [record.geometry.missing_fraction for record in group]
        tilts = [record.geometry.tilt_deg for record in group if record.geometry.tilt_deg is not None] or [math.nan]
        rows.append(Row(category, split, label, len(group), fresh, len(group) - fresh,
                        float(np.mean(missing)), float(np.mean(tilts)), max(tilts)))  # fmt: skip
    return rows
