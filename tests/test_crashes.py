"""A training that is killed at any moment, meets a full disk, runs short of memory, or diverges."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from das3d_cli import device, runs
from das3d_cli.configure import resolve
from das3d_cli.data.build import build
from das3d_cli.data.cache import Cache, load_split, open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.detector import Detector
from das3d_cli.engine import checkpoint, training
from das3d_cli.engine.trainer import Trainer
from das3d_cli.errors import DataError
from das3d_cli.files import check_folder, write_whole
from das3d_cli.settings import PreprocessSettings

CPU = torch.device("cpu")
TINY = ["model.size=32", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=6", "train.batch_size=2",
        "train.validate_every=2", "train.validation_defects=1", "synthesis.texture_count=2"]  # fmt: skip

# Rounding may decide whether a state is the best yet, which adds a file: checkpoints at each of ten steps make enough
# files for all kills in any case.
MANY_FILES = ("train.steps=10", "train.validate_every=1")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, as the forked processes do: runs are compared bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cache(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    root = tmp_path_factory.mktemp("cache")
    build(find_entries(shared_dataset, ["tire"]), root, PreprocessSettings(size=32), workers=1)
    return open_cache(root, "tire")


def start(cache: Cache, base: Path, *more: str) -> Trainer:
    return training.start(resolve({}, [*TINY, *more], environment={}), cache, base, CPU)


def finish(trainer: Trainer) -> None:
    training.finish(trainer, lambda step, values: None)


def ends_as(run: Path, other: Path) -> None:
    """Check that both runs hold the same files, and equal weights, threshold, best figures and records, bit for bit."""
    assert {path.name for path in run.rglob("*")} == {path.name for path in other.rglob("*")}
    for name in ("best.pt", "last.pt"):
        a, b = (checkpoint.load(folder / "checkpoints" / name) for folder in (run, other))
        assert a["step"] == b["step"] and a.get("threshold") == b.get("threshold") and a.get("best") == b.get("best")
        assert [key for key in a["network"] if not torch.equal(a["network"][key], b["network"][key])] == []
    speed = {"images_per_second": None}
    assert [r | speed for r in runs.read_metrics(run)] == [r | speed for r in runs.read_metrics(other)]


def go_on(cache: Cache, base: Path, fatal: int, moment: str) -> None:
    """Start or resume a training and finish it, unless this process kills itself while writing a file.

    Args:
        fatal: number of that file among those written, from 1; 0: none.
        moment: "before" its content is written, "half" through it, or "after" the file is in place.
    """
    torch.set_num_threads(1)
    written = 0
    write, replace = Path.write_bytes, Path.replace

    def dying_write(path: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written == fatal and moment != "after":
            write(path, data[: len(data) // 2 if moment == "half" else 0])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, data)

    def dying_replace(path: Path, target: Path) -> Path:
        moved = replace(path, target)
        if written == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.write_bytes, Path.replace = dying_write, dying_replace  # type: ignore[method-assign,assignment]
    left = [path.parents[1] for path in base.glob("*/checkpoints/last.pt")]
    finish(training.resume(left[0], cache.folder.parent, CPU) if left else start(cache, base, *MANY_FILES))


@pytest.fixture(scope="module")
def whole(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    trainer = start(cache, tmp_path_factory.mktemp("whole"), *MANY_FILES)
    finish(trainer)
    return trainer.run


def written_at(base: Path) -> list[int]:
    """When the runs' metrics.jsonl were last written, in ns."""
    return [path.stat().st_mtime_ns for path in base.glob("*/metrics.jsonl")]


