"""Our own rows in a data set's tables: the runs of one method and one modality, of each category one or one a seed."""

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
    """Runs that stand in one row; those of a category differ in their seed.

    Attributes:
        method: what the row is called.
        runs: category -> its runs, at least one.
    """

    method: str
    modality: str
    runs: Mapping[str, Sequence[Outcome]]

    @property
    def seeds(self) -> int:
        """Of the category that has most."""
        return max(map(len, self.runs.values()))

    @property
    def differing(self) -> list[str]:
        """The settings, but for the seed, in which the runs are not all alike, dotted keys."""
        return [key for key in differing_settings(self._every)[0] if key != SEED]

    @property
    def _every(self) -> list[Outcome]:
        return [run for runs in self.runs.values() for run in runs]

    def kinds(self) -> list[tuple[str, Callable[[str, Sequence[str]], list[float]]]]:
        """What is told of each figure, and by what its label goes on: with one seed its value, with several their mean and deviation."""
        if self.seeds == 1:
            return [("", self.means)]
        return [(f", mean of {self.seeds} seeds", self.means), (", standard deviation", self.deviations)]

    def means(self, figure: str, categories: Sequence[str]) -> list[float]:
        """The figure of each category in the mean of its seeds, and the mean of these; nan where there is no run."""
        own = [statistics.fmean(self._figures(figure, category).values() or [math.nan]) for category in categories]
        return [*own, statistics.fmean(own)]

    def deviations(self, figure: str, categories: Sequence[str]) -> list[float]:
        """The standard deviation of what `means` gives, from seed to seed; nan of one seed, and where categories have different ones."""
        found = [self._figures(figure, category) for category in categories]
        own = [_deviation(list(figures.values())) for figures in found]
        alike = all(figures.keys() == found[0].keys() for figures in found)
        of_seeds = [statistics.fmean(figures[seed] for figures in found) for seed in found[0]] if alike else []
        return [*own, _deviation(of_seeds)]

    def _figures(self, figure: str, category: str) -> dict[int, float]:
        """Seed -> the figure of all of a category's parts; none where there is no run."""
        return {run.settings[SEED]: getattr(run.metrics[OVERALL], figure) for run in self.runs.get(category, ())}

    def notes(self) -> Iterator[str]:
        """How the runs were trained, and what is to be known beside their figures."""
        preset, steps, seed = (
            some_of([str(value) for value in sorted({run.settings[key] for run in self._every})])
            for key in ("preset", "train.steps", SEED)
        )
        unlike = f", not trained alike: {some_of(self.differing)}" if self.differing else ""
        yield f"{self.method}, {BLOCKS[self.modality]}: preset {preset}, {steps} steps, seed {seed}{unlike}"
        for category, runs in self.runs.items():
            if len(runs) < self.seeds:
                yield f"{category}: {len(runs)} of {self.seeds} seeds"
            if len({run.seen for run in runs}) > 1:
                yield f"{category}: its seeds learnt from different good parts"
            yield from dict.fromkeys(f"{category}: {note}" for run in runs for note in run.notes)


def ours_of(outcomes: Sequence[Outcome]) -> list[Ours]:
    """The rows that the runs make, by modality in the paper's order, then by method as they come."""
    rows: dict[tuple[str, str], dict[str, list[Outcome]]] = {}
    for modality in BLOCKS:
        for outcome in outcomes:
            if outcome.modality == modality:
                rows.setdefault((modality, outcome.method), {}).setdefault(outcome.category, []).append(outcome)
    return [Ours(method, modality, runs) for (modality, method), runs in rows.items()]


def _deviation(figures: Sequence[float]) -> float:
    return statistics.stdev(figures) if len(figures) > 1 and not any(map(math.isnan, figures)) else math.nan
