"""Inputs of the measurements: captures, a cache, untrained models."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch

from das3d_cli.configure import resolve
from das3d_cli.data.build import build
from das3d_cli.data.cache import open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.data.readers import read_capture
from das3d_cli.detector import Detector
from das3d_cli.engine import checkpoint, training
from das3d_cli.engine.trainer import Trainer
from das3d_cli.settings import PreprocessSettings, Settings

SAMPLES = Path(__file__).parents[2] / "sample_data" / "mvtec3d"
CATEGORY = "tire"
PRESETS = ("cpu", "default")


def make_cache(folder: Path) -> Path:
    """A cache of the sample data.

    Raises:
        RuntimeError: a sample could not be preprocessed, perhaps because Open3D is missing.
    """
    summary = build(find_entries(SAMPLES, [CATEGORY]), folder, PreprocessSettings(), workers=1)
    if summary.failures:
        raise RuntimeError(f"the sample data cannot be preprocessed here; give --cache: {summary.failures[0]}")
    return folder


def copied(cache: Path, folder: Path) -> Path:
    """Copy a cache made elsewhere to where runs may be written beside it."""
    shutil.copytree(cache, folder)
    return folder


def make_capture(folder: Path, side: int) -> tuple[Path, Path]:
    """Write the two files of a part, (rgb, xyz), enlarged to side x side pixels."""
    entry = next(entry for entry in find_entries(SAMPLES, [CATEGORY]).entries if entry.label == "hole")
    small = read_capture(entry.rgb, entry.xyz)
    known = (~np.isnan(small.xyz[..., 2])).astype(np.float32)
    share = cv2.resize(known, (side, side))
    xyz = cv2.resize(np.nan_to_num(small.xyz), (side, side)) / np.maximum(share, 1e-6)[..., None]
    missing = cv2.resize(known, (side, side), interpolation=cv2.INTER_NEAREST) == 0
    rgb, points = folder / f"{side}.png", folder / f"{side}.tiff"
    cv2.imwrite(str(rgb), cv2.resize(small.rgb, (side, side))[..., ::-1])
    tifffile.imwrite(points, np.where(missing[..., None], 0, xyz).astype(np.float32), photometric="minisblack")
    return rgb, points


def settings_of(preset: str, *assignments: str) -> Settings:
    return resolve({}, [f"preset={preset}", *assignments], environment={})


def make_trainer(cache: Path, settings: Settings, device: torch.device) -> Trainer:
    """A trainer before its first step."""
    return training.start(settings, open_cache(cache, CATEGORY), cache.with_name("runs"), device)


def advance(trainer: Trainer) -> None:
    """Do a step and move on to the next, whose samples a GPU has made by then."""
    trainer._advance()
    trainer.step += 1


def make_models(cache: Path, folder: Path) -> dict[str, Path]:
    """Preset -> model file of a network that learnt only its template; it calls every part anomalous, at any scale."""
    files = {}
    for preset in PRESETS:
        made = make_trainer(cache, settings_of(preset), torch.device("cpu"))
        made.best = {"threshold": 0.3, "step": 0}
        files[preset] = folder / f"{preset}.pt"
        checkpoint.save(files[preset], made._model_file() | {"form": made.identity["form"] | {"pitch_m": None}})
    return files


def load(model: Path, device: torch.device, cuda_graphs: bool = False) -> Detector:
    """Load the detector on that device."""
    return Detector.load(model, "cpu" if device.type == "cpu" else str(device.index), cuda_graphs=cuda_graphs)
