"""Evaluate a detector on its category's test split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from das3d_cli import measure
from das3d_cli.data.cache import Split, begin_split, essential, fingerprints, in_portions, open_cache
from das3d_cli.data.capture import GOOD, Geometry
from das3d_cli.detector import TOGETHER, Detector
from das3d_cli.errors import DataError, some_of
from das3d_cli.intervals import Interval, intervals
from das3d_cli.metrics import Metrics, evaluate
from das3d_cli.modality import Modality
from das3d_cli.scoring import Scored
from das3d_cli.sources import flatten

OURS = "ours"  # our method's name in tables, beside published ones


@dataclass(frozen=True)
class Evaluation:
    """The test split, the detector's results on it, and their metrics.

    Attributes:
        metrics: "all", then each defect type.
        known: test parts, as good/003, that the detector was trained on or that set its threshold.
        unused: files of the category's captures, in any split, that could not be preprocessed and so count nowhere.
        geometries: per part, how to map back to the raw image.
    """

    detector: Detector
    split: Split
    scored: Scored
    metrics: dict[str, Metrics]
    known: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    geometries: list[Geometry] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Caveats about the figures, one line each."""
        return list(_notes(self.known, self.unused))

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """95 % intervals of the metrics, under the same names."""
        split, scored = self.split, self.scored
        return intervals(split.labels, scored.scores, scored.maps, split.ground_truth, split.by_type)

    @cached_property
    def defective(self) -> NDArray[np.bool_]:
        """(N,): which parts are labelled defective."""
        return np.array([label != GOOD for label in self.split.labels])

    @cached_property
    def rejected(self) -> NDArray[np.bool_]:
        """(N,): which parts the detector calls anomalous."""
        return self.detector.anomalous(self.scored.scores)

    @cached_property
    def outlined(self) -> NDArray[np.bool_]:
        """(N, S, S): which pixels the detector calls defective."""
        threshold, outline = self.detector.threshold, self.detector.outline
        return np.stack(
            [
                measure.defective(anomaly_map, measure.peak_level(anomaly_map, threshold, rejected), outline)
                for anomaly_map, rejected in zip(self.scored.maps, self.rejected.tolist(), strict=True)
            ]
        )

    def missed(self) -> list[int]:
        """Indices in the split of the defective parts that were passed as good."""
        return np.flatnonzero(self.defective & ~self.rejected).tolist()

    def false_alarms(self) -> list[int]:
        """Indices in the split of the good parts that were rejected."""
        return np.flatnonzero(~self.defective & self.rejected).tolist()

    def verdicts(self) -> list[dict[str, Any]]:
        """One plain record per test part."""
        return [
            {"label": label, "types": list(types), "name": name, "score": float(score), "anomalous": bool(rejected)}
            for label, types, name, score, rejected in zip(
                self.split.labels,
                self.split.types,
                self.split.names,
                self.scored.scores,
                self.rejected,
                strict=True,
            )
        ]


@dataclass(frozen=True)
class Outcome:
    """An evaluation without its images, so that many fit in memory.

    Attributes:
        run: the run folder or model file.
        settings: dotted key -> value, as trained.
        metrics, intervals: "all", then each defect type.
        missed: defect type -> names of the defective parts passed as good; a part with several types is in each.
        false_alarms: names of the good parts that were rejected.
        verdicts: one plain record per test part.
        step: training step that the weights are from.
        known, unused: as in `Evaluation`.
        seen: fingerprints of the parts that the detector was trained on or that set its threshold.
        method: name of its row in a data set's tables.
    """

    run: str
    category: str
    modality: Modality
    settings: dict[str, Any]
    threshold: float
    metrics: dict[str, Metrics]
    intervals: dict[str, dict[str, Interval]]
    missed: dict[str, list[str]]
    false_alarms: list[str]
    verdicts: list[dict[str, Any]]
    step: int
    known: list[str]
    unused: list[str]
    seen: frozenset[str]
    method: str = OURS

    @classmethod
    def of(cls, run: Path, evaluation: Evaluation, method: str = OURS) -> Outcome:
        detector, split = evaluation.detector, evaluation.split
        missed: dict[str, list[str]] = {kind: [] for kind in list(evaluation.metrics)[1:]}
        types = split.types
        for index in evaluation.missed():
            for kind in types[index]:
                missed[kind].append(split.names[index])
        return cls(
            run=str(run),
            category=detector.category,
            modality=detector.settings.model.modality,
            settings=dict(flatten(detector.settings.model_dump(mode="json"))),
            threshold=detector.threshold,
            metrics=evaluation.metrics,
            intervals=evaluation.intervals,
            missed=missed,
            false_alarms=[split.names[index] for index in evaluation.false_alarms()],
            verdicts=evaluation.verdicts(),
            step=detector.step,
            known=evaluation.known,
            unused=evaluation.unused,
            seen=detector.seen,
            method=method,
        )

    @property
    def notes(self) -> list[str]:
        """Caveats about the figures."""
        return list(_notes(self.known, self.unused))

    @property
    def missed_parts(self) -> int:
        """Number of defective parts passed as good, each counted once."""
        return sum(verdict["label"] != GOOD and not verdict["anomalous"] for verdict in self.verdicts)

    def record(self) -> dict[str, Any]:
        """Plain data, without the settings, which are in the run folder."""
        return {
            "run": self.run,
            "method": self.method,
            "category": self.category,
            "modality": self.modality,
            "step": self.step,
            "threshold": self.threshold,
            "metrics": {name: metrics._asdict() for name, metrics in self.metrics.items()},
            "intervals": self.intervals,
            "missed": self.missed,
            "false_alarms": self.false_alarms,
            "verdicts": self.verdicts,
            "known": self.known,
            "unused": self.unused,
        }


def _notes(known: Sequence[str], unused: Sequence[str]) -> Iterator[str]:
    if known:
        yield (
            "test parts that were used to train the run or to set its threshold, so that the figures are too good:"
            f" {len(known)} ({some_of(known)})"
        )
    if unused:
        yield f"captures that could not be preprocessed and are not counted: {len(unused)} ({some_of(unused)})"


def evaluate_detector(detector: Detector, cache_root: Path) -> Evaluation:
    """Score the test split of the detector's category.

    Raises:
        DataError: no cache, no test split, or a cache made with other settings or training captures than the run's.
    """
    cache = open_cache(cache_root, detector.category)
    made = cache.manifest
    wanted = essential(detector.settings.preprocess), detector.form.foreground
    if (essential(made.settings), made.form.foreground) != wanted:
        raise DataError(
            f"{cache.folder}: preprocessed with other settings than this run's training data;"
            " preprocess again with the run's settings, or train again on this cache"
        )
    own = detector.depth_range_m, detector.window_m, detector.form.plane_distance_m
    if (made.depth_range_m, made.window_m, made.form.plane_distance_m) != own:
        raise DataError(
            f"{cache.folder}: made from other training captures than this run's; train again on it, or preprocess only the run's"
        )
    split, reading = begin_split(cache, "test")
    scored = detector.score_each(in_portions(split.inputs, TOGETHER, reading))
    metrics = evaluate(split.labels, scored.scores, scored.maps, split.ground_truth, split.by_type)
    marks = zip(split.labels, split.names, fingerprints(split.inputs), strict=True)
    known = [f"{label}/{name}" for label, name, mark in marks if mark in detector.seen]
    geometries = [record.geometry for record in cache.samples("test")]
    return Evaluation(detector, split, scored, metrics, known, cache.unused, geometries)
