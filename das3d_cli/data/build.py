"""Fill the cache from a data set; finished, unchanged samples are skipped, so a killed run can be continued."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from das3d_cli import __version__
from das3d_cli.data import cache
from das3d_cli.data.cache import Manifest, Record
from das3d_cli.data.capture import GOOD, Form, Geometry, RawCapture
from das3d_cli.data.common import (
    Common,
    find_common,
    find_unit,
    form_of,
    good_train,
    kind_of_photos,
    preprocessing,
    to_look_at,
)
from das3d_cli.data.layouts import DataSet, Entry, Failure
from das3d_cli.data.oddity import oddities, of_all, usual_of
from das3d_cli.data.preprocess import preprocess
from das3d_cli.data.readers import check_size, read_capture, read_ground_truth
from das3d_cli.data.summary import Summary, rows_of
from das3d_cli.data.workers import completed, process_pool
from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import held, make_folder, real, reason, sweep
from das3d_cli.settings import PreprocessSettings

Progress = Callable[[int, int, str], None]
Tell = Callable[..., None]
_Stamp = tuple[str, int, int, int]  # a source file's name, size in bytes, mtime in ns, checksum of its middle
_MIDDLE = 4096  # bytes; swapped files may share size and time, but differ in the middle, which shows the part


@dataclass(frozen=True)
class _Task:
    """What a worker needs to make one sample."""

    entry: Entry
    folder: Path
    key: str
    settings: PreprocessSettings
    common: Common

    @property
    def path(self) -> str:
        return f"{self.entry.split}/{self.entry.label}/{self.entry.name}.npz"

    def record(self, geometry: Geometry) -> Record:
        entry = self.entry
        return Record(path=self.path, split=entry.split, label=entry.label, name=entry.name, key=self.key,
                      geometry=geometry, part=entry.part)  # fmt: skip


def build(
    data: DataSet,
    dst: Path,
    settings: PreprocessSettings,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> Summary:
    """Preprocess every entry of a data set into the cache at `dst`.

    Args:
        data: the entries; its problems are listed among the failures.
        dst: root of the cache; categories that `data` lacks are left alone.
        settings: how to preprocess.
        workers: parallel processes; 0: one per core, 1: work in this process. The result is the same.
        progress: called with (samples done, samples in total, current activity).

    Raises:
        UsageError: `dst` lies in the source, which is never changed, or holds files of others; another process
            preprocesses into it; the settings do not fit the captures.
        DataError: the cache cannot be written. An unusable capture does not raise; it is a failure in the summary.
    """
    names = sorted({entry.category for entry in data.entries} | {item.category for item in data.problems})
    _check_outside(data, dst, names)
    for name in names:
        _check_own(dst / name)
    forms = {name: form_of(data.entries_of(name), data.foreground, settings) for name in names}
    done, total = 0, len(data.entries)

    def tell(text: str, finished: int = 0) -> None:
        nonlocal done
        done += finished
        if progress:
            progress(done, total, text)

    summary = Summary()
    with contextlib.ExitStack() as at_end:
        for folder in (dst / category for category in names):
            make_folder(folder)
            at_end.enter_context(held(folder, "preprocesses into"))
            at_end.callback(sweep, folder)
        pool = at_end.enter_context(process_pool(workers, jobs=total))
        for category in names:
            part = _build_category(category, data, forms[category], dst / category, settings, pool, tell)
            summary.rows.extend(part.rows)
            summary.failures.extend(part.failures)
            summary.forms.update(part.forms)
            summary.notes.extend(part.notes)
    return summary


def _build_category(
    category: str,
    data: DataSet,
    form: Form,
    folder: Path,
    settings: PreprocessSettings,
    pool: Executor | None,
    tell: Tell,
) -> Summary:
    files, failures = _stat(category, data)
    tell(category, len(failures))
    failures += (problem for problem in data.problems if problem.category == category)

    entries = list(files)
    probes = [(files[entry], entry.camera and asdict(entry.camera)) for entry in to_look_at(entries)]
    extent_key = _digest(settings.model_dump(mode="json"), asdict(form), probes)
    common = Common(None, None, form)
    try:
        if files:
            tell(f"{category}: measuring the parts")
            common = _known(folder, extent_key) or find_common(
                entries, replace(form, unit=find_unit(entries, settings)), settings, pool
            )
    except DataError as error:
        failures.append(Failure(category, data.source, f"{category}: {error}"))
        tell(category, len(files))
        files, extent_key = {}, ""  # nothing was measured that the next call could reuse

    used = common.depth_range_m, common.window_m, asdict(common.form)
    base = _digest(cache.VERSION, cache.essential(settings).model_dump(mode="json"), used)
    tasks = [
        _Task(entry, folder, _digest(base, files[entry], entry.camera and asdict(entry.camera)), settings, common)
        for entry in files
    ]
    records, new = _run(tasks, failures, pool, lambda: tell(category, 1))
    failures.sort(key=lambda failure: (failure.path, failure.reason))
    _remove_stale(folder, {record.path for record in records})
    if not records and not (folder / cache.MANIFEST).exists():
        return Summary([], failures, {}, [])
    good = [record.geometry for record in records if (record.split, record.label) == ("train", GOOD)]
    usual = usual_of(good, common.low_fraction, common.aspect, kind_of_photos(good_train(entries)))
    cache.write_manifest(folder, Manifest(
        version=cache.VERSION, das3d=__version__, category=category, settings=settings,
        depth_range_m=common.depth_range_m, window_m=common.window_m, form=common.form, usual=usual,
        extent_key=extent_key, samples=records,
        failures=[(_relative(failure.path, data.root), failure.reason) for failure in failures],
    ))  # fmt: skip
    forms = {category: common.form} if files else {}
    firsts = {task.path: task.entry.files[0] for task in tasks}
    notes = [f"{category}: {told}" for told in of_all(usual, common.form)]
    for record in records:
        odd = oddities(record.geometry, common.form, usual, common.window_m)
        notes += (f"{firsts[record.path]}: {told}" for told in odd)
    return Summary(rows_of(category, records, new), failures, forms, notes)


def _run(
    tasks: list[_Task], failures: list[Failure], pool: Executor | None, tick: Callable[[], None]
) -> tuple[list[Record], set[str]]:
    """Make the samples that the cache lacks; return all records in the tasks' order and the paths of the new ones."""
    records: dict[str, Record] = {}
    for task in tasks:
        if record := _cached(task):
            records[task.path] = record
            tick()
    lacking = [task for task in tasks if task.path not in records]
    for result in completed(pool, _make, lacking):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            records[result.path] = result
        tick()
    new = {task.path for task in lacking if task.path in records}
    return [records[task.path] for task in tasks if task.path in records], new


