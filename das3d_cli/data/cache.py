"""The cache of preprocessed samples: one .npz per sample and one manifest per category.

    <root>/<category>/manifest.json
    <root>/<category>/<split>/<label>/<name>.npz

Samples are stored uncompressed: deflate would save two thirds of a sample's 0.6 MB, but take 10 ms more to write it and
2 ms more to read it. Uncompressed, it is less than a tenth of the size of its capture.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from das3d_cli.data.capture import GOOD, Form, Geometry, Masks, Sample, types_of
from das3d_cli.data.layouts import pick_categories
from das3d_cli.data.oddity import Usual
from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import make_folder, reason, write_whole
from das3d_cli.modality import Modality
from das3d_cli.settings import PreprocessSettings

VERSION = 15  # of the file format and of preprocessing; raise it on any change to either, to redo every sample
MANIFEST = "manifest.json"
_ARRAYS = ("rgb", "depth", "foreground", "valid")
_TRUTH = "ground_truth"
_BEFORE_HEADER = 10  # bytes before a .npy's header; the last two hold its length
_AGAIN = "run das3d preprocess again"

# The network's input for N samples: rgb, depth, foreground and parallax, as in `Split`.
Inputs = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]


class Record(BaseModel):
    """One cached sample.

    `key` is a digest of the source files and everything done to them; `part` names the part if several samples show it,
    each under a different light.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    split: str
    label: str
    name: str
    key: str
    geometry: Geometry
    part: str = ""


class Manifest(BaseModel):
    """What the cache of one category holds and how it was made.

    Attributes:
        version: of the cache's format.
        das3d: version of the program that wrote it.
        depth_range_m: depths in metres that became 0 and 1; None where each capture has its own.
        window_m: side in metres of the window around each part; None where the sample shows the whole image.
        form: what the captures consist of, and how they are read.
        usual: what its good train captures are like.
        extent_key: digest of the settings and captures that the category's `Common` was derived from.
        failures: (file, reason) of every part that could not be used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    das3d: str
    category: str
    settings: PreprocessSettings
    depth_range_m: tuple[float, float] | None
    window_m: float | None
    form: Form
    usual: Usual
    extent_key: str
    samples: list[Record]
    failures: list[tuple[str, str]]


def essential(settings: PreprocessSettings) -> PreprocessSettings:
    """The settings without layout and units: whether these were chosen or recognised makes no difference to samples."""
    return settings.model_copy(update={"layout": "auto", "units": "auto"})


@dataclass(frozen=True)
class Cache:
    """One category's cache, opened."""

    folder: Path
    manifest: Manifest

    def samples(self, split: str) -> list[Record]:
        """The split's records in their fixed order; empty if there are none."""
        return [record for record in self.manifest.samples if record.split == split]

    def good(self, split: str) -> list[Record]:
        """The split's records of good parts."""
        return [record for record in self.samples(split) if record.label == GOOD]

    @property
    def unused(self) -> list[str]:
        """Files of the captures, in any split, that could not be preprocessed."""
        return [file for file, _ in self.manifest.failures]

    def require(self, modality: Modality) -> None:
        """Raise a UsageError unless the captures hold what a detector of this modality needs."""
        there = self.manifest.form.modalities
        if there not in ("both", modality):
            held = {"rgb": "RGB images without point clouds", "depth": "point clouds without RGB images"}[there]
            raise UsageError(
                f"{self.folder}: holds {held}, which is not enough for --modality {modality}; use --modality {there}"
            )


