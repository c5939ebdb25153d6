"""What must also hold on a CUDA device: `nox -s gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from das3d_cli.data.build import build
from das3d_cli.data.cache import open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.detector import Detector
from das3d_cli.engine import training
from das3d_cli.evaluation import evaluate_detector
from das3d_cli.settings import PreprocessSettings, SynthesisSettings, resolve
from das3d_cli.synthesis.augment import augment
from das3d_cli.synthesis.random import ItemRandom

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_same_defects_as_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    part = torch.zeros(8, 1, 128, 128, dtype=torch.bool)
    part[:, :, 20:-20, 20:-20] = True
    images = (torch.rand(8, 3, 128, 128, generator=generator), torch.rand(8, 1, 128, 128, generator=generator), part)
    textures = torch.randint(0, 256, (16, 3, 128, 128), dtype=torch.uint8, generator=generator)
    made = []
    for device in ("cpu", "cuda"):
        random = ItemRandom.of(0, 0, torch.arange(8, device=device))
        made.append(augment(*(t.to(device) for t in (*images, textures)), random, **SynthesisSettings().augmentation()))
    for on_cpu, on_gpu in zip(*made, strict=True):
        differing = ((on_cpu.float() - on_gpu.cpu().float()).abs() > 1e-3).float().mean()
        assert differing < 1e-3  # a pixel at a threshold may fall to either side


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
    assert scores[0] == pytest.approx(scores[1], abs=0.02)  # the GPU computes in bfloat16
