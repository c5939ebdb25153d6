"""MVTec 3D-AD, and what was made after it (3D-ADAM, anomalib's Folder3D, own data).

<category>/{train,validation,test}/<label>/{rgb/NNN.png, xyz/NNN.tiff, gt/NNN.png}

A category without xyz/ is one of RGB images alone, and one without rgb/ of point clouds alone. Besides: val/ for
validation/; ground_truth/ for gt/; JPEG for PNG; PCD and PLY for TIFF; depth/ with a camera.json for xyz/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from das3d_cli.data.capture import Camera
from das3d_cli.data.depth import CAMERA_FILE
from das3d_cli.data.layouts.entries import (
    CLOUDS,
    DEPTHS,
    IMAGES,
    MASKS,
    SPLIT_NAMES,
    Failure,
    Found,
    Place,
    by_name,
    category_camera,
    label_of,
    listing,
    pair,
    split_folders,
    unfit,
    unread,
)

EXPECTED = "<category>/{train,validation,test}/<label>/{rgb,xyz,gt}/"
_FOLDERS = {"rgb": ("rgb",), "xyz": ("xyz",), "depth": ("depth",), "gt": ("gt", "ground_truth")}
_SUFFIXES = {"rgb": IMAGES, "xyz": (".tiff", *CLOUDS), "depth": DEPTHS, "gt": MASKS}


def recognise(folder: Path) -> str | None:
    """A split's folder is enough: whatever else is wrong is told file by file."""
    return next((f"{split.name}/ is there" for _, split in split_folders(folder)), None)


def read(category: str, folder: Path, _lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category."""
    labels = [(split, label) for split, place in split_folders(folder) for label in listing(place)]
    wanted = {kind for kind in ("rgb", "xyz", "depth") if any((label / kind).is_dir() for _, label in labels)}
    if "xyz" in wanted:
        wanted.discard("depth")
    camera, notes = category_camera(wanted, folder)
    yield from notes
    for split, label in labels:
        yield from _read_label(Place(category, split, label_of(label)), label, wanted, camera)
    yield from unread(f"{category}: not read", listing(folder), (*SPLIT_NAMES, CAMERA_FILE))
    used = [name for kind in (*wanted, "gt") for name in _FOLDERS[kind]]
    yield from unread(
        f"{category}/<split>/<label>: not read", (child for _, label in labels for child in listing(label)), used
    )


def _read_label(place: Place, folder: Path, wanted: set[str], camera: Camera | None) -> list[Found]:
    if not any((folder / kind).is_dir() for kind in ("rgb", "xyz", "depth")):
        return [Failure(place.category, folder, f"neither rgb/ nor xyz/ in it; expected {EXPECTED}")]
    found = {kind: _listing(folder, kind) for kind in _FOLDERS if kind in wanted or kind == "gt"}
    files = {kind: by_name(paths, _SUFFIXES[kind]) for kind, paths in found.items()}
    odd = [failure for kind, paths in found.items() for failure in unfit(place.category, paths, _SUFFIXES[kind])]
    return [*pair(place, files, wanted, lambda kind, name: f"{kind}/{name}{_SUFFIXES[kind][0]}", camera), *odd]


def _listing(folder: Path, kind: str) -> list[Path]:
    return [path for name in _FOLDERS[kind] for path in listing(folder / name)]
