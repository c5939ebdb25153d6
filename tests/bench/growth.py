"""AUPRO, and how costs grow with the image, the batch and the data set."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from das3d_cli.batch import Batch
from das3d_cli.data.cache import Cache, load_split, open_cache
from das3d_cli.metrics import aupro
from das3d_cli.model import Das3d
from das3d_cli.scoring import judging, score

from . import peers
from .captures import prepare
from .clock import Row, Section, growth, take_turns, times
from .ready import CATEGORY, advance, make_capture, make_trainer, settings_of

_DOUBLING = "Sides, batches and counts grow by a factor of two or four from line to line."


def scored_maps(count: int, side: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks of up to three blobs in four of five images, and smooth maps that mostly find them."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, side, side), np.uint8)
    for index, mask in enumerate(masks):
        for _ in range(0 if index % 5 == 0 else rng.integers(1, 4)):
            row, column, radius = rng.uniform(0.1, 0.9, 3) * (side, side, side / 12)
            cv2.circle(mask, (round(column), round(row)), max(1, round(radius)), 1, -1)
    noise = rng.normal(size=(count, side, side)).astype(np.float32)
    maps = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise]) * 5 + masks * rng.random((count, 1, 1))
    return masks.astype(bool), maps.astype(np.float32)


def overlap(count: int, side: int, rounds: int) -> Section:
    """The exact AUPRO, compared with the usual hundred thresholds."""
    masks, maps = scored_maps(count, side)
    other = "a hundred thresholds"
    found = take_turns({"exact": lambda: aupro(masks, maps), other: lambda: peers.aupro(masks, maps)}, rounds)
    exact, coarse = aupro(masks, maps), peers.aupro(masks, maps)
    text = (
        f"AUPRO@0.3 of {count} maps of {side} x {side} pixels: {exact:.4f} exact, {coarse:.4f} by a hundred thresholds."
    )
    return Section("AUPRO", text, times(found, against=other))


def costs(folder: Path, cache: Path, rounds: int, quick: bool) -> Section:
    """Costs of CPU work at up to three sizes of images or data set, each double the one before."""
    rows: list[Row] = []
    if peers.have_open3d():
        sides = (100, 200) if quick else (200, 400, 800)
        files = {side: make_capture(folder, side) for side in sides}
        rows += _grown({f"preprocessing, {side} px": prepare(*files[side]) for side in sides}, rounds)
    opened = open_cache(cache, CATEGORY)
    records = opened.samples("train")
    counts = [len(records) // part for part in (4, 2, 1)]
    parts = {n: Cache(opened.folder, opened.manifest.model_copy(update={"samples": records[:n]})) for n in counts}
    rows += _grown({f"reading {n} cached samples": lambda n=n: load_split(parts[n], "train") for n in counts}, rounds)
    counts = [8, 16] if quick else [25, 50, 100]
    masks, maps = scored_maps(counts[-1], 64 if quick else 256)
    rows += _grown({f"exact AUPRO of {n} maps": lambda n=n: aupro(masks[:n], maps[:n]) for n in counts}, rounds)
    return Section("Growth of preprocessing, reading and figures", _DOUBLING, rows)


def network_costs(cache: Path, device: torch.device, rounds: int, quick: bool) -> Section:
    """Costs of the network's work at up to three sizes of images, batch or data set."""
    sides = (64, 128) if quick else (128, 256, 512)
    rows = _grown({f"forward pass, {side} px": _forward("default", side, 1, device) for side in sides}, rounds, device)
    batches = (1, 2) if quick else (1, 4, 16)
    works = {f"forward pass at 128 px, batch {batch}": _forward("cpu", 128, batch, device) for batch in batches}
    rows += _grown(works, rounds, device)
    sides = (64, 128) if quick else (64, 128, 256)
    works = {f"training step of 4, {side} px": _step(cache, device, f"model.size={side}") for side in sides}
    rows += _grown(works, rounds, device)
    batches = (2, 4) if quick else (2, 4, 8)
    works = {f"training step at 128 px, batch {n}": _step(cache, device, f"train.batch_size={n}") for n in batches}
    rows += _grown(works, rounds, device)
    trainer = make_trainer(cache, settings_of("cpu"), device)
    train, template = trainer.data.train, trainer.network.template
    counts = [len(train) // part for part in (4, 2, 1)]
    works = {f"the template of {n} parts": lambda n=n: template.learn(*(some[:n] for some in train)) for n in counts}
    rows += _grown(works, min(rounds, 2), device)
    return Section(f"Growth of the network's work on {device}", _DOUBLING, rows)


def _step(cache: Path, device: torch.device, assignment: str):
    trainer = make_trainer(cache, settings_of("cpu", assignment), device)
    for _ in range(5 if device.type == "cuda" else 0):  # after these a step is one CUDA graph
        advance(trainer)
    return functools.partial(advance, trainer)


def _grown(works, rounds: int, device: torch.device | None = None) -> list[Row]:
    return growth(take_turns(works, rounds, device))


def _forward(preset: str, side: int, batch: int, device: torch.device):
    network = Das3d(**settings_of(preset, f"model.size={side}", "preprocess.size=1024").model.model_dump())
    if network.template is not None:
        network.template.compare(True)  # as for parts that are compared with the mean part
    images = Batch(
        torch.rand(batch, 3, side, side, device=device), torch.rand(batch, 1, side, side, device=device),
        torch.ones(batch, 1, side, side, dtype=torch.bool, device=device), torch.zeros(batch, 2, device=device),
    )  # fmt: skip
    look = judging(network.to(device))
    return lambda: score(look, images, 0.02, views=1)
