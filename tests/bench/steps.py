"""Training: synthesis and whole steps, side by side with the paper's training done plainly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from das3d_cli.data.cache import load_split, open_cache
from das3d_cli.synthesis.augment import augment_often
from das3d_cli.synthesis.random import ItemRandom

from . import plain
from .clock import Row, Section, median, rate, take_turns, times, wait
from .ready import CATEGORY, make_trainer, settings_of

_PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # bfloat16 without sparsity, of the SXM cards' data sheets


def steps(cache: Path, preset: str, device: torch.device, rounds: int, *assignments: str) -> Section:
    """One preset's synthesis, step and rate; on a GPU also how busy that is."""
    settings = settings_of(preset, *assignments)
    trainer = make_trainer(cache, settings, device)
    train, count = trainer.data.train, settings.train.batch_size
    split = load_split(open_cache(cache, CATEGORY), "train")
    size = settings.model.size
    shrunk = _shrunk(split.rgb, split.depth, split.foreground, size)
    textures = trainer.data.textures.permute(0, 2, 3, 1).cpu().numpy()
    loop = plain.Loop(settings, *shrunk, textures, device)
    batch = train.pick(torch.arange(count, device=device) % len(train))
    random = ItemRandom.of(0, 0, torch.arange(count, device=device))
    arguments = settings.synthesis.augmentation() | settings.synthesis.model_dump(include={"defects", "normal_share"})
    works: dict[str, Callable[[], object]] = {
        "synthesis": lambda: augment_often(*batch.images, trainer.data.textures, random, **arguments),
        "synthesis, plain": loop.synthesis,
        "step": trainer._advance,
        "step, plain": lambda: _freely(loop.step),
    }
    found = take_turns(works, rounds, device)
    made, made_plainly, step, plainly = found.values()
    rows = times({"synthesis": made, "the plain loop": made_plainly}, against="the plain loop")[:1]
    rows += times({"training step": step})
    rows.append(rate("rate", count, step, "the plain loop", plainly))
    rows.append(rate("rate of the plain loop", count, plainly))
    for name, part, whole in (("", made, step), (" of the plain loop", made_plainly, plainly)):
        shares = [100 * a / b for a, b in zip(part, whole, strict=True)]
        rows.append(Row(f"synthesis in the step{name}", shares, "%"))
    if device.type == "cuda":
        rows += _use_of_gpu(trainer._advance, device, median(step))
    text = (
        f"Batches of {count} at {size} x {size} pixels. The plain loop trains the same network on the paper's losses in"
        " eager float32 with Adam, and makes its defects in numpy, one sample after the other; das3d"
        f" makes {settings.synthesis.defects} on each."
    )
    return Section(f"Training at preset {preset} on {device}", text, rows)


def _freely(step: Callable[[], object]) -> object:
    """A step that need not repeat bit for bit, which a das3d trainer asks of a GPU."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        return step()
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def _shrunk(rgb, depth, foreground, size: int):
    """The cache's arrays at the network's size, by every n-th pixel: the plain loop's time is what counts."""
    every = depth.shape[-1] // size
    return rgb[:, ::every, ::every], depth[:, ::every, ::every], foreground[:, ::every, ::every]


def _use_of_gpu(step: Callable[[], object], device: torch.device, seconds: float) -> list[Row]:
    """Share of the time that kernels run, and share of the bfloat16 arithmetic that the card is good for."""
    rounds = 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(rounds):
            step()
        wait(device)
    kernels = sum(event.self_device_time_total for event in profile.key_averages()) / rounds / 1e6
    with FlopCounterMode(display=False) as counter:
        step()
    tflops = counter.get_total_flops() / seconds / 1e12
    rows = [Row("GPU busy", [100 * min(1.0, kernels / seconds)], "%"), Row("arithmetic", [tflops], "TFLOP/s")]
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    product = take_turns({"product": lambda: matrix @ matrix}, 5, device)["product"]
    best = 2 * 8192**3 / min(product) / 1e12
    rows.append(Row("share of a large bfloat16 matrix product's arithmetic here", [100 * tflops / best], "%"))
    name = torch.cuda.get_device_name(device)
    peak = next((value for card, value in _PEAK_TFLOPS.items() if card in name), None)
    if peak:
        rows.append(Row(f"share of the data sheet's {peak:g} TFLOP/s", [100 * tflops / peak], "%"))
    return rows
