"""What a layout yields: the files that make up each part, and those that could not be matched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from das3d_cli.data.capture import GOOD, Camera, Foreground
from das3d_cli.data.depth import CAMERA_FILE, EXAMPLE, find_camera
from das3d_cli.errors import DataError, some_of, unforeseen

SPLITS = ("train", "validation", "test")
KINDS = ("xyz", "depth", "rgb")  # of captures' files, and the folders where each kind has its own
SPLIT_NAMES = {**{split: split for split in SPLITS}, "val": "validation"}  # as data sets call them
CLOUDS = (".tif", ".tiff", ".pcd", ".ply")
DEPTHS = (".png", ".tif", ".tiff")
IMAGES = (".png", ".jpg", ".jpeg")
MASKS = (".png",)
_LONGEST = 200  # bytes of a name; most systems take 255, suffix included
_JUNK_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "calibration")
_JUNK_SUFFIXES = (".txt", ".md", ".tmp", ".bak")

Files = Mapping[str, Mapping[str, list[Path]]]  # kind -> name of the part -> its files of that kind


@dataclass(frozen=True)
class Entry:
    """The files of one part.

    Attributes:
        category: kind of part.
        split: one of `SPLITS`.
        label: "good" or the defect type; for several types, their names joined.
        name: unique within category, split and label.
        rgb: colour image; None where the category has none.
        xyz: point cloud or depth image; None where the category has none.
        ground_truth: mask of the defect; only a good part may have None.
        camera: of the depth image; a point cloud needs none.
        limits: the file of depth limits beside the depth image.
        by_type: (defect type, its mask) pairs of a part with several types; else empty.
        part: name of the part if several entries show it, each under another light; else "".
    """

    category: str
    split: str
    label: str
    name: str
    rgb: Path | None
    xyz: Path | None
    ground_truth: Path | None
    camera: Camera | None = None
    limits: Path | None = None
    by_type: tuple[tuple[str, Path], ...] = ()
    part: str = ""

    @property
    def files(self) -> list[Path]:
        """All of the part's files, its points first."""
        masks = (path for _, path in self.by_type)
        return [path for path in (self.xyz, self.rgb, self.ground_truth, self.limits, *masks) if path]


@dataclass(frozen=True)
class Failure:
    """A part that cannot be used, the file at fault and why."""

    category: str
    path: Path
    reason: str

    @classmethod
    def of(cls, category: str, files: Sequence[Path], error: Exception) -> Failure:
        """Turn an error into the failure of one of these files: the one that its text begins with, else the first."""
        text = " ".join(str(error).split())
        for path in files:
            if text.startswith(f"{path}: "):
                return cls(category, path, text.removeprefix(f"{path}: "))
        return cls(category, files[0], text if isinstance(error, DataError) else unforeseen(error))

    def __str__(self) -> str:
        """One line for the user."""
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class DataSet:
    """A data set as found: its usable entries in a fixed order, and the files that could not be matched.

    Attributes:
        source: the folder or table that was given.
        root: the folder that names are given relative to: `source`, or the table's own folder.
        entries, problems: see above.
        name: of the layout.
        why: what the layout was recognised by.
        foreground: how parts are told from their surroundings in such data.
        notes: for the user, such as what was left out on purpose, one line each.
    """

    source: Path
    root: Path
    entries: list[Entry]
    problems: list[Failure]
    name: str
    why: str
    foreground: Foreground
    notes: list[str]

    def entries_of(self, category: str) -> list[Entry]:
        """The entries of one category."""
        return [entry for entry in self.entries if entry.category == category]


Found = Entry | Failure | str  # what reading a layout yields; a str is a note for the user


class Unlabelled(NamedTuple):
    """Parts known only by their files, as `das3d predict` gets them.

    Attributes:
        xyz, rgb: name of the part -> its files; an empty list if only a file that is not read has the part's name.
        partner: returns where the file of a kind, "xyz" or "rgb", and a name should be.
        refuse: returns why a file cannot be the part's file of a kind, else "".
    """

    xyz: Mapping[str, list[Path]]
    rgb: Mapping[str, list[Path]]
    partner: Callable[[str, str], Path]
    refuse: Callable[[str, Path], str] = lambda _kind, _path: ""


class Place(NamedTuple):
    """Where parts come from: the first three attributes of their entries."""

    category: str
    split: str
    label: str


