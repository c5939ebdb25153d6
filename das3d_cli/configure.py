"""Merge all sources of settings into one validated `Settings`.

`resolve` merges the layers
flags > --set > environment > --config file > preset > defaults; its errors name the layer of a bad value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from das3d_cli import sources
from das3d_cli.errors import DataError, UsageError, some_of
from das3d_cli.presets import PRESETS
from das3d_cli.settings import ADAPTABLE, FIELDS, Settings
from das3d_cli.sources import Value

_KEY_PARTS = {part for key in FIELDS for part in key.split(".")}


def resolve(
    flags: Mapping[str, Any] | None = None,
    assignments: list[str] | None = None,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    preset: str | None = None,
) -> Settings:
    """Merge all layers into one validated `Settings`.

    Args:
        flags: dotted key -> value of the command line's own options; None means not given.
        assignments: `--set` options, each "section.key=value".
        config: a TOML file.
        environment: the process environment unless given; DAS3D_SECTION_KEY sets section.key.
        preset: what preset "auto" stands for on this machine; without it "auto" adds nothing.

    Raises:
        UsageError: unknown key, bad value or unreadable file; names key, value and source.
    """
    given = sources.from_config(config, FIELDS) if config else {}
    given |= sources.from_environment(os.environ if environment is None else environment, FIELDS)
    given |= sources.from_assignments(assignments or [], FIELDS)
    given |= {key: Value(value, f"--{key.split('.')[-1].replace('_', '-')}")
              for key, value in (flags or {}).items() if value is not None}  # fmt: skip

    name = given["preset"].value if "preset" in given else "auto"
    if name == "auto" and preset:
        name = preset
        given["preset"] = Value(preset, "auto")
    of_preset = {key: Value(value, f"preset {name}") for key, value in PRESETS.get(str(name), {}).items()}
    return _validate(of_preset | given)


def load(text: str, where: Path, needed: Iterable[str]) -> Settings:
    """Read settings that das3d itself saved as JSON.

    Args:
        needed: keys that must be present, because a later version's default cannot replace them.

    Raises:
        DataError: the settings are damaged or from a version with other settings.
    """
    try:
        tree = json.loads(text)  # pydantic's own reader refuses paths that are not valid text
    except ValueError:
        raise DataError(f"{where}: saved settings are damaged; train again") from None
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{where}: saved settings do not fit this version of das3d: {key}: {first['msg'].lower()}"
        ) from None
    if lacking := set(needed) - dict(sources.flatten(tree)).keys():
        raise DataError(f"{where}: saved by a version of das3d that had no {some_of(sorted(lacking))}; train again")
    return settings


def adapted(settings: Settings, assignments: list[str]) -> Settings:
    """A run's settings with `ADAPTABLE` ones replaced from the environment and from assignments, as for `resolve`.

    Raises:
        UsageError: unknown key, bad value, or an assignment that changes a setting the run must keep.
    """
    around = sources.from_environment(os.environ, FIELDS)
    # Other variables are ignored: options may have overridden them when the run began.
    changes = {key: value for key, value in around.items() if key in ADAPTABLE}
    changes |= sources.from_assignments(assignments, FIELDS)
    kept = {key: Value(value, "the run") for key, value in sources.flatten(settings.model_dump())}
    wanted = _validate(kept | changes)
    values, beside = dict(sources.flatten(wanted.model_dump())), ", ".join(ADAPTABLE)
    for key in sorted(changes.keys() - set(ADAPTABLE)):
        own, (given, source) = kept[key].value, changes[key]
        if own not in (values[key], Path(str(values[key])).resolve()):
            told = (
                f"a run keeps its own, {own}; with --resume, only {beside} can be changed (got {given}, from {source})"
            )
            raise UsageError(f"settings.{key}: {told}")
    return wanted


def _validate(given: Mapping[str, Value]) -> Settings:
    tree: dict[str, Any] = {}
    for key, (value, source) in given.items():
        if value == "":  # as a path it would mean the working folder
            raise UsageError(
                f"settings.{key}: is empty (from {source}); perhaps it is a shell variable that is not set"
            )
        *parents, name = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}  # key -> messages, one per member of a union type
        for found in error.errors():
            key = ".".join(str(part) for part in found["loc"] if str(part) in _KEY_PARTS)  # loc has type names too
            wrong.setdefault(key, []).append(found["msg"])
        key, reasons = next(iter(wrong.items()))
        if key not in given:
            raise UsageError(f"settings: {reasons[0].removeprefix('Value error, ')}") from None
        value, source = given[key]
        reason = "; or ".join(reasons).replace("Input should be", "must be").replace("String should", "must")
        raise UsageError(f"settings.{key}: {reason} (got {value}, from {source})") from None
