"""Forward passes of das3d's networks, compared with one of 3DSR's published size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from das3d_cli.batch import Batch, Parts
from das3d_cli.data.cache import Inputs, begin_split, in_portions, load_split, open_cache
from das3d_cli.detector import TOGETHER
from das3d_cli.scoring import score

from . import dsr
from .clock import Row, Section, peak_megabytes, rate, take_turns, times
from .ready import CATEGORY, load

Pass = Callable[[], object]


def ours(model: Path, cache: Path, batch: int, device: torch.device, cuda_graphs: bool = False) -> Pass:
    """A call that scores a batch that is on the device already, with a loaded detector."""
    detector = load(model, device, cuda_graphs)
    split = load_split(open_cache(cache, CATEGORY), "test")
    parts = Parts.stack(*split.inputs, size=detector.settings.model.size, device=device)
    data: Batch = parts.pick(torch.arange(batch, device=device) % len(parts))
    return lambda: score(detector._look, data, detector.settings.score.smoothing, detector.settings.views_taken)


def theirs(batch: int, device: torch.device, half: bool) -> Pass:
    """A call of the network of 3DSR's size, in float32 as published or in bfloat16 (`half`)."""
    network = dsr.Dsr().eval().to(device)
    images = torch.rand(batch, 4, dsr.SIZE, dsr.SIZE, device=device)

    @torch.inference_mode()
    def work() -> object:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            return network(images).softmax(1).cpu()

    return work


def passes(
    models: dict[str, Path], cache: Path, device: torch.device, batches: tuple[int, ...], rounds: int
) -> Section:
    """Times, arithmetic and memory at each batch size; on a CPU, 3DSR with one image only, as a pass takes seconds."""
    rows: list[Row] = []
    for batch in batches:
        works = {f"das3d {preset}, batch {batch}": ours(file, cache, batch, device) for preset, file in models.items()}
        if device.type == "cuda":
            graphs = {f"das3d {preset}, batch {batch}, as one CUDA graph": ours(file, cache, batch, device, True)
                      for preset, file in models.items()}  # fmt: skip
            works |= graphs
            for work in (*graphs.values(), *graphs.values(), *graphs.values()):
                work()  # recorded from the fourth call on
        if batch == 1 or device.type == "cuda":
            works[f"3DSR, batch {batch}"] = theirs(batch, device, half=False)
            if device.type == "cuda":
                works[f"3DSR in bfloat16, batch {batch}"] = theirs(batch, device, half=True)
        rows += times(take_turns(works, rounds, device), against=f"3DSR, batch {batch}")
        # Nothing in a CUDA graph is counted.
        works = {name: work for name, work in works.items() if "graph" not in name}
        rows += [Row(f"{name}: arithmetic", [_gflop(work)], "GFLOP") for name, work in works.items() if batch == 1]
        if device.type == "cuda":
            rows += [Row(f"{name}: memory", [_gpu_megabytes(work, device)], "MB") for name, work in works.items()]
        del works
    if device.type == "cpu":
        for preset, file in models.items():
            for batch in batches:
                used = peak_megabytes(ours, file, cache, batch, device)
                rows.append(Row(f"das3d {preset}, batch {batch}: memory beyond the loaded model's", [used], "MB"))
        rows.append(
            Row("3DSR, batch 1: memory beyond the loaded model's", [peak_megabytes(theirs, 1, device, False)], "MB")
        )
    text = (
        "das3d: from images on the device to maps and scores, with as many views of every part as the preset has. 3DSR: a network"
        f" with its published layers and random weights, {dsr.SIZE} x {dsr.SIZE} pixels, in float32 as published."
    )
    return Section(f"Forward pass on {device}", text, rows)


def throughput(models: dict[str, Path], cache: Path, device: torch.device, rounds: int) -> Section:
    """The test split from the cache's files to scores, and many parts from main memory to scores."""
    opened = open_cache(cache, CATEGORY)
    held = load_split(opened, "test").inputs
    count, often = len(held[0]), 6 if device.type == "cuda" else 1  # a GPU computes while the next parts are sent
    many = [np.concatenate([images] * often) for images in held]

    def from_files() -> Iterator[Inputs]:
        for _ in range(often):
            split, reading = begin_split(opened, "test")
            yield from in_portions(split.inputs, TOGETHER, reading)

    works: dict[str, Pass] = {f"reading {count}": lambda: load_split(opened, "test")}
    counts = [count]
    for preset, file in models.items():
        for graphs in (False, True) if device.type == "cuda" else (False,):
            detector, how = load(file, device, graphs), ", as CUDA graphs" if graphs else ""
            works[f"{preset}, scoring {often * count}{how}"] = lambda d=detector: d.score(*many)
            works[f"{preset}, reading and scoring {often * count}{how}"] = lambda d=detector: d.score_each(from_files())
            counts += [often * count] * 2
    found = take_turns(works, rounds, device)
    rows = [rate(what, some, seconds) for some, (what, seconds) in zip(counts, found.items(), strict=True)]
    return Section(f"From the cache on {device}", "Samples from files to main memory, and from there to scores.", rows)


def _gflop(work: Pass) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _gpu_megabytes(work: Pass, device: torch.device) -> float:
    """Peak memory beyond what was held before, such as weights, 2^20 bytes."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
