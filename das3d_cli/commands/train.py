"""das3d train."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from das3d_cli import console
from das3d_cli import runs as run_folders
from das3d_cli.commands.options import (
    DEFAULT_CACHE,
    DEFAULT_RUNS,
    AsJson,
    Assignments,
    CacheFolder,
    Categories,
    Config,
    Gpus,
    ModalityName,
    PresetName,
    Runs,
    Seed,
    Textures,
    chosen_categories,
    option,
)
from das3d_cli.configure import resolve
from das3d_cli.engine.launch import launch, launched
from das3d_cli.errors import Das3dError, DataError, UsageError, some_of
from das3d_cli.files import held
from das3d_cli.settings import Settings

if TYPE_CHECKING:
    import torch

    from das3d_cli.data.cache import Cache
    from das3d_cli.engine.samples import Data
    from das3d_cli.engine.trainer import Trainer

_TRAINS = "trains in"
_ALONE = 20.0  # times the odds of the second highest score: a threshold beyond that is one part's doing
_FEW = 0.5  # minimum share of synthetic defects that should reach the threshold; some of them hardly show
_INTERRUPTED = "interrupted"  # key set if Ctrl-C came in the last step of a training, which still finished


def run(
    data: CacheFolder = DEFAULT_CACHE,
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
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            readable=False,
            show_default=False,
            help="Continue an unfinished run, or all unfinished runs of a folder: --resume runs.",
        ),
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
    # Report mistakes before torch is imported; with --resume only those in hardware settings: the run has the rest.
    of_now = [text for text in assignments or [] if not resume or text.startswith("hardware.")]
    around = {name: text for name, text in os.environ.items() if not resume or name.startswith("DAS3D_HARDWARE_")}
    settings = resolve(flags, of_now, config, around)
    from das3d_cli import device as devices
    from das3d_cli.data import cache as caches
    from das3d_cli.engine import distributed, spread

    gpus = settings.hardware.gpus
    chosen = [distributed.own_device(gpus)] if launched() else devices.choose_all(gpus)
    if resume:
        given = any(value is not None for key, value in flags.items() if key != "hardware.gpus")
        if given or config or category:
            raise UsageError("--resume: continues with the run's own settings and category; do not give others")
        names = [str(run) for run in run_folders.unfinished(resume)]
        work = functools.partial(_resume_run, data, assignments, gpus)
    else:
        settings = resolve(flags, assignments, config, preset="cpu" if chosen[0].type == "cpu" else "default")
        names = chosen_categories(caches.categories(data), category, data)
        for name in names:
            caches.find_cache(data, name)  # reports a mistyped name before the first training
        work = functools.partial(_train_category, settings, data, runs)
    if len(names) > 1 and launched():
        raise UsageError(f"torchrun trains only one at a time, not {', '.join(names)}; name one")
    if len(names) == 1 and len(chosen) > 1:
        raise typer.Exit(launch(sys.argv[1:], len(chosen)))
    if len(names) > 1:
        pairs = (
            spread.side_by_side(functools.partial(work, bar=False), names, chosen)
            if len(chosen) > 1
            else spread.one_after_another(work, names, chosen[0])
        )
        _collect(pairs, names, as_json, of="run" if resume else "category")
        return
    with distributed.joined(chosen[0]) if launched() else contextlib.nullcontext():
        summary = work(names[0], chosen[0])
        summary.pop(_INTERRUPTED, None)  # no training is left to skip
        if distributed.is_first():
            if as_json:
                console.record({"finished": [summary], "failed": []})
            else:
                console.result(summary["run"])


def _collect(
    outcomes: Iterable[tuple[str, dict[str, Any] | Das3dError]], names: list[str], as_json: bool, *, of: str
) -> None:
    """Report trainings as they end, each `of` a category or a run; failures are reported last and by the exit code."""
    finished, failed = {}, {}
    untold: DataError | BrokenPipeError | None = None
    try:
        for name, outcome in outcomes:
            if isinstance(outcome, Das3dError):
                failed[name] = str(outcome)
                continue
            interrupted = outcome.pop(_INTERRUPTED, False)
            finished[name] = outcome
            if not as_json:
                try:
                    console.result(outcome["run"])
                except (DataError, BrokenPipeError) as unable:  # must not end the other trainings
                    untold = unable
            if interrupted and len(finished) + len(failed) < len(names):
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        _tell_failed(failed)
        left = [name for name in names if name not in finished and name not in failed]
        console.say(f"not finished: {', '.join(left)}")
        raise
    _tell_failed(failed)
    if failed:
        others = "; the others are finished" if finished else ""
        console.say(f"{len(failed)} of {len(names)} trainings failed{others}")
    if as_json:
        errors = [{of: name, "error": failed[name]} for name in names if name in failed]
        console.record({"finished": [finished[name] for name in names if name in finished], "failed": errors})
    if untold:
        raise untold
    if failed:
        raise typer.Exit(1)


def _tell_failed(failed: dict[str, str]) -> None:
    for name, error in failed.items():
        console.say(f"failed: {name}: {error}")


def _train_category(
    settings: Settings, data: Path, base: Path, category: str, device: torch.device, *, bar: bool = True
) -> dict[str, Any]:
    from das3d_cli.data.cache import open_cache
    from das3d_cli.engine import distributed, training

    cache = open_cache(data, category)
    with contextlib.ExitStack() as at_end:
        trainer = training.start(settings, cache, base, device, lambda run: at_end.enter_context(held(run, _TRAINS)))
        if not cache.samples("validation") and distributed.is_first():
            kept, aside = len(trainer.data.train), len(trainer.data.validation)
            console.say(
                f"{category}: no validation split; {aside} of {kept + aside} training samples are set aside for validation"
            )
        told = _lacking(_good_parts(cache), trainer.data, settings.score.good_share)
        for line in told if distributed.is_first() else ():
            console.say(f"{category}: {line}")
        if cache.unused and distributed.is_first():
            console.say(
                f"{category}: captures that could not be preprocessed and are left out: {len(cache.unused)}"
                f" ({some_of(cache.unused)})"
            )
        return _finish(trainer, data, settings.hardware.gpus, bar=bar)


def _good_parts(cache: Cache) -> int:
    """Number of good parts to train on and to validate with; several samples may show the same part."""
    samples = [sample for split in ("train", "validation") for sample in cache.good(split)]
    return len({sample.part or f"{sample.split}/{sample.name}" for sample in samples})


def _lacking(number: int, data: Data, good_share: float) -> Iterator[str]:
    """Why the threshold is less reliable than it seems: good parts are few, or samples are copies of others.

    Args:
        number: of good parts, each of which `data` may show in several samples.
    """
    from das3d_cli.scoring import fewest_parts

    if number < (wanted := fewest_parts(good_share)):
        yield (
            f"{number} good parts are too few: even with a threshold above all of their scores, more than {1 - good_share:.0%} of other"
            f" good parts may be rejected; use at least {wanted} (50 to 300 are usual)"
        )
    first: dict[str, str] = {}
    copies = [
        (name, first[key])
        for key, name in zip(data.fingerprints, data.names, strict=True)
        if first.setdefault(key, name) != name
    ]
    if copies:
        told = some_of([f"{name} of {original}" for name, original in copies])
        yield f"captures that are copies of others and tell nothing about new parts: {len(copies)} ({told}); remove them"


def _resume_run(
    data: Path, assignments: list[str] | None, gpus: str, run: str, device: torch.device, *, bar: bool = True
) -> dict[str, Any]:
    from das3d_cli.engine import distributed, training

    with held(Path(run), _TRAINS) if distributed.is_first() else contextlib.nullcontext():
        return _finish(training.resume(Path(run), data, device, assignments), data, gpus, bar=bar)


def _finish(trainer: Trainer, data: Path, gpus: str, *, bar: bool) -> dict[str, Any]:
    """Train to the end; returns the run folder, what its summary.json holds, and whether to skip further trainings.

    Args:
        data, gpus: this command's options, to repeat in the command for resuming that is printed on Ctrl-C.
    """
    from das3d_cli.engine import distributed
    from das3d_cli.engine.training import finish

    name, total = trainer.identity["category"], trainer.settings.train.steps
    say = console.say if distributed.is_first() else lambda _: None
    say(
        f"training {name} in {trainer.run} on {trainer.device}"
        + (f" and {distributed.size() - 1} more" if distributed.size() > 1 else "")
        + f", preset {trainer.settings.preset}"
    )
    if (ways := trainer.network.mean_parts) > 1:
        say(f"{name}: good parts lie in {ways} different ways; each is compared with the mean of those like it")
    with console.progress("train", shown=bar and distributed.is_first()) as shown:
        task = shown.add_task(name, total=total, completed=trainer.step, note="")

        def show(step: int, values: dict[str, float]) -> None:
            if "quality" in values:
                say(
                    f"{name}: step {step}/{total}: on synthetic defects image AUROC {values['image_auroc']:.3f},"
                    f" pixel AP {values['pixel_ap']:.3f}"
                )
            else:
                note = f"loss {values['loss']:.3f}  {values['images_per_second']:.0f} images/s"
                shown.update(task, completed=step, note=note)

        try:
            ended = {"run": str(trainer.run), **finish(trainer, show)}
            for line in _told(name, trainer.best) if distributed.is_first() else ():
                say(line)
            return ended | {_INTERRUPTED: True} if trainer.interrupted else ended
        except KeyboardInterrupt:
            beside = [] if data == DEFAULT_CACHE else ["--data", str(data)]
            beside += [] if gpus == "auto" else ["--gpus", gpus]
            say(f"interrupted; continue with: {shlex.join(['das3d', 'train', '--resume', str(trainer.run), *beside])}")
            raise


def _told(name: str, best: Mapping[str, Any]) -> Iterator[str]:
    """What the threshold became, and signs that a defective part may be among the good ones.

    These are one part that scores far above all others, and few synthetic defects that reach the threshold.
    """
    found = best["defects_found"]
    yield (
        f"{name}: threshold {best['threshold']:.3f}, reached by {found:.0%} of the synthetic defects; of the good parts"
        f" that set it, {best['highest']} scores highest"
    )
    if _odds(best["threshold"]) > _ALONE * _odds(best["second_highest"]):
        yield (
            f"{name}: that one part raises the threshold; no other comes above {best['second_highest']:.3f}. Look at it: if anything"
            " on it or around it is unusual, remove it, preprocess and train again, or more defective parts will pass"
        )
    if found < _FEW:
        yield (
            f"{name}: too few defects reach the threshold. Train for more steps, or look for a defective part among the good ones: check"
            " the one that scores highest, and the others with `das3d predict --parts` on their folder. Remove defective parts, preprocess"
            " and train again"
        )


def _odds(score: float) -> float:
    return score / max(1 - score, 1e-6)
