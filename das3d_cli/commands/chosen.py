"""Which runs `das3d evaluate` looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from das3d_cli import console
from das3d_cli.commands.options import split_names
from das3d_cli.errors import UsageError
from das3d_cli.files import real
from das3d_cli.runs import by_category, newest_finished, of_each_seed


class Chosen(NamedTuple):
    """A run, the name of its row in a data set's tables, and its category if such tables are made."""

    path: Path
    method: str
    category: str = ""


def repeated(chosen: Sequence[Chosen]) -> str:
    """A category with several runs, or "" if there is none."""
    counts = Counter(one.category for one in chosen if one.category)
    return next((category for category, count in counts.items() if count > 1), "")


def called(folder: Path) -> str:
    """The name of a folder's row in the tables."""
    return real(folder).name


def choose(
    models: list[Path] | None, category: list[str] | None, data: Path, folders: list[Path], all_seeds: bool
) -> tuple[list[str], list[Chosen]]:
    """The categories of the tables (none without `--category`), and the runs to evaluate."""
    from das3d_cli.evaluation import OURS

    if not category:
        return [], [Chosen(path, OURS) for path in models or [newest_finished(folders[0])]]
    from das3d_cli.data.cache import categories

    cached, names = categories(data), split_names(category)
    finished = {folder: by_category(folder) for folder in folders}
    # A missing cache is reported when it is opened.
    wanted = names or cached or list(dict.fromkeys(chain(*finished.values())))
    chosen: list[Chosen] = []
    for folder, found in finished.items():
        lacking = [name for name in wanted if name not in found]
        if names and lacking:
            raise UsageError(
                f"{folder}: no finished run of {', '.join(lacking)}; make one with `das3d train --category {','.join(lacking)}`"
            )
        for name in lacking:
            console.say(f"{name}: no finished run in {folder}; left out")
        for name in [name for name in found if name not in wanted and not names]:
            console.say(f"{name}: not in the cache {data}; its runs are left out")
        method = OURS if len(folders) == 1 else called(folder)
        for name in wanted:
            for modality, runs in sorted(found.get(name, {}).items()):
                chosen += [Chosen(run, method, name) for run in _picked(name, modality, runs, all_seeds)]
    if not chosen:
        raise UsageError(
            f"{folders[0]}: no finished run of {', '.join(wanted)}; make one with `das3d train --category all`"
        )
    return wanted, chosen


def _picked(category: str, modality: str, runs: list[Path], all_seeds: bool) -> list[Path]:
    """The newest of a category's `runs`, which is the last; with `all_seeds`, also one for each other seed."""
    picked = of_each_seed(runs) if all_seeds else runs[-1:]
    if len(picked) < len(runs):
        more = f"; {len(picked) - 1} more that differ only in their seed are used as well" if all_seeds else ""
        console.say(
            f"{category}: {runs[-1]} is the newest of {len(runs)} finished runs with --modality {modality}{more}"
        )
    return picked
