"""The trained detector: `evaluate`, `predict` and other programs use this one class.

detector = Detector.load("runs/tire-001")
prediction = detector.predict(rgb, xyz)
if prediction.anomalous:
    print(prediction.score, prediction.defects[0].length_mm)
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from das3d_cli import configure, runs
from das3d_cli import device as devices
from das3d_cli.batch import Batch, Parts
from das3d_cli.data.cache import VERSION, Inputs, in_portions
from das3d_cli.data.capture import Form, RawCapture, Sample
from das3d_cli.data.common import preprocessing
from das3d_cli.data.oddity import Usual, oddities, of_defects
from das3d_cli.data.preprocess import preprocess
from das3d_cli.data.readers import as_points, as_rgb, check_size
from das3d_cli.data.square import to_raw
from das3d_cli.data.workers import in_order
from das3d_cli.engine import checkpoint
from das3d_cli.engine.recorded import EAGER_CALLS, Recorded
from das3d_cli.errors import DataError, UsageError
from das3d_cli.measure import Defect, Surface, defective, find_defects, peak_level
from das3d_cli.modality import Modality
from das3d_cli.model import Das3d
from das3d_cli.scoring import Pass, Scored, judging, score_each
from das3d_cli.settings import JUDGING, Settings

TOGETHER = 64  # samples on the device at a time: enough to keep it busy, and memory does not grow with the split
# Raw captures judged at a time; a large one takes 100 MB, and up to two more per core are being prepared meanwhile.
_CAPTURES = 16
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Prediction:
    """The verdict on one part.

    Attributes:
        anomalous: the score reaches the threshold.
        score: anomaly score, 0 to 1.
        threshold: the one applied; training sets it, see `das3d_cli.scoring.threshold_scores`.
        anomaly_map: float32, (H, W), 0 to 1, in pixels of the raw image.
        defects: regions whose peak reaches the threshold, each extending down to score.outline, strongest first.
        sample: the part as the network saw it.
        notes: how the capture is unlike those trained on, one sentence each, for people to check.
    """

    anomalous: bool
    score: float
    threshold: float
    anomaly_map: NDArray[np.float32]
    defects: list[Defect]
    sample: Sample
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the images; an unknown size is None."""
        return {
            "anomalous": self.anomalous,
            "score": self.score,
            "threshold": self.threshold,
            "defects": [
                {key: None if math.isnan(value) else value for key, value in defect._asdict().items()}
                for defect in self.defects
            ],
            "notes": list(self.notes),
        }