def _known(folder: Path, key: str) -> Common | None:
    try:
        manifest = cache.read_manifest(folder)
    except DataError:
        return None
    if manifest.extent_key != key:
        return None
    usual = manifest.usual
    return Common(manifest.depth_range_m, manifest.window_m, manifest.form, usual.low_fraction, usual.aspect)


def _make(task: _Task) -> Record | Failure:
    entry, settings, common = task.entry, task.settings, task.common
    try:
        capture = read_capture(entry.rgb, entry.xyz, entry.camera, entry.limits, common.form.unit)
        truth = _mask(entry.ground_truth, entry, capture) if entry.ground_truth else None
        if truth is not None:
            _check_label(entry, defective=bool(truth.any()))
        sample = preprocess(
            capture,
            ground_truth=truth,
            by_type={name: _mask(path, entry, capture) for name, path in entry.by_type},
            **preprocessing(settings, common.form, common.depth_range_m, common.window_m),
        )
    except Exception as error:  # noqa: BLE001  (one odd capture must not cost the others, whatever it breaks)
        return Failure.of(entry.category, entry.files, error)
    cache.write_sample(task.folder / task.path, sample, task.key)
    return task.record(sample.geometry)


def _mask(path: Path, entry: Entry, capture: RawCapture) -> NDArray[np.bool_]:
    mask = read_ground_truth(path)
    check_size(path, mask, capture.shape, "point cloud" if entry.xyz else "image")
    return mask


