"""Tests that need a CUDA device: `nox -s gpu`."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from das3d_cli.configure import resolve
from das3d_cli.data.build import build
from das3d_cli.data.cache import load_split, open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.detector import Detector
from das3d_cli.engine import training
from das3d_cli.engine.feed import Feed
from das3d_cli.evaluation import evaluate_detector
from das3d_cli.registration import Pose, displacements, find_pose, laid, lay_together, marks
from das3d_cli.settings import PreprocessSettings, SynthesisSettings
from das3d_cli.synthesis.augment import augment_often
from das3d_cli.synthesis.random import ItemRandom

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # torch warns about planned changes, mostly on CUDA
]


def test_the_same_defects_as_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    part = torch.zeros(8, 1, 128, 128, dtype=torch.bool)
    part[:, :, 20:-20, 20:-20] = True
    images = (
        part * torch.rand(8, 3, 128, 128, generator=generator),
        torch.rand(8, 1, 128, 128, generator=generator),
        part,
    )
    textures = torch.randint(0, 256, (16, 3, 128, 128), dtype=torch.uint8, generator=generator)
    made = []
    for device in ("cpu", "cuda"):
        random = ItemRandom.of(0, 0, torch.arange(8, device=device))
        given = (t.to(device) for t in (*images, textures))
        arguments = SynthesisSettings().augmentation()
        made.append(augment_often(*given, random, defects=3, normal_share=0.25, **arguments))
    for on_cpu, on_gpu in zip(*made, strict=True):
        differing = ((on_cpu.float() - on_gpu.cpu().float()).abs() > 1e-3).float().mean()
        assert differing < 1e-3  # a pixel at a threshold may fall on either side


def test_the_same_poses_as_on_the_cpu():
    y, x = torch.meshgrid(*[(torch.arange(128) + 0.5) / 64 - 1] * 2, indexing="ij")
    part = ((x.abs() < 0.6) & (y.abs() < 0.5) & ~((x > 0.1) & (y > 0.0))).float()[None, None]
    depth = 0.5 - 0.1 * ((x - 0.3).abs() < 0.1)[None, None] * part
    angles = torch.linspace(-3, 3, 7)
    lying = Pose(angles, 0.05 * torch.stack((angles.sin(), angles.cos()), dim=1))
    parts = laid(torch.cat((part, depth), dim=1).expand(7, -1, -1, -1), lying)
    found = []
    for device in ("cpu", "cuda"):
        foreground, height = (parts[:, :1] > 0.5).float().to(device), parts[:, 1:].to(device)
        moved = displacements(height, foreground, torch.full((7, 2), 0.02, device=device))
        together = lay_together(marks(None, height, foreground, moved))
        pose = find_pose(marks(None, height, foreground, moved), together.mean)
        angle = (pose.angle - pose.angle[0]).cpu()  # the mean part's own angle depends on rounding
        found.append((angle.cos(), angle.sin(), pose.shift.cpu()))
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.allclose(on_cpu, on_gpu, atol=1e-2)


def test_trained_on_a_gpu_and_used_on_the_cpu(shared_dataset: Path, tmp_path: Path):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "out", PreprocessSettings(size=64), workers=1)
    small = ["model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=4",
             "train.batch_size=2", "train.validate_every=2", "synthesis.texture_count=8"]  # fmt: skip
    cache = open_cache(tmp_path / "out", "tire")
    trainer = training.start(resolve({}, small, environment={}), cache, tmp_path / "runs", torch.device("cuda", 0))
    training.finish(trainer, lambda step, values: None)
    scores = [
        evaluate_detector(Detector.load(trainer.run, gpus), tmp_path / "out").scored.scores for gpus in ("0", "cpu")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)  # the GPU computes in bfloat16


def test_parts_in_main_memory_are_fetched_for_the_gpu(shared_dataset: Path, tmp_path: Path):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "out", PreprocessSettings(size=64), workers=1)
    cache, cuda = open_cache(tmp_path / "out", "tire"), torch.device("cuda", 0)
    batches = []
    for share in (0.5, 0.0):
        small = resolve({}, ["model.size=64", f"hardware.cache_share={share}"], environment={})
        data = training.load_data(small, cache, cuda)
        assert data.train.depth.device.type == ("cuda" if share else "cpu")
        assert data.train.depth.dtype == torch.float16
        feed = Feed(data.train, cuda, lambda step: torch.tensor([step, 3 - step]))
        batches.append([feed.batch(step) for step in range(4)])
    for a, b in zip(*batches, strict=True):
        assert all(torch.equal(x, y) and x.device == cuda for x, y in zip(a, b, strict=True))


def test_a_step_does_not_wait_for_the_gpu(shared_dataset: Path, tmp_path: Path):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "out", PreprocessSettings(size=64), workers=1)
    small = ["model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.batch_size=4"]
    for more in ([], ["train.accumulate=2", "hardware.cache_share=0"]):
        made = resolve({}, [*small, *more], environment={})
        trainer = training.start(made, open_cache(tmp_path / "out", "tire"), tmp_path / "runs", torch.device("cuda", 0))
        trainer._advance()  # the first step creates what later ones reuse
        try:
            torch.cuda.set_sync_debug_mode("error")
            trainer.step += 1
            trainer._advance()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("assignments", "compared"),
    [
        pytest.param(["hardware.cache_share=0.5"], True, id="parts on the GPU"),
        pytest.param(["hardware.cache_share=0"], True, id="parts in main memory"),
        pytest.param([], False, id="parts of no shape in common"),
        pytest.param(["model.modality=rgb"], True, id="RGB alone"),
        pytest.param(["model.modality=depth"], True, id="depth alone"),
        pytest.param(["model.reconstruction_width=0"], True, id="no reconstruction"),
    ],
)
def test_as_one_cuda_graph_the_same_is_learnt_and_judged(
    shared_dataset: Path, tmp_path: Path, assignments: list[str], compared: bool
):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "out", PreprocessSettings(size=64), workers=1)
    cache = open_cache(tmp_path / "out", "tire")
    small = ["model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=12",
             "train.batch_size=4", "train.accumulate=2", "train.validate_every=6", "synthesis.texture_count=8"]  # fmt: skip
    losses, scores = [], []
    for wanted in (False, True):
        made = resolve({}, [*small, f"hardware.cuda_graphs={str(wanted).lower()}", *assignments], environment={})
        trainer = training.start(made, cache, tmp_path / "runs", torch.device("cuda", 0))
        assert trainer.network.template is not None
        assert bool(trainer.network.template.shared)
        trainer.network.template.compare(compared)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "not launched as a CUDA graph"
            losses.append([])
            for step in range(12):
                trainer.step = step
                losses[-1].append(float(trainer._advance()["loss"]))
            trainer._validate(lambda step, values: None)
            detector = Detector.load(trainer.run, "0", cuda_graphs=wanted)
            inputs = load_split(cache, "test").inputs
            found = [detector.score(*inputs).scores for _ in range(5)]
        assert all(repeated == pytest.approx(found[0], abs=0.02) for repeated in found)
        scores.append(found[-1])
    assert len(set(losses[1])) == 12  # each step has its own samples
    assert losses[0][:4] == pytest.approx(losses[1][:4], rel=0.02)  # later, rounding errors have grown
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_a_run_begun_on_either_goes_on_on_the_gpu(shared_dataset: Path, tmp_path: Path):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "out", PreprocessSettings(size=64), workers=1)
    small = ["model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=12",
             "train.batch_size=4", "synthesis.texture_count=8"]  # fmt: skip
    made, cache, cuda = (
        resolve({}, small, environment={}),
        open_cache(tmp_path / "out", "tire"),
        torch.device("cuda", 0),
    )

    def losses(trainer: training.Trainer, *steps: int) -> list[float]:
        found = []
        for trainer.step in steps:
            found.append(float(trainer._advance()["loss"]))
        trainer.step += 1
        return found

    for begun_on in (cuda, torch.device("cpu")):
        begun = training.start(made, cache, tmp_path / "runs", begun_on)
        losses(begun, 0, 1, 2, 3, 4)
        begun.save_state()
        resumed = training.resume(begun.run, tmp_path / "out", cuda)
        assert resumed.step == 5
        assert losses(resumed, 5, 6, 7, 8, 9) == pytest.approx(losses(begun, 5, 6, 7, 8, 9), rel=0.1)
        # These steps include recording the graph, which must take over the optimiser's state.
        states = [trainer.optimizer.state_dict()["state"].values() for trainer in (resumed, begun)]
        assert {float(state["step"]) for each in states for state in each} == {10}
        spreads = [sum(float(state["exp_avg_sq"].sum()) for state in each) for each in states]
        assert spreads[0] == pytest.approx(spreads[1], rel=0.2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_two_gpus_train_one_category(shared_dataset: Path, tmp_path: Path):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "out", PreprocessSettings(size=64), workers=1)
    sets = ("model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.validate_every=2")
    arguments = ["train", "--gpus", "0,1", "--steps", "4", *(word for text in sets for word in ("--set", text))]
    subprocess.run([sys.executable, "-m", "das3d_cli", *arguments], cwd=tmp_path, check=True)
    assert Detector.load(tmp_path / "runs" / "tire-001", "cpu").category == "tire"
