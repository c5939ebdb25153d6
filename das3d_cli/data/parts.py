"""The files of each part, from the folder or list that `das3d predict --parts` was given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from das3d_cli.data.capture import Camera
from das3d_cli.data.depth import find_camera
from das3d_cli.data.layouts import LAYOUTS, flat, mvtec3d
from das3d_cli.data.layouts.entries import CLOUDS, IMAGES, KINDS, check_name, listing, unread
from das3d_cli.data.layouts.table import Row, claim, named_file, read_rows, row_camera, rows_to_come
from das3d_cli.errors import DataError
from das3d_cli.files import real
from das3d_cli.modality import Modality

_ABOVE = 5  # folders that may hold a camera.json: xyz/, its label, split and category, and the data set's
_COLUMNS = {"xyz": ("xyz", "depth"), "rgb": ("rgb",)}  # in a list
_KINDS_OF: dict[Modality, tuple[str, ...]] = {"both": ("xyz", "rgb"), "rgb": ("rgb",), "depth": ("xyz",)}
_BESIDE = (".json", ".yaml", ".csv")  # cameras, limits of depth images and lists
_WRITTEN = "standard input"


class PartFiles(NamedTuple):
    """The files of one part: both, or the one that the detector needs.

    Attributes:
        camera: of a depth image `xyz`, if the list gives it.
        beside: the folder to look for a camera.json in otherwise; None: the file's own folder and those above it.
        given: its name in the list, else "".
        problem: the error's text if its files cannot be determined, else "".
        common: the name that its files share in a folder, else "".
        nameless: its row has an invalid name or is another category's, so nothing of that name belongs to this part.
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
        """Return the camera of a depth image `xyz`, if the files tell it. Raises DataError: camera.json is invalid."""
        if self.camera or self.xyz is None:
            return self.camera
        # A linked file has its camera near the link, not its target. But a link and ".." lead elsewhere than they read.
        about = real(self.xyz.parent) / self.xyz.name if ".." in self.xyz.parts else self.xyz.absolute()
        return find_camera(*([self.beside] if self.beside else about.parents[:_ABOVE]))

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.xyz, self.rgb) if path]

    @property
    def first(self) -> Path:
        """The file that stands for the part in messages."""
        return self.paths[0]

    @property
    def name(self) -> str:
        """Empty if it has none, or no file is known."""
        if self.nameless:
            return ""
        return self.given or self.common or (self.first.stem.removesuffix(flat.DEPTH) if self.paths else "")

    @property
    def folder(self) -> str:
        """Name of the folder that the part lies in, empty if its path has none."""
        holds = self.first.parent
        return (holds.parent if holds.name in KINDS else holds).name


def find_parts(
    where: Path, needs: Modality, lights: Sequence[str] = (), category: str = "", layout: str = "auto"
) -> list[PartFiles]:
    """Find the parts in a folder, sorted by name, or those that a CSV file lists, in its order.

    A folder holds NAME.tiff (or .pcd, .ply, or NAME_depth.png) and NAME.png side by side, or in xyz/ (or depth/) and
    rgb/ as in a data set; or it is a data/ folder of Eyecandies or a label's folder of Real-IAD D3. As in
    preprocessing, the layouts decide which files make up a part. A file without its partner is still a part, so that
    reading it reports what is missing; so are two files of the same kind and name, and a file that is not read because
    of its name.

    A CSV file has the columns xyz (or depth) and rgb, with paths relative to its own folder. Like a table for
    preprocess, it may name parts and give the cameras of depth images; a camera.json beside it describes all other
    cameras. Rows of another category are left out.

    Args:
        where: the folder or the file.
        needs: what a part consists of, as in `Detector.needs`.
        lights: for data with several images per part, the lights used in training, of which the first is judged; the
            usual one when empty.
        category: the detector's, as the list may hold others.
        layout: of the training data, if it was chosen rather than recognised.

    Raises:
        DataError: `where` is neither, holds no part, or holds parts both directly and in xyz/, depth/ or rgb/.
        UsageError: there is no such light.
    """
    parts = _in_folder(where, needs, lights, layout) if where.is_dir() else _listed(where, needs, category)
    if not parts and where.is_file():
        others = _others(where, category)
        raise DataError(
            f"{where}: lists only parts of {', '.join(others)}, but the run is for {category}; name another --run"
            if others
            else f"{where}: lists no parts; write a row for each part below the column names"
        )
    if not parts:
        wanted = {"both": "NAME.tiff and NAME.png", "rgb": "NAME.png", "depth": "NAME.tiff"}[needs]
        inner = next((sub for sub in sorted(where.iterdir()) if _holds_parts(sub, needs, lights, layout)), None)
        instead = f"; {inner} does, so name it or another folder like it" if inner else ""
        raise DataError(f"{where}: holds no parts; expected {wanted}, side by side or in xyz/ and rgb/{instead}")
    return parts


def _holds_parts(where: Path, needs: Modality, lights: Sequence[str], layout: str) -> bool:
    with contextlib.suppress(DataError, OSError):
        return where.is_dir() and any(
            not part.problem and all(path.is_file() for path in part.paths)
            for part in _in_folder(where, needs, lights, layout)
        )
    return False


