"""Files of the same name side by side in a folder per label: MVTec AD, and own data.

<category>/[{train,validation,test}/]<label>/{NAME.png, NAME.tiff, NAME_mask.png}

Without split folders, good/ is the train split and every other label is a defect of the test split. A category may have
only RGB images (PNG or JPEG) or only point clouds (TIFF, PCD or PLY). NAME_depth.png or NAME_depth.tiff is a depth
image, with its camera in camera.json. Masks may lie in ground_truth/<label>/ instead, as in MVTec AD.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from das3d_cli.data.capture import GOOD, Camera
from das3d_cli.data.depth import CAMERA_FILE
from das3d_cli.data.layouts.entries import (
    CLOUDS,
    DEPTHS,
    IMAGES,
    KINDS,
    MASKS,
    SPLIT_NAMES,
    Failure,
    Found,
    Place,
    Unlabelled,
    by_name,
    category_camera,
    files_in,
    folders_in,
    label_of,
    listing,
    pair,
    split_folders,
    unfit,
    unread,
)
from das3d_cli.errors import DataError

EXPECTED = "<category>/[{train,test}/]{good,<defect>}/NAME.{png,tiff}"
_TRUTH = "ground_truth"
DEPTH, _MASK = "_depth", "_mask"
_KINDS = {"rgb": IMAGES, "xyz": CLOUDS, "depth": DEPTHS, "gt": MASKS}
_MARKS = {"rgb": "", "xyz": "", "depth": DEPTH, "gt": _MASK}
_NO_DEPTHS = "depth images are not read, because there are point clouds"
_NO_PNG = "a mask must be a PNG; convert it"


def recognise(folder: Path) -> str | None:
    """Recognised by images or point clouds in good/ itself."""
    for place, labels in [("", folder), *((f"{split.name}/", split) for _, split in split_folders(folder))]:
        for label in folders_in(labels):
            if label_of(label) == GOOD and not any((label / kind).is_dir() for kind in ("rgb", "xyz")):
                first = next((path for path in files_in(label) if _kind(path)), None)
                if first:
                    return f"{place}{label.name}/{first.name}"
    return None


def read(category: str, folder: Path, _lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category."""
    places = [(split, label) for split, place in split_folders(folder) for label in folders_in(place)]
    beside = [*SPLIT_NAMES, _TRUTH, CAMERA_FILE]
    if not places:
        labels = [label for label in folders_in(folder) if label.name != _TRUTH]
        places = [("train" if label_of(label) == GOOD else "test", label) for label in labels]
        beside += [label.name for label in labels]
        if len(labels) > 1:
            yield f"{category}: all good parts are used for training; to keep some for the test, use train/good/ and test/good/"
    present = {_kind(path) or "" for _, label in places for path in files_in(label)}
    wanted = present & {"rgb", "xyz", "depth"} or {"rgb"}  # with masks alone, the images are missing
    if {"xyz", "depth"} <= wanted:
        wanted.discard("depth")
        yield f"{category}: {_NO_DEPTHS}"
    yield from unread(f"{category}: not read", listing(folder), beside)
    for _, place in split_folders(folder):
        yield from unread(f"{category}/{place.name}: not read", files_in(place), ())
    camera, notes = category_camera(wanted, folder)
    yield from notes
    for split, label in places:
        yield from _read_label(Place(category, split, label_of(label)), label, wanted, camera, folder / _TRUTH)
    known = {label.name for _, label in places}
    for masks in folders_in(folder / _TRUTH):
        if masks.name not in known and files_in(masks):
            yield Failure(
                category, masks, "holds masks of a label that has no images; add the images or remove the masks"
            )


def unlabelled(folder: Path, _lights: Sequence[str]) -> Unlabelled | None:
    """The parts whose files lie in a folder itself; None if it has xyz/, depth/ or rgb/ instead.

    Raises:
        DataError: it has both.
    """
    paths = files_in(folder)
    files = _by_kind(paths)
    if kinds := [kind for kind in KINDS if (folder / kind).is_dir()]:
        if name := next((name for name in files["rgb"] if name in files["xyz"] | files["depth"]), None):
            raise DataError(
                f"{folder}: holds parts itself, such as {name}, and also in {min(kinds)}/; move one or the other elsewhere"
            )
        return None
    points = "xyz" if files["xyz"] or not files["depth"] else "depth"

    def refuse(kind: str, path: Path) -> str:
        is_of = _kind(path)
        if is_of == (points if kind == "xyz" else kind) or path not in paths:
            return ""
        if is_of is None:
            return _NO_PNG
        return _NO_DEPTHS if kind == "xyz" else "named like a depth image or a mask; rename it"

    # A file that is not read still names a part: it may be the part's only file and must not be skipped silently.
    masks = [path for path in paths if not _kind(path)]
    return Unlabelled(
        files["depth"] | files["xyz"] | by_name(masks, CLOUDS),
        {name: [] for name in (*files["depth"], *files["gt"])} | files["rgb"] | by_name(masks, IMAGES),
        lambda kind, name: folder / _partner(points if kind == "xyz" else kind, name),
        refuse,
    )


def _read_label(place: Place, folder: Path, wanted: set[str], camera: Camera | None, truth: Path) -> Iterator[Found]:
    paths = files_in(folder)
    masks = files_in(truth / folder.name) if place.split == "test" else []
    files = {kind: named for kind, named in _by_kind(paths).items() if kind in (*wanted, "gt")}
    for name, found in by_name(masks, MASKS, _name).items():
        files["gt"].setdefault(name, []).extend(found)
    yield from pair(place, files, wanted, _partner, camera)
    for path in [path for path in paths if not _kind(path)] + [path for path in masks if not _is_png(path)]:
        is_mask = path in masks or _is_marked(path, _MASK)
        what = _NO_PNG if is_mask else "neither an image nor a point cloud; convert or remove it"
        yield Failure(place.category, path, what)
    yield from unfit(place.category, folders_in(folder))


def _by_kind(paths: Collection[Path]) -> dict[str, dict[str, list[Path]]]:
    return {kind: by_name([path for path in paths if _kind(path) == kind], _KINDS[kind], _name) for kind in _KINDS}


def _kind(path: Path) -> str | None:
    """Which of `_KINDS` a file is, by its name."""
    if _is_marked(path, _MASK) and not _is_png(path):
        return None
    for kind in ("gt", "depth", "rgb", "xyz"):
        if path.suffix.lower() in _KINDS[kind] and _is_marked(path, _MARKS[kind]):
            return kind
    return None


def _is_png(path: Path) -> bool:
    return path.suffix.lower() in MASKS


def _is_marked(path: Path, mark: str) -> bool:
    return path.stem.lower().endswith(mark)


def _name(path: Path) -> str:
    name = path.stem
    for mark in (_MASK, DEPTH):
        if name.lower().endswith(mark):
            name = name[: -len(mark)]
    return name


def _partner(kind: str, name: str) -> str:
    return f"{name}{_MARKS[kind]}{'.tiff' if kind == 'xyz' else '.png'}"
