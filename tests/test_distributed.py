"""Several processes train like a single one, and whatever happens to one of them, all end."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

from das3d_cli import device as devices
from das3d_cli import losses, runs
from das3d_cli.commands import train as train_command
from das3d_cli.configure import resolve
from das3d_cli.data.build import build
from das3d_cli.data.cache import open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.engine import distributed, spread, training
from das3d_cli.engine import trainer as trainer_module
from das3d_cli.engine.trainer import Trainer
from das3d_cli.errors import DataError, UsageError
from das3d_cli.settings import PreprocessSettings

CPU = torch.device("cpu")
TINY = ["model.size=32", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=6", "train.batch_size=8",
        "train.validate_every=3", "train.validation_defects=1", "synthesis.texture_count=4",
        "synthesis.rotate=false", "train.lr=1e-4"]  # fmt: skip


@pytest.fixture(scope="module")
def place(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    build(find_entries(shared_dataset, ["tire"]), root / "out", PreprocessSettings(size=32), workers=1)
    return root


def begin(place: Path, base: Path, *more: str) -> Trainer:
    return training.start(resolve({}, [*TINY, *more], environment={}), open_cache(place / "out", "tire"), base, CPU)


def finish(trainer: Trainer) -> None:
    training.finish(trainer, lambda step, values: None)


def compute_in_float64(patch: pytest.MonkeyPatch) -> None:
    """Use float64: batch normalisation over few samples amplifies rounding, in float32 to a gradient's third digit."""
    network = trainer_module.Das3d
    torch.set_default_dtype(torch.float64)
    patch.setattr(torch.Tensor, "float", torch.Tensor.double)
    patch.setattr(trainer_module, "Das3d", lambda **options: network(**options).double())
    patch.setattr(losses, "_gaussian", losses._gaussian.__wrapped__)  # its cache may hold a float32 window
    patch.setattr(trainer_module, "autocast", lambda *_, **__: contextlib.nullcontext())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
    return port


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Gradients of one step as the optimiser gets them; in eval mode, so batch normalisation ignores the batch."""
    network = trainer.network.eval()
    network.train = lambda mode=True: network
    trainer._advance()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def take_part(rank: int, port: int, place: Path, base: Path, interrupted: int, more: Sequence[str]) -> None:
    """Train as one of two processes; the second one gets Ctrl-C in step `interrupted`."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    compute_in_float64(pytest.MonkeyPatch())
    with distributed.joined(CPU):
        if more and more[0] == "gradients":
            found = gradients(begin(place, base, *more[1:]))
            torch.save(found, base / f"{rank}.pt")
            return
        left = list(base.glob("*"))
        trainer = training.resume(left[0], place / "out", CPU) if left else begin(place, base, *more)
        advance = trainer._advance

        def advance_or_interrupt() -> dict[str, torch.Tensor]:
            if rank == 1 and trainer.step == interrupted:
                signal.raise_signal(signal.SIGINT)
            return advance()

        save = trainer.save_state

        def save_slowly() -> None:
            time.sleep(0.3 if rank == 0 else 0)
            save()

        trainer._advance, trainer.save_state = advance_or_interrupt, save_slowly
        try:
            finish(trainer)
        except KeyboardInterrupt:  # if one left before the state is written, the launcher would end the writer
            assert Trainer.read_state(trainer.run)["step"] == trainer.step


@pytest.fixture
def together(forked, place: Path):
    """Function that runs `take_part` in two processes."""

    def run(base: Path, *more: str, interrupted: int = -1) -> None:
        port = free_port()
        base.mkdir(exist_ok=True)
        processes = [forked(take_part, rank, port, place, base, interrupted, more) for rank in (0, 1)]
        for process in processes:
            process.join(100)
        assert [process.exitcode for process in processes] == [0, 0]

    return run


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """During the test, compute in float64 in this process, as the others do."""
    compute_in_float64(monkeypatch)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def whole(place: Path, tmp_path: Path, in_float64: None) -> Path:
    """A run by one process."""
    trainer = begin(place, tmp_path / "whole")
    finish(trainer)
    return trainer.run


