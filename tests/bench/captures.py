"""From files to a verdict: preprocessing, the whole way, and the start of a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from das3d_cli.data.preprocess import preprocess
from das3d_cli.data.readers import read_capture
from das3d_cli.detector import Detector

from . import peers
from .clock import Row, Section, rate, take_turns, times
from .ready import load, make_capture


def prepare(rgb: Path, xyz: Path) -> Callable[[], object]:
    """A call that preprocesses the capture at the default settings."""
    capture = read_capture(rgb, xyz)
    options = {"plane_distance_m": 0.005, "depth_axis": "plane", "depth_range_m": (-0.03, 0.0), "window_m": None}
    return lambda: preprocess(capture, size=256, **options)


def preparation(folder: Path, sides: tuple[int, ...], rounds: int) -> Section:
    """das3d's preprocessing, compared with the usual steps, as in 3D-ADS."""
    text = (
        "One capture in memory: its part is cut out. 3D-ADS: a plane through the border, DBSCAN, the largest cluster."
    )
    rows: list[Row] = []
    for side in sides:
        rgb, xyz = make_capture(folder, side)
        capture, other = read_capture(rgb, xyz), f"3D-ADS's steps, {side} px"
        works = {f"das3d, {side} px": prepare(rgb, xyz)}
        points = np.nan_to_num(capture.xyz)
        works[other] = lambda rgb=capture.rgb, points=points: peers.preprocess(rgb, points)
        rows += times(take_turns(works, rounds if side < 800 else 1), against=other)  # theirs takes most of a minute
    return Section("Preprocessing", text, rows)


def verdicts(folder: Path, models: dict[str, Path], device: torch.device, side: int, rounds: int) -> Section:
    """The whole way from files to verdict for one part, and predictions for several parts in one call."""
    rgb, xyz = make_capture(folder, side)
    capture = read_capture(rgb, xyz)
    pair, many = (capture.rgb, capture.xyz), 8
    works = {"reading the two files": lambda: read_capture(rgb, xyz)}
    detectors = {preset: load(file, device) for preset, file in models.items()}
    for preset, detector in detectors.items():
        works[f"files to verdict, {preset}"] = lambda d=detector: _judged(d, rgb, xyz)
        works[f"preprocessing within it, {preset}"] = lambda d=detector: d.prepare(capture)
        works[f"predict_many of {many} parts, {preset}"] = lambda d=detector: d.predict_many([pair] * many)
    found = take_turns(works, rounds, device)
    rows = times({name: seconds for name, seconds in found.items() if "many" not in name})
    rows += [rate(name, many, seconds) for name, seconds in found.items() if "many" in name]
    text = f"A colour image and a point cloud of {side} x {side} pixels. Without the start of the process."
    return Section(f"Files to verdict on {device}", text, rows)


def _judged(detector: Detector, rgb: Path, xyz: Path) -> object:
    return detector.predict_capture(read_capture(rgb, xyz))


def starts(folder: Path, models: dict[str, Path], side: int, rounds: int) -> Section:
    """Whole processes, compared with what Python and torch alone need."""
    rgb, xyz = make_capture(folder, side)

    def process(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    works = {
        "python, nothing else": process("-c", "pass"),
        "das3d --help": process("-m", "das3d_cli", "--help"),
        "das3d predict --help": process("-m", "das3d_cli", "predict", "--help"),
        "python, import torch": process("-c", "import torch"),
    }
    for preset, file in models.items():
        load = f"from das3d_cli import Detector; Detector.load({str(file)!r}, 'cpu')"
        works[f"python, import and load the detector, {preset}"] = process("-c", load)
        judge = ("predict", str(xyz), str(rgb), "--run", str(file), "--gpus", "cpu")
        works[f"das3d predict, {side} px, {preset}"] = process("-m", "das3d_cli", *judge)
    return Section("Start", "A process from its start to its end.", times(take_turns(works, rounds)))