def _check_label(entry: Entry, *, defective: bool) -> None:
    """Check that mask and label agree; otherwise the metrics by label or those by pixel would be wrong."""
    if defective and entry.label == GOOD:
        raise DataError(f"{entry.ground_truth}: marks a defect, but the part is labelled {GOOD}; label it with its defect, or"
                        " remove the mask")  # fmt: skip
    if not defective and entry.label != GOOD:
        raise DataError(f"{entry.ground_truth}: marks nothing, but the part is labelled {entry.label}; mark the defect, or"
                        f" label it {GOOD}")  # fmt: skip


def _cached(task: _Task) -> Record | None:
    try:
        sample, key = cache.read_stamped(task.folder / task.path)
    except DataError:
        return None
    return task.record(sample.geometry) if key == task.key else None


def _remove_stale(folder: Path, keep: set[str]) -> None:
    for path in folder.glob("*/*/*.npz"):
        if path.relative_to(folder).as_posix() not in keep and cache.is_own(path):
            try:
                path.unlink()
            except OSError as error:
                raise DataError(f"{path}: cannot be removed: {reason(error)}; remove it by hand") from None


def _stat(category: str, data: DataSet) -> tuple[dict[Entry, list[_Stamp]], list[Failure]]:
    """Stamp each entry's files: nearly as reliable as comparing their contents, and much faster."""
    stamps: dict[Entry, list[_Stamp]] = {}
    failures = []
    for entry in data.entries_of(category):
        own = []
        for path in entry.files:
            try:
                own.append(_stamp(path, data.root))
            except OSError as error:
                failures.append(Failure(category, path, f"cannot be read: {reason(error)}"))
                break
        else:
            stamps[entry] = own
    return stamps, failures


def _stamp(path: Path, root: Path) -> _Stamp:
    status = path.stat()
    with path.open("rb") as file:
        file.seek(max(0, (status.st_size - _MIDDLE) // 2))
        return _relative(path, root), status.st_size, status.st_mtime_ns, zlib.crc32(file.read(_MIDDLE))


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_outside(data: DataSet, dst: Path, names: list[str]) -> None:
    source, target = data.source, real(dst)
    # A table may list captures anywhere; their folders are protected like a data set's own.
    listed = {path.parent for entry in data.entries for path in entry.files} if source.is_file() else set()
    written = [target / name for name in names]
    if target.is_relative_to(real(source)) or any(
        real(folder).is_relative_to(own) for folder in (source, *listed) for own in written
    ):
        raise UsageError(f"{dst}: lies in the data set {source}, which das3d never changes; choose another folder")


def check_source(src: Path) -> None:
    """Check that a data set to preprocess is not a cache. Raises UsageError: it is."""
    if any(_is_manifest(src / name / cache.MANIFEST, if_damaged=False) for name in cache.categories(src)):
        raise UsageError(f"{src}: is a cache that das3d wrote, not a data set; name the data set first, then the cache")


def _check_own(folder: Path) -> None:
    """Check that a category's folder is missing, empty or a cache, of whatever version.

    Raises:
        UsageError: it holds other files, which the cache would mix with or replace.
    """
    manifest = folder / cache.MANIFEST
    if manifest.is_file():
        foreign = None if _is_manifest(manifest) else manifest
    else:  # an interrupted call leaves samples without a manifest
        files = (path for path in folder.rglob("[!.]*") if path.suffix != ".npz" and path.is_file())
        foreign = next(files, None)
    if foreign:
        raise UsageError(
            f"{folder}: holds {foreign.relative_to(folder)}, which das3d did not write; choose another folder for the cache"
        )


def _is_manifest(path: Path, *, if_damaged: bool = True) -> bool:
    """Whether das3d, of any version, wrote this manifest; `if_damaged` is the answer for one that cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return if_damaged
    return isinstance(content, dict) and "das3d" in content
