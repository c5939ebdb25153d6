"""Real-IAD D3: several lights per part, in the images' names, and capital GOOD.

<category>/{train,test}/<label>/{rgb/<part>/<...>_L05_RGB.jpg, xyz/<part>.tiff, gt/rgb/<part>.png}

An image belongs to the part that its own name says, without the light and the word RGB, or else the folder it lies in.
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
    SPLITS,
    Entry,
    Failure,
    Found,
    Place,
    by_name,
    files_in,
    folders_in,
    label_of,
    pair,
    unfit,
)

EXPECTED = "<category>/{train,test}/<label>/{rgb/<part>/*_L05_RGB.jpg,xyz/,gt/rgb/}"
USUAL = "L05"  # the light that its authors use
_LIGHT = re.compile(r"L\d+", re.IGNORECASE)
_WORDS = {"RGB", "XYZ", "GT", "MASK"}


def recognise(folder: Path) -> str | None:
    """Images with a light in their names lie in rgb/ or one folder deeper."""
    for split in SPLITS:
        for label in folders_in(folder / split):
            first = next((path for path in _below(label / "rgb") if _light(path)), None)
            if first:
                return f"{first.relative_to(folder).as_posix()} is there"
    return None


def read(category: str, folder: Path, lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category: in train one per light, elsewhere with the first light alone."""
    chosen = [light.upper() for light in lights]
    for split in SPLITS:
        for label in folders_in(folder / split):
            used = chosen if split == "train" else chosen[:1]
            found = [
                item for light in used for item in _read_label(Place(category, split, label_of(label)), label, light)
            ]
            several = len(used) > 1
            yield from dict.fromkeys(
                replace(item, name=f"{item.name}_{_light(item.rgb)}", part=item.name) if several and isinstance(item, Entry) and item.rgb
                else item for item in found
            )  # fmt: skip


def _read_label(place: Place, folder: Path, light: str) -> Iterator[Found]:
    clouds, images, masks = files_in(folder / "xyz"), _below(folder / "rgb"), _below(folder / "gt")
    points = by_name(clouds, CLOUDS, _stem)

    def name(path: Path) -> str:
        return next((name for name in (_stem(path), path.parent.name) if name in points), _stem(path))

    files = {
        "rgb": by_name([path for path in images if _light(path) == light], IMAGES, name),
        "xyz": points,
        "gt": by_name([path for path in masks if _light(path) in ("", light)], MASKS, name),
    }
    if place.label == GOOD:
        files["gt"] = {}
    yield from pair(place, files, ("rgb", "xyz"), lambda kind, name: f"{kind}/{name} ({light})" if kind == "rgb"
                    else f"{'gt/rgb' if kind == 'gt' else kind}/{name}{'.png' if kind == 'gt' else '.tiff'}")  # fmt: skip
    yield from unfit(place.category, clouds, (".tiff", *CLOUDS))
    for path in images:
        if path.suffix.lower() not in IMAGES or not _light(path):
            yield Failure(place.category, path, f"no image with a light in its name, as {USUAL}; rename or remove it")


def _below(folder: Path) -> list[Path]:
    """The files in a folder and in its folders."""
    return [*files_in(folder), *(path for child in folders_in(folder) for path in files_in(child))]


def _words(path: Path) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", path.stem) if word]


def _light(path: Path) -> str:
    return next((word.upper() for word in _words(path) if _LIGHT.fullmatch(word)), "")


def _stem(path: Path) -> str:
    """The name without the light and the kind of image."""
    return "_".join(word for word in _words(path) if not _LIGHT.fullmatch(word) and word.upper() not in _WORDS)