class TestKilled:
    """Killed by `kill -9`, from an impatient user or the kernel."""

    def survives(self, base: Path, process: BaseProcess, whole: Path) -> bool:
        """Check what a process left; return whether the run is finished."""
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        for path in base.glob("*/checkpoints/*.pt"):
            if path.name == "last.pt":
                assert 0 <= Trainer.read_state(path.parents[1])["step"] <= 10
            else:
                assert Detector.load(path, "cpu").category == "tire"
        finished = list(base.glob("*/summary.json"))
        assert (process.exitcode == 0) <= bool(finished)
        for path in finished:
            ends_as(path.parent, whole)
        return bool(finished)

    def test_while_a_file_is_written(self, cache: Cache, tmp_path: Path, whole: Path, forked):
        random = np.random.default_rng(0)
        moments = random.permutation(["before", "half", "after", "after", "half"]).tolist()
        for number, moment in zip(random.permutation(5) + 1, moments, strict=True):  # 1: a new run's settings
            process = forked(go_on, cache, tmp_path, int(number), moment)
            assert not self.survives(tmp_path, process, whole)
            for metrics in tmp_path.glob("*/metrics.jsonl"):
                metrics.write_text(metrics.read_text() + '{"step": 3, "lo')  # a line cut short
        assert self.survives(tmp_path, forked(go_on, cache, tmp_path, 0, ""), whole)

    def test_before_it_has_learnt_anything(self, cache: Cache, tmp_path: Path, whole: Path, forked):
        for delay in np.random.default_rng(0).uniform(0, 0.4, 4).tolist():
            process = forked(go_on, cache, tmp_path, 0, "")
            time.sleep(delay)
            process.kill()
            self.survives(tmp_path, process, whole)
        assert self.survives(tmp_path, forked(go_on, cache, tmp_path, 0, ""), whole)

    def test_at_any_time(self, cache: Cache, tmp_path: Path, whole: Path, forked):
        random = np.random.default_rng(0)
        begun = 0  # kills of processes that had added records
        for delay in [0.0, *random.uniform(0, 0.2, 4).tolist()]:
            before = written_at(tmp_path)
            process = forked(go_on, cache, tmp_path, 0, "")
            while process.is_alive() and written_at(tmp_path) == before:
                time.sleep(0.002)
            time.sleep(delay)
            process.kill()
            finished = self.survives(tmp_path, process, whole)
            begun += process.exitcode == -signal.SIGKILL
            if finished:
                break
        else:
            assert self.survives(tmp_path, forked(go_on, cache, tmp_path, 0, ""), whole)
        assert begun


def test_what_died_between_the_two_checkpoints_is_made_up_for(cache: Cache, tmp_path: Path):
    """last.pt says that its weights are the best, but best.pt was never written."""
    trainer = start(cache, tmp_path, "train.steps=2")
    finish(trainer)
    model = trainer.run / "checkpoints" / "best.pt"
    expected = checkpoint.load(model)
    model.unlink()
    (trainer.run / "summary.json").unlink()
    training.resume(trainer.run, cache.folder.parent, CPU)
    found = checkpoint.load(model)
    assert found.keys() == expected.keys() and found["step"] == 2 and found["threshold"] == expected["threshold"]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path):
    path = tmp_path / ("x" * 251 + ".png")
    write_whole(path, b"whole")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, b"whole")]


