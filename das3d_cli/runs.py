"""A run folder: one training of one category, and everything that explains it.

runs/tire-001/settings.json      resolved settings
              environment.json   versions, platform, device
              metrics.jsonl      one line per report or validation
              checkpoints/       last.pt, best.pt
              summary.json       written last: a run with it is finished
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from das3d_cli import configure, sources
from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import real, reason, to_json, write_whole
from das3d_cli.settings import IDLE, SEED

SETTINGS, ENVIRONMENT, METRICS, SUMMARY = "settings.json", "environment.json", "metrics.jsonl", "summary.json"
LAST, BEST = Path("checkpoints/last.pt"), Path("checkpoints/best.pt")


def claim(base: Path, category: str) -> Path:
    """Make the next free folder base/<category>-NNN with checkpoints/ inside; two processes never share one.

    Raises:
        DataError: the folder cannot be made.
    """
    ends = [path.name.rpartition("-")[2] for path in base.glob(f"{category}-*")]
    number = max((int(end) for end in ends if end.isascii() and end.isdecimal()), default=0) + 1
    try:
        while True:
            run = base / f"{category}-{number:03d}"
            try:
                run.mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                (run / LAST.parent).mkdir()
                return run
    except OSError as error:
        raise DataError(
            f"{base}: cannot make a run folder here: {reason(error)}; choose another folder with --runs"
        ) from None


def append_metrics(run: Path, record: Mapping[str, Any]) -> None:
    """Add one line to metrics.jsonl. Raises DataError: it cannot be written."""
    try:
        with open(run / METRICS, "a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")
    except OSError as error:
        raise DataError(
            f"{run / METRICS}: cannot be written: {reason(error)}; free some disk space, and continue with --resume {run}"
        ) from None


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All complete lines of metrics.jsonl; a line cut short by a crash is skipped."""
    path = run / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def truncate_metrics(run: Path, step: int) -> None:
    """Drop the records of steps after `step`, which a resumed run will write again. Raises DataError: it cannot be written."""
    kept = [record for record in read_metrics(run) if record.get("step", 0) <= step]
    write_whole(run / METRICS, "".join(to_json(record) + "\n" for record in kept).encode())


def unfinished(path: Path) -> list[Path]:
    """The unfinished runs in a folder of runs, sorted by name; any other path as it is.

    Raises:
        UsageError: all runs in it are finished.
    """
    below = sorted(file.parent for file in path.glob(f"*/{SETTINGS}"))
    left = [run for run in below if not (run / SUMMARY).is_file()]
    if below and not left:
        raise UsageError(f"{path}: all runs here are finished; start a new one without --resume")
    return left or [path]


def using(path: Path, category: str, step: int, steps: int) -> str:
    """The line that names the run or model file in use, and says if its training is unfinished."""
    ended = not path.is_dir() or (path / SUMMARY).is_file()
    state = "" if ended else f", unfinished: its best state so far, from step {step} of {steps}"
    return f"using {path} ({category}){state}"


def newest_finished(base: Path) -> Path:
    """The run below `base` that finished last.

    Raises:
        UsageError: there is none.
        DataError: a finished run's summary cannot be read.
    """
    return _finished(base)[-1].run


def by_category(base: Path) -> dict[str, dict[str, list[Path]]]:
    """The finished runs below `base`, the newest last: category -> modality -> runs.

    Raises:
        UsageError: there is no finished run.
        DataError: a finished run's summary or settings cannot be read.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for _, run, category in _finished(base):
        found.setdefault(category, {}).setdefault(_modality(run), []).append(run)
    return found


def of_each_seed(runs: Sequence[Path]) -> list[Path]:
    """Of a category's runs, newest last, those that differ from the newest in seed alone: the newest of each seed.

    Raises:
        DataError: a run's settings cannot be read.
    """
    found: dict[int, Path] = {}
    wanted: dict[str, object] = {}
    for run in reversed(runs):
        settings = configure.load(_text(run), run / SETTINGS, ())
        alike = {
            key: value
            for key, value in sources.flatten(settings.model_dump())
            if key != SEED and not key.startswith(IDLE)
        }
        wanted = wanted or alike
        if alike == wanted:
            found.setdefault(settings.seed, run)
    return list(found.values())


def _modality(run: Path) -> str:
    try:
        return str(json.loads(_text(run))["model"]["modality"])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{run / SETTINGS}: damaged; name the runs with --run") from None


def _text(run: Path) -> str:
    """A run's settings.json."""
    try:
        return (run / SETTINGS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{run / SETTINGS}: missing or damaged; name the runs with --run") from None


class _Finished(NamedTuple):
    when: str
    run: Path
    category: str


def _finished(base: Path) -> list[_Finished]:
    """The finished runs below `base`, the newest last; at least one."""
    found = {}
    for path in sorted(base.glob(f"*/{SUMMARY}"), key=lambda path: (not path.parent.is_symlink(), path)):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            when, category = summary["finished"], summary["category"]
            if not (isinstance(when, str) and isinstance(category, str)):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{path}: damaged; remove it, or name the runs with --run") from None
        found[real(path)] = _Finished(when, path.parent, category)  # a link is not a second run
    if not found:
        raise UsageError(f"{base}: no finished run here; train one with `das3d train`, or name one with --run")
    return sorted(found.values())
