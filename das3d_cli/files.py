"""Atomic file writes, folder locks, and text that is safe to print or store."""

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
    """Write `data` to `path` atomically, through a temporary file in the same folder.

    Even after a power failure either the old or the new file is there. A symbolic link is kept and its target written.

    Raises:
        DataError: the folder is missing or not writable, the disk is full, or `path` is a device or a pipe; nothing is
            left behind.
    """
    path = _written_at(path)
    # Does not contain the file's own name, which may already have the maximum length.
    temporary = path.with_name(f".{os.urandom(8).hex()}{_TEMPORARY}")
    try:
        temporary.write_bytes(data)
        with temporary.open("rb+") as file:
            os.fsync(file)  # else the rename may reach the disk before the data
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # if it could not be made, removing it fails too
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(
                f"{path}: cannot be written: {reason(error)}; free some disk space or choose another folder"
            ) from None
        raise


def write_json(path: Path, content: Any, *, for_others: bool = False) -> None:
    """Write JSON as `to_json` gives it, keys in the order given. Raises as `write_whole`."""
    write_whole(path, (to_json(content, indent=2, for_others=for_others) + "\n").encode())


def check_folder(path: Path) -> None:
    """Check that a file can be written at `path`.

    Raises:
        DataError: its folder is missing or not writable, or `path` is a folder, a device or a pipe.
    """
    if path.is_dir():
        raise DataError(f"{path}: cannot be written: it is a folder; name a file in it")
    folder = _written_at(path).parent
    if not folder.is_dir():
        raise DataError(f"{path}: cannot be written: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise DataError(f"{path}: cannot be written: no permission to write in {folder}; choose another folder")


def _written_at(path: Path) -> Path:
    """The file to write for a path: the target if it is a symbolic link.

    Raises:
        DataError: it is a device or a pipe, which the file would replace.
    """
    with contextlib.suppress(OSError):  # if the path cannot be examined, the write reports it
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: cannot be written: it is a device or a pipe; name a file")
        return real(path) if path.is_symlink() else path
    return path


def real(path: Path) -> Path:
    """Resolve a path's links, as `Path.resolve`, but without failing on links that form a loop."""
    return Path(os.path.realpath(path))


def is_there(path: Path) -> bool:
    """Whether the path exists; False if the system cannot tell, as for a name too long, which a write will report."""
    try:
        return path.exists()
    except OSError:
        return False


def sweep(folder: Path) -> None:
    """Remove half-written files that killed processes left in a folder or below it; the caller must have it `held`."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def held(folder: Path, work: str) -> Iterator[None]:
    """Lock a folder against other processes that use `held`, until the block or the process ends, where the system can.

    Raises:
        UsageError: another process holds it.
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
    """Make a folder and its parents.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {reason(error)}; free some disk space or choose another folder"
        ) from None


def reason(error: OSError) -> str:
    """The system's text for an error, in lower case to fit into a sentence."""
    return (error.strerror or str(error)).lower()


def encodable(text: str) -> str:
    """The text as valid UTF-8: bytes of a file name that are not valid text become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def on_a_line(text: str) -> str:
    """Text with "?" for control characters: a file name may hold line breaks or codes that move the cursor."""
    return _CONTROLS.sub("?", text)


def to_json(content: Any, indent: int | None = None, *, for_others: bool = False) -> str:
    """Content as strict JSON; nan and infinity become null.

    Args:
        for_others: make text `encodable`, as not every program can read a file name that is not valid text; such a name
            then no longer leads to its file.
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
