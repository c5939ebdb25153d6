"""The figures that the DAS3D paper publishes, of its own method and of others.

published.csv holds Tables 1 to 5 of Li, Dai, Fu and Hou, "Dual-modality Anomaly Synthesis for 3D Anomaly Detection",
2024 (arXiv:2410.09821v2), value by value as printed; from Table 5 the time and the memory. Three printed means differ
from the means of their rows: DAS3D on depth in Table 4 (0.721 printed, 0.691 from the row), M3DM on both in Table 4
(0.882, 0.8865) and ShapeGuided on depth in Table 1 (0.916, 0.9147).
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

from das3d_cli.data.capture import MEAN

SOURCE = "Li et al., 2024, arXiv:2410.09821v2"


class Published(NamedTuple):
    """One value of one table. category: a data set's category, or "mean"."""

    table: str
    dataset: str
    metric: str
    modality: str
    method: str
    category: str
    value: float


@functools.cache
def published() -> tuple[Published, ...]:
    """Every value, in the order of the paper."""
    file = resources.files("das3d_cli.report").joinpath("published.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return tuple(Published(**row | {"value": float(row["value"])}) for row in rows)  # type: ignore[arg-type]


def categories_of(dataset: str) -> list[str]:
    """The categories of a data set, in the order of the paper's columns."""
    return list(dict.fromkeys(p.category for p in published() if p.dataset == dataset and p.category != MEAN))


def recognise(categories: Iterable[str]) -> str | None:
    """The data set that has all of these categories, by name, or None."""
    wanted = set(categories)
    return next((dataset for dataset in in_part(wanted) if wanted <= set(categories_of(dataset))), None)


def in_part(categories: Iterable[str]) -> list[str]:
    """The data sets that have some of these categories, by name."""
    wanted = set(categories)
    return [name for name in dict.fromkeys(p.dataset for p in published()) if wanted & set(categories_of(name))]