class Detector:
    """A network with everything needed to preprocess a raw capture as its training data were.

    Use it only in the process that loaded it. Finding the table seeds Open3D's global random number generator.

    Attributes:
        category: the one it was trained on.
        fingerprint: of the model file, 16 hexadecimal digits: tells which model gave a verdict.
        step: training step that the weights are from.
        seen: fingerprints of the parts that it was trained on or that set its threshold.
    """

    _loading_process: int | None = None  # the last one that loaded a detector: this one, or its parent before a fork

    def __init__(
        self, model_file: dict[str, Any], settings: Settings, device: torch.device, *, cuda_graphs: bool = False
    ) -> None:
        self.settings, self.device = settings, device
        self.category: str = model_file["category"]
        self._threshold: float = model_file["threshold"]
        self.step: int = model_file["step"]
        self.fingerprint = ""
        self.seen: frozenset[str] = frozenset(model_file["seen"])
        depth_range = model_file["depth_range_m"]
        self.depth_range_m: tuple[float, float] | None = (depth_range[0], depth_range[1]) if depth_range else None
        self.window_m: float | None = model_file["window_m"]
        self.form, usual = Form.of_saved(model_file["form"]), Usual(**model_file["usual"])
        # A detector that looks at depth alone uses photos only to find the part, so they are not checked.
        self.usual = (
            replace(usual, brightness=None, grey=None, tint=None, sharpness=None, photos="", photo_offset=None)
            if settings.model.modality == "depth"
            else usual
        )
        self.network = Das3d(**settings.model.model_dump()).float()  # whatever the program's default dtype is
        try:
            self.network.load_state_dict(model_file["network"])
        except RuntimeError as error:  # as a ValueError, since device errors are RuntimeErrors too
            raise ValueError("weights of another network") from error
        look = judging(self.network.to(device))
        # Threads that share a GPU gain nothing from concurrent passes, and each pass would need its own memory.
        self._turn = threading.Lock() if device.type == "cuda" else contextlib.nullcontext()
        self._look: Pass = Recorded(look) if cuda_graphs and device.type == "cuda" else look

    @classmethod
    def load(cls, path: str | Path, gpus: str | int = "auto", *, cuda_graphs: bool = False) -> Detector:
        """Load a run folder's best model, or a model file; runs no code from the file.

        Args:
            path: a run folder, or its checkpoints/best.pt or a copy of that.
            gpus: "auto", "cpu" or a GPU's number.
            cuda_graphs: on a GPU, launch a pass as one CUDA graph, for programs that judge one part after another: a
                pass takes 3 ms instead of 17 on an H200. The first passes of each batch size take longer, and each size
                keeps memory of its own. Use such a detector from one thread only.

        Raises:
            DataError: there is no model, it is damaged or of another version, or memory is too small.
            UsageError: `gpus` is no device or a GPU that does not exist, or this process was forked from one that had
                loaded a detector.
        """
        cls._check_process()
        path = Path(path)
        file = path / runs.BEST if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            raise DataError(f"{path}: {_lacking(path)}")
        device = devices.choose(gpus)
        content, fingerprint = checkpoint.load_with_fingerprint(file)
        Detector._loading_process = os.getpid()
        if "optimizer" in content:
            raise DataError(f"{file}: a saved training state, not a model; use {runs.BEST.name} beside it")
        if content.get("preprocessing") != VERSION:
            raise DataError(f"{file}: its training data were preprocessed by another version of das3d; train again")
        try:
            with devices.within_memory(device, "for the network; free some memory"):
                settings = configure.load(content["settings"], file, JUDGING)
                detector = cls(content, settings, device, cuda_graphs=cuda_graphs)
            if not math.isfinite(detector.threshold):
                raise ValueError("a threshold that is no number")
            detector.fingerprint = fingerprint
            return detector
        except (KeyError, TypeError, ValueError, IndexError):
            raise DataError(f"{file}: not a model of this version of das3d; train again") from None

    @classmethod
    def _check_process(cls) -> None:
        """Refuse to work in a forked process: torch's threads do not survive a fork, and work for them never ends."""
        if cls._loading_process not in (None, os.getpid()) and torch.get_num_threads() > 1:
            raise UsageError(
                "this process was forked from one that had loaded a detector, and torch's threads do not work in it: start"
                ' processes before loading one, or with multiprocessing.get_context("spawn"), and load a detector in each'
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a detector cannot be pickled; load one from its file in each process")

    @property
    def threshold(self) -> float:
        """Lowest score of an anomalous part: set by training, or by the caller to a value in (0, 1].

        Raises:
            UsageError: it is set to another value.
        """
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number <= 1 and number != self._threshold:
            raise UsageError(f"threshold {value}: must be a score above 0 and at most 1")
        self._threshold = number

    def warm_up(self) -> None:
        """Do now what the first part would wait for: seconds of work, mostly loading Open3D.

        With CUDA graphs this records the pass for one part; those for other batch sizes are recorded as they occur.

        Raises:
            DataError: Open3D cannot be loaded, or memory is too small.
        """
        if self.form.foreground == "table":
            try:
                import open3d  # noqa: F401
            except (ImportError, OSError) as error:
                raise DataError(f"Open3D cannot be loaded: {error}; reinstall open3d or open3d-cpu") from None
        size = self.settings.model.size
        rgb, depth = np.zeros((1, size, size, 3), np.uint8), np.full((1, size, size), 0.5, np.float32)
        for _ in range(EAGER_CALLS + 1 if isinstance(self._look, Recorded) else 1):
            self.score(rgb, depth, np.ones((1, size, size), np.bool_), np.zeros((1, 2), np.float32))

    @property
    def needs(self) -> Modality:
        """What a capture must hold: "both", "rgb" (training had images alone) or "depth" (training had points alone).

        A detector that looks at only one of the two needs both if training had both, to find the part: points separate
        it from the table, and colours tell missing points on the part from those around it.
        """
        return self.form.modalities

    @property
    def outline(self) -> float:
        """Anomaly map value that all pixels of a defect reach, see `das3d_cli.measure.defective`."""
        return self.settings.score.outline

    def predict(self, rgb: NDArray[np.uint8] | None, xyz: NDArray[np.float32] | None = None) -> Prediction:
        """Judge one raw capture.

        Args:
            rgb: uint8, (H, W, 3), or (H, W) if grey; may be None if it needs depth alone.
            xyz: float32, (H, W, 3), metres; missing points are (0, 0, 0) or NaN. None if it needs RGB alone.

        Raises:
            DataError: the capture cannot be used, or memory is too small; says why.
        """
        with devices.within_memory(_CPU, "while preparing a capture; free some memory"):
            capture = self._capture(rgb, xyz)
        return self.predict_capture(capture)

    def predict_capture(self, capture: RawCapture) -> Prediction:
        """Judge a raw capture from `das3d_cli.data.readers.read_capture`, without checking its arrays again.

        Raises:
            DataError: as `predict`.
        """
        self._check_process()
        with devices.within_memory(_CPU, "while preparing a capture; free some memory"):
            capture = self._as_needed(capture)
            return self._judge([(capture, self.prepare(capture))])[0]

    def predict_many(
        self, captures: Sequence[tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]]
    ) -> list[Prediction]:
        """Judge several raw captures, pairs (rgb, xyz) of any size. Results equal those of `predict` within rounding.

        Threads preprocess the next captures while the network judges the last ones in batches.

        Raises:
            DataError: a capture cannot be used, or memory is too small; says which capture and why.
        """

        def checked(place: int) -> tuple[RawCapture, Sample]:
            try:
                rgb, xyz = captures[place]
            except (TypeError, ValueError):
                raise DataError(f"captures[{place}]: must be a pair (rgb, xyz), of which one may be None") from None
            try:
                capture = self._capture(rgb, xyz)
                return capture, self.prepare(capture)
            except DataError as error:
                raise DataError(f"captures[{place}]: {error}") from None

        self._check_process()
        ready, found = in_order(checked, range(len(captures))), []
        with devices.within_memory(_CPU, "while preparing captures; free some memory, or give fewer at a time"):
            while some := list(itertools.islice(ready, _CAPTURES)):
                found += self._judge(some)
        return found

    def _capture(self, rgb: NDArray[np.uint8] | None, xyz: NDArray[np.float32] | None) -> RawCapture:
        """Check a program's arrays and make a capture of them."""
        given = self._as_needed(RawCapture(rgb, xyz))
        photo = None if given.rgb is None else as_rgb(given.rgb, "rgb")
        points = None if given.xyz is None else as_points(given.xyz, "xyz")
        if photo is not None and points is not None:
            check_size("rgb", photo, points.shape[:2])
        return RawCapture(photo, points)

    def _as_needed(self, capture: RawCapture) -> RawCapture:
        """Drop what this detector ignores. Raises DataError: needed data are missing, or unneeded points are given."""
        if (capture.rgb is None and self.needs != "depth") or (capture.xyz is None) != (self.needs == "rgb"):
            wanted = {"both": "rgb and xyz", "rgb": "rgb without xyz", "depth": "xyz, and rgb may be None"}[self.needs]
            raise DataError(f"this detector of {self.category} needs {wanted}")
        # In training on points alone colours did not help to find the part, so they must not here.
        return replace(capture, rgb=None) if self.needs == "depth" else capture

    def _judge(self, parts: list[tuple[RawCapture, Sample]]) -> list[Prediction]:
        scored = self.score(
            np.stack([sample.rgb for _, sample in parts]),
            np.stack([sample.depth for _, sample in parts]),
            np.stack([sample.foreground for _, sample in parts]),
            np.array([sample.geometry.parallax for _, sample in parts], np.float32),
        )
        found = []
        verdicts = self.anomalous(scored.scores).tolist()
        for (capture, sample), map_, value, anomalous in zip(parts, *scored, verdicts, strict=True):
            anomaly_map = to_raw(map_, sample.geometry)
            levels = peak_level(anomaly_map, self.threshold, anomalous), self.outline
            defects = find_defects(anomaly_map, _surface(capture, sample), *levels) if anomalous else []
            # Resizing to the raw image can lower the peak, even below the threshold.
            defects[:1] = [defect._replace(score=float(value)) for defect in defects[:1]]
            notes = oddities(sample.geometry, self.form, self.usual, self.window_m)
            outlined = defective(map_, peak_level(map_, self.threshold, anomalous), self.outline)
            notes += of_defects(outlined[sample.foreground])
            found.append(Prediction(anomalous, float(value), self.threshold, anomaly_map, defects, sample, notes))
        return found

    def anomalous(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The verdicts on parts with these scores, (N,)."""
        return scores >= self.threshold

    def prepare(self, capture: RawCapture) -> Sample:
        """Preprocess a capture exactly as the training data were."""
        return preprocess(
            capture, **preprocessing(self.settings.preprocess, self.form, self.depth_range_m, self.window_m)
        )

    def score(
        self,
        rgb: NDArray[np.uint8],
        depth: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        parallax: NDArray[np.float32],
    ) -> Scored:
        """Judge stacked samples, (N, S, S, 3), (N, S, S), (N, S, S) and (N, 2); the maps come back at the samples' size.

        Args:
            rgb, depth, foreground, parallax: as from `prepare` or the cache; S is the detector's settings.model.size or
                a whole multiple of it.

        Raises:
            DataError: there are no samples, their shapes do not fit, or memory is too small.
        """
        shapes = [array.shape for array in (rgb, depth, foreground, parallax)]
        count, size, own = len(depth), depth.shape[-1], self.settings.model.size
        if not count or size % own or shapes != [(count, size, size, 3), *[(count, size, size)] * 2, (count, 2)]:
            raise DataError(
                f"samples of shapes {', '.join(map(str, shapes))}: must be (N, S, S, 3), (N, S, S), (N, S, S) and (N, 2), with"
                f" N at least 1 and S {own} or a whole multiple of it"
            )
        together = min(count, TOGETHER)
        return self.score_each(in_portions((rgb, depth, foreground, parallax), TOGETHER), together)

    def score_each(self, portions: Iterable[Inputs], together: int = TOGETHER) -> Scored:
        """As `score`, for samples in portions of at most `together`: while a GPU works on one, the next is fetched."""
        self._check_process()
        size = 0

        def batches() -> Iterator[Batch]:
            nonlocal size
            for portion in portions:
                size = portion[1].shape[-1]
                yield Parts.stack(*portion, size=self.settings.model.size, device=self.device).unpacked()

        with self._turn, devices.within_memory(self.device, f"for {together} parts at once; free some memory"):
            maps, scores = score_each(self._look, batches(), self.settings.score.smoothing, self.settings.views_taken)
        if not np.isfinite(scores).all():  # NaN would pass as good
            raise DataError("a score is not a number: the model or the samples are damaged; preprocess and train again")
        if maps.shape[-1] == size:
            return Scored(maps, scores)
        grown = torch.nn.functional.interpolate(
            torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear", align_corners=False
        )
        return Scored(grown[:, 0].numpy(), scores)


def _lacking(folder: Path) -> str:
    """Why a folder holds no model, and what to do."""
    if (folder / runs.SUMMARY).is_file():
        return f"this run's model, {runs.BEST}, is gone; restore it, or train again"
    if (folder / runs.LAST).is_file():
        return f"no model in this run folder yet; continue its training: das3d train --resume {folder}"
    if (folder / runs.SETTINGS).is_file():
        return "no checkpoint in this run folder, as its training stopped too early; train again"
    return f"not a run folder; name one, such as runs/tire-001, or a model file, such as its {runs.BEST}"


def _surface(capture: RawCapture, sample: Sample) -> Surface | None:
    """What a part's defects are measured on; None without points, when sizes are unknown."""
    if capture.xyz is None or sample.geometry.plane is None:
        return None
    part = to_raw(sample.foreground.astype(np.float32), sample.geometry) > 0.5
    return Surface(capture.xyz, part, sample.geometry.plane[:3])
