"""Training: synthesis and whole steps, compared with a plain version of the paper's training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from das3d_cli.batch import Batch
from das3d_cli.data.cache import load_split, open_cache
from das3d_cli.device import autocast
from das3d_cli.engine.recorded import Recorded
from das3d_cli.engine.samples import synthesised
from das3d_cli.engine.trainer import Trainer
from das3d_cli.settings import Settings

from . import plain
from .clock import Row, Section, median, peak_megabytes, rate, take_turns, times, wait
from .ready import CATEGORY, advance, make_trainer, settings_of

# bfloat16 without sparsity, from the SXM cards' data sheets.
_PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}


def steps(cache: Path, preset: str, device: torch.device, rounds: int, *assignments: str) -> Section:
    """One preset's synthesis, step, pass over the parts, validation, memory, and use of the device's arithmetic."""
    settings = settings_of(preset, *assignments)
    trainer = make_trainer(cache, settings, device)
    memory = _memory(trainer, cache, device)
    train, count = trainer.data.train, settings.train.batch_size
    split = load_split(open_cache(cache, CATEGORY), "train")
    size = settings.model.size
    shrunk = _shrunk(split.rgb, split.depth, split.foreground, size)
    textures = trainer.data.textures.permute(0, 2, 3, 1).cpu().numpy()
    loop = plain.Loop(settings, *shrunk, textures, device)
    batch, places = trainer.feed.batch(0), torch.arange(count, device=device)
    step_number = torch.zeros((), dtype=torch.int64, device=device)
    synthesis = _as_in_a_step(trainer, *batch, places, step_number)
    works: dict[str, Callable[[], object]] = {
        "synthesis": synthesis,
        "synthesis, plain": loop.synthesis,
        "step": functools.partial(advance, trainer),
        "step, plain": loop.step,
    }
    # A GPU computes while the next step is prepared, so several steps in a row are timed.
    often = 10 if device.type == "cuda" else 1
    if trainer._as_graph:
        works["learning"] = _without_synthesis(trainer, step_number)
    found = take_turns(works, rounds, device, often=often)
    made, made_plainly, step, plainly, *learning = found.values()
    added = [whole - part for whole, part in zip(step, learning[0], strict=True)] if learning else made
    rows = times({"synthesis": made, "the plain loop": made_plainly}, against="the plain loop")[:1]
    rows += times({"training step": step})
    if device.type == "cuda":
        rows += _kernel_by_kernel(trainer, cache, settings, rounds, often)
    rows.append(rate("rate", count, step, "the plain loop", plainly))
    rows.append(rate("rate of the plain loop", count, plainly))
    if learning:
        rows += times({"step without synthesis": learning[0]})
    for name, part, whole in (("", added, step), (" of the plain loop", made_plainly, plainly)):
        shares = [100 * a / b for a, b in zip(part, whole, strict=True)]
        rows.append(Row(f"synthesis in the step{name}", shares, "%"))
    whole_works: dict[str, Callable[[], object]] = {
        f"one pass over {len(train)} parts": lambda: _pass(trainer),
        f"a validation on {len(trainer.data.validation)} parts, and its checkpoints": lambda: trainer._validate(
            _ignore
        ),
    }
    rows += times(take_turns(whole_works, min(rounds, 2), device))
    if device.type == "cuda":
        rows += _busy(functools.partial(advance, trainer), device, median(step))
    rows.append(memory)
    one_by_one = functools.partial(trainer._one_by_one, 0)  # nothing in a CUDA graph is counted
    rows += _use_of_arithmetic(one_by_one, device, median(step))
    text = (
        f"Batches of {count} at {size} x {size} pixels. The plain loop trains the same network on the paper's losses in"
        " eager float32 with Adam, and makes its defects in numpy, one sample after the other; das3d also turns and relights"
        f" samples, and makes {settings.synthesis.defects} defects on each. On a GPU, das3d makes a step's samples in parallel"
        " with the step before; there, synthesis in the step is the time by which a step without it is shorter."
    )
    return Section(f"Training at preset {preset} on {device}", text, rows)


def _as_in_a_step(trainer: Trainer, *inputs: Tensor) -> Callable[[], object]:
    """A step's synthesis, launched as in training; inputs: the batch's tensors, the indices in it and the step's number."""

    def work(rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor, places: Tensor, step: Tensor):
        parts, s = Batch(rgb, depth, foreground, parallax), trainer.settings
        return synthesised(
            parts, places, step, trainer.data.textures, s, s.synthesis.normal_share, compared=trainer.network.compares
        )

    launched = Recorded(work) if trainer._as_graph else work
    return functools.partial(launched, *inputs)


