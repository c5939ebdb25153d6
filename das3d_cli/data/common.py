"""What all samples of a category have in common: how its captures are read, their depth range and their window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from das3d_cli.data.capture import GOOD, Foreground, Form
from das3d_cli.data.layouts import Entry
from das3d_cli.data.preprocess import OTHER_SCALE, Extent, measure
from das3d_cli.data.readers import guess_unit, read_capture
from das3d_cli.data.thin import flat_height
from das3d_cli.data.workers import completed
from das3d_cli.errors import DataError, UsageError
from das3d_cli.settings import PreprocessSettings

_PROBES = 32  # train captures that a category's depth range and window are measured on
_MARGIN = 1.1  # of the window around the largest part
_ODD = 1.5  # times as wide as the middle one of the parts: two of them in one capture, or the table's edge beside one
_FEW = 0.1  # share of the probes, or one


class Common(NamedTuple):
    """What the samples of a category have in common.

    Attributes:
        depth_range_m: depths in metres that become 0 and 1; None where each capture has its own, or has no points.
        window_px: side in raw pixels of the window about each part; None where the sample shows the whole image.
        form: how the captures are read.
    """

    depth_range_m: tuple[float, float] | None
    window_px: int | None
    form: Form


def pick_probes(entries: Sequence[Entry]) -> list[Entry]:
    """Good train captures, evenly spread by name; of those that show one part, each under another light, one."""
    good = [entry for entry in entries if entry.split == "train" and entry.label == GOOD]
    train = list({entry.files[0]: entry for entry in good}.values())
    return [train[int(i)] for i in np.linspace(0, len(train) - 1, min(len(train), _PROBES)).round()]


def form_of(entries: Sequence[Entry], foreground: Foreground, settings: PreprocessSettings) -> Form:
    """How a category's captures are read, as far as their files need not be opened for it.

    Raises:
        UsageError: the settings ask for a foreground that needs points, of captures without any.
    """
    if not any(entry.xyz for entry in entries):
        if settings.foreground not in ("auto", "whole"):
            raise UsageError(
                f"settings.preprocess.foreground: {settings.foreground} needs point clouds; there are none"
            )
        return Form("rgb", "whole")
    cameras = {entry.camera for entry in entries}
    return Form(
        "both" if any(entry.rgb for entry in entries) else "depth",
        foreground if settings.foreground == "auto" else settings.foreground,
        camera=cameras.pop() if len(cameras) == 1 else None,
    )


def find_unit(entries: Sequence[Entry], settings: PreprocessSettings) -> str:
    """The unit of the category's points: as the settings say, or as the first capture that can be read tells."""
    if settings.units != "auto":
        return settings.units
    for entry in (*pick_probes(entries), *entries[:_PROBES]):
        if entry.xyz is not None:
            try:
                return guess_unit(entry.rgb, entry.xyz, entry.camera, entry.limits)
            except Exception:  # noqa: BLE001, S112  (making its sample meets it again and lists it)
                continue
    return "m"


def find_common(entries: Sequence[Entry], form: Form, settings: PreprocessSettings, pool: Executor | None) -> Common:
    """Measure what the category's parts share on its probes.

    Raises:
        DataError: it is needed, and no probe can be used.
    """
    window_wanted = settings.frame == "part" and form.foreground != "whole"
    probes = pick_probes(entries)
    form = replace(form, plane_distance_m=_plane_distance(probes, form, settings, pool))
    if form.modalities == "rgb" or not (window_wanted or settings.scaling == "category"):
        return Common(None, None, form)
    results = list(completed(pool, _probe, [(entry, form, settings) for entry in probes]))
    measured = {path: found for path, found in results if isinstance(found, Extent)}
    if not results:
        raise DataError("no train/good capture to measure the parts on; add some,"
                        " or set preprocess.scaling=capture and preprocess.frame=image")  # fmt: skip
    if not measured:
        raise DataError(
            f"none of {len(results)} train/good captures can be used to measure the parts on, read as {form.unit};"
            f" the first: {min(results)[1]}"
        )
    extents = _usual(measured)
    near, far = min(extent.near_m for extent in extents), max(extent.far_m for extent in extents)
    depth_range = (near - settings.headroom * (far - near), far) if settings.scaling == "category" else None
    if not window_wanted:
        return Common(depth_range, None, form)
    window = round(_MARGIN * max(extent.span_px for extent in extents))
    pitches = [extent.pitch_m for extent in extents]
    return Common(depth_range, window, replace(form, pitch_m=(min(pitches), max(pitches))))


def _plane_distance(probes: Sequence[Entry], form: Form, settings: PreprocessSettings, pool: Executor | None) -> float:
    """As the settings say, or half the height of parts whose flat side is lower than that, if most are; metres."""
    usual = settings.plane_distance_m()
    if settings.plane_distance_mm != "auto" or form.foreground != "table":
        return usual
    heights = completed(pool, _flat_height, [(entry, form, usual) for entry in probes])
    low = [height for height in heights if height is not None]
    return round(float(np.median(low)) / 2, 5) if len(low) > len(probes) / 2 else usual


def _flat_height(job: tuple[Entry, Form, float]) -> float | None:
    entry, form, usual = job
    try:
        xyz = read_capture(entry.rgb, entry.xyz, entry.camera, entry.limits, form.unit).xyz
        return None if xyz is None else flat_height(xyz, usual)
    except Exception:  # noqa: BLE001  (making its sample meets it again and lists it)
        return None


def _usual(measured: Mapping[Path, Extent]) -> list[Extent]:
    """Without the few captures that are at another scale than most, or in which far more than a part stands."""
    pitch, span = (
        float(np.median(values)) for values in zip(*((e.pitch_m, e.span_px) for e in measured.values()), strict=True)
    )
    scales = {path: max(extent.pitch_m / pitch, pitch / extent.pitch_m) for path, extent in measured.items()}
    widths = {path: extent.span_px / span for path, extent in measured.items()}
    odd = _few(scales, OTHER_SCALE) | _few(widths, _ODD)
    return [extent for path, extent in measured.items() if path not in odd] or list(measured.values())


def _few(times: Mapping[Path, float], most: float) -> set[Path]:
    """The captures in which something is more than so many times what it is in most, if they are few: many are no mistake."""
    found = {path for path, value in times.items() if value > most}
    return found if len(found) <= max(1, _FEW * len(times)) else set()


def _probe(job: tuple[Entry, Form, PreprocessSettings]) -> tuple[Path, Extent | str]:
    """The capture's first file, and what was measured or why nothing could be."""
    entry, form, settings = job
    first = entry.files[0]
    try:
        return first, measure(
            read_capture(entry.rgb, entry.xyz, entry.camera, entry.limits, form.unit), foreground=form.foreground,
            plane_distance_m=form.plane_distance_m, depth_axis=settings.depth_axis,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001  (making its sample meets it again and lists it)
        text = " ".join(str(error).split())
        return first, text if any(str(path) in text for path in entry.files) else f"{first}: {text}"
