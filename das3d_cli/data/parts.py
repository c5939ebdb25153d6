"""Which files show one part: what `das3d predict --parts` was given, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from das3d_cli.data.capture import Camera
from das3d_cli.data.depth import find_camera
from das3d_cli.data.layouts import LAYOUTS, flat, mvtec3d
from das3d_cli.data.layouts.entries import CLOUDS, IMAGES, KINDS, check_name, listing, unread
from das3d_cli.data.layouts.table import Row, claim, read_rows, row_camera, rows_to_come
from das3d_cli.errors import DataError
from das3d_cli.files import real
from das3d_cli.modality import Modality

_ABOVE = 5  # folders that may hold a camera.json: xyz/, its label, split and category, and the one of all categories
_COLUMNS = {"xyz": ("xyz", "depth"), "rgb": ("rgb",)}  # of a list
_KINDS_OF: dict[Modality, tuple[str, ...]] = {"both": ("xyz", "rgb"), "rgb": ("rgb",), "depth": ("xyz",)}
_BESIDE = (".json", ".yaml", ".csv")  # cameras, limits of depth images and lists
_WRITTEN = "standard input"


class PartFiles(NamedTuple):
    """The files of one part: both, or the one that the detector needs.

    Attributes:
        camera: of a depth image `xyz`, where the list tells it.
        beside: the folder whose camera.json describes it otherwise, if there is one; None: the nearest about the file.
        given: the name that the list gives it, else "".
        problem: why its files cannot be told, if they cannot, as an error says it.
        common: the name by which its files were found in a folder, else "".
        nameless: its row gives it a name that it cannot have, or is another category's: nothing of that name is its own.
    """

    xyz: Path | None
    rgb: Path | None
    camera: Camera | None = None
    beside: Path | None = None
    given: str = ""
    problem: str = ""
    common: str = ""
    nameless: bool = False

    def find_camera(self) -> Camera | None:
        """The camera of a depth image `xyz`, as far as the files tell it. Raises DataError: a camera.json that is none."""
        if self.camera or self.xyz is None:
            return self.camera
        # What is linked has its camera about the link, but a link and ".." lead elsewhere than they read.
        about = real(self.xyz.parent) / self.xyz.name if ".." in self.xyz.parts else self.xyz.absolute()
        return find_camera(*([self.beside] if self.beside else about.parents[:_ABOVE]))

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.xyz, self.rgb) if path]

    @property
    def first(self) -> Path:
        """The one that the part is told by."""
        return self.paths[0]

    @property
    def name(self) -> str:
        """Empty where it has none, or no file is told."""
        if self.nameless:
            return ""
        return self.given or self.common or (self.first.stem.removesuffix(flat.DEPTH) if self.paths else "")

    @property
    def folder(self) -> str:
        """Name of the folder that the part lies in, empty where none was given."""
        holds = self.first.parent
        return (holds.parent if holds.name in KINDS else holds).name


def find_parts(
    where: Path, needs: Modality, lights: Sequence[str] = (), category: str = "", layout: str = "auto"
) -> list[PartFiles]:
    """The parts in a folder, by name, or those that a CSV file lists, in its order.

    A folder holds NAME.tiff (or .pcd, .ply, or NAME_depth.png) and NAME.png side by side, or in xyz/ (or depth/) and rgb/ as
    a data set does; or it is one of Eyecandies' data/ or of Real-IAD D3's labels. Which files make a part the layouts say, as to
    preprocess. A file without its partner makes one all the same, so that reading it says what is missing, and so do two files that
    claim one name and one that is not read as its name says. A CSV file has the columns xyz (or depth) and rgb; its paths count from
    its own folder. As a table for preprocess it may give names to parts and describe the cameras of depth images; a camera.json
    beside the list describes those of all others. Rows that name another category are left out.

    Args:
        where: the folder or the file.
        needs: what a part consists of, as of `Detector.needs`.
        lights: of data with several images per part, those of the training, of which the first is judged; the usual
            one when empty.
        category: the detector's, where the list may hold others.
        layout: of the training's data, if it was chosen rather than recognised.

    Raises:
        DataError: neither, no part in it, or parts both in it and in its folders of kinds.
        UsageError: there is no such light.
    """
    parts = _in_folder(where, needs, lights, layout) if where.is_dir() else _listed(where, needs, category)
    if not parts and where.is_file():
        others = _others(where, category)
        raise DataError(
            f"{where}: lists parts of {', '.join(others)} alone, but the run is of {category}; name another --run"
            if others
            else f"{where}: lists no part; a row for each is wanted below the columns' names"
        )
    if not parts:
        wanted = {"both": "NAME.tiff and NAME.png", "rgb": "NAME.png", "depth": "NAME.tiff"}[needs]
        raise DataError(f"{where}: holds no part; {wanted}, side by side or in xyz/ and rgb/, would be some")
    return parts


def parts_to_come(lines: Iterator[str], needs: Modality, category: str = "") -> Iterator[PartFiles]:
    """The parts of a list that is written meanwhile, each as soon as its line is there; the first line names the columns.

    They are those of a CSV file of `find_parts`, but paths count from the current folder, and a depth image that the list says
    nothing of has the camera of the nearest camera.json about it. One after the other parts may have the same files, written anew.

    Args:
        lines: of the list, each with its end.
        needs, category: as for `find_parts`; a row of another category becomes a part with a problem.

    Raises:
        DataError: the first line does not name the columns that are needed.
    """
    columns, rows = rows_to_come(lines, _WRITTEN)
    sources = _sources(columns, needs)
    if sources is None:
        raise DataError(f"{_WRITTEN}: a first line with the {_wanted(needs)} is wanted, and then one for each part")
    for number, row in rows:
        where = f"{_WRITTEN}: row {number}"
        if isinstance(row, ValueError):
            yield PartFiles(None, None, problem=f"{where}: {row}")
            continue
        part = _of_row(row, sources, Path(), where)._replace(beside=None)
        if _of_another(row, category):
            problem = f"is of {row['category']}, but the run is of {category}; name another --run"
            part = part._replace(problem=f"{where}: {problem}", nameless=True)
        yield part


def folders_of_parts(where: Path) -> tuple[Path, ...]:
    """Where `find_parts` looks for files, whether the folders are there or not."""
    return where, *(where / kind for kind in KINDS)


def not_read(where: Path, needs: Modality, category: str = "", parts: Sequence[PartFiles] = ()) -> Iterator[str]:
    """What a folder of `parts` holds that is none of theirs, or a list of other categories, as notes, if there is any."""
    if where.is_file():
        if others := _others(where, category):
            yield f"{where}: of other categories than {category}, so not judged: {', '.join(others)}"
        return
    read = {*IMAGES, *_BESIDE, *(() if needs == "rgb" else CLOUDS)}
    folders = folders_of_parts(where)
    if any(folder.is_dir() for folder in folders[1:]):
        beside, folders = [path for path in listing(where) if path.is_file()], folders[1:]
        known = {path.name for path in beside if path.suffix.lower() in _BESIDE}
        yield from unread(f"{where}: beside the folders of the parts, so not judged", beside, known)
    children = [path for folder in folders for path in listing(folder) if path.is_file()]
    known = {path.name for path in children if path.suffix.lower() in read}
    what = "no images" if needs == "rgb" else "neither images nor point clouds"
    yield from unread(f"{where}: {what}, so not judged", children, known)
    within = {folder for part in parts for path in part.paths for folder in path.parents}
    apart = [path for path in listing(where) if path.is_dir() and path not in within]
    yield from unread(f"{where}: folders in it, whose files are not judged", apart, {*chain(*mvtec3d.FOLDERS.values())})


def _in_folder(folder: Path, needs: Modality, lights: Sequence[str], layout: str) -> list[PartFiles]:
    # Own names may hold a light by chance: if another layout was chosen, none is looked for.
    readers = [kind.unlabelled for kind in LAYOUTS if layout in ("auto", kind.name) or not kind.light]
    found = next(found for read in readers if (found := read(folder, lights)))  # one of the last two reads any folder
    files = {kind: named for kind, named in (("xyz", found.xyz), ("rgb", found.rgb)) if kind in _KINDS_OF[needs]}
    parts = []
    for name in sorted(set().union(*files.values())):
        claims = {kind: named.get(name) or [found.partner(kind, name)] for kind, named in files.items()}
        first = {kind: paths[0] for kind, paths in claims.items()}
        problem = next((f"{path}: {why}" for kind, path in first.items() if (why := found.refuse(kind, path))), "")
        if doubled := next((paths for paths in claims.values() if len(paths) > 1), None):
            problem = f"{doubled[1]}: {doubled[0].name} is beside it; keep one file of each name"
        parts.append(PartFiles(first.get("xyz"), first.get("rgb"), problem=problem, common=name))
    return parts


def _listed(path: Path, needs: Modality, category: str) -> list[PartFiles]:
    text = f"{path}: a folder, or a CSV file with the {_wanted(needs)}, is wanted here"
    if path.is_file() and path.suffix.lower() != ".csv":
        raise DataError(text)
    columns, rows = read_rows(path)
    sources = _sources(columns, needs)
    if sources is None:
        raise DataError(text)
    parts: list[PartFiles] = []
    taken: dict[object, int] = {}
    for number, row in rows:
        if _of_another(row, category):
            continue
        where = f"{path}: row {number}"
        part = _of_row(row, sources, path.parent, where)
        try:
            for key in () if part.problem else filter(None, (part.xyz, part.rgb, part.given)):
                claim(taken, key, number)
        except ValueError as error:
            part = part._replace(problem=f"{where}: {error}")
        parts.append(part)
    return parts


def _wanted(needs: Modality) -> str:
    kinds = _KINDS_OF[needs]
    return f"column{'s' * (len(kinds) > 1)} {' and '.join(kinds)}"


def _sources(columns: Sequence[str], needs: Modality) -> dict[str, list[str]] | None:
    """The columns of a list that hold each kind of file; None if one that is needed has none."""
    sources = {kind: [name for name in _COLUMNS[kind] if name in columns] for kind in _KINDS_OF[needs]}
    return sources if all(sources.values()) else None


def _of_row(row: Row, sources: dict[str, list[str]], folder: Path, where: str) -> PartFiles:
    """The part of one row, whose paths count from the folder; `where` is what a problem with it is told by."""
    files: dict[str, Path] = {}
    name, camera, problem, nameless = row.get("name", ""), None, "", False
    try:
        check_name(name)
    except ValueError as error:
        name, problem, nameless = "", f"{where}: {error}", True
    try:
        for kind, names in sources.items():
            files[kind] = folder / _one_of(row, names)
        camera = row_camera(row, folder)
    except (ValueError, DataError) as error:
        problem = problem or f"{where}: {error}"
    return PartFiles(files.get("xyz"), files.get("rgb"), camera, folder, name, problem, nameless=nameless)


def _one_of(row: Row, columns: Sequence[str]) -> str:
    """The file that a row names in one of the columns. Raises ValueError: in none, or in several."""
    named = [row[name] for name in columns if row[name]]
    if len(named) != 1:
        raise ValueError(
            f"names {' and '.join(columns)} files; keep one" if named else f"names no {' or '.join(columns)} file"
        )
    return named[0]


def _others(table: Path, category: str) -> list[str]:
    """The other categories whose parts a list names."""
    return sorted({row["category"] for _, row in read_rows(table)[1] if _of_another(row, category)})


def _of_another(row: Row, category: str) -> bool:
    return bool(category) and row.get("category", "") not in ("", category)
