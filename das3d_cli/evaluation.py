"""A detector against its category's test split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.cache import Split, load_split, open_cache
from das3d_cli.data.capture import GOOD
from das3d_cli.detector import Detector
from das3d_cli.errors import DataError
from das3d_cli.intervals import Interval, intervals
from das3d_cli.metrics import Metrics, evaluate
from das3d_cli.scoring import Scored


@dataclass(frozen=True)
class Evaluation:
    """The test split, what the detector said of it, and how good that is (`metrics`: "all", then each defect type)."""

    detector: Detector
    split: Split
    scored: Scored
    metrics: dict[str, Metrics]

    @cached_property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """95 % intervals of the metrics, by the same names."""
        return intervals(self.split.labels, self.scored.scores, self.scored.maps, _masks(self.split))

    def missed(self) -> list[int]:
        """Places in the split of the defective parts that were passed."""
        passed = ~self.detector.anomalous(self.scored.scores)
        return [i for i, label in enumerate(self.split.labels) if label != GOOD and passed[i]]

    def false_alarms(self) -> list[int]:
        """Places in the split of the good parts that were rejected."""
        rejected = self.detector.anomalous(self.scored.scores)
        return [i for i, label in enumerate(self.split.labels) if label == GOOD and rejected[i]]

    def verdicts(self) -> list[dict[str, Any]]:
        """One plain record per test part."""
        return [
            {"label": label, "name": name, "score": float(score), "anomalous": bool(verdict)}
            for label, name, score, verdict in zip(
                self.split.labels,
                self.split.names,
                self.scored.scores,
                self.detector.anomalous(self.scored.scores),
                strict=True,
            )
        ]


def evaluate_detector(detector: Detector, cache_root: Path) -> Evaluation:
    """Score the test split of the detector's category.

    Raises:
        DataError: no cache, no test split, or a cache that was preprocessed otherwise than the training data.
    """
    cache = open_cache(cache_root, detector.category)
    made = cache.manifest
    if (made.settings, made.depth_range_m, made.window_px) != (
        detector.settings.preprocess, detector.depth_range, detector.window_px,
    ):  # fmt: skip
        raise DataError(
            f"{cache.folder}: preprocessed otherwise than this run's training data;"
            " preprocess again with the run's settings, or train again on this cache"
        )
    split = load_split(cache, "test")
    scored = detector.score(split.rgb, split.depth, split.foreground)
    return Evaluation(detector, split, scored, evaluate(split.labels, scored.scores, scored.maps, _masks(split)))


def _masks(split: Split) -> NDArray[np.bool_]:
    """The ground truth; whatever a mask says, a good part has no defect."""
    return np.logical_and(split.ground_truth, (np.array(split.labels) != GOOD)[:, None, None])
