"""What a program that calls das3d relies on, beyond the verdicts themselves."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import das3d_cli
from das3d_cli import DataError, Detector, UsageError
from das3d_cli.configure import resolve
from das3d_cli.data.build import build
from das3d_cli.data.cache import open_cache
from das3d_cli.data.capture import RawCapture
from das3d_cli.data.layouts import find_entries
from das3d_cli.engine import training
from das3d_cli.engine.recorded import EAGER_CALLS, Recorded
from das3d_cli.settings import PreprocessSettings

TINY = ["model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=2", "train.batch_size=2",
        "train.validate_every=2", "train.validation_defects=2", "synthesis.texture_count=8"]  # fmt: skip


@pytest.fixture(scope="module")
def run(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    build(find_entries(shared_dataset, ["tire"]), folder / "out", PreprocessSettings(size=64), workers=1)
    settings, cache = resolve({}, TINY, environment={}), open_cache(folder / "out", "tire")
    trainer = training.start(settings, cache, folder / "runs", torch.device("cpu"))
    training.finish(trainer, lambda step, values: None)
    return trainer.run


@pytest.fixture(scope="module")
def ring(capture: Callable[..., RawCapture]) -> RawCapture:
    return capture("ring", defect="bump")


@pytest.fixture
def detector(run: Path) -> Detector:
    return Detector.load(run, "cpu")


def test_all_that_is_documented_can_be_imported():
    assert issubclass(das3d_cli.DataError, das3d_cli.Das3dError) and issubclass(
        das3d_cli.UsageError, das3d_cli.Das3dError
    )
    for name in das3d_cli.__all__:
        assert getattr(das3d_cli, name) is not None
    with pytest.raises(AttributeError, match="Detectors"):
        das3d_cli.Detectors  # noqa: B018


def test_a_prediction_as_plain_data_is_strict_json(detector: Detector, ring: RawCapture):
    detector.threshold = 1e-6  # so that there are defects
    found = detector.predict(ring.rgb, ring.xyz)
    unknown = found.defects[0]._replace(length_mm=math.nan)
    found.defects[:] = [unknown, *found.defects]
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert list(told) == ["anomalous", "score", "threshold", "defects", "notes"]
    assert told["defects"][0]["length_mm"] is None and told["defects"][1]["length_mm"] == pytest.approx(
        found.defects[1].length_mm
    )
    assert told["anomalous"] is True and told["score"] == found.score


class TestThreshold:
    @pytest.mark.parametrize("value", [math.nan, 0, -1, 1.5, math.inf, None, "high"])
    def test_one_that_is_no_score_is_refused(self, detector: Detector, value: object):
        before = detector.threshold
        with pytest.raises(UsageError, match=r"^threshold .*: must be a score above 0 and at most 1$"):
            detector.threshold = value  # type: ignore[assignment]
        assert detector.threshold == before

    def test_it_becomes_a_plain_number(self, detector: Detector, ring: RawCapture):
        detector.threshold = np.float32(0.25)  # type: ignore[assignment]
        assert json.dumps(detector.predict(ring.rgb, ring.xyz).threshold) == "0.25"

    def test_what_training_set_may_be_set_again(self, detector: Detector):
        detector._threshold = float(np.nextafter(1, 2))  # just above 1, as if a good part had scored 1
        detector.threshold = detector.threshold


class TestProcesses:
    def test_a_fork_of_a_process_that_loaded_a_detector_is_told_instead_of_waiting_for_ever(
        self, run: Path, ring: RawCapture
    ):
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            told = _in_a_fork(Detector.load(run, "cpu"), run, ring)
        finally:
            torch.set_num_threads(threads)
        assert len(told) == 4 and all("forked from one that had loaded a detector" in text for text in told)

    def test_one_thread_outlives_a_fork(self, run: Path, ring: RawCapture):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        cv2_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            detector = Detector.load(run, "cpu")
            score = detector.predict(ring.rgb, ring.xyz).score
            assert _in_a_fork(detector, run, ring) == [str(score)] * 4
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(cv2_threads)

    def test_a_detector_is_not_sent_to_another(self, detector: Detector):
        with pytest.raises(TypeError, match=r"^a detector cannot be pickled; load one from its file in each process$"):
            pickle.dumps(detector)


def _in_a_fork(detector: Detector, run: Path, ring: RawCapture) -> list[str]:
    """The scores or errors that a forked process gets from the parent's detector (one part, several) and its own."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_judge_forked, args=(theirs, detector, run, ring))
    child.start()
    try:
        return ours.recv() if ours.poll(60) else []
    finally:
        child.kill()
        child.join()


