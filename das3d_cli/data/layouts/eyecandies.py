"""Eyecandies, as unpacked from its authors' archives.

<Category>/{train,val,test_public,test_private}/data/<index>_<item>

Items: image_0.png to image_5.png, one per light; depth.png with info_depth.yaml; a mask.png per part, and one mask per
type of defect. The label of a defective part names its types: bumps, or bumps+colors. A part with one type has its
ground truth in mask.png; with several, each type has its own mask, and what only mask.png marks is a defect of no type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from das3d_cli.data.capture import GOOD, Camera
from das3d_cli.data.depth import LIMITS
from das3d_cli.data.layouts.entries import (
    Entry,
    Failure,
    Found,
    Unlabelled,
    files_in,
    folders_in,
    listing,
    unfit,
    unread,
)
from das3d_cli.data.readers import read_ground_truth
from das3d_cli.errors import DataError, UsageError

EXPECTED = "<Category>/{train,val,test_public}/data/<index>_{image_0.png,...}"
_SPLITS = {"train": "train", "val": "validation", "test_public": "test"}
_PRIVATE = "test_private"
_TYPES = ("bumps", "dents", "colors", "normals")
_LIGHTS = tuple(f"image_{n}" for n in range(6))
USUAL = "image_4"  # the light that the published comparisons trained and tested on
_DEPTH, _MASK = "depth.png", "mask.png"
_USED = (*(f"{light}.png" for light in _LIGHTS), _DEPTH, LIMITS, _MASK, *(f"{kind}_{_MASK}" for kind in _TYPES))
_UNUSED = ("normals.png", "obj_params.yaml", "metadata.yaml")
CAMERA = Camera(711.11, 711.11)  # pixels; the same for all images


def recognise(folder: Path) -> str | None:
    """Recognised by depth limits beside numbered images."""
    for split in (*_SPLITS, _PRIVATE):
        if first := _limits_in(folder / split / "data"):
            return f"{split}/data/{first.name}"
    return None


def read(category: str, folder: Path, lights: Sequence[str]) -> Iterator[Found]:
    """The parts of one category: in train an entry per light, in the other splits only the first light.

    Raises:
        UsageError: there is no such light.
    """
    chosen = _chosen(lights)
    yield from unread(f"{category}: not read", listing(folder), (*_SPLITS, _PRIVATE))
    for name, split in _SPLITS.items():
        yield from unread(f"{category}/{name}: not read", listing(folder / name), ("data",))
        yield from _read_split(category, split, folder / name / "data", chosen if split == "train" else chosen[:1])
    if folders_in(folder / _PRIVATE):
        place = folder / _PRIVATE / "data"
        yield f"{category}/{_PRIVATE} has no ground truth and is left out; judge its parts with das3d predict --parts {place}"


def unlabelled(folder: Path, lights: Sequence[str]) -> Unlabelled | None:
    """The parts of a data/ folder, each with its image under the first light; None if it is no such folder.

    Raises:
        UsageError: there is no such light.
    """
    if not _limits_in(folder):
        return None
    items = {"xyz": _DEPTH, "rgb": f"{_chosen(lights)[0]}.png"}

    def partner(kind: str, index: str) -> Path:
        return folder / f"{index}_{items[kind]}"

    indices = {item: [path.name.partition("_")[0] for path in files_in(folder) if path.name.partition("_")[2] == item]
               for item in (_DEPTH, *(f"{light}.png" for light in _LIGHTS))}  # fmt: skip
    # A part with images under other lights alone is one as well, so that its image is reported as missing.
    pictured = {index for item, those in indices.items() for index in those if item != _DEPTH}
    return Unlabelled(
        {index: [partner("xyz", index)] for index in indices[_DEPTH]},
        {index: [partner("rgb", index)] for index in pictured},
        partner,
    )


def _limits_in(folder: Path) -> Path | None:
    """The first file of depth limits, which identifies such a folder."""
    return next((path for path in files_in(folder) if path.name.endswith(f"_{LIMITS}")), None)


def _chosen(lights: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys(f"image_{light.removeprefix('image_')}" for light in lights))
    for light in chosen:
        if light not in _LIGHTS:
            raise UsageError(f"settings.preprocess.lights: {light}: Eyecandies has only the lights 0 to 5")
    return chosen or [USUAL]


def _read_split(category: str, split: str, folder: Path, lights: Sequence[str]) -> Iterator[Found]:
    parts: dict[str, dict[str, Path]] = {}
    for path in files_in(folder):
        index, _, item = path.name.partition("_")
        if item in _USED:
            parts.setdefault(index, {})[item] = path
        elif item not in _UNUSED:
            yield Failure(category, path, "not an Eyecandies file; remove it")
    yield from unfit(category, folders_in(folder))
    for index, items in sorted(parts.items()):
        needed = [*(f"{light}.png" for light in lights), _DEPTH, LIMITS, *([_MASK] if split == "test" else [])]
        lacking = next((item for item in needed if item not in items), None)
        if lacking:
            yield Failure(category, min(items.values()), f"its partner {index}_{lacking} is missing")
            continue
        try:
            types = _types(index, items) if split == "test" else []
        except DataError as error:
            yield Failure.of(category, list(items.values()), error)
            continue
        by_type = tuple((kind, items[f"{kind}_{_MASK}"]) for kind in types) if len(types) > 1 else ()
        for light in lights:
            name, part = (index, "") if len(lights) == 1 else (f"{index}_{light}", index)
            yield Entry(category, split, "+".join(types) or GOOD, name, items[f"{light}.png"], items[_DEPTH],
                        items[_MASK] if split == "test" else None, CAMERA, items[LIMITS], by_type, part)  # fmt: skip


def _types(index: str, items: dict[str, Path]) -> list[str]:
    """The types of defect that a test part has."""
    if not read_ground_truth(items[_MASK]).any():
        return []
    for kind in _TYPES:
        if f"{kind}_{_MASK}" not in items:
            raise DataError(f"{items[_MASK]}: its partner {index}_{kind}_{_MASK} is missing")
    types = [kind for kind in _TYPES if read_ground_truth(items[f"{kind}_{_MASK}"]).any()]
    if not types:
        raise DataError(f"{items[_MASK]}: marks a defect, but no {index}_<type>_{_MASK} does; copy the masks again")
    return types
