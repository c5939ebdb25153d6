"""What all samples of a category have in common: how its captures are read, their depth range and their window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from das3d_cli.data.capture import GOOD, Foreground, Form
from das3d_cli.data.fixture import blanked, find_fixture
from das3d_cli.data.layouts import Entry, Failure
from das3d_cli.data.low import fitting_distance
from das3d_cli.data.preprocess import OTHER_SCALE, Extent, check_capture, extent_of
from das3d_cli.data.readers import guess_unit, kind_of_photo, read_capture
from das3d_cli.data.workers import completed
from das3d_cli.errors import DataError, NothingFoundError, UsageError
from das3d_cli.settings import PreprocessSettings

_PROBES = 32  # train captures that a category's depth range and window are measured on
_MARGIN = 1.1  # side of the window, times the largest part's span
_ODD = 1.5  # times the median width: two parts in one capture, or the table's edge beside one
_FEW = 0.1  # share of the probes that may be odd; one always may


class Common(NamedTuple):
    """What the samples of a category have in common.

    Attributes:
        depth_range_m: depths in metres that become 0 and 1; None where each capture has its own, or has no points.
        window_m: side in metres of the window about each part; None where the sample shows the whole image.
        form: how the captures are read.
        low_fraction, aspect: as in `Usual`.
    """

    depth_range_m: tuple[float, float] | None
    window_m: float | None
    form: Form
    low_fraction: float = 0.0
    aspect: float = 1.0


def preprocessing(
    settings: PreprocessSettings, form: Form, depth_range_m: tuple[float, float] | None, window_m: float | None
) -> dict[str, Any]:
    """The arguments of `preprocess` that all of a category's captures share, in training and in prediction."""
    return {
        "size": settings.size,
        "plane_distance_m": form.plane_distance_m,
        "depth_axis": settings.depth_axis,
        "depth_range_m": depth_range_m,
        "window_m": window_m,
        "pitch_m": form.pitch_m,
        "foreground": form.foreground,
        "fixture": form.fixture,
    }


class _Probed(NamedTuple):
    """What a probe shows.

    Attributes:
        path: of its first file.
        extent: of the part; None if it cannot be measured.
        fitting_m: the plane distance that fits it, metres; None if that is the one tried.
        problem: why it cannot be measured.
        empty: because nothing was found in it.
    """

    path: Path
    extent: Extent | None
    fitting_m: float | None
    problem: str = ""
    empty: bool = False


def pick_probes(entries: Sequence[Entry]) -> list[Entry]:
    """Pick good train captures, evenly spread by name; only one of those that show one part under different lights."""
    train = list({entry.files[0]: entry for entry in good_train(entries)}.values())
    return [train[int(i)] for i in np.linspace(0, len(train) - 1, min(len(train), _PROBES)).round()]


def good_train(entries: Sequence[Entry]) -> list[Entry]:
    """The captures that are trained on."""
    return [entry for entry in entries if entry.split == "train" and entry.label == GOOD]


def form_of(entries: Sequence[Entry], foreground: Foreground, settings: PreprocessSettings) -> Form:
    """How a category's captures are read, as far as that is known without opening their files.

    Raises:
        UsageError: the settings ask for a foreground that needs points, but the captures have none.
    """
    if not any(entry.xyz for entry in entries):
        if entries and settings.foreground not in ("auto", "whole"):
            raise UsageError(
                f"settings.preprocess.foreground: {settings.foreground} needs point clouds; {entries[0].category} has none"
            )
        return Form("rgb", "whole", plane_distance_m=settings.plane_distance_m())
    cameras = {entry.camera for entry in entries}
    return Form(
        "both" if any(entry.rgb for entry in entries) else "depth",
        foreground if settings.foreground == "auto" else settings.foreground,
        camera=cameras.pop() if len(cameras) == 1 else None,
        plane_distance_m=settings.plane_distance_m(),
    )


def kind_of_photos(entries: Sequence[Entry]) -> str:
    """The format that all colour images have, "PNG" or "JPEG"; else ""."""
    kinds = {kind_of_photo(entry.rgb) for entry in entries if entry.rgb}
    return kinds.pop() if len(kinds) == 1 else ""