def test_a_link_stays_one_and_a_device_or_a_pipe_is_kept(tmp_path: Path):
    (tmp_path / "link").symlink_to("file")
    for text in (b"first", b"second"):
        write_whole(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == text
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    for name in ("pipe", "to-pipe"):
        for write in (check_folder, lambda path: write_whole(path, b"")):
            with pytest.raises(DataError, match=rf"{name}: cannot be written: it is a device or a pipe; name a file"):
                write(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 4
    with pytest.raises(DataError, match="cannot be written: file name too long"):
        write_whole(tmp_path / ("x" * 300), b"")
    (tmp_path / "astray").symlink_to("gone/file")
    with pytest.raises(DataError, match=r"astray: cannot be written: there is no folder .*gone; create it first"):
        check_folder(tmp_path / "astray")


class TestFullDisk:
    @pytest.mark.parametrize(("call", "count"), [("write_bytes", 3), ("write_bytes", 4), ("replace", 5)])
    def test_keeps_the_last_checkpoint(
        self, cache: Cache, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, call: str, count: int
    ):
        """There is room for `count` files, and for no more until the disk is tidied up."""
        original, calls = getattr(Path, call), []

        def full(path: Path, *arguments: object) -> object:
            calls.append(path)
            if len(calls) > count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(path, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Path, call, full)
            with pytest.raises(DataError, match=r"cannot be written: no space left.*free some disk space") as error:
                finish(start(cache, tmp_path, *MANY_FILES))
        assert "\n" not in str(error.value)
        (run,) = tmp_path.iterdir()
        assert list(run.rglob("*tmp*")) == []
        finish(training.resume(run, cache.folder.parent, CPU))
        ends_as(run, whole)

    def test_records_count_too(self, cache: Cache, tmp_path: Path):
        trainer = start(cache, tmp_path)
        (trainer.run / "metrics.jsonl").mkdir()  # a folder cannot be appended to
        with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be written"):
            finish(trainer)


class TestDiverging:
    def test_weights_that_are_no_numbers_replace_no_checkpoint(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The last step before a validation breaks the weights, though its loss is still finite."""
        trainer = start(cache, tmp_path)
        step = trainer.optimizer.step

        def breaking() -> None:
            step()
            if trainer.step == 3:
                next(trainer.network.parameters()).data.fill_(float("inf"))

        monkeypatch.setattr(trainer.optimizer, "step", breaking)
        with pytest.raises(DataError, match=r"weights became infinite at step 4.*train\.lr"):
            finish(trainer)
        assert Trainer.read_state(trainer.run)["step"] == 2
        assert checkpoint.load(trainer.run / "checkpoints" / "best.pt")["step"] == 2
        with pytest.raises(DataError, match="weights became infinite"):
            trainer.save_state()


class TestShortOfMemory:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            MemoryError(),
        ],
    )
    @pytest.mark.parametrize("where", ["samples.augment_often", "trainer.validate"])
    def test_says_which_setting_to_lower(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
    ):
        def fails(*arguments: object, **options: object) -> None:
            raise error

        trainer = start(cache, tmp_path, "train.batch_size=4")
        monkeypatch.setattr(f"das3d_cli.engine.{where}", fails)
        advice = f"continue with --resume {trainer.run} --set train.accumulate=2 and the same --data and --gpus, or train again with"
        with pytest.raises(DataError, match=f"^cpu: out of memory at batch size 4; {re.escape(advice)}"):
            finish(trainer)
        monkeypatch.undo()
        finish(training.resume(trainer.run, cache.folder.parent, CPU, ["train.accumulate=2"]))

    def test_does_not_advise_to_lower_what_cannot_be(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def fails(*arguments: object, **options: object) -> None:
            raise MemoryError

        trainer = start(cache, tmp_path, "train.accumulate=2", "model.stem=1")
        monkeypatch.setattr("das3d_cli.engine.samples.augment_often", fails)
        with pytest.raises(
            DataError, match=r"one part at a time; train again with --set model\.discriminator_width below 4"
        ):
            finish(trainer)

    def test_before_the_first_step(self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fails(*arguments: object) -> None:
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr("das3d_cli.template.Template.learn", fails)
        with pytest.raises(
            DataError,
            match=r"^cpu: out of memory before the first step; free some memory, or preprocess with a lower --size and train again$",
        ):
            start(cache, tmp_path)

    def test_of_main_memory_says_so(self):
        error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        advice = "before the first step; continue with a lower --set hardware.cache_share"
        with (
            pytest.raises(DataError, match=r"^main memory: out of memory before the first step; free some memory$"),
            device.within_memory(torch.device("cuda", 0), advice),
        ):
            raise error

    @pytest.mark.parametrize("where", ["load_data", "Trainer.restore"])
    def test_going_on(self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
        """The advice is to continue, not to train again: what was learnt is still there."""
        run = start(cache, tmp_path).run

        def fails(*arguments: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr(f"das3d_cli.engine.training.{where}", fails)
        with pytest.raises(
            DataError, match=r"^cpu: out of memory before the first step; free some memory and continue$"
        ):
            training.resume(run, cache.folder.parent, CPU)

    def test_a_state_that_does_not_fit_in(self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fails(*arguments: object) -> None:
            raise RuntimeError("cuDNN error: GET was unable to find an engine to execute this computation")

        trainer = start(cache, tmp_path)
        monkeypatch.setattr(trainer.optimizer, "load_state_dict", fails)
        with pytest.raises(DataError, match="out of memory here"), device.within_memory(CPU, "here"):
            trainer.restore(Trainer.read_state(trainer.run))

    def test_writing_a_checkpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fails(*arguments: object) -> None:
            raise MemoryError

        monkeypatch.setattr(torch, "save", fails)
        with pytest.raises(DataError, match=r"^cpu: out of memory while writing .*last\.pt; free some memory$"):
            checkpoint.save(tmp_path / "last.pt", {})
        assert list(tmp_path.iterdir()) == []

    def test_while_judging(self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        trainer = start(cache, tmp_path)
        finish(trainer)
        detector = Detector.load(trainer.run)

        def fails(*arguments: object) -> None:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

        monkeypatch.setattr("das3d_cli.detector.score_each", fails)
        with pytest.raises(DataError, match=r"out of memory for 3 parts at once; free some memory"):
            detector.score(*load_split(cache, "test").inputs)

    def test_reading_a_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """The model is not called damaged: training again would give no more memory."""
        checkpoint.save(tmp_path / "model.pt", {})

        def fails(*arguments: object, **options: object) -> None:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
            )

        monkeypatch.setattr(torch, "load", fails)
        with pytest.raises(DataError, match=r"^cpu: out of memory while reading .*model\.pt; free some memory$"):
            checkpoint.load(tmp_path / "model.pt")

    def test_other_errors_stay_what_they_are(self):
        with pytest.raises(RuntimeError, match="shape"), device.within_memory(CPU, "x"):
            raise RuntimeError("shape mismatch")
        with pytest.raises(DataError, match="use --gpus cpu"), device.within_memory(torch.device("cuda", 1), "x"):
            raise torch.OutOfMemoryError
