"""From a data set's folders to entries: which files make up one part, and what is known about it.

MVTec 3D-AD: <category>/{train,validation,test}/<label>/{rgb/NNN.png, xyz/NNN.tiff, gt/NNN.png}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from das3d_cli.data.capture import GOOD
from das3d_cli.errors import DataError, UsageError

SPLITS = ("train", "validation", "test")
SUFFIXES = {"rgb": (".png",), "xyz": (".tif", ".tiff"), "gt": (".png",)}
JUNK_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "calibration")
JUNK_SUFFIXES = (".txt", ".md", ".tmp", ".bak")
EXPECTED = "expected <category>/{train,validation,test}/<label>/{rgb,xyz,gt}/"


@dataclass(frozen=True)
class Entry:
    """The files of one part.

    Attributes:
        category: kind of part.
        split: one of `SPLITS`.
        label: "good" or the defect type.
        name: unique within category, split and label.
        rgb, xyz: colour image and point cloud.
        ground_truth: mask of the defect; None where there is none, which only a good part may lack.
    """

    category: str
    split: str
    label: str
    name: str
    rgb: Path
    xyz: Path
    ground_truth: Path | None


@dataclass(frozen=True)
class Failure:
    """A part that cannot be used, the file at fault and why."""

    category: str
    path: Path
    reason: str

    def __str__(self) -> str:
        """One line for the user."""
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Layout:
    """A data set: its usable entries in a fixed order, and the files that could not be matched."""

    root: Path
    entries: list[Entry]
    problems: list[Failure]


def find_entries(root: Path, categories: Sequence[str] = ()) -> Layout:
    """Pair the files of a data set in the MVTec 3D-AD layout by name.

    Args:
        root: a folder of categories, or one category's own folder.
        categories: those wanted; all when empty.

    Raises:
        DataError: `root` is missing, empty or not a data set.
        UsageError: an unknown category.
    """
    entries: list[Entry] = []
    problems: list[Failure] = []
    try:
        folders = _category_folders(root)
        for category in sorted(pick_categories(categories, list(folders), root)):
            for split in SPLITS:
                for folder in _listing(folders[category] / split):
                    found = _pair(category, split, folder)
                    entries += (item for item in found if isinstance(item, Entry))
                    problems += (item for item in found if isinstance(item, Failure))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {str(error.strerror).lower()}") from None
    if not entries and not problems:
        raise DataError(f"{root}: holds no captures; {EXPECTED}")
    return Layout(root, entries, problems)


def pick_categories(wanted: Sequence[str], available: Sequence[str], where: Path) -> list[str]:
    """Return the wanted categories without doubles, or all available ones if none is named.

    Raises:
        UsageError: one is not available; lists those that are.
    """
    for category in wanted:
        if category not in available:
            close = difflib.get_close_matches(category, available, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            there = ", ".join(sorted(available))
            raise UsageError(f"category {category}: not in {where}, which holds {there}{hint}")
    return list(dict.fromkeys(wanted or available))


def _category_folders(root: Path) -> dict[str, Path]:
    if not root.exists():
        raise DataError(f"{root}: no such folder; give the folder that holds the data set")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; give the folder that holds the data set")
    if _is_category(root):
        return {root.resolve().name: root}
    children = _listing(root)
    folders = {child.name: child for child in children if _is_category(child)}
    if not folders:
        raise DataError(f"{root}: is {'not a data set' if children else 'empty'}; {EXPECTED}")
    return folders


def _is_category(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in SPLITS)


def _pair(category: str, split: str, folder: Path) -> list[Entry | Failure]:
    """Match the files of one label's folder; every file ends up in one entry or in one failure."""
    if not (folder / "rgb").is_dir() and not (folder / "xyz").is_dir():
        return [Failure(category, folder, f"neither rgb/ nor xyz/ in it; {EXPECTED}")]
    failures = [
        Failure(category, path, f"not a {SUFFIXES[kind][-1]} file; convert or remove it")
        for kind in SUFFIXES
        for path in _listing(folder / kind)
        if not _fits(path, kind)
    ]
    files = {kind: _by_stem(folder / kind, kind) for kind in SUFFIXES}
    results: list[Entry | Failure] = []
    for name in sorted(set().union(*files.values())):
        paths = {kind: files[kind].get(name, []) for kind in SUFFIXES}
        problem = next(_problems(category, folder, name, paths), None)
        if problem:
            results.append(problem)
        else:
            truth = paths["gt"][0] if paths["gt"] else None
            results.append(Entry(category, split, folder.name, name, paths["rgb"][0], paths["xyz"][0], truth))
    return results + failures


def _problems(category: str, folder: Path, name: str, paths: dict[str, list[Path]]) -> Iterator[Failure]:
    present = next(found[0] for found in paths.values() if found)
    for found in paths.values():
        if len(found) > 1:
            yield Failure(category, found[1], f"{found[0].name} is there as well; keep one of the two")
    for kind in SUFFIXES:
        if not paths[kind] and not (kind == "gt" and folder.name == GOOD):
            yield Failure(category, present, f"its partner {kind}/{name}{SUFFIXES[kind][-1]} is missing")


def _by_stem(folder: Path, kind: str) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in _listing(folder):
        if _fits(path, kind):
            stems.setdefault(path.stem, []).append(path)
    return stems


def _fits(path: Path, kind: str) -> bool:
    return path.suffix.lower() in SUFFIXES[kind]


def _listing(folder: Path) -> list[Path]:
    """The folder's children by name, without what operating systems and authors leave beside the data."""
    try:
        children = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    return [child for child in children
            if not child.name.startswith(".") and child.name.lower() not in JUNK_NAMES
            and child.suffix.lower() not in JUNK_SUFFIXES]  # fmt: skip