def _without_synthesis(trainer: Trainer, step: Tensor) -> Callable[[], object]:
    """A step that always learns from the same samples."""
    samples = trainer._make(*trainer._inputs(0))
    return functools.partial(Recorded(lambda step: trainer._learn(samples)), step)


def _kernel_by_kernel(trainer: Trainer, cache: Path, settings: Settings, rounds: int, often: int) -> list[Row]:
    """A GPU's training step without CUDA graphs."""
    hardware = settings.hardware.model_copy(update={"cuda_graphs": False})
    other = make_trainer(cache, settings.model_copy(update={"hardware": hardware}), trainer.device)
    works = {
        "training step": functools.partial(advance, trainer),
        "step, kernel by kernel": functools.partial(advance, other),
    }
    return times(take_turns(works, rounds, trainer.device, often=often), against="training step")[1:]


def _pass(trainer: Trainer) -> None:
    """As many steps as it takes to show every part once."""
    for _ in range(-(-len(trainer.data.train) // trainer.settings.train.batch_size)):
        advance(trainer)


def _memory(trainer: Trainer, cache: Path, device: torch.device) -> Row:
    """Peak memory of a step beyond what was held before."""
    if device.type == "cpu":
        used = peak_megabytes(_one_step, cache, trainer.settings)
    else:
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        trainer._advance()
        used = (torch.cuda.max_memory_allocated(device) - held) / 2**20
    return Row("memory of a training step beyond data, weights and textures", [used], "MB")


def _one_step(cache: Path, settings: Settings) -> Callable[[], object]:
    return make_trainer(cache, settings, torch.device("cpu"))._advance


def _ignore(step: int, values: dict[str, float]) -> None:
    pass


def _shrunk(rgb, depth, foreground, size: int):
    """The cache's arrays at the network's size, by taking every n-th pixel: only the plain loop's time matters."""
    every = depth.shape[-1] // size
    return rgb[:, ::every, ::every], depth[:, ::every, ::every], foreground[:, ::every, ::every]


def _busy(step: Callable[[], object], device: torch.device, seconds: float) -> list[Row]:
    """Share of a step's time in which a GPU's kernels run, and their number per step."""
    rounds = 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(rounds):
            step()
        wait(device)
    # Waits for the GPU are recorded as its events, too.
    kernels = [event for event in profile.events() if event.device_type == DeviceType.CUDA and "Sync" not in event.name]
    busy, until = 0.0, 0.0
    for begins, ends in sorted((event.time_range.start, event.time_range.end) for event in kernels):
        busy += max(0.0, ends - max(begins, until))  # some overlap
        until = max(until, ends)
    busy /= rounds * 1e6
    return [Row("GPU busy", [100 * busy / seconds], "%"), Row("kernels in a step", [len(kernels) / rounds], "")]


def _use_of_arithmetic(step: Callable[[], object], device: torch.device, seconds: float) -> list[Row]:
    """Arithmetic of a step, and its share of a large matrix product's here and of the data sheet's peak."""
    with FlopCounterMode(display=False) as counter:
        step()
    done = counter.get_total_flops() / seconds / 1e12
    with autocast(device, training=True) as _:
        narrow = torch.is_autocast_enabled(device.type)
    dtype, side = torch.bfloat16 if narrow else torch.float32, 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=device).to(dtype)
    product = take_turns({"product": lambda: matrix @ matrix}, 5, device)["product"]
    best = 2 * side**3 / min(product) / 1e12
    name = str(dtype).removeprefix("torch.")
    rows = [
        Row("arithmetic", [done], "TFLOP/s"),
        Row(f"share of a large {name} matrix product's arithmetic here", [100 * done / best], "%"),
    ]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((value for known, value in _PEAK_TFLOPS.items() if known in card), None)
    return [*rows, Row(f"share of the data sheet's {peak:g} TFLOP/s", [100 * done / peak], "%")] if peak else rows
