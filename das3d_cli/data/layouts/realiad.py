"""Real-IAD D3: several images per part, with the light in their names, and GOOD in capitals.

<category>/{train,test}/<label>/{rgb/<part>/<...>_L05_RGB.jpg, xyz/<part>.tiff, gt/rgb/<part>.png}

An image belongs to the part in its own name (without the light and the word RGB), or else to the one in its folder's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from das3d_cli.data.capture import GOOD
from das3d_cli.data.layouts.entries import (
    CLOUDS,
    IMAGES,
    MASKS,
    SPLIT_NAMES,
    Entry,
    Failure,
    Found,
    Place,
    Unlabelled,
    by_name,
    files_in,
    folders_in,
    label_of,
    listing,
    pair,
    split_folders,
    unfit,
    unread,
)

EXPECTED = "<category>/{train,test}/<label>/{rgb/<part>/*_L05_RGB.jpg,xyz/,gt/rgb/}"
USUAL = "L05"  # the light that its authors use
_LIGHT = re.compile(r"L\d+", re.IGNORECASE)
_WORDS = {"RGB", "XYZ", "GT", "MASK"}


def recognise(folder: Path) -> str | None:
    """Recognised by images with a light in their names, in rgb/ or one folder deeper."""
    for _, split in split_folders(folder):
        for label in folders_in(split):
            if first := _lit_image_in(label):
                return first.relative_to(folder).as_posix()
    return None


def read(category: str, folder: Path, lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category: in train an entry per light, in the other splits only the first light."""
    chosen = _chosen(lights)
    yield from unread(f"{category}: not read", listing(folder), SPLIT_NAMES)
    for split, place in split_folders(folder):
        yield from unread(f"{category}/{place.name}: not read", files_in(place), ())
        for label in folders_in(place):
            used = chosen if split == "train" else chosen[:1]
            found = [
                item for light in used for item in _read_label(Place(category, split, label_of(label)), label, light)
            ]
            several = len(used) > 1
            yield from dict.fromkeys(
                replace(item, name=f"{item.name}_{_light(item.rgb)}", part=item.name) if several and isinstance(item, Entry) and item.rgb
                else item for item in found
            )  # fmt: skip


def unlabelled(folder: Path, lights: Sequence[str]) -> Unlabelled | None:
    """The parts of a label's folder, each with its image under the first light; None if it is no such folder."""
    if not _lit_image_in(folder):
        return None
    light = _chosen(lights)[0]
    files = _files(folder, light)
    # A part with images under other lights alone is one as well, so that its image is reported as missing.
    others = {_light(path) for path in _below(folder / "rgb")} - {"", light}
    lacking = {
        name: [folder / _partner("rgb", name, light)] for other in others for name in _files(folder, other)["rgb"]
    }
    return Unlabelled(files["xyz"], lacking | files["rgb"], lambda kind, name: folder / _partner(kind, name, light))


def _chosen(lights: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(light.upper() for light in lights)) or [USUAL]


def _lit_image_in(label: Path) -> Path | None:
    """The first image with a light in its name, which identifies such a folder.

    If the part's points have the same name, that word belongs to the name and is no light.
    """
    points = files_in(label / "xyz")
    own, parts = {path.stem for path in points}, {_stem(path) for path in points}
    return next(
        (path for path in _below(label / "rgb") if _light(path)
         and (path.parent.name != "rgb" or (path.stem not in own and _stem(path) in parts))), None,
    )  # fmt: skip


def _read_label(place: Place, folder: Path, light: str) -> Iterator[Found]:
    files = _files(folder, light)
    if place.label == GOOD:
        files["gt"] = {}
    yield from pair(place, files, ("rgb", "xyz"), lambda kind, name: _partner(kind, name, light))
    yield from unfit(place.category, files_in(folder / "xyz"), (".tiff", *CLOUDS))
    for path in _below(folder / "rgb"):
        if path.suffix.lower() not in IMAGES or not _light(path):
            yield Failure(
                place.category, path, f"not an image with a light in its name, such as {USUAL}; rename or remove it"
            )


def _files(folder: Path, light: str) -> dict[str, dict[str, list[Path]]]:
    """The files of a label's folder by kind and part; of the images, those under this light."""
    points = by_name(files_in(folder / "xyz"), CLOUDS, _stem)

    def name(path: Path) -> str:
        own, above = _stem(path), _stem(path.parent)  # shortened as the points' names are
        if own in points or above in points:
            return own if own in points else above
        return own if path.parent.name in ("rgb", "gt") else above

    return {
        "rgb": by_name([path for path in _below(folder / "rgb") if _light(path) == light], IMAGES, name),
        "xyz": points,
        "gt": by_name([path for path in _below(folder / "gt") if _light(path) in ("", light)], MASKS, name),
    }


def _partner(kind: str, name: str, light: str) -> str:
    return {"rgb": f"rgb/{name} ({light})", "xyz": f"xyz/{name}.tiff", "gt": f"gt/rgb/{name}.png"}[kind]


def _below(folder: Path) -> list[Path]:
    """The files in a folder and in its direct subfolders."""
    return [*files_in(folder), *(path for child in folders_in(folder) for path in files_in(child))]


def _words(path: Path) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", path.stem) if word]


def _light(path: Path) -> str:
    return next((word.upper() for word in _words(path) if _LIGHT.fullmatch(word)), "")


def _stem(path: Path) -> str:
    """The name without the light and the kind of image."""
    return "_".join(word for word in _words(path) if not _LIGHT.fullmatch(word) and word.upper() not in _WORDS)