def to_look_at(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that `Common` is derived from: the probes, then the first `_PROBES` of all."""
    return list(dict.fromkeys((*pick_probes(entries), *entries[:_PROBES])))


def find_unit(entries: Sequence[Entry], settings: PreprocessSettings) -> str:
    """The unit of the category's points: from the settings, or guessed from the first readable capture.

    A kind of file with its own unit, such as 16-bit depth images, says nothing about other kinds, so those are tried, too.
    """
    if settings.units != "auto":
        return settings.units
    known: dict[str, str] = {}  # suffix -> unit
    for entry in to_look_at(entries):
        if entry.xyz is not None and entry.xyz.suffix not in known:
            try:
                unit, by_kind = guess_unit(entry.rgb, entry.xyz, entry.camera, entry.limits)
            except Exception:  # noqa: BLE001, S112  (making its sample meets it again and lists it)
                continue
            if not by_kind:
                return unit
            known[entry.xyz.suffix] = unit
    return next(iter(known.values()), "m")


def find_common(entries: Sequence[Entry], form: Form, settings: PreprocessSettings, pool: Executor | None) -> Common:
    """Measure, on the probes, what the category's samples share.

    Raises:
        DataError: the probes are needed, and none can be used.
    """
    window_wanted = settings.frame == "part" and form.foreground != "whole"
    extent_wanted = window_wanted or settings.scaling == "category"
    fitting_sought = settings.plane_distance_mm == "auto" and form.foreground == "table"
    fixture_sought = settings.fixture == "ignore" and form.foreground != "whole"
    if form.modalities == "rgb" or not (extent_wanted or fitting_sought or fixture_sought):
        return Common(None, None, form)
    fitted, found = _probed(entries, form, settings, pool, fitting_sought=fitting_sought)
    standing = [probed.extent.standing for probed in found if probed.extent] if fixture_sought else []
    if fixture := find_fixture(standing):
        form = replace(form, fixture=fixture)
        fitted, found = _probed(entries, form, settings, pool, fitting_sought=fitting_sought)
    form = fitted
    if not extent_wanted:
        return Common(None, None, form)
    extents = _without_odd(_measured(found, form.unit))
    near, far = min(extent.near_m for extent in extents), max(extent.far_m for extent in extents)
    depth_range = (near - settings.headroom * (far - near), far) if settings.scaling == "category" else None
    low, aspect = (
        float(np.median(values)) for values in zip(*((e.low_fraction, e.aspect) for e in extents), strict=True)
    )
    if not window_wanted:
        return Common(depth_range, None, form, low, aspect)
    window = _MARGIN * max(extent.span_m for extent in extents)
    pitches = [extent.pitch_m for extent in extents]
    return Common(depth_range, window, replace(form, pitch_m=(min(pitches), max(pitches))), low, aspect)


def _probed(
    entries: Sequence[Entry], form: Form, settings: PreprocessSettings, pool: Executor | None, *, fitting_sought: bool
) -> tuple[Form, list[_Probed]]:
    """Look at the probes, again if most need a lower plane distance; return the form with the one used."""
    probes = pick_probes(entries)
    found = list(completed(pool, _probe, [(entry, form, settings, fitting_sought) for entry in probes]))
    if fitting := _fitting_most(found):
        form = replace(form, plane_distance_m=round(fitting, 5))
        found = list(completed(pool, _probe, [(entry, form, settings, False) for entry in probes]))
    return form, found


def _fitting_most(found: Sequence[_Probed]) -> float | None:
    """The median of the plane distances that fit, metres; None unless most probes need a lower one."""
    fitting = [probed.fitting_m for probed in found if probed.fitting_m is not None]
    return float(np.median(fitting)) if len(fitting) > len(found) / 2 else None


def _measured(found: Sequence[_Probed], unit: str) -> dict[Path, Extent]:
    extents = {probed.path: probed.extent for probed in found if probed.extent}
    if not found:
        raise DataError("no train/good captures to measure the size of the parts; add some,"
                        " or set preprocess.scaling=capture and preprocess.frame=image")  # fmt: skip
    if not extents:
        first = min(found, key=lambda probed: probed.path)
        unit_advice = ". If the unit is another one, name it with --set preprocess.units" if first.empty else ""
        raise DataError(
            f"none of the {len(found)} train/good captures, read in {unit}, can be used to measure the size of the parts;"
            f" the first: {first.problem}{unit_advice}"
        )
    return extents


def _without_odd(measured: Mapping[Path, Extent]) -> list[Extent]:
    """The extents without the few captures at another scale than most, or with far more than one part in them."""
    pitch, span = (
        float(np.median(values)) for values in zip(*((e.pitch_m, e.span_m) for e in measured.values()), strict=True)
    )
    scales = {path: max(extent.pitch_m / pitch, pitch / extent.pitch_m) for path, extent in measured.items()}
    widths = {path: extent.span_m / span for path, extent in measured.items()}
    odd = _few(scales, OTHER_SCALE) | _few(widths, _ODD)
    return [extent for path, extent in measured.items() if path not in odd] or list(measured.values())


def _few(times: Mapping[Path, float], most: float) -> set[Path]:
    """The captures whose value exceeds `most`, if they are few; if many do, it is no mistake."""
    found = {path for path, value in times.items() if value > most}
    return found if len(found) <= max(1, _FEW * len(times)) else set()


def _probe(job: tuple[Entry, Form, PreprocessSettings, bool]) -> _Probed:
    entry, form, settings, fitting_sought = job
    distance, axis, fitting = form.plane_distance_m, settings.depth_axis, None
    try:
        capture = read_capture(entry.rgb, entry.xyz, entry.camera, entry.limits, form.unit)
        check_capture(capture)
        if fitting_sought and capture.xyz is not None:
            fitting = fitting_distance(blanked(capture.xyz, form.fixture), distance)
        extent = extent_of(
            capture, foreground=form.foreground, plane_distance_m=distance, depth_axis=axis, fixture=form.fixture
        )
        return _Probed(entry.files[0], extent, fitting)
    except Exception as error:  # noqa: BLE001  (making its sample meets it again and lists it)
        why = str(Failure.of(entry.category, entry.files, error))
        return _Probed(entry.files[0], None, fitting, why, empty=isinstance(error, NothingFoundError))
