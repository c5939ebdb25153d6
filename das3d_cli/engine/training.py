"""Train one category from its cache: start or resume a run, and finish it with summary.json."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import operator
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from das3d_cli import __version__, configure, runs
from das3d_cli.data.cache import VERSION, Cache, open_cache
from das3d_cli.device import within_memory
from das3d_cli.engine import distributed
from das3d_cli.engine.samples import Data, check_preprocessing, load_data
from das3d_cli.engine.trainer import Progress, Trainer
from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import sweep, write_json
from das3d_cli.settings import ADAPTABLE, FIELDS, Settings


def start(
    settings: Settings,
    cache: Cache,
    base: Path,
    device: torch.device,
    claimed: Callable[[Path], None] = lambda run: None,
) -> Trainer:
    """Claim a run folder below `base` and prepare to train in it.

    Args:
        claimed: called with the folder before any file is in it; of several processes, only in the first.

    Raises:
        DataError: the cache lacks good parts, the folder cannot be written, or memory is too small.
        UsageError: the settings' preprocessing or size does not match the cache.
    """
    check_preprocessing(settings, cache)
    distributed.check_share(settings.train.batch_size, settings.train.accumulate)
    textures = settings.synthesis.textures and settings.synthesis.textures.resolve()  # --resume may run elsewhere
    synthesis = settings.synthesis.model_copy(update={"textures": textures})
    settings = settings.model_copy(update={"preprocess": cache.manifest.settings, "synthesis": synthesis})
    _check_same(settings)
    with within_memory(device, _memory_advice(device)):
        data = load_data(settings, cache, device)
    own = identity(cache) | _of_textures(settings, data)
    if distributed.from_first(lambda: own) != own:
        raise DataError(
            f"{cache.folder}: this cache or the textures differ from those on the first machine; copy both from there"
        )
    run = distributed.from_first(lambda: _claim(settings, cache, base, device, claimed))
    with _removed_on_failure(run):
        with within_memory(device, _memory_advice(device)):
            trainer = Trainer(settings, data, own, run)
        trainer.save_state()  # whatever happens from here on, the run can be resumed
    return trainer


def resume(run: Path, cache_root: Path, device: torch.device, assignments: list[str] | None = None) -> Trainer:
    """Prepare to continue an unfinished run.

    Args:
        assignments: settings to change from now on, as for `configure.adapted`, which also reads the environment.

    Raises:
        DataError: not a run folder, no checkpoint, the cache or the textures have changed, or memory is too small.
        UsageError: the run is finished, or a setting cannot be changed.
    """
    begun, state = distributed.from_first(lambda: _left(run))
    settings = configure.adapted(begun, assignments or [])
    _check_same(settings)
    distributed.check_share(settings.train.batch_size, settings.train.accumulate)
    cache = open_cache(cache_root, state["category"])
    if any(state.get(key) != value for key, value in identity(cache).items() if key != "usual"):
        raise DataError(
            f"{cache.folder}: this cache, or das3d, has changed since {run} began; restore the old one, or train again"
        )
    lower = (
        "continue with a lower --set hardware.cache_share" if device.type == "cuda" else "free some memory and continue"
    )
    with within_memory(device, f"before the first step; {lower}"):
        data = load_data(settings, cache, device)
        textures = _of_textures(settings, data)
        own = identity(cache) | textures
        if any(state.get(key, value) != value for key, value in textures.items()):
            raise DataError(
                f"{settings.synthesis.textures}: not the textures that {run} began with; restore those, or train again"
            )
        trainer = Trainer(settings, data, own, run)
        trainer.restore(state)
    if settings != begun and distributed.is_first():
        _write_settings(run, settings)
    return trainer


def _check_same(settings: Settings) -> None:
    """Check that all processes train with the same settings, as each machine has its own files and environment.

    Raises:
        UsageError: they differ; names the first setting that does.
    """
    shared = [key for key in FIELDS if not key.startswith("hardware.") and key != "synthesis.textures"]
    own = {key: operator.attrgetter(key)(settings) for key in shared}
    first = distributed.from_first(lambda: own)
    for key in shared:
        if own[key] != first[key]:
            raise UsageError(
                f"settings.{key}: {own[key]} here, but {first[key]} on the first machine;"
                " give all machines the same options, environment and --config file"
            )


def _memory_advice(device: torch.device) -> str:
    if device.type == "cuda":
        return "before the first step; train again with a lower --set hardware.cache_share or --set synthesis.texture_count"
    return "before the first step; free some memory, or preprocess with a lower --size and train again"


def finish(trainer: Trainer, progress: Progress) -> dict[str, Any]:
    """Train to the end and close the run; returns what summary.json holds."""
    trainer.fit(progress)
    summary = {
        "category": trainer.identity["category"],
        "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
        "steps": trainer.step,
        "best": trainer.best,
    }
    if distributed.is_first():
        write_json(trainer.run / runs.SUMMARY, summary)
    return summary


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, platform and device, for the record."""
    versions = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # das3d may run without being installed
        for need in importlib.metadata.requires("das3d") or ():
            name = re.split(r"[^\w.-]", need, maxsplit=1)[0]
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # for another platform
                versions[name] = importlib.metadata.version(name)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "das3d": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "gpu": gpu,
        "processes": distributed.size(),
        "threads": torch.get_num_threads(),
        "packages": versions,
    }


