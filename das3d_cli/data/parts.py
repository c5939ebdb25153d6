"""Which files show one part: what `das3d predict --parts` was given, part by part."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal, NamedTuple

from das3d_cli.data.layouts.entries import CLOUDS, IMAGES, files_in
from das3d_cli.errors import DataError
from das3d_cli.files import reason

Needs = Literal["both", "rgb", "depth"]

_DEPTH, _MASK = "_depth", "_mask"


class PartFiles(NamedTuple):
    """The files of one part: both, or the one that the detector needs."""

    xyz: Path | None
    rgb: Path | None

    @property
    def first(self) -> Path:
        """The one that the part is told by."""
        path = self.xyz or self.rgb
        assert path is not None
        return path

    @property
    def name(self) -> str:
        return self.first.stem.removesuffix(_DEPTH)


def find_parts(where: Path, needs: Needs) -> list[PartFiles]:
    """The parts in a folder, by name, or those that a CSV file lists, in its order.

    A folder holds NAME.tiff (or .pcd, .ply, or NAME_depth.png) and NAME.png side by side, or in xyz/ and rgb/ as a data set
    does. A file without its partner makes a part all the same, so that reading it says what is missing. A CSV file has
    the columns xyz and rgb; its paths count from its own folder.

    Args:
        where: the folder or the file.
        needs: what a part consists of, as of `Detector.needs`.

    Raises:
        DataError: neither, no part in it, or two files that claim one name.
    """
    parts = _in_folder(where, needs) if where.is_dir() else _listed(where, needs)
    if not parts:
        wanted = {"both": "NAME.tiff and NAME.png", "rgb": "NAME.png", "depth": "NAME.tiff"}[needs]
        raise DataError(f"{where}: holds no part; {wanted}, side by side or in xyz/ and rgb/, would be some")
    return parts


def _in_folder(folder: Path, needs: Needs) -> list[PartFiles]:
    apart = (folder / "xyz").is_dir() or (folder / "rgb").is_dir()
    for_xyz, for_rgb = (folder / "xyz", folder / "rgb") if apart else (folder, folder)
    clouds = [path for path in files_in(for_xyz) if _is_cloud(path)] if needs != "rgb" else []
    images = [path for path in files_in(for_rgb) if _is_image(path)] if needs != "depth" else []
    xyz, rgb = _single(clouds), _single(images)
    return [
        PartFiles(
            None if needs == "rgb" else xyz.get(name, for_xyz / f"{name}.tiff"),
            None if needs == "depth" else rgb.get(name, for_rgb / f"{name}.png"),
        )
        for name in sorted(xyz.keys() | rgb.keys())
    ]


def _is_cloud(path: Path) -> bool:
    return path.suffix.lower() in CLOUDS or (path.stem.endswith(_DEPTH) and path.suffix.lower() in IMAGES)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGES and not path.stem.endswith((_DEPTH, _MASK))


def _single(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = path.stem.removesuffix(_DEPTH)
        if name in found:
            raise DataError(f"{path}: {found[name].name} is beside it; keep one file of each name")
        found[name] = path
    return found


def _listed(path: Path, needs: Needs) -> list[PartFiles]:
    columns = {"both": ["xyz", "rgb"], "rgb": ["rgb"], "depth": ["xyz"]}[needs]
    wanted = f"{path}: a folder, or a CSV file with the column{'s' * (len(columns) > 1)} {' and '.join(columns)}, is wanted here"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            if [name for name in columns if name not in (rows.fieldnames or [])]:
                raise DataError(wanted)
            listed = [{name: row[name] for name in columns} for row in rows]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(wanted) from None
    for number, row in enumerate(listed, start=2):
        for name, value in row.items():
            if not value:
                raise DataError(f"{path}: line {number}: names no {name} file")
    return [
        PartFiles(*(path.parent / row[name] if name in row else None for name in PartFiles._fields)) for row in listed
    ]
