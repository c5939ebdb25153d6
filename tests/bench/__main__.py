"""Measures how long everything takes and writes RESULTS.md beside this file. Nothing here passes or fails.

What stands side by side takes turns, so that ratios hold on a busy machine as well; medians of several rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from das3d_cli import device as devices

from .captures import preparation, starts, verdicts
from .clock import Section
from .forward import passes, throughput
from .growth import costs, overlap
from .ready import PRESETS, make_cache, make_models
from .steps import steps
from .table import markdown


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--gpus", default="auto", help="as for das3d train; a GPU is measured besides the CPU")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement; the slowest take fewer")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to see that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"), help="file to write")
    given = parser.parse_args()
    chosen = devices.choose(given.gpus)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        sections = []
        for section in measure(Path(name), chosen, 1 if given.quick else given.rounds, given.quick):
            print(f"{time.perf_counter() - started:6.0f} s  {section.title}", file=sys.stderr, flush=True)
            sections.append(section)
    given.out.write_text(markdown(_head(chosen), sections), encoding="utf-8")
    print(given.out)
    return 0


def measure(folder: Path, chosen: torch.device, rounds: int, quick: bool) -> Iterator[Section]:
    """All sections, first those of the CPU; forward passes come before trainings, which choose determinism on a GPU."""
    few = min(rounds, 3)
    cpu = torch.device("cpu")
    cache = make_cache(folder / "cache")
    models = make_models(cache, folder)
    both = [cpu] if chosen == cpu else [cpu, chosen]
    yield preparation(folder, (200,) if quick else (400, 800), few)
    yield starts(folder, models, 200 if quick else 800, rounds)
    yield overlap(*((10, 64) if quick else (110, 256)), rounds)
    for device in both:
        yield verdicts(folder, models, device, 200 if quick else 800, rounds)
        yield passes(models, cache, device, (1, 2) if quick else (1, 32), few if device == cpu else rounds)
        yield throughput(models, cache, device, few)
        yield costs(folder, cache, device, few, quick)
    for device in both:
        small = ("model.size=64", "train.batch_size=2") if quick else ()
        for preset in PRESETS:
            slow = device == cpu and preset == "default"
            yield steps(cache, preset, device, min(few, 2) if slow else rounds, *small)


def _head(chosen: torch.device) -> str:
    gpu = f" and {torch.cuda.get_device_name(chosen)}" if chosen.type == "cuda" else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores, torch with {torch.get_num_threads()} threads{gpu}; Python"
        f" {platform.python_version()}, torch {torch.__version__}. What stands side by side took turns. `nox -s bench`"
        " writes this file."
    )


def _processor() -> str:
    """The processor's name, where the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
