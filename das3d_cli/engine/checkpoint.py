"""Checkpoints: tensors and plain data only, so that loading one runs no code."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from das3d_cli.device import within_memory
from das3d_cli.errors import DataError
from das3d_cli.files import reason, write_whole

FORMAT = 6


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts atomically.

    Raises:
        DataError: the target cannot be written, or memory is too small.
    """
    buffer = io.BytesIO()
    with within_memory(torch.device("cpu"), f"while writing {path}; free some memory"):
        torch.save({"das3d_format": FORMAT, **content}, buffer)
    write_whole(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint into main memory. Raises like `load_with_fingerprint`."""
    return load_with_fingerprint(path)[0]


def load_with_fingerprint(path: Path) -> tuple[dict[str, Any], str]:
    """Read a checkpoint into main memory; also return the file's fingerprint, 16 hexadecimal digits.

    Raises:
        DataError: it is missing, damaged, holds more than plain data or has another format, or memory is too small.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a run folder or a model file, or train one with `das3d train`")
    try:
        with within_memory(torch.device("cpu"), f"while reading {path}; free some memory"):
            data = path.read_bytes()
            _check_sums(data)
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise DataError(
            f"{path}: cannot be read: {reason(error)}; give this user read permission, or copy it"
        ) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, struct.error, zipfile.BadZipFile,
            zlib.error):  # fmt: skip
        raise DataError(f"{path}: not a das3d checkpoint, or damaged; use another or train again") from None
    if not isinstance(content, dict) or content.get("das3d_format") != FORMAT:
        found = content.get("das3d_format") if isinstance(content, dict) else None
        raise DataError(
            f"{path}: checkpoint of format {found}, but this das3d reads format {FORMAT}; train again or use a version that reads it"
        )
    return content, hashlib.blake2b(data, digest_size=8).hexdigest()


def _check_sums(data: bytes) -> None:
    """Verify the checksum of every tensor, which torch does not: one lost sector may make a network pass every part."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if archive.testzip():
            raise zipfile.BadZipFile