def alike(run: Path, other: Path, *, records: bool = True) -> None:
    """Check that weights, running statistics, and recorded losses and validations are equal up to rounding."""
    states = [Trainer.read_state(folder) for folder in (run, other)]
    assert [state["step"] for state in states] == [6, 6]
    torch.testing.assert_close(states[0]["network"], states[1]["network"], rtol=1e-6, atol=1e-7)
    if not records:
        return
    lines = [[r.get("validation", r) for r in runs.read_metrics(folder)] for folder in (run, other)]
    assert sum("quality" in line for line in lines[0]) == 2
    for a, b in zip(*lines, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"images_per_second"}:
            assert a[key] == (b[key] if isinstance(b[key], str) else pytest.approx(b[key], rel=1e-7)), key


class TestTogether:
    def test_two_processes_train_as_one(self, place: Path, whole: Path, together, tmp_path: Path):
        together(tmp_path / "two")
        (run,) = (tmp_path / "two").iterdir()  # only the first process made one
        assert {path.name for path in run.rglob("*")} == {path.name for path in whole.rglob("*")}
        alike(whole, run)

    def test_in_micro_batches_too(self, place: Path, together, tmp_path: Path, in_float64: None):
        """Each micro-batch is normalised over the same samples as in one process."""
        trainer = begin(place, tmp_path / "whole", "train.accumulate=2")
        finish(trainer)
        together(tmp_path / "two", "train.accumulate=2")
        (run,) = (tmp_path / "two").iterdir()
        alike(trainer.run, run)

    def test_interrupted_together_and_resumed_alone(self, place: Path, whole: Path, together, tmp_path: Path):
        together(tmp_path / "two", interrupted=4)
        (run,) = (tmp_path / "two").iterdir()
        assert Trainer.read_state(run)["step"] == 5 and not (run / "summary.json").exists()
        finish(training.resume(run, place / "out", CPU))
        alike(whole, run, records=False)  # the last record averages one step, that of `whole` three

    def test_begun_alone_and_resumed_together(self, place: Path, whole: Path, together, tmp_path: Path):
        base = tmp_path / "two"
        trainer = begin(place, base)
        while trainer.step < 3:
            trainer._advance()
            trainer.step += 1
        trainer.save_state()
        together(base)
        alike(whole, trainer.run, records=False)  # the first steps have none

    def test_micro_batches_too_have_the_gradient_of_the_whole_batch(
        self, place: Path, together, tmp_path: Path, in_float64: None
    ):
        together(tmp_path / "two", "gradients", "train.batch_size=8", "train.accumulate=2")
        expected = gradients(begin(place, tmp_path, "train.batch_size=8"))
        for rank in (0, 1):
            torch.testing.assert_close(torch.load(tmp_path / "two" / f"{rank}.pt"), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("key", "theirs"), [("train.lr", 0.5), ("loss.dice", 3.0), ("seed", 7)])
