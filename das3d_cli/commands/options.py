"""Options that several subcommands share, with help and defaults from the settings model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from das3d_cli.errors import UsageError
from das3d_cli.modality import Modality
from das3d_cli.presets import PRESETS
from das3d_cli.settings import FIELDS, Preset

DEFAULT_CACHE = Path("out")
DEFAULT_RUNS = Path("runs")


def option(key: str, *names: str) -> Any:
    """A Typer option for the setting `key`; its default, None, leaves the setting to the other layers."""
    field = FIELDS[key]
    of_cpu = f"; preset cpu: {PRESETS['cpu'][key]}" if key in PRESETS["cpu"] else ""
    default = "" if field.default is None else f" (default: {field.default}{of_cpu})"
    return typer.Option(
        *names,
        readable=False,
        help=f"{field.description[:1].upper()}{field.description[1:]}.{default}",
        show_default=False,
    )


# Typer's own check for readability is left out for whatever is read: the reader reports it, with its own exit code.
Config = Annotated[
    Path | None, typer.Option("--config", readable=False, help="TOML file with settings.", show_default=False)
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change any setting: section.key=value. Repeatable.", show_default=False
    ),
]
Gpus = Annotated[str | None, option("hardware.gpus", "--gpus")]
Workers = Annotated[int | None, option("hardware.workers", "--workers")]
Seed = Annotated[int | None, option("seed", "--seed")]
PresetName = Annotated[Preset | None, option("preset", "--preset")]
ModalityName = Annotated[Modality | None, option("model.modality", "--modality")]
Textures = Annotated[Path | None, option("synthesis.textures", "--textures")]
Categories = Annotated[
    list[str] | None,
    typer.Option(
        "--category", help="Category; repeat the option, separate names by commas, or give all.", show_default=False
    ),
]
CacheFolder = Annotated[
    Path, typer.Option("--data", readable=False, help="Cache folder that `das3d preprocess` wrote.")
]
Runs = Annotated[Path, typer.Option("--runs", readable=False, help="Folder that holds the run folders.")]
Run = Annotated[
    Path | None,
    typer.Option(
        "--run", readable=False, help="Run folder or model file. (default: the newest finished run)", show_default=False
    ),
]
Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Also write the tables to this file; its ending gives the format: .md, .csv, .tex (for booktabs) or .json;"
        " repeatable.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def split_names(given: list[str] | None) -> list[str]:
    """The names in repeated and comma-separated options; "all" alone gives none, as no option does.

    Raises:
        UsageError: an option without a name, as from an unset shell variable, or "all" together with other names.
    """
    names = list(dict.fromkeys(name for text in given or [] for name in text.split(",") if name))
    if given and not names:
        raise UsageError("--category: no name given; give a category, several separated by commas, or all")
    if "all" in names and len(names) > 1:
        raise UsageError(f"--category: {', '.join(names)}: give either all or single categories, not both")
    return [] if names == ["all"] else names


def chosen_categories(available: list[str], given: list[str] | None, data: Path) -> list[str]:
    """The categories that `--category` names; without it, the only one in the cache.

    Raises:
        UsageError: the cache holds several and none is chosen.
    """
    wanted = split_names(given)
    if wanted or not available:  # a missing cache is reported when it is opened
        return wanted or ["all"]
    if len(available) > 1 and not given:
        raise UsageError(f"{data}: holds {', '.join(available)}; choose some with --category, or give --category all")
    return available


def chosen_category(available: list[str], given: list[str] | None, data: Path) -> str:
    """Like `chosen_categories`, for a command that works on a single one.

    Raises:
        UsageError: not exactly one is chosen.
    """
    names = chosen_categories(available, given, data)
    if len(names) != 1:
        raise UsageError(f"{data}: holds {', '.join(available)}; choose one with --category")
    return names[0]
