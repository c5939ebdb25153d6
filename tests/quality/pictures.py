"""False alarms seen: the good test parts that each category's detectors find most suspicious, before and after."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from experiments import cache_of
from jobs import Job
from numpy.typing import NDArray

from das3d_cli.data.capture import GOOD
from das3d_cli.detector import Detector
from das3d_cli.evaluation import Evaluation, evaluate_detector
from das3d_cli.files import write_whole

_TILE, _PARTS = 128, 2  # pixels; parts of each category
_CAPTION = 22


def false_alarms(jobs: list[Job], cache: Path, results: Path, path: Path) -> None:
    """One row per category: its most suspicious good parts of the first job's detector, with each job's anomaly map.

    Args:
        jobs: finished ones of two experiments, "before" and "after", in that order for every category.
    """
    rows = []
    for before, after in zip(jobs[::2], jobs[1::2], strict=True):
        judged = [_evaluate(job, cache, results) for job in (before, after)]
        good = np.flatnonzero(np.array(judged[0].split.labels) == GOOD)
        worst = good[np.argsort(judged[0].scored.scores[good])[::-1][:_PARTS]]
        rows.append(np.concatenate([_part(judged, int(place)) for place in worst], axis=1))
    sheet = np.concatenate(rows)
    caption = np.zeros((_CAPTION, sheet.shape[1], 3), np.uint8)
    for column, text in enumerate(("part", jobs[0].experiment, jobs[1].experiment) * _PARTS):
        cv2.putText(caption, text, (column * _TILE + 4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1)
    write_whole(path, cv2.imencode(".png", np.concatenate([caption, sheet]))[1].tobytes())


def _evaluate(job: Job, cache: Path, results: Path) -> Evaluation:
    record = json.loads(job.file(results).read_text(encoding="utf-8"))
    return evaluate_detector(
        Detector.load(results.with_name("runs") / record["run"], "cpu"), cache_of(job.experiment, cache)
    )


def _part(judged: list[Evaluation], place: int) -> NDArray[np.uint8]:
    """The part's colour image and its map by every detector, with its score."""
    tiles = [_small(judged[0].split.rgb[place][..., ::-1])]
    for evaluation in judged:
        shade = (np.clip(evaluation.scored.maps[place], 0, 1) * 255).astype(np.uint8)
        tile = _small(cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO))
        text = f"{evaluation.scored.scores[place]:.2f}"
        cv2.putText(tile, text, (4, _TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA))