def pair(
    place: Place,
    files: Files,
    wanted: Collection[str],
    partner: Callable[[str, str], str],
    camera: Camera | None = None,
) -> list[Entry | Failure]:
    """Match files by name; every file ends up in one entry or in one failure.

    Args:
        place: of all these parts.
        files: of the kinds "rgb", "xyz" and "depth", as far as there are any, and always "gt".
        wanted: the kinds that every part must have; one with a defect also needs "gt".
        partner: returns where the file of a kind and a name should be, for the errors.
        camera: of the depth images.
    """
    results: list[Entry | Failure] = []
    for name in sorted(set().union(*files.values())):
        found = {kind: files[kind].get(name, []) for kind in files}
        problem = _problem(place, name, found, wanted, partner)
        if problem:
            results.append(problem)
            continue
        first = {kind: paths[0] if paths else None for kind, paths in found.items()}
        points = first.get("depth") if "depth" in wanted else first.get("xyz")
        results.append(Entry(*place, name, first.get("rgb"), points, first.get("gt"), camera if points else None))
    return results


def _problem(
    place: Place,
    name: str,
    found: Mapping[str, list[Path]],
    wanted: Collection[str],
    partner: Callable[[str, str], str],
) -> Failure | None:
    present = next(paths[0] for paths in found.values() if paths)
    for paths in found.values():
        if len(paths) > 1:
            photo = (
                "; photos must be PNG or JPEG" if {path.suffix.lower() for path in paths} & {".tif", ".tiff"} else ""
            )
            return Failure(place.category, paths[1], f"{paths[0].name} is there as well; keep one of the two{photo}")
    for kind, paths in found.items():
        if not paths and (kind in wanted or (kind == "gt" and place.label != GOOD)):
            return Failure(place.category, present, f"its partner {partner(kind, name)} is missing")
    return None


def category_camera(wanted: Collection[str], folder: Path) -> tuple[Camera | None, list[str]]:
    """Return the camera of a category's depth images, from a camera.json in its folder or its parent, and notes.

    A damaged camera.json that no depth image needs is only noted.

    Raises:
        DataError: depth images are wanted, but the camera is missing or damaged.
    """
    try:
        camera = find_camera(folder, folder.absolute().parent) if {"xyz", "depth"} & set(wanted) else None
    except DataError as error:
        if "depth" in wanted:
            raise
        return None, [f"not used: {error}"]
    if camera is None and "depth" in wanted:
        raise DataError(f"{folder}: depth images need a camera; write {folder / CAMERA_FILE}, for example {EXAMPLE}")
    return camera, []


def by_name(
    paths: Collection[Path], suffixes: Collection[str], name: Callable[[Path], str] = lambda path: path.stem
) -> dict[str, list[Path]]:
    """The files with these suffixes, by the name of their part in Unicode's composed form (NFC)."""
    named: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() in suffixes and not path.is_dir():
            named.setdefault(normalize("NFC", name(path)), []).append(path)
    return named


def unfit(category: str, paths: Collection[Path], suffixes: tuple[str, ...] = ()) -> list[Failure]:
    """A failure for each path that is a folder, or a file with none of these suffixes."""
    return [Failure(category, path, "a folder among the captures; move it elsewhere" if path.is_dir()
                    else f"not a {suffixes[0]} file, as {path.parent.name}/ should hold; convert it or move it elsewhere")
            for path in paths if path.is_dir() or path.suffix.lower() not in suffixes]  # fmt: skip


def unread(note: str, children: Iterable[Path], known: Collection[str]) -> Iterator[str]:
    """Yield the note with the names of the children that are not among the known ones, if there are any."""
    names = dict.fromkeys(
        f"{path.name}/" if path.is_dir() else path.name for path in children if path.name not in known
    )
    if names:
        yield f"{note}: {some_of(names)}"


def check_name(text: str) -> None:
    """Raise a ValueError unless the text can be the name of a file or folder."""
    if text in (".", "..") or set("/\\\0") & set(text):
        raise ValueError(f"{text}: not a valid file name; leave out slashes".replace("\0", ""))
    if len(text.encode(errors="replace")) > _LONGEST:
        raise ValueError(f"{text[:20]}...: too long for a file name; shorten it")


def label_of(folder: Path) -> str:
    """The label that a folder's name stands for; some data sets write GOOD."""
    return GOOD if folder.name.lower() == GOOD else folder.name


def split_folders(folder: Path) -> list[tuple[str, Path]]:
    """The folders of a category's splits, each with the split's name, in the order of `SPLIT_NAMES`."""
    return [(split, folder / name) for name, split in SPLIT_NAMES.items() if (folder / name).is_dir()]


def listing(folder: Path) -> list[Path]:
    """The folder's children, sorted by name, without what operating systems and authors leave beside the data."""
    try:
        children = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [child for child in children
            if not child.name.startswith(".") and child.name.lower() not in _JUNK_NAMES
            and child.suffix.lower() not in _JUNK_SUFFIXES]  # fmt: skip


def folders_in(folder: Path) -> list[Path]:
    """The folders among its children."""
    return [child for child in listing(folder) if child.is_dir()]


def files_in(folder: Path) -> list[Path]:
    """The files among its children."""
    return [child for child in listing(folder) if not child.is_dir()]