def parts_to_come(lines: Iterator[str], needs: Modality, category: str = "") -> Iterator[PartFiles]:
    """Yield the parts of a list that is still being written, each as soon as its line is there.

    The first line names the columns, as in a CSV file for `find_parts`, but paths are relative to the current folder,
    and a depth image without a camera in the list takes the nearest camera.json in its folder or above. Successive
    parts may have the same files, written anew.

    Args:
        lines: of the list, each with its line end.
        needs, category: as for `find_parts`; a row of another category becomes a part with a problem.

    Raises:
        DataError: the first line does not name the columns that are needed.
    """
    columns, rows = rows_to_come(lines, _WRITTEN)
    sources = _sources(columns, needs)
    if sources is None:
        raise DataError(
            f"{_WRITTEN}: the first line must name the {_wanted(needs)}; write a line for each part below it"
        )
    for number, row in rows:
        where = f"{_WRITTEN}: row {number}"
        if isinstance(row, ValueError):
            yield PartFiles(None, None, problem=f"{where}: {row}")
            continue
        part = _of_row(row, sources, Path(), where)._replace(beside=None)
        if _of_another(row, category):
            problem = f"is of {row['category']}, but the run is for {category}; name another --run"
            part = part._replace(problem=f"{where}: {problem}", nameless=True)
        yield part


def folders_of_parts(where: Path) -> tuple[Path, ...]:
    """The folders that `find_parts` looks for files in, whether they exist or not."""
    return where, *(where / kind for kind in KINDS)


def not_read(where: Path, needs: Modality, category: str = "", parts: Sequence[PartFiles] = ()) -> Iterator[str]:
    """Yield notes on what is not judged: what a folder holds beside `parts`, or a list's rows of other categories."""
    if where.is_file():
        if others := _others(where, category):
            yield f"{where}: not judged, because the run is for {category}: parts of {', '.join(others)}"
        return
    read = {*IMAGES, *_BESIDE, *(() if needs == "rgb" else CLOUDS)}
    folders = folders_of_parts(where)
    if any(folder.is_dir() for folder in folders[1:]):
        beside, folders = [path for path in listing(where) if path.is_file()], folders[1:]
        known = {path.name for path in beside if path.suffix.lower() in _BESIDE}
        yield from unread(f"{where}: not judged, because they are outside the folders of parts", beside, known)
    children = [path for folder in folders for path in listing(folder) if path.is_file()]
    known = {path.name for path in children if path.suffix.lower() in read}
    what = "not images" if needs == "rgb" else "neither images nor point clouds"
    yield from unread(f"{where}: not judged, because they are {what}", children, known)
    within = {folder for part in parts for path in part.paths for folder in path.parents}
    apart = [path for path in listing(where) if path.is_dir() and path not in within]
    yield from unread(f"{where}: files in these folders are not judged", apart, {*chain(*mvtec3d.FOLDERS.values())})


def _in_folder(folder: Path, needs: Modality, lights: Sequence[str], layout: str) -> list[PartFiles]:
    # Names may contain a light by chance, so a layout with lights is tried only if it, or none, was chosen.
    readers = [kind.unlabelled for kind in LAYOUTS if layout in ("auto", kind.name) or not kind.light]
    found = next(found for read in readers if (found := read(folder, lights)))  # flat or mvtec3d reads any folder
    files = {kind: named for kind, named in (("xyz", found.xyz), ("rgb", found.rgb)) if kind in _KINDS_OF[needs]}
    parts = []
    for name in sorted(set().union(*files.values())):
        claims = {kind: named.get(name) or [found.partner(kind, name)] for kind, named in files.items()}
        first = {kind: paths[0] for kind, paths in claims.items()}
        problem = next((f"{path}: {why}" for kind, path in first.items() if (why := found.refuse(kind, path))), "")
        if doubled := next((paths for paths in claims.values() if len(paths) > 1), None):
            problem = f"{doubled[1]}: {doubled[0].name} is there as well; keep one of the two"
        parts.append(PartFiles(first.get("xyz"), first.get("rgb"), problem=problem, common=name))
    return parts


def _listed(path: Path, needs: Modality, category: str) -> list[PartFiles]:
    text = f"{path}: expected a folder, or a CSV file with the {_wanted(needs)}"
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
    """The columns of a list that hold each kind of file; None if a kind that is needed has none."""
    sources = {kind: [name for name in _COLUMNS[kind] if name in columns] for kind in _KINDS_OF[needs]}
    return sources if all(sources.values()) else None


def _of_row(row: Row, sources: dict[str, list[str]], folder: Path, where: str) -> PartFiles:
    """The part of one row, whose paths are relative to `folder`; `where` names the row in a problem's text."""
    files: dict[str, Path] = {}
    name, camera, problem, nameless = row.get("name", ""), None, "", False
    try:
        check_name(name)
    except ValueError as error:
        name, problem, nameless = "", f"{where}: {error}", True
    try:
        for kind, names in sources.items():
            files[kind] = named_file(folder, _one_of(row, names))
        camera = row_camera(row, folder)
    except (ValueError, DataError) as error:
        problem = problem or f"{where}: {error}"
    return PartFiles(files.get("xyz"), files.get("rgb"), camera, folder, name, problem, nameless=nameless)


def _one_of(row: Row, columns: Sequence[str]) -> str:
    """The file that a row names in one of the columns. Raises ValueError: it names none, or several."""
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
