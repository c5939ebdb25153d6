"""Anomaly maps for other programs, at raw image size, in the layout that MVTec 3D-AD's evaluation reads."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

from das3d_cli.data.square import to_raw
from das3d_cli.errors import UsageError
from das3d_cli.evaluation import Evaluation
from das3d_cli.files import is_there, make_folder, write_whole

_SOFTWARE = "das3d"  # a TIFF tag, by which our own files are recognised


def check_maps(folder: Path, category: str, parts: Iterable[tuple[str, str]]) -> None:
    """Make the folders of these (label, name) parts, and check that their maps would replace nothing but earlier maps.

    Raises:
        UsageError: they would, as in a folder of point clouds; or `folder` is a file.
        DataError: a folder cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--maps {folder}: is a file; name a folder")
    for part in parts:
        path = _file(folder, category, *part)
        make_folder(path.parent)  # so that it fails before the work rather than after
        if is_there(path) and not _is_own(path):
            raise UsageError(f"--maps {folder}: would replace {path}, which das3d did not write; choose another place")


def write_maps(folder: Path, evaluation: Evaluation) -> None:
    """Write folder/<category>/test/<label>/<name>.tiff, float32, 0 to 1, into the folders that `check_maps` made.

    Raises:
        DataError: a file cannot be written.
    """
    split = evaluation.split
    every = zip(split.labels, split.names, evaluation.scored.maps, evaluation.geometries, strict=True)
    for label, name, map_, geometry in every:
        path, data = _file(folder, evaluation.detector.category, label, name), io.BytesIO()
        tifffile.imwrite(data, np.asarray(to_raw(map_, geometry)), software=_SOFTWARE, metadata=None)
        write_whole(path, data.getvalue())


def _file(folder: Path, category: str, label: str, name: str) -> Path:
    return folder / category / "test" / label / f"{name}.tiff"


def _is_own(path: Path) -> bool:
    if not path.is_file():  # opening a pipe would block
        return False
    try:
        with tifffile.TiffFile(path) as file:
            return file.pages.first.software == _SOFTWARE
    except Exception:  # noqa: BLE001  (another file can break the reader anywhere)
        return False
