"""Our rows in a data set's tables: runs of one method and modality, one per category or one per category and seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from das3d_cli.data.capture import OVERALL
from das3d_cli.errors import some_of
from das3d_cli.evaluation import Outcome
from das3d_cli.report.tables import differing_settings
from das3d_cli.settings import SEED

BLOCKS = {"rgb": "RGB only", "depth": "3D only", "both": "RGB+3D"}  # as the paper names them, in its order


class Ours(NamedTuple):
    """The runs of one row; those of a category differ in their seed.

    Attributes:
        method: name of the row.
        runs: category -> its runs, at least one.
    """

    method: str
    modality: str
    runs: Mapping[str, Sequence[Outcome]]

    @property
    def seeds(self) -> int:
        """The number of runs of the category that has the most."""
        return max(map(len, self.runs.values()))

    @property
    def differing(self) -> list[str]:
        """Dotted keys of the settings, other than the seed, in which the runs differ."""
        return [key for key in differing_settings(self._every)[0] if key != SEED]

    @property
    def _every(self) -> list[Outcome]:
        return [run for runs in self.runs.values() for run in runs]

    def kinds(self) -> list[tuple[str, Callable[[str, Sequence[str]], list[float]]]]:
        """Label suffix and function of each statistic of a figure: the value for one seed, mean and deviation for several."""
        if self.seeds == 1:
            return [("", self.means)]
        return [(f", mean of {self.seeds} seeds", self.means), (", standard deviation", self.deviations)]

    def means(self, figure: str, categories: Sequence[str]) -> list[float]:
        """The figure per category, averaged over its seeds, then the mean over categories; nan where there is no run."""
        own = [statistics.fmean(self._figures(figure, category).values() or [math.nan]) for category in categories]
        return [*own, statistics.fmean(own)]

    def deviations(self, figure: str, categories: Sequence[str]) -> list[float]:
        """The standard deviation of `means` over seeds; nan for one seed, and for the mean if categories differ in seeds."""
        found = [self._figures(figure, category) for category in categories]
        own = [_deviation(list(figures.values())) for figures in found]
        alike = all(figures.keys() == found[0].keys() for figures in found)
        of_seeds = [statistics.fmean(figures[seed] for figures in found) for seed in found[0]] if alike else []
        return [*own, _deviation(of_seeds)]

    def _figures(self, figure: str, category: str) -> dict[int, float]:
        """Seed -> the figure over all parts of a category; empty where there is no run."""
        return {run.settings[SEED]: getattr(run.metrics[OVERALL], figure) for run in self.runs.get(category, ())}

    def notes(self) -> Iterator[str]:
        """How the runs were trained, and caveats about their figures."""
        preset, steps, seed = (
            some_of([str(value) for value in sorted({run.settings[key] for run in self._every})])
            for key in ("preset", "train.steps", SEED)
        )
        unlike = f", with different {some_of(self.differing)}" if self.differing else ""
        yield f"{self.method}, {BLOCKS[self.modality]}: preset {preset}, {steps} steps, seed {seed}{unlike}"
        for category, runs in self.runs.items():
            if len(runs) < self.seeds:
                yield f"{category}: {len(runs)} of {self.seeds} seeds"
            if len({run.seen for run in runs}) > 1:
                yield f"{category}: its seeds were trained on different good parts"
            yield from dict.fromkeys(f"{category}: {note}" for run in runs for note in run.notes)


def ours_of(outcomes: Sequence[Outcome]) -> list[Ours]:
    """Group the runs into rows: modalities in the paper's order, then methods in order of appearance."""
    rows: dict[tuple[str, str], dict[str, list[Outcome]]] = {}
    for modality in BLOCKS:
        for outcome in outcomes:
            if outcome.modality == modality:
                rows.setdefault((modality, outcome.method), {}).setdefault(outcome.category, []).append(outcome)
    return [Ours(method, modality, runs) for (modality, method), runs in rows.items()]


def _deviation(figures: Sequence[float]) -> float:
    return statistics.stdev(figures) if len(figures) > 1 and not any(map(math.isnan, figures)) else math.nan
