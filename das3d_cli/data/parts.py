"""Which files show one part: what `das3d predict --parts` was given, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from das3d_cli.data.capture import Camera
from das3d_cli.data.depth import find_camera
from das3d_cli.data.layouts import eyecandies, realiad
from das3d_cli.data.layouts.entries import CLOUDS, DEPTHS, IMAGES, Unlabelled, by_name, files_in, listing, unread
from das3d_cli.data.layouts.table import camera_of, read_rows
from das3d_cli.errors import DataError

Needs = Literal["both", "rgb", "depth"]

_KINDS = ("xyz", "depth", "rgb")  # folders, where each kind of file has one
_DEPTH, _MASK = "_depth", "_mask"
_BESIDE = (".json", ".yaml", ".csv")  # cameras, limits of depth images and lists


class PartFiles(NamedTuple):
    """The files of one part: both, or the one that the detector needs.

    Attributes:
        camera: of a depth image `xyz`, where the list tells it or a camera.json beside the parts; else it is the training's.
    """

    xyz: Path | None
    rgb: Path | None
    camera: Camera | None = None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.xyz, self.rgb) if path]

    @property
    def first(self) -> Path:
        """The one that the part is told by."""
        return self.paths[0]

    @property
    def name(self) -> str:
        return self.first.stem.removesuffix(_DEPTH)

    @property
    def folder(self) -> str:
        """Name of the folder that the part lies in, empty where none was given."""
        holds = self.first.parent
        return (holds.parent if holds.name in _KINDS else holds).name


def find_parts(where: Path, needs: Needs, lights: Sequence[str] = ()) -> list[PartFiles]:
    """The parts in a folder, by name, or those that a CSV file lists, in its order.

    A folder holds NAME.tiff (or .pcd, .ply, or NAME_depth.png) and NAME.png side by side, or in xyz/ (or depth/) and rgb/ as
    a data set does; or it is one of Eyecandies' data/ or of Real-IAD D3's labels. A file without its partner makes a part
    all the same, so that reading it says what is missing. A CSV file has the columns xyz (or depth) and rgb; its
    paths count from its own folder, and of a depth image it may describe the camera as a table for preprocess does. A camera.json
    in the folder, or beside the list, describes those of all.

    Args:
        where: the folder or the file.
        needs: what a part consists of, as of `Detector.needs`.
        lights: of data with several images per part, those of the training, of which the first is judged; the usual
            one when empty.

    Raises:
        DataError: neither, no part in it, two files that claim one name, or a camera that is none.
        UsageError: there is no such light.
    """
    is_folder = where.is_dir()
    camera = None if needs == "rgb" else find_camera(where if is_folder else where.parent)
    parts = _in_folder(where, needs, lights, camera) if is_folder else _listed(where, needs, camera)
    if not parts:
        wanted = {"both": "NAME.tiff and NAME.png", "rgb": "NAME.png", "depth": "NAME.tiff"}[needs]
        raise DataError(f"{where}: holds no part; {wanted}, side by side or in xyz/ and rgb/, would be some")
    return parts


def folders_of_parts(where: Path) -> tuple[Path, ...]:
    """Where `find_parts` looks for files, whether the folders are there or not."""
    return where, *(where / kind for kind in _KINDS)


def not_read(where: Path, needs: Needs) -> Iterator[str]:
    """What a folder of parts holds that no part can consist of, as a note, if there is any."""
    read = {*IMAGES, *_BESIDE, *(() if needs == "rgb" else (*CLOUDS, *DEPTHS))}
    children = [path for folder in folders_of_parts(where) for path in listing(folder) if path.is_file()]
    known = {path.name for path in children if path.suffix.lower() in read}
    what = "no images" if needs == "rgb" else "neither images nor point clouds"
    yield from unread(f"{where}: {what}, so not judged", children, known)


def _in_folder(folder: Path, needs: Needs, lights: Sequence[str], camera: Camera | None) -> list[PartFiles]:
    found = eyecandies.unlabelled(folder, lights) or realiad.unlabelled(folder, lights) or _side_by_side(folder)
    xyz = _single(found.xyz) if needs != "rgb" else {}
    rgb = _single(found.rgb) if needs != "depth" else {}
    return [
        PartFiles(
            None if needs == "rgb" else xyz.get(name) or found.partner("xyz", name),
            None if needs == "depth" else rgb.get(name) or found.partner("rgb", name),
            camera,
        )
        for name in sorted(xyz.keys() | rgb.keys())
    ]


def _side_by_side(folder: Path) -> Unlabelled:
    """Files of one name, together or in a folder for each kind."""
    kinds = {kind for kind in _KINDS if (folder / kind).is_dir()}
    marked = not kinds or "xyz" in kinds or "depth" not in kinds  # a depth image is told by its name
    for_xyz = folder / ("xyz" if marked else "depth") if kinds else folder
    for_rgb = folder / "rgb" if kinds else folder
    clouds = [path for path in files_in(for_xyz) if not marked or _is_cloud(path)]
    images = [path for path in files_in(for_rgb) if not path.stem.endswith((_DEPTH, _MASK))]
    return Unlabelled(
        by_name(clouds, (*CLOUDS, *DEPTHS), lambda path: path.stem.removesuffix(_DEPTH)),
        by_name(images, IMAGES),
        lambda kind, name: for_xyz / f"{name}.tiff" if kind == "xyz" else for_rgb / f"{name}.png",
    )


def _is_cloud(path: Path) -> bool:
    return path.suffix.lower() in CLOUDS or path.stem.endswith(_DEPTH)


def _single(files: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    for paths in files.values():
        if len(paths) > 1:
            raise DataError(f"{paths[1]}: {paths[0].name} is beside it; keep one file of each name")
    return {name: paths[0] for name, paths in files.items()}


def _listed(path: Path, needs: Needs, usual: Camera | None) -> list[PartFiles]:
    wanted = {"both": ["xyz", "rgb"], "rgb": ["rgb"], "depth": ["xyz"]}[needs]
    text = f"{path}: a folder, or a CSV file with the column{'s' * (len(wanted) > 1)} {' and '.join(wanted)}, is wanted here"
    if path.is_file() and path.suffix.lower() != ".csv":
        raise DataError(text)
    columns, rows = read_rows(path)
    points = "xyz" if "xyz" in columns else "depth"
    sources = {"xyz": points, "rgb": "rgb"}
    if any(sources[kind] not in columns for kind in wanted):
        raise DataError(text)
    parts = []
    for number, row in rows:
        for kind in wanted:
            if not row[sources[kind]]:
                raise DataError(f"{path}: row {number}: names no {sources[kind]} file")
        try:
            camera = camera_of(row) or usual
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from None
        files = {kind: path.parent / row[sources[kind]] for kind in wanted}
        parts.append(PartFiles(files.get("xyz"), files.get("rgb"), camera))
    return parts
