"""das3d train."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from das3d_cli import console
from das3d_cli.commands.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    AsJson,
    Assignments,
    Cache,
    Categories,
    Config,
    Gpus,
    ModalityName,
    PresetName,
    Runs,
    Seed,
    Textures,
    option,
    pick_categories,
)
from das3d_cli.errors import UsageError
from das3d_cli.files import as_json as to_json
from das3d_cli.settings import resolve

if TYPE_CHECKING:
    from das3d_cli.engine.trainer import Trainer


def run(
    data: Cache = DEFAULT_CACHE,
    category: Categories = None,
    gpus: Gpus = None,
    preset: PresetName = None,
    modality: ModalityName = None,
    steps: Annotated[int | None, option("train.steps", "--steps")] = None,
    batch_size: Annotated[int | None, option("train.batch_size", "--batch-size")] = None,
    lr: Annotated[float | None, option("train.lr", "--lr")] = None,
    textures: Textures = None,
    seed: Seed = None,
    runs: Runs = DEFAULT_RUNS,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an unfinished run.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    flags = {
        "preset": preset,
        "seed": seed,
        "hardware.gpus": gpus,
        "model.modality": modality,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.lr": lr,
        "synthesis.textures": textures,
    }
    settings = resolve(flags, assignments, config)  # a mistake is told before torch is imported
    from das3d_cli import device as devices
    from das3d_cli.data import cache as caches
    from das3d_cli.engine import training

    device = devices.choose(settings.hardware.gpus)
    if resume:
        given = any(value is not None for key, value in flags.items() if key != "hardware.gpus")
        if given or assignments or config or category:
            raise UsageError("--resume: goes on with the run's own settings and category; give no others beside it")
        starts: list[Callable[[], Trainer]] = [functools.partial(training.resume, resume, data, device)]
    else:
        settings = resolve(flags, assignments, config, preset="cpu" if device.type == "cpu" else "default")
        names = pick_categories(caches.categories(data), category, data)
        opened = [caches.open_cache(data, name) for name in names]  # a mistyped name is told before the first training
        starts = [functools.partial(training.start, settings, cache, runs, device) for cache in opened]
    if "," in settings.hardware.gpus or (settings.hardware.gpus == "all" and device.index == 0):
        console.say(f"--gpus {settings.hardware.gpus}: training runs on one GPU, {device}")
    summaries = []
    for begin in starts:
        trainer = begin()
        console.say(
            f"training {trainer.identity['category']} in {trainer.run} on {device}, preset {trainer.settings.preset}"
        )
        summaries.append({"run": str(trainer.run), **_finish(trainer, data)})
        if not as_json:
            console.result(str(trainer.run))
    if as_json:
        console.result(to_json(summaries))


def _finish(trainer: Trainer, data: Path) -> dict[str, Any]:
    from das3d_cli.engine.training import finish

    total = trainer.settings.train.steps
    with console.progress("train") as bar:
        task = bar.add_task(trainer.identity["category"], total=total, completed=trainer.step, note="")

        def show(step: int, values: dict[str, float]) -> None:
            if "quality" in values:
                console.say(
                    f"step {step}/{total}: on synthetic defects image AUROC {values['image_auroc']:.3f},"
                    f" pixel AP {values['pixel_ap']:.3f}"
                )
            else:
                note = f"loss {values['loss']:.3f}  {values['images_per_second']:.0f} images/s"
                bar.update(task, completed=step, note=note)

        try:
            return finish(trainer, show)
        except KeyboardInterrupt:
            beside = [] if data == DEFAULT_CACHE else ["--data", str(data)]
            console.say(
                f"interrupted; go on with: {shlex.join(['das3d', 'train', '--resume', str(trainer.run), *beside])}"
            )
            raise
