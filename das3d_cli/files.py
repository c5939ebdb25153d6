"""Files that are either the old ones or whole new ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from das3d_cli.errors import DataError

TEMPORARY = ".das3d-tmp"


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, by way of a temporary file in the same folder.

    Raises:
        DataError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # where it could not be made, it cannot be removed
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"{path}: cannot be written: {reason(error)}; make room or choose another folder") from None
        raise


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
