"""Where the heat maps of `das3d predict` go, and how they are written."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import check_folder, make_folder, real

if TYPE_CHECKING:
    from das3d_cli.data.capture import RawCapture
    from das3d_cli.data.parts import PartFiles
    from das3d_cli.detector import Detector, Prediction

_REMEMBERED = 100_000  # maximum number of part names kept; the process may run for weeks


def planned(files: list[PartFiles], parts: Path | None, heatmap: Path | None) -> dict[PartFiles, Path | None]:
    """The path of each part's heat map: `heatmap` for one part; for many, NAME.png in that folder, which is created.

    Raises:
        UsageError: one would replace a part's own file, another heat map, or a file that das3d did not write.
        DataError: the folder is missing or cannot be created.
    """
    if parts and heatmap:
        return _in_folder(files, parts, heatmap)
    if heatmap:
        if real(heatmap) in [real(path) for part in files for path in part.paths]:
            raise UsageError(f"--heatmap {heatmap}: is one of the part's own files; choose another name")
        _check_place(heatmap)
    return dict.fromkeys(files, heatmap)


def _check_place(heatmap: Path) -> None:
    from das3d_cli.report.own_png import check_replaceable

    if heatmap.is_dir():
        raise UsageError(f"--heatmap {heatmap}: is a folder; name a file, such as {heatmap / 'heatmap.png'}")
    if heatmap.suffix.lower() != ".png":
        raise UsageError(f"--heatmap {heatmap}: the name must end in .png")
    check_folder(heatmap)  # reports a mistake before the work
    if heatmap.is_file() and heatmap.stat().st_size:  # an empty file may have been made to reserve the name
        check_replaceable(f"--heatmap {heatmap}", heatmap)


def _in_folder(files: list[PartFiles], parts: Path, folder: Path) -> dict[PartFiles, Path | None]:
    from das3d_cli.data.parts import folders_of_parts
    from das3d_cli.report.own_png import check_replaceable, forget

    usable = [part for part in files if not part.problem]
    taken = {*folders_of_parts(parts), *(path.parent for part in usable for path in part.paths)}
    if real(folder) in {real(path) for path in taken}:  # the next call would take heat maps for photos
        raise UsageError(f"--heatmap {folder}: das3d looks for parts in this folder; choose another")
    names = [part.name for part in usable]
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UsageError(
            f"--heatmap {folder}: two parts are called {repeated}, so their heat maps would have the same name; rename one"
        )
    pictures = [folder / f"{name}.png" for name in names]
    for picture in pictures:
        check_replaceable(f"--heatmap {folder}", picture)
    make_folder(folder)
    for name in {part.name for part in files if part.problem and part.name} - {*names}:
        forget(folder / f"{name}.png")  # of an earlier call, when the part had no problem
    return dict.fromkeys(files) | dict(zip(usable, pictures, strict=True))


def to_come(folder: Path) -> Callable[[PartFiles], Path | None]:
    """Create the folder; return a function that gives each part, as it comes in, its heat map's path in it, NAME.png.

    Raises:
        DataError: the folder cannot be created. The function raises it if a heat map would replace that of a part with
            other files or a file that das3d did not write, or would lie among the parts' own files.
    """
    from das3d_cli.report.own_png import check_replaceable, forget

    make_folder(folder)
    owners: dict[str, Path] = {}

    def place(part: PartFiles) -> Path | None:
        picture, owner = folder / f"{part.name}.png", owners.get(part.name)
        own = owner is None or owner in part.paths
        if part.problem:
            if part.name and own:
                forget(picture)  # of an earlier part of this name that had no problem
            return None
        if not own:
            raise DataError(f"{part.first}: no heat map, because {owner} is called {part.name} too; rename one of them")
        if real(folder) in {real(path.parent) for path in part.paths}:  # a later call would take it for a photo
            raise DataError(f"{part.first}: no heat map in the folder of the part's own files; choose another folder")
        try:
            check_replaceable(f"{part.first}: its heat map", picture)
        except UsageError as error:
            raise DataError(str(error)) from None
        with contextlib.suppress(OSError):  # the name is too long for a file
            if part.first.is_file():
                owners[part.name] = part.first
        if len(owners) > _REMEMBERED:
            owners.pop(next(iter(owners)))
        return picture

    return place


def draw(picture: Path, detector: Detector, part: PartFiles, found: Prediction, capture: RawCapture) -> None:
    """Write the heat map. Raises DataError: it cannot be written."""
    from das3d_cli.report.heatmap import overlay
    from das3d_cli.report.own_png import write_png
    from das3d_cli.report.pictures import picture_of

    told = [name for name in (detector.category, part.folder, part.name) if name]
    lengths = [defect.length_mm for defect in found.defects if not math.isnan(defect.length_mm)]
    drawn = overlay(
        picture_of(capture, found.sample.geometry.plane), found.anomaly_map,
        threshold=found.threshold, outline=detector.outline,
        score=found.score, anomalous=found.anomalous,
        defect_mm=max(lengths, default=None), title=" / ".join(told),
    )  # fmt: skip
    write_png(picture, drawn)
