"""False alarms: the good test parts that a category's detectors find most suspicious, and where their maps light up."""

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

_TILE, _CAPTION = 128, 22  # pixels
_RIM = 4  # pixels on either side of a part's outline
_LIT = 0.2  # map value from which a defect is outlined


def false_alarms(jobs: list[Job], cache: Path, results: Path, path: Path) -> None:
    """Draw a row per category: the good parts that the first and the second detector score highest, with both maps.

    Prints how much of the good parts' maps lights up at their rims, at missing points and elsewhere.

    Args:
        jobs: finished jobs of two experiments, "before" and "after", alternating, a pair per category.
    """
    rows, lit = [], []
    for before, after in zip(jobs[::2], jobs[1::2], strict=True):
        judged = [_evaluate(job, cache, results) for job in (before, after)]
        good = np.flatnonzero(np.array(judged[0].split.labels) == GOOD)
        worst = [good[np.argmax(evaluation.scored.scores[good])] for evaluation in judged]
        rows.append(np.concatenate([_part(judged, int(place)) for place in worst], axis=1))
        lit.append([_lit(evaluation, good) for evaluation in judged])
    sheet = np.concatenate(rows)
    caption = np.zeros((_CAPTION, sheet.shape[1], 3), np.uint8)
    names = jobs[0].experiment, jobs[1].experiment
    for column, text in enumerate((f"worst of {names[0]}", *names, f"worst of {names[1]}", *names)):
        cv2.putText(caption, text, (column * _TILE + 4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (255, 255, 255), 1)
    write_whole(path, cv2.imencode(".png", np.concatenate([caption, sheet]))[1].tobytes())
    for name, (rim, missing, elsewhere) in zip(names, np.mean(lit, axis=0), strict=True):
        print(
            f"{name}: lit are {rim:.2%} of good parts' rims, {missing:.2%} of their missing points, {elsewhere:.2%} elsewhere"
        )


def _lit(evaluation: Evaluation, good: NDArray[np.intp]) -> list[float]:
    """Shares of lit pixels of the good parts: around the outline, at missing points, and on the rest of the part."""
    split, kernel = evaluation.split, np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8)
    part = split.foreground[good]
    wide, narrow = (np.stack([change(mask.astype(np.uint8), kernel) for mask in part]) > 0
                    for change in (cv2.dilate, cv2.erode))  # fmt: skip
    rim, missing = wide & ~narrow, narrow & ~split.valid[good]
    lit = evaluation.scored.maps[good] >= _LIT
    return [float(lit[where].mean()) for where in (rim, missing, narrow & ~missing)]


def _evaluate(job: Job, cache: Path, results: Path) -> Evaluation:
    record = json.loads(job.file(results).read_text(encoding="utf-8"))
    return evaluate_detector(
        Detector.load(results.with_name("runs") / record["run"], "cpu"), cache_of(job.experiment, cache)
    )


def _part(judged: list[Evaluation], place: int) -> NDArray[np.uint8]:
    """The part's RGB image, then each detector's map with its score."""
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