def _judge_forked(answers: Connection, detector: Detector, run: Path, ring: RawCapture) -> None:
    found = []
    for judge in (
        lambda: detector.predict(ring.rgb, ring.xyz).score,
        lambda: detector.predict_many([(ring.rgb, ring.xyz)])[0].score,
        lambda: Detector.load(run, "cpu").predict(ring.rgb, ring.xyz).score,
        lambda: detector.warm_up() or detector.predict(ring.rgb, ring.xyz).score,
    ):
        try:
            found.append(str(judge()))
        except UsageError as error:
            found.append(str(error))
    answers.send(found)


@pytest.fixture
def told_by(run: Path, ring: RawCapture, tmp_path: Path) -> Callable[[str], list[str]]:
    """Runs a program that is given `detector` and a capture's `rgb` and `xyz`; returns the words that it prints."""
    np.savez(tmp_path / "ring.npz", rgb=ring.rgb, xyz=ring.xyz)
    begin = (
        "import sys, threading, time; import numpy as np; from das3d_cli import Detector\n"
        "detector, (rgb, xyz) = Detector.load(sys.argv[1], 'cpu'), np.load(sys.argv[2]).values()\n"
    )

    def of(program: str) -> list[str]:
        call = [sys.executable, "-c", begin + program, run, tmp_path / "ring.npz"]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=120).stdout.split()

    return of


def test_what_is_warm_imports_nothing_at_its_first_part(told_by: Callable[[str], list[str]]):
    assert told_by(
        "before = 'open3d' in sys.modules; detector.warm_up(); warm = set(sys.modules)\n"
        "detector.predict(rgb, xyz); print(before, 'open3d' in warm, set(sys.modules) - warm)"
    ) == ["False", "True", "set()"]


def test_a_warm_detector_has_recorded_its_pass(run: Path, monkeypatch: pytest.MonkeyPatch):
    class Counting(Recorded[Tensor]):
        calls = 0

        def __call__(self, *inputs: Tensor) -> Tensor:
            self.calls += 1
            return self._work(*inputs)

    detector = Detector.load(run, "cpu")
    monkeypatch.setattr(detector, "_look", look := Counting(detector._look))
    detector.warm_up()
    assert look.calls > EAGER_CALLS


def test_a_thread_judges_on_when_the_main_thread_has_ended(told_by: Callable[[str], list[str]]):
    before, after = told_by(
        "def work():\n"
        "    threading.main_thread().join(); time.sleep(0.5); print(detector.predict(rgb, xyz).score)\n"
        "print(detector.predict(rgb, xyz).score); threading.Thread(target=work).start()"
    )
    assert before == after


def test_models_are_told_apart(run: Path, detector: Detector, tmp_path: Path):
    assert len(detector.fingerprint) == 16 and detector.fingerprint == Detector.load(run, "cpu").fingerprint
    content = torch.load(run / "checkpoints/best.pt", weights_only=True)
    assert content["das3d"] == das3d_cli.__version__
    next(value for value in content["network"].values() if value.is_floating_point()).flatten()[0] += 1e-6
    torch.save(content, tmp_path / "other.pt")
    assert Detector.load(tmp_path / "other.pt", "cpu").fingerprint != detector.fingerprint


