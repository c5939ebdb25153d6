"""How long the parts of das3d take, and how they compare in one and the same run: `nox -s bench`.

Medians of repeated runs with their spread (smallest to largest); nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch
from rich.console import Console
from rich.table import Table

from das3d_cli import device as devices
from das3d_cli.curves import area
from das3d_cli.data.build import build
from das3d_cli.data.cache import open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.data.preprocess import preprocess
from das3d_cli.data.readers import read_capture
from das3d_cli.engine import training
from das3d_cli.intervals import intervals
from das3d_cli.metrics import LIMITS, pro_curve
from das3d_cli.scoring import score
from das3d_cli.settings import PreprocessSettings, resolve
from das3d_cli.synthesis.augment import augment
from das3d_cli.synthesis.random import ItemRandom

SAMPLES = Path(__file__).parents[1] / "sample_data" / "mvtec3d"


def timed(work: Callable[[], object], runs: int, device: torch.device | None = None) -> list[float]:
    """Seconds of each of `runs` runs after a first one that is not counted."""
    seconds = []
    for counted in range(-1, runs):
        start = time.perf_counter()
        work()
        if device and device.type == "cuda":
            torch.cuda.synchronize(device)
        if counted >= 0:
            seconds.append(time.perf_counter() - start)
    return seconds


def capture_times(folder: Path, side: int, runs: int) -> dict[str, list[float]]:
    """One capture of side x side pixels: reading its two files bare, through the readers, and preprocessing it."""
    entry = find_entries(SAMPLES, ["tire"]).entries[0]
    small = read_capture(entry.rgb, entry.xyz)
    xyz = np.nan_to_num(cv2.resize(small.xyz, (side, side), interpolation=cv2.INTER_NEAREST))
    rgb, points = folder / f"{side}.png", folder / f"{side}.tiff"
    cv2.imwrite(str(rgb), cv2.resize(small.rgb, (side, side))[..., ::-1])
    tifffile.imwrite(points, xyz, photometric="minisblack")
    capture = read_capture(rgb, points)
    options = {"plane_distance_m": 0.005, "depth_axis": "plane", "depth_range": (-0.03, 0.0), "window_px": None}
    return {
        f"decode two files, {side} px": timed(lambda: (tifffile.imread(points), cv2.imread(str(rgb))), runs),
        f"read capture, {side} px": timed(lambda: read_capture(rgb, points), runs),
        f"preprocess capture, {side} px": timed(lambda: preprocess(capture, size=256, **options), runs),
    }


def network_times(cache_root: Path, preset: str, device: torch.device, runs: int) -> dict[str, list[float]]:
    """Synthesis, a training step, and forward passes at a preset."""
    settings = resolve({}, [f"preset={preset}"], environment={})
    trainer = training.start(settings, open_cache(cache_root, "tire"), cache_root / "runs", device)
    batch = trainer.data.train.pick(torch.arange(settings.train.batch_size, device=device) % len(trainer.data.train))
    random = ItemRandom.of(0, 0, torch.arange(len(batch.depth), device=device))
    one = type(batch)(*(tensor[:1] for tensor in batch))
    name = f"{preset}, batch {settings.train.batch_size}"
    return {
        f"synthesis ({name})": timed(
            lambda: augment(*batch, trainer.data.textures, random, **settings.synthesis.augmentation()), runs, device
        ),
        f"training step ({name})": timed(trainer._advance, runs, device),
        f"forward pass ({preset}, batch 1)": timed(lambda: score(trainer.network, one, 0.02), runs, device),
    }


def figure_times(runs: int) -> dict[str, list[float]]:
    """The figures of a test split of 110 smooth maps with three defects on most, 256 px."""
    random = np.random.default_rng(0)
    maps = np.stack([cv2.GaussianBlur(random.random((256, 256), np.float32), (0, 0), 3) for _ in range(110)])
    masks = np.zeros(maps.shape, bool)
    for index, row, column in zip(np.tile(np.arange(85), 3), *random.integers(0, 230, (2, 255)), strict=True):
        masks[index, row : row + 24, column : column + 20] = True
    maps[masks] += 0.05
    labels = ["good" if not mask.any() else "defect" for mask in masks]
    return {
        "exact AUPRO at all limits, 110 maps": timed(
            lambda: [area(*curve, limit) for curve in [pro_curve(masks, maps)] for limit in LIMITS.values()], runs
        ),
        "intervals, 110 maps": timed(lambda: intervals(labels, maps.max(axis=(1, 2)), maps, masks), runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", default="auto")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    device = devices.choose(given.gpus)
    table = Table("what", "median ms", "smallest", "largest", title=f"on {device}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = capture_times(folder, 400, given.runs) | capture_times(folder, 800, given.runs)
        build(find_entries(SAMPLES, ["tire"]), folder / "out", PreprocessSettings(), workers=1)
        for preset in ("cpu", "default"):
            found |= network_times(folder / "out", preset, device, given.runs)
    found |= figure_times(given.runs)
    for what, seconds in found.items():
        table.add_row(what, *(f"{1e3 * s:.1f}" for s in (statistics.median(seconds), min(seconds), max(seconds))))
    console = Console()
    console.print(table)
    read, prepare = (statistics.median(found[f"{what}, 800 px"]) for what in ("decode two files", "preprocess capture"))
    console.print(f"preprocessing an 800 px capture takes {prepare / read:.1f} times as long as decoding its files")


if __name__ == "__main__":
    main()