def test_settings_that_differ_between_machines_are_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, theirs: float
):
    def from_first(make):
        made = make()
        return made | {key: theirs} if key in made else made

    monkeypatch.setattr(distributed, "from_first", from_first)
    with pytest.raises(UsageError, match=rf"settings\.{key}: .* here, but {theirs} on the first machine"):
        begin(place, tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_categories_side_by_side(place: Path, tmp_path: Path):
    """One is trained as if alone, although the other fails."""
    for name in ("tire", "other"):
        manifest = Path(shutil.copytree(place / "out" / "tire", tmp_path / "out" / name)) / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"category": "tire"', f'"category": "{name}"'))
    victim = min((tmp_path / "out" / "other" / "train").rglob("*.npz"))
    victim.unlink()
    settings = resolve({}, TINY, environment={})
    work = functools.partial(train_command._train_category, settings, tmp_path / "out", tmp_path / "runs", bar=False)
    found = dict(spread.side_by_side(work, ["other", "tire"], [CPU, CPU]))
    assert isinstance(found["other"], DataError) and f"{victim}: this sample is missing" in str(found["other"])
    trainer = begin(place, tmp_path / "alone")
    finish(trainer)
    assert Trainer.read_state(Path(found["tire"]["run"]))["best"] == pytest.approx(trainer.best)


class TestPieces:
    def test_shared_batch_normalisation_is_batch_normalisation(self, monkeypatch: pytest.MonkeyPatch):
        """In a single process: output, gradients and running statistics equal those of torch's own layer."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(3, 5, 4, 6, generator=generator) * 2 + 7
        found = []
        for kind in (nn.BatchNorm2d, distributed._SharedBatchNorm):
            layer, given = kind(5), x.clone().requires_grad_()
            nn.init.uniform_(layer.weight, generator=torch.Generator().manual_seed(1))
            out = layer(given)
            (out**3).sum().backward()
            found.append([out, given.grad, layer.weight.grad, layer.bias.grad, *layer.buffers(), layer.eval()(x)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("batch_size", "portions", "text"),
        [
            (
                16,
                1,
                "16 samples cannot be divided evenly among 3 processes; use a multiple of 3, or another number",
            ),
            (9, 2, "9 samples.*3 processes in 2 micro-batches each; use a multiple of 6"),
        ],
    )
    def test_a_batch_that_cannot_be_shared_out(self, monkeypatch, batch_size: int, portions: int, text: str):
        monkeypatch.setattr(distributed, "size", lambda: 3)
        distributed.check_share(12, 2)
        with pytest.raises(UsageError, match=r"settings\.train\.batch_size: " + text):
            distributed.check_share(batch_size, portions)

    def test_each_process_has_a_gpu_of_its_own(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        assert [d.index for d in devices.choose_all("all")] == [0, 1, 2, 3]
        assert [d.index for d in devices.choose_all("3,1,3")] == [3, 1]
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        for rank, gpus, number in (("1", "auto", 1), ("1", "0,2", 2), ("0", "0,2", 0), ("1", "all", 1)):
            monkeypatch.setenv("LOCAL_RANK", rank)
            assert distributed.own_device(gpus) == torch.device("cuda", number)
        assert distributed.own_device("cpu") == CPU
        with pytest.raises(UsageError, match=r"2 processes, but GPUs on this machine: 1.*--nproc-per-node 1"):
            distributed.own_device("2")


class TestWhoDoesWhat:
    """What `train` does with several GPUs, on a machine that only seems to have them."""

    @pytest.fixture
    def called(self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        shutil.copytree(place / "out" / "tire", tmp_path / "out" / "tire")
        manifest = Path(shutil.copytree(place / "out" / "tire", tmp_path / "out" / "other")) / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"category": "tire"', '"category": "other"'))
        called: list[object] = []
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(sys, "argv", ["das3d", "train", "the", "arguments"])
        monkeypatch.setattr(train_command, "launch", lambda *given: called.append(given) or 7)
        monkeypatch.setattr(spread, "side_by_side", lambda work, *given: called.append(given) or iter(()))
        return called

    @pytest.mark.parametrize("gpus", ["0,2", "all"])
    def test_one_category_is_trained_by_all(self, called: list[object], gpus: str):
        with pytest.raises(typer.Exit) as code:
            train_command.run(category=["tire"], gpus=gpus)
        assert code.value.exit_code == 7
        assert called == [(["train", "the", "arguments"], {"0,2": 2, "all": 3}[gpus])]

    def test_a_run_is_resumed_by_all(self, called: list[object]):
        with pytest.raises(typer.Exit):
            train_command.run(resume=Path("runs/tire-001"), gpus="1,2")
        assert called == [(["train", "the", "arguments"], 2)]

    def test_several_categories_are_spread(self, called: list[object]):
        train_command.run(category=["all"], gpus="0,2")
        assert called == [(["other", "tire"], [torch.device("cuda", 0), torch.device("cuda", 2)])]

    def test_torchrun_trains_one_category(self, called: list[object], monkeypatch: pytest.MonkeyPatch):
        for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match="one at a time, not other, tire; name one"):
            train_command.run(category=["all"])
        assert called == []


# The command, with an event injected into its processes before the third step.
PROGRAM = """
import os, signal, sys, time
from das3d_cli.engine.trainer import Trainer
from das3d_cli.errors import DataError
rank, advance = int(os.environ["RANK"]), Trainer._advance

def failing(*_):
    raise DataError("the second one broke")

def eventful(self):
    if self.step == 2:
        {event}
    return advance(self)

Trainer._advance = eventful
from das3d_cli.cli import main
main()
"""


def command(place: Path, *arguments: str, launcher: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(base: str, *more: str) -> list[str]:
    sets = [word for setting in (*TINY, *more) for word in ("--set", setting)]
    return ["train", "--gpus", "cpu", "--runs", base, *sets]


# What `--gpus 0,1` does on a machine with two GPUs, but in two processes on the CPU.
LAUNCH = """
from das3d_cli import cli
from das3d_cli.engine.launch import launch
cli.app = lambda args, **_: launch(args, 2)
cli.main()
"""


def eventful(place: Path, base: str, event: str) -> tuple[int, str]:
    """Train with torchrun in two processes, with an event injected; return its exit code and stderr."""
    program = place / f"{base}.py"
    program.write_text(PROGRAM.format(event=event))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    process = command(place, *train(base), launcher=torchrun)
    _, text = process.communicate(timeout=120)
    return process.returncode, text


class TestCommand:
    def test_two_launchers_as_on_two_machines_train_one_run(self, place: Path):
        where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
        torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *where, "-m", "das3d_cli"]
        machines = [command(place, *train("machines"), launcher=torchrun) for _ in range(2)]
        texts = [process.communicate(timeout=120)[1] for process in machines]
        assert [process.returncode for process in machines] == [0, 0], texts
        assert "".join(texts).count("training tire in machines/tire-001 on cpu and 1 more") == 1
        assert [run.name for run in (place / "machines").iterdir()] == ["tire-001"]
        assert json.loads((place / "machines" / "tire-001" / "summary.json").read_text())["steps"] == 6

    def test_an_error_in_one_process_is_one_line_and_ends_all(self, place: Path):
        """Under torchrun, which adds its own report to stderr."""
        code, text = eventful(place, "broken", 'if rank == 1: raise DataError("the second one broke")')
        assert code == 1
        assert [line for line in text.splitlines() if line.startswith("error:")] == ["error: the second one broke"]
        assert text.count("training tire in broken/tire-001 on cpu and 1 more") == 1

    def test_an_error_in_one_process_while_they_validate_is_one_line_and_ends_all(self, place: Path):
        event = "import das3d_cli.engine.validation as v; v._judge = v._judge if rank == 0 else failing"
        code, text = eventful(place, "blind", event)
        assert code == 1
        assert [line for line in text.splitlines() if line.startswith("error:")] == ["error: the second one broke"]

    def test_an_error_in_all_processes_is_one_line(self, place: Path):
        process = command(place, *train("uneven", "train.batch_size=3"), launcher=["-c", LAUNCH])
        out, text = process.communicate(timeout=120)
        assert process.returncode == 2 and out == ""
        (line,) = text.splitlines()
        assert line.startswith("error: settings.train.batch_size: 3 samples cannot be divided evenly among 2 processes")
        assert not (place / "uneven").exists()

    def test_a_killed_process_ends_all(self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "sitecustomize.py").write_text(
            "import os\nif os.environ.get('RANK') == '1': os.kill(os.getpid(), 9)"
        )
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        process = command(place, *train("killed"), launcher=["-c", LAUNCH])
        _, text = process.communicate(timeout=120)
        assert process.returncode == 1
        (line,) = text.splitlines()
        assert line.startswith("error: process 1 of the training was killed by SIGKILL")

    def test_killed_in_a_step_and_resumed(self, place: Path):
        code, text = eventful(place, "died", "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)")
        assert code == 1, text
        run = place / "died" / "tire-001"
        assert Trainer.read_state(run)["step"] < 3 and not (run / "summary.json").exists()
        process = command(place, "train", "--gpus", "cpu", "--resume", str(run), launcher=["-c", LAUNCH])
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0 and (run / "summary.json").is_file(), text

    def test_interrupted_and_resumed(self, place: Path):
        process = command(place, *train("long", "train.steps=5000"), launcher=["-c", LAUNCH])
        metrics = place / "long" / "tire-001" / "metrics.jsonl"
        for _ in range(1000):
            if metrics.exists() and metrics.stat().st_size:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, text = process.communicate(timeout=120)
        assert process.returncode == 130 and out == "", text
        told = "interrupted; continue with: das3d train --resume long/tire-001 --gpus cpu"
        assert text.splitlines()[-1] == told, text
        step = Trainer.read_state(place / "long" / "tire-001")["step"]
        assert step >= 3 and training.resume(place / "long" / "tire-001", place / "out", CPU).step == step