def identity(cache: Cache) -> dict[str, Any]:
    """What a model file records of its data: enough to treat a raw capture alike, and to recognise the samples."""
    manifest = cache.manifest
    used = [
        (record.split, record.label, record.name, record.part, record.key)
        for record in manifest.samples
        if record.split in ("train", "validation")
    ]
    return {
        "category": manifest.category,
        "preprocessing": VERSION,
        "depth_range_m": list(manifest.depth_range_m) if manifest.depth_range_m else None,
        "window_m": manifest.window_m,
        "form": dataclasses.asdict(manifest.form),
        "usual": dataclasses.asdict(manifest.usual),
        "samples": hashlib.sha256(repr(used).encode()).hexdigest(),
    }


def _of_textures(settings: Settings, data: Data) -> dict[str, Any]:
    """What a checkpoint records of textures from a folder, besides `identity`: enough to recognise them.

    Procedural textures are left out: they follow from the settings, and their last bits depend on the processor.
    """
    if settings.synthesis.textures is None:
        return {}
    return {"textures": hashlib.sha256(data.textures.cpu().numpy().tobytes()).hexdigest()}


def _claim(settings: Settings, cache: Cache, base: Path, device: torch.device, claimed: Callable[[Path], None]) -> Path:
    run = runs.claim(base, cache.manifest.category)
    with _removed_on_failure(run):
        claimed(run)
        _write_settings(run, settings)
        write_json(run / runs.ENVIRONMENT, environment(device))
    return run


@contextlib.contextmanager
def _removed_on_failure(run: Path) -> Iterator[None]:
    """Remove the run folder if the block fails: without a checkpoint the run could not be resumed."""
    try:
        yield
    except BaseException:
        # Not only in the first process, which may be waiting for the failed one and is ended before it can do this.
        if distributed.is_first() or not (run / runs.LAST).exists():
            shutil.rmtree(run, ignore_errors=True)
        raise


def _write_settings(run: Path, settings: Settings) -> None:
    write_json(run / runs.SETTINGS, settings.model_dump(mode="json"))


def _left(run: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings and the last state of an unfinished run; its tensors are in main memory."""
    if not (run / runs.SETTINGS).is_file():
        raise DataError(f"{run}: not a run folder; name one that `das3d train` made, such as runs/tire-001")
    if (run / runs.SUMMARY).is_file():
        raise UsageError(f"{run}: this run is finished; start a new one without --resume")
    try:
        text = (run / runs.SETTINGS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{run / runs.SETTINGS}: damaged or not readable; restore it, or train again") from None
    settings = configure.load(text, run / runs.SETTINGS, FIELDS.keys() - set(ADAPTABLE))
    sweep(run)
    return settings, Trainer.read_state(run)
