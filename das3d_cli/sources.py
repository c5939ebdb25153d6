"""Where settings come from besides their defaults: a TOML file, the environment and `--set`.

`keys` are always the dotted keys of all settings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from das3d_cli.errors import UsageError
from das3d_cli.files import reason


class Value(NamedTuple):
    """A value as given, and where it came from, for error messages."""

    value: Any
    source: str


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_config(path: Path, keys: Collection[str]) -> dict[str, Value]:
    """The settings of a TOML file. Raises UsageError: unreadable, or an unknown key."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {reason(error)}; name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not valid TOML: {error}") from None
    return {_known(key, f"--config {path}", keys): Value(value, f"--config {path}") for key, value in flatten(tree)}


def from_environment(environment: Mapping[str, str], keys: Collection[str]) -> dict[str, Value]:
    """The settings that DAS3D_SECTION_KEY variables hold. Raises UsageError: an unknown one."""
    variables = {"DAS3D_" + key.replace(".", "_").upper(): key for key in keys}
    found = {}
    for name, value in environment.items():
        if name.startswith("DAS3D_"):
            if name not in variables:
                raise UsageError(f"{name}: no such setting (from the environment); unset it")
            found[variables[name]] = Value(value, f"environment {name}")
    return found


def from_assignments(assignments: list[str], keys: Collection[str]) -> dict[str, Value]:
    """The settings of "section.key=value" texts. Raises UsageError: not of that form, or an unknown key."""
    found = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: expected section.key=value")
        found[_known(key.strip(), "--set", keys)] = Value(value.strip(), "--set")
    return found


def _known(key: str, source: str, keys: Collection[str]) -> str:
    if key in keys:
        return key
    import difflib

    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"settings.{key}: no such setting (from {source}){hint}")
