"""How fast a detector judges parts on this machine, and how much memory it takes."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from das3d_cli.data.cache import Inputs
from das3d_cli.detector import Detector
from das3d_cli.device import within_memory

_WARM_UP = 5  # untimed batches; the fourth records a CUDA graph
_MB = 2**20


class Speed(NamedTuple):
    """Figures for one batch size.

    Attributes:
        batch_size: parts.
        latency_ms: median time of a batch, from samples in memory to scores and maps; preprocessing is not counted.
        p5_ms, p95_ms: 5th and 95th percentile of that time.
        parts_per_second: throughput, from the mean time.
        memory_mb: peak memory, 2^20 bytes, including the network's weights. On a GPU what torch allocated there; on a
            CPU the growth of the process's peak RSS since before the run was loaded, for this or a smaller batch; nan
            where the system does not report it.
    """

    batch_size: int
    latency_ms: float
    p5_ms: float
    p95_ms: float
    parts_per_second: float
    memory_mb: float


def benchmark(
    run: Path, gpus: str, batch_sizes: Sequence[int], repeats: int, *, cuda_graphs: bool
) -> tuple[Detector, list[Speed]]:
    """Load a run and time it on made-up parts, each batch size `repeats` times after a warm-up, smallest first.

    The parts' content does not matter: every pixel costs the same. cuda_graphs: as for `Detector.load`.

    Raises:
        DataError, UsageError: as `Detector.load`.
    """
    at_first = _peak_rss_mb()
    detector = Detector.load(run, gpus, cuda_graphs=cuda_graphs)
    return detector, [_speed(detector, size, repeats, at_first) for size in sorted(set(batch_sizes))]


def _speed(detector: Detector, batch_size: int, repeats: int, at_first: float) -> Speed:
    cuda = detector.device.type == "cuda"
    with within_memory(torch.device("cpu"), f"while creating {batch_size} made-up parts; give smaller --batch-sizes"):
        parts = _made_up(batch_size, detector.settings.preprocess.size)
    if cuda:
        torch.cuda.reset_peak_memory_stats(detector.device)
    seconds = []
    for counted in range(-_WARM_UP, repeats):
        start = time.perf_counter()
        detector.score(*parts)  # returns results in main memory, so the GPU is done
        if counted >= 0:
            seconds.append(time.perf_counter() - start)
    p5, median, p95 = np.percentile(seconds, [5, 50, 95]) * 1000
    memory = torch.cuda.max_memory_allocated(detector.device) / _MB if cuda else _peak_rss_mb() - at_first
    return Speed(batch_size, float(median), float(p5), float(p95), batch_size / float(np.mean(seconds)), memory)


def _made_up(count: int, side: int) -> Inputs:
    """Stacked samples: discs of noise."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    foreground = np.broadcast_to(np.hypot(x, y) < 0.7, (count, side, side)).copy()
    depth = np.where(foreground, 0.5, 1.0).astype(np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return rgb, depth, foreground, np.zeros((count, 2), np.float32)


def _peak_rss_mb() -> float:
    """Peak resident set size of the process so far, or nan where the system does not report it.

    Linux's getrusage may include the peak of the program that started this one, so it is read from /proc there.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        peak = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"), re.MULTILINE)
        return int(peak[1]) / 1024 if peak else float("nan")
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MB if sys.platform == "darwin" else 1024)


def device_name(device: torch.device) -> str:
    """Name of the timed device: the GPU's name, or the CPU with its number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, threads: {torch.get_num_threads()}"
