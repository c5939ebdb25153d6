"""MVTec 3D-AD, and data modelled on it (3D-ADAM, anomalib's Folder3D, own data).

<category>/{train,validation,test}/<label>/{rgb/NNN.png, xyz/NNN.tiff, gt/NNN.png}

A category without xyz/ has RGB images only, and one without rgb/ point clouds only. Also accepted: val/ for
validation/; ground_truth/ for gt/; JPEG for PNG; PCD and PLY for TIFF; depth/ with a camera.json for xyz/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from das3d_cli.data.capture import Camera
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
    label_of,
    listing,
    pair,
    split_folders,
    unfit,
    unread,
)
from das3d_cli.errors import DataError

EXPECTED = "<category>/{train,validation,test}/<label>/{rgb,xyz,gt}/"
FOLDERS = {"rgb": ("rgb",), "xyz": ("xyz",), "depth": ("depth",), "gt": ("gt", "ground_truth")}
_SUFFIXES = {"rgb": IMAGES, "xyz": (".tiff", *CLOUDS), "depth": DEPTHS, "gt": MASKS}
_EXCHANGED = "rgb/ holds point clouds and xyz/ images; exchange their names"


def recognise(folder: Path) -> str | None:
    """Recognised by a split's folder alone: whatever else is wrong is reported file by file."""
    return next((f"{split.name}/" for _, split in split_folders(folder)), None)


def read(category: str, folder: Path, _lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category."""
    labels = [(split, label) for split, place in split_folders(folder) for label in listing(place)]
    wanted = _wanted([label for _, label in labels])
    camera, notes = category_camera(wanted, folder)
    yield from notes
    for split, label in labels:
        yield from _read_label(Place(category, split, label_of(label)), label, wanted, camera)
    yield from unread(f"{category}: not read", listing(folder), (*SPLIT_NAMES, CAMERA_FILE))
    used = [name for kind in (*wanted, "gt") for name in FOLDERS[kind]]
    yield from unread(
        f"{category}/<split>/<label>: not read", (child for _, label in labels for child in listing(label)), used
    )


def unlabelled(folder: Path, _lights: Sequence[str]) -> Unlabelled | None:
    """The parts of a label's folder; None if it has no xyz/, depth/ or rgb/. Raises DataError: these are exchanged."""
    if not (wanted := _wanted([folder])):
        return None
    if _exchanged({kind: _listing(folder, kind) for kind in wanted}):
        raise DataError(f"{folder}: {_EXCHANGED}")
    points = "depth" if "depth" in wanted else "xyz"

    def files(kind: str, *others: str) -> dict[str, list[Path]]:
        # A file that is not read still names a part, which would otherwise be skipped silently.
        told = by_name([path for each in (kind, *others) for path in _listing(folder, each)], (*CLOUDS, *IMAGES))
        return {name: [] for name in told} | by_name(_listing(folder, kind), _SUFFIXES[kind])

    return Unlabelled(
        files(points, "depth"),
        files("rgb"),
        lambda kind, name: folder / _partner(points if kind == "xyz" else kind, name),
    )


def _read_label(place: Place, folder: Path, wanted: set[str], camera: Camera | None) -> list[Found]:
    if not _wanted([folder]):
        return [Failure(place.category, folder, f"contains neither rgb/ nor xyz/; expected {EXPECTED}")]
    found = {kind: _listing(folder, kind) for kind in FOLDERS if kind in wanted or kind == "gt"}
    if _exchanged(found):
        return [Failure(place.category, folder, _EXCHANGED)]
    files = {kind: by_name(paths, _SUFFIXES[kind]) for kind, paths in found.items()}
    odd = [failure for kind, paths in found.items() for failure in unfit(place.category, paths, _SUFFIXES[kind])]
    return [*pair(place, files, wanted, _partner, camera), *odd]


def _exchanged(found: Mapping[str, Collection[Path]]) -> bool:
    """Whether each of rgb/ and xyz/ has files, all of which belong into the other."""
    pairs = ((found.get("rgb"), "xyz"), (found.get("xyz"), "rgb"))
    return all(paths and all(path.suffix.lower() in _SUFFIXES[kind] for path in paths) for paths, kind in pairs)


def _wanted(labels: Collection[Path]) -> set[str]:
    """The kinds that these labels have folders of; beside point clouds, depth images are redundant."""
    kinds = {kind for kind in KINDS if any((label / kind).is_dir() for label in labels)}
    return kinds - {"depth"} if "xyz" in kinds else kinds


def _partner(kind: str, name: str) -> str:
    return f"{kind}/{name}{_SUFFIXES[kind][0]}"


def _listing(folder: Path, kind: str) -> list[Path]:
    return [path for name in FOLDERS[kind] for path in listing(folder / name)]
