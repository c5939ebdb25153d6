"""Files that are either the old ones or whole new ones."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from das3d_cli.errors import DataError, UsageError

_TEMPORARY = ".das3d-tmp"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, by way of a temporary file in the same folder.

    Even if the machine loses power, the old file is there or the new one. A link stays one: what it leads to is written.

    Raises:
        DataError: the folder is missing or not writable, the disk is full, or a device or a pipe has that name; nothing is left
            behind.
    """
    path = _written_at(path)
    # Without the file's own name, which may be as long as names can be.
    temporary = path.with_name(f".{os.urandom(8).hex()}{_TEMPORARY}")
    try:
        temporary.write_bytes(data)
        with temporary.open("rb+") as file:
            os.fsync(file)  # a new name may reach the disk before what it names
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # where it could not be made, it cannot be removed
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"{path}: cannot be written: {reason(error)}; make room or choose another folder") from None
        raise


def write_json(path: Path, content: Any, *, for_others: bool = False) -> None:
    """Write JSON as `to_json` gives it, keys in the order given. Raises as `write_whole`."""
    write_whole(path, (to_json(content, indent=2, for_others=for_others) + "\n").encode())


def check_folder(path: Path) -> None:
    """See that the folder that a file is to go into is there and may be written to, and no folder in the file's place.

    Raises:
        DataError: it is not, or may not, or one is, or a device or a pipe.
    """
    if path.is_dir():
        raise DataError(f"{path}: cannot be written: is a folder; name a file in it")
    _written_at(path)
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path}: cannot be written: no permission to write in {path.parent}; choose another folder")


def _written_at(path: Path) -> Path:
    """The file that a name stands for: of a link what it leads to.

    Raises:
        DataError: it is a device or a pipe, whose place the file would take.
    """
    with contextlib.suppress(OSError):  # what cannot be looked at, writing will tell of
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: cannot be written: is a device or a pipe; name a file")
        return real(path) if path.is_symlink() else path
    return path


def real(path: Path) -> Path:
    """Where a path leads, as `Path.resolve`, which fails on links that lead to each other."""
    return Path(os.path.realpath(path))


def is_there(path: Path) -> bool:
    """Whether something has that name; a name too long for a file nothing has, and whoever writes it will be told."""
    try:
        return path.exists()
    except OSError:
        return False


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written in a folder and below it, which is to be `held`."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def held(folder: Path, work: str) -> Iterator[None]:
    """Keep other processes from doing such work in a folder, until the block or the process ends, where files can be locked.

    Raises:
        UsageError: another process is at it.
    """
    with contextlib.ExitStack() as at_end:
        if sys.platform != "win32":
            import fcntl

            with contextlib.suppress(OSError):
                opened = os.open(folder, os.O_RDONLY)
                at_end.callback(os.close, opened)
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"{folder}: another process {work} it; end that one first") from None
        yield


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {reason(error)}; make room or choose another folder") from None


def reason(error: OSError) -> str:
    """What the system says of an error, to go into a sentence."""
    return (error.strerror or str(error)).lower()


def encodable(text: str) -> str:
    """The text as UTF-8 can hold it: the name of a file need not be valid text, and what is not becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def on_a_line(text: str) -> str:
    """Text without control characters: a file's name may hold line breaks, or what moves the cursor."""
    return _CONTROLS.sub("?", text)


def to_json(content: Any, indent: int | None = None, *, for_others: bool = False) -> str:
    """Content as strict JSON; what is not a number there (nan, infinity) becomes null.

    Args:
        for_others: text is as `encodable`, for not every program reads the name of a file that is no valid text; it no longer
            leads to the file then.
    """
    return json.dumps(_strict(content, for_others), indent=indent, allow_nan=False)


def _strict(content: Any, for_others: bool) -> Any:
    if isinstance(content, str):
        return encodable(content) if for_others else content
    if isinstance(content, dict):
        return {_strict(key, for_others): _strict(value, for_others) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_strict(value, for_others) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