@dataclass(frozen=True)
class Split:
    """All N samples of a split, S x S pixels each, stacked in the order of the manifest.

    Attributes:
        rgb: uint8, (N, S, S, 3).
        depth: float32, (N, S, S), in [0, 1].
        foreground, valid, ground_truth: bool, (N, S, S). Ground truth is empty for good parts and those without annotation.
        parallax: float32, (N, 2), as in `Geometry`.
        labels, names: N each.
        by_type: index -> masks, for parts with several defect types, as in `Sample`.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    ground_truth: NDArray[np.bool_]
    parallax: NDArray[np.float32]
    labels: list[str]
    names: list[str]
    by_type: Mapping[int, Masks] = field(default_factory=dict)

    @property
    def inputs(self) -> Inputs:
        return self.rgb, self.depth, self.foreground, self.parallax

    @property
    def types(self) -> list[tuple[str, ...]]:
        """The defect types of each part."""
        return types_of(self.labels, self.by_type)

    @property
    def kinds(self) -> dict[str, list[int]]:
        """Each defect type, and "good", in sorted order -> indices of its parts; one with several types is in each."""
        places: dict[str, list[int]] = {}
        for index, types in enumerate(self.types):
            for kind in types or (GOOD,):
                places.setdefault(kind, []).append(index)
        return dict(sorted(places.items()))


def categories(root: Path) -> list[str]:
    """The categories cached under `root`, sorted by name."""
    return sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))


def find_cache(root: Path, category: str) -> Path:
    """The folder of one category's cache, without reading its manifest.

    Raises:
        DataError: no cache there.
        UsageError: there is a cache, but not of this category.
    """
    available = categories(root)
    if not available:
        raise DataError(f"{root}: holds no cache; run das3d preprocess first")
    pick_categories([category], available, root)
    return root / category


def open_cache(root: Path, category: str) -> Cache:
    """Open the cache of one category.

    Raises:
        DataError: no cache there, or its manifest is damaged or of another version.
        UsageError: there is a cache, but not of this category.
    """
    folder = find_cache(root, category)
    return Cache(folder, read_manifest(folder))


def load_split(cache: Cache, split: str) -> Split:
    """Read all samples of a split into memory.

    Raises:
        DataError: the split is empty; a sample is missing, damaged or not the one that the manifest lists.
    """
    stack, reading = begin_split(cache, split)
    for _ in reading:
        pass
    return stack


def begin_split(cache: Cache, split: str) -> tuple[Split, Iterator[int]]:
    """Allocate a split; return it with an iterator that reads its samples one by one and yields their indices.

    Work on the first samples need not wait for the last. Raises as `load_split`; for a sample, when it is read.
    """
    records = cache.samples(split)
    if not records:
        raise DataError(f"{cache.folder}: holds no {split} samples; check the data set's {split}/ and {_AGAIN}")
    size = cache.manifest.settings.size
    shape = (len(records), size, size)
    by_type: dict[int, Masks] = {}
    stack = Split(
        rgb=np.empty((*shape, 3), np.uint8),
        depth=np.empty(shape, np.float32),
        foreground=np.empty(shape, np.bool_),
        valid=np.empty(shape, np.bool_),
        ground_truth=np.zeros(shape, np.bool_),
        parallax=np.array([record.geometry.parallax for record in records], np.float32),
        labels=[record.label for record in records],
        names=[record.name for record in records],
        by_type=by_type,
    )
    return stack, _read_into(stack, by_type, cache.folder, records)


def _read_into(stack: Split, by_type: dict[int, Masks], folder: Path, records: list[Record]) -> Iterator[int]:
    for index, record in enumerate(records):  # not in threads, which would contend for the GIL
        sample, key = read_stamped(folder / record.path)
        if key != record.key or sample.depth.shape != stack.depth.shape[1:]:
            raise DataError(f"{folder / record.path}: is not the sample that {MANIFEST} lists; {_AGAIN}")
        stack.rgb[index], stack.depth[index] = sample.rgb, sample.depth
        stack.foreground[index], stack.valid[index] = sample.foreground, sample.valid
        if sample.ground_truth is not None:
            stack.ground_truth[index] = sample.ground_truth
        if sample.by_type:
            by_type[index] = sample.by_type
        yield index


def fingerprints(inputs: Inputs) -> list[str]:
    """Hash of each of N samples' colour, depth and foreground, whatever its files are called and wherever they lie."""
    rgb, depth, foreground, _ = inputs
    return [
        hashlib.blake2b(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays), digest_size=8).hexdigest()
        for arrays in zip(rgb, depth, foreground, strict=True)
    ]


def in_portions(inputs: Inputs, count: int, reading: Iterator[int] | None = None) -> Iterator[Inputs]:
    """Yield the samples `count` at a time; `reading`, from `begin_split`, reads each portion just before it is yielded."""
    rgb, depth, foreground, parallax = inputs
    for start in range(0, len(depth), count):
        some = slice(start, start + count)
        for _ in itertools.islice(reading or (), count):
            pass
        yield rgb[some], depth[some], foreground[some], parallax[some]


