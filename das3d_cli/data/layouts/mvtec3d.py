"""MVTec 3D-AD, and what was made after it (3D-ADAM, anomalib's Folder3D, own data).

<category>/{train,validation,test}/<label>/{rgb/NNN.png, xyz/NNN.tiff, gt/NNN.png}

A category without xyz/ is one of RGB images alone, and one without rgb/ of point clouds alone. Besides: ground_truth/
for gt/; PCD and PLY for TIFF; depth/ with a camera.json for xyz/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from das3d_cli.data.capture import Camera
from das3d_cli.data.layouts.entries import (
    CLOUDS,
    DEPTHS,
    MASKS,
    SPLITS,
    Failure,
    Found,
    Place,
    by_name,
    camera_of,
    label_of,
    listing,
    pair,
    unfit,
)

EXPECTED = "<category>/{train,validation,test}/<label>/{rgb,xyz,gt}/"
_FOLDERS = {"rgb": ("rgb",), "xyz": ("xyz",), "depth": ("depth",), "gt": ("gt", "ground_truth")}
_SUFFIXES = {"rgb": (".png",), "xyz": (".tiff", *CLOUDS), "depth": DEPTHS, "gt": MASKS}


def recognise(folder: Path) -> str | None:
    """A split's folder is enough: whatever else is wrong is told file by file."""
    return next((f"{split}/ is there" for split in SPLITS if (folder / split).is_dir()), None)


def read(category: str, folder: Path, _lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category."""
    labels = [(split, label) for split in SPLITS for label in listing(folder / split)]
    wanted = {kind for kind in ("rgb", "xyz", "depth") if any((label / kind).is_dir() for _, label in labels)}
    if "xyz" in wanted:
        wanted.discard("depth")
    camera = camera_of(wanted, folder, folder.parent)
    for split, label in labels:
        yield from _read_label(Place(category, split, label_of(label)), label, wanted, camera)


def _read_label(place: Place, folder: Path, wanted: set[str], camera: Camera | None) -> list[Found]:
    if not any((folder / kind).is_dir() for kind in ("rgb", "xyz", "depth")):
        return [Failure(place.category, folder, f"neither rgb/ nor xyz/ in it; expected {EXPECTED}")]
    found = {kind: _listing(folder, kind) for kind in _FOLDERS if kind in wanted or kind == "gt"}
    files = {kind: by_name(paths, _SUFFIXES[kind]) for kind, paths in found.items()}
    odd = [failure for kind, paths in found.items() for failure in unfit(place.category, paths, _SUFFIXES[kind])]
    return [*pair(place, files, wanted, lambda kind, name: f"{kind}/{name}{_SUFFIXES[kind][0]}", camera), *odd]


def _listing(folder: Path, kind: str) -> list[Path]:
    return [path for name in _FOLDERS[kind] for path in listing(folder / name)]
