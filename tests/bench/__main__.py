"""Measure how long everything takes and write RESULTS.md beside this file. Nothing here passes or fails.

What is compared takes turns, so that ratios hold on a busy machine as well. Figures are medians of several rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from das3d_cli import device as devices
from das3d_cli.files import write_whole
from das3d_cli.memory import keep_freed

from . import peers
from .captures import preparation, starts, verdicts
from .clock import Section
from .forward import passes, throughput
from .growth import costs, network_costs, overlap
from .ready import PRESETS, copied, make_cache, make_models
from .steps import steps
from .table import markdown


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--gpus", default="auto", help="as for das3d train; a GPU is measured besides the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement; the slowest take fewer")
    parser.add_argument("--skip-cpu", action="store_true", help="measure on the GPU alone what can be measured on both")
    parser.add_argument("--cache", type=Path, help="cache of sample_data/ made elsewhere, for a machine without Open3D")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to see that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"), help="file to write")
    given = parser.parse_args()
    keep_freed()  # as the command line does
    chosen = devices.choose(given.gpus)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        sections: list[Section] = []
        devices_used = [chosen] if chosen.type == "cpu" or given.skip_cpu else [torch.device("cpu"), chosen]
        rounds = 1 if given.quick else given.rounds
        for section in measure(Path(name), given.cache, devices_used, rounds, given.quick):
            seconds = time.perf_counter() - started
            print(f"{seconds:6.0f} s  {section.title}", file=sys.stderr, flush=True)
            sections.append(section)
            write_whole(given.out, markdown(_head(chosen, seconds), sections).encode())  # stays if the run is stopped
    print(given.out)
    return 0


def measure(
    folder: Path, cache: Path | None, used: Sequence[torch.device], rounds: int, quick: bool
) -> Iterator[Section]:
    """All sections. Without Open3D those that start from a capture's files are left out, and a cache must be given."""
    few, from_files = min(rounds, 3), peers.have_open3d()
    cache = copied(cache, folder / "cache") if cache else make_cache(folder / "cache")
    models = make_models(cache, folder)
    if used[0].type == "cpu":
        if from_files:
            yield preparation(folder, (200,) if quick else (400, 800), few)
            yield starts(folder, models, 200 if quick else 800, rounds)
        yield overlap(*((10, 64) if quick else (110, 256)), rounds)
        yield costs(folder, cache, few, quick)
    for device in used:
        if from_files:
            yield verdicts(folder, models, device, 200 if quick else 800, rounds)
        yield passes(models, cache, device, (1, 2) if quick else (1, 32), few if device.type == "cpu" else rounds)
        yield throughput(models, cache, device, few)
        small = ("model.size=64", "train.batch_size=2") if quick else ()
        for preset in PRESETS:
            slow = device.type == "cpu" and preset == "default"
            yield steps(cache, preset, device, min(few, 2) if slow else rounds, *small)
        yield network_costs(cache, device, few, quick)


def _head(chosen: torch.device, seconds: float) -> str:
    gpu = f" and {torch.cuda.get_device_name(chosen)}" if chosen.type == "cuda" else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores, torch with {torch.get_num_threads()} threads{gpu}; Python"
        f" {platform.python_version()}, torch {torch.__version__}. What is compared took turns. `nox -s bench`"
        f" wrote this file in {seconds / 60:.1f} minutes."
    )


def _processor() -> str:
    """The processor's name, or the machine type where the system does not tell it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