@pytest.mark.parametrize(
    "xyz",
    [[[[0.0, 0.0, 1.0]], [[0.0]]], torch.zeros(20, 20, 3, requires_grad=True), torch.zeros(20, 20, 3, dtype=torch.bfloat16)],
    ids=["ragged", "with a gradient", "bfloat16"],
)  # fmt: skip
def test_what_is_no_array_is_told(detector: Detector, xyz: object):
    rgb = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(DataError, match=r"^xyz: is not an array that numpy can read: [^\n]+$"):
        detector.predict(rgb, xyz)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^captures\[0\]: xyz: is not an array"):
        detector.predict_many([(rgb, xyz)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
    ids=["numpy", "opencv"],
)
def test_too_little_memory_is_a_data_error(
    detector: Detector, ring: RawCapture, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fails(*arguments: object, **options: object) -> None:
        raise error

    for place in ("preprocess", "as_points", "find_defects"):
        monkeypatch.setattr(f"das3d_cli.detector.{place}", fails)
        detector.threshold = 1e-6
        with pytest.raises(DataError, match=r"^cpu: out of memory while preparing a capture; free some memory$"):
            detector.predict(ring.rgb, ring.xyz)
        monkeypatch.undo()


class TestCommand:
    """`das3d predict` as another program starts it."""

    def start(self, run: Path, *arguments: object, **streams: object) -> subprocess.Popen[str]:
        call = [sys.executable, "-m", "das3d_cli", "predict", "--run", run, "--gpus", "cpu", *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return subprocess.Popen([*map(str, call)], text=True, bufsize=1, **pipes)

    def test_records_tell_all_so_that_nobody_need_read_standard_error(self, run: Path, shared_dataset: Path):
        """A writer blocks when its pipe is full and nobody reads it."""
        part = shared_dataset / "tire/test/good"
        lines = ["xyz,rgb,name", f"{part}/xyz/000.tiff,{part}/rgb/000.png,../x", "no.tiff,no.png,", "a.tiff,,b"]
        with self.start(run, "--parts", "-", "--json") as process:
            out, told = process.communicate("\n".join(lines) + "\n", timeout=120)
        wrong, absent, half = map(json.loads, out.splitlines())
        assert (wrong["xyz"], wrong["rgb"], wrong["name"]) == (f"{part}/xyz/000.tiff", f"{part}/rgb/000.png", "")
        assert "row 2" in wrong["error"] and absent["error"] == "no.png: no such file; a colour image is expected here"
        assert half["xyz"] == "a.tiff" and "row 4" in half["error"]
        assert [line.split(":")[0] for line in told.splitlines()] == [f"using {run} (tire)", "parts"]

    def test_a_heat_map_that_is_not_drawn_is_told_in_the_record(self, run: Path, shared_dataset: Path, tmp_path: Path):
        part = shared_dataset / "tire/test/good"
        (tmp_path / "000.png").write_bytes(b"a photo")
        with self.start(run, "--parts", "-", "--json", "--heatmap", tmp_path) as process:
            out, _ = process.communicate(f"xyz,rgb\n{part}/xyz/000.tiff,{part}/rgb/000.png\n", timeout=120)
        record = json.loads(out)
        assert record["score"] > 0 and record["heatmap"] is None and len(record["model"]) == 16
        assert [note for note in record["notes"] if note.startswith("no heat map: ") and "did not write" in note]
        assert process.returncode == 1 and (tmp_path / "000.png").read_bytes() == b"a photo"

    def test_names_that_are_no_valid_text_leave_the_record_readable_to_all(self, run: Path, tmp_path: Path):
        for ending in (b"tiff", b"png"):
            with open(os.fsencode(tmp_path) + b"/p\xe9." + ending, "wb") as file:
                file.write(b"no image")
        with self.start(run, "--parts", tmp_path, "--json") as process:
            out, _ = process.communicate(timeout=120)
        assert json.loads(out)["name"] == "p?" and "\\ud" not in out

    def test_rows_that_are_no_part_of_the_detector_keep_other_parts_heat_maps(
        self, run: Path, shared_dataset: Path, tmp_path: Path
    ):
        part = shared_dataset / "tire/test/good"
        row = f"{part}/xyz/000.tiff,{part}/rgb/000.png"
        call = ("--parts", "-", "--json", "--heatmap", tmp_path)
        with self.start(run, *call) as process:
            process.communicate(f"xyz,rgb,name,category\n{row},,\n{row},t7,\n", timeout=120)
        drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert drawn.keys() == {"000.png", "t7.png"}
        with self.start(run, *call) as process:
            out, _ = process.communicate(
                f"xyz,rgb,name,category\n{row},t7,cookie\n{row},../x,\nno.tiff,no.png,gone,\n", timeout=120
            )
        assert [json.loads(line)["anomalous"] for line in out.splitlines()] == [None] * 3
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == drawn

    def test_a_service_that_is_stopped_leaves_nothing_half_written(
        self, run: Path, shared_dataset: Path, tmp_path: Path
    ):
        part = shared_dataset / "tire/test/good"
        row = f"{part}/xyz/000.tiff,{part}/rgb/000.png"
        with self.start(run, "--parts", "-", "--json", "--heatmap", tmp_path) as process:
            assert process.stdin and process.stdout
            process.stdin.write("xyz,rgb,name\n" + "".join(f"{row},{number}\n" for number in range(300)))
            process.stdin.flush()
            first = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            rest, told = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in told
        records = [json.loads(line) for line in (first + rest).splitlines()]
        assert 0 < len(records) < 300 and (first + rest).endswith("\n")
        assert {path.name for path in tmp_path.iterdir()} >= {f"{record['name']}.png" for record in records}
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".png"]


def test_a_program_may_have_another_default_dtype(run: Path, detector: Detector, ring: RawCapture):
    expected = detector.predict(ring.rgb, ring.xyz).score
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert detector.predict(ring.rgb, ring.xyz).score == expected
        assert Detector.load(run, "cpu").predict(ring.rgb, ring.xyz).score == expected
    finally:
        torch.set_default_dtype(usual)