def write_sample(path: Path, sample: Sample, key: str) -> None:
    """Write a sample atomically; equal samples give equal bytes.

    Raises:
        DataError: the disk is full or the folder not writable.
    """
    arrays: dict[str, Any] = {name: getattr(sample, name) for name in _ARRAYS}
    if sample.ground_truth is not None:
        arrays[_TRUTH] = sample.ground_truth
    stamp = {"version": VERSION, "key": key, "geometry": dataclasses.asdict(sample.geometry)}
    if sample.by_type:
        stamp["types"] = list(sample.by_type)
        arrays |= {f"{_TRUTH}/{name}": mask for name, mask in sample.by_type.items()}
    data = io.BytesIO()
    np.savez(data, stamp=np.array(json.dumps(stamp, sort_keys=True)), **arrays)
    make_folder(path.parent)
    write_whole(path, data.getvalue())


def read_sample(path: Path) -> Sample:
    """Read a sample written by `write_sample`; no file can make this run code.

    Raises:
        DataError: missing, damaged, of another version, or not a sample at all.
    """
    return read_stamped(path)[0]


def read_stamped(path: Path) -> tuple[Sample, str]:
    """Read a sample and the key that it was written with. Raises as `read_sample`."""
    try:
        arrays = _arrays(path.read_bytes())
        stamp = json.loads(str(arrays["stamp"]))
        if stamp["version"] == VERSION:
            tree: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in stamp["geometry"].items()
            }
            geometry = Geometry(**tree)
            fields = {name: arrays[name] for name in _ARRAYS}
            masks = {name: arrays[f"{_TRUTH}/{name}"] for name in stamp.get("types", [])}
            unread = len(arrays) > 1 + len(fields) + len(masks)  # what is left must be the ground truth
            truth = arrays[_TRUTH] if unread else None
            sample = Sample(**fields, geometry=geometry, ground_truth=truth, by_type=masks)
            return _checked(sample), str(stamp["key"])
    except FileNotFoundError:
        raise DataError(f"{path}: this sample is missing; {_AGAIN}") from None
    except Exception:  # noqa: BLE001  (a damaged or foreign file can break the reader anywhere)
        raise DataError(f"{path}: damaged, or not a sample written by das3d; {_AGAIN}") from None
    raise DataError(f"{path}: written by another version of das3d; {_AGAIN}")


def _arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz that numpy wrote, read-only; for half a megabyte np.load takes two to four times as long."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("compressed, and who knows how large")
            member = archive.read(entry)  # checks the CRC
            start = _BEFORE_HEADER + int.from_bytes(member[_BEFORE_HEADER - 2 : _BEFORE_HEADER], "little")
            shape, fortran, dtype = _header(member[:start])
            array = np.ndarray(shape, dtype, member, offset=start, order="F" if fortran else "C")
            found[entry.filename.removesuffix(".npy")] = array
    return found


@functools.lru_cache
def _header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype from the start of a .npy; a cache repeats a few such headers thousands of times."""
    file = io.BytesIO(start)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of .npy than numpy writes")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError("pointers in a file, or any number of elements in no bytes")
    return shape, fortran, dtype


def is_own(path: Path) -> bool:
    """Whether das3d, of any version, wrote this .npz."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {"version", "key", "geometry"} <= set(json.loads(str(arrays["stamp"])))
    except Exception:  # noqa: BLE001  (as above)
        return False


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest; equal contents give equal bytes. Raises as `write_sample`."""
    text = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1)
    make_folder(folder)
    write_whole(folder / MANIFEST, (text + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a category's folder.

    Raises:
        DataError: missing, damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        tree = json.loads(path.read_bytes())
        if tree["version"] == VERSION:
            return Manifest.model_validate(tree)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run das3d preprocess first") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}; give this user read permission") from None
    except (ValueError, TypeError, KeyError, ValidationError):
        raise DataError(f"{path}: damaged, or not a manifest written by das3d; {_AGAIN}") from None
    raise DataError(f"{path}: written by another version of das3d; {_AGAIN}")


def _checked(sample: Sample) -> Sample:
    shape = sample.depth.shape
    masks: list[NDArray[Any]] = [
        sample.foreground, sample.valid, *([] if sample.ground_truth is None else [sample.ground_truth]),
        *sample.by_type.values(),
    ]  # fmt: skip
    if not (sample.depth.dtype == np.float32 and len(shape) == 2
            and sample.rgb.dtype == np.uint8 and sample.rgb.shape == (*shape, 3)
            and all(mask.dtype == np.bool_ and mask.shape == shape for mask in masks)):  # fmt: skip
        raise ValueError("not the arrays of a sample")
    return sample
