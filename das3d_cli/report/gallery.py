"""A picture and a raw anomaly map for each part of an evaluated test split, and an overview of the highest scores."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from das3d_cli.errors import UsageError
from das3d_cli.evaluation import Evaluation
from das3d_cli.files import make_folder, write_whole
from das3d_cli.report.draw import Picture
from das3d_cli.report.heatmap import blend
from das3d_cli.report.own_png import check_replaceable, forget, write_png
from das3d_cli.report.pictures import Brightening, depth_picture, mask_picture, shaded_relief
from das3d_cli.report.sheet import Tile, contact_sheet

_COLUMNS = ("RGB", "depth", "relief", "ground truth", "heat map")
_PER_TYPE = 2  # parts of each defect type on the overview
_OVERVIEW = "overview.png"
RECORD = "evaluation.json"  # `das3d evaluate` writes it beside the overview


def check_gallery(folder: Path, parts: Iterable[tuple[str, str]]) -> None:
    """Check that the gallery of these (label, name) parts would replace nothing but an earlier gallery.

    Raises:
        UsageError: it would, as in the folder of the parts' own images; or `folder` is a file.
    """
    option = f"--pictures {folder}"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option}: is a file; name a folder")
    check_replaceable(option, folder / _OVERVIEW, folder / RECORD)
    for label, name in parts:
        check_replaceable(option, *_files(folder, label, name))


def write_gallery(folder: Path, evaluation: Evaluation, advance: Callable[[], None]) -> None:
    """Write folder/<label>/<name>.png and .npy, and folder/overview.png; creates the folder.

    Files that an earlier evaluation wrote there for parts that this one lacks are removed.

    Raises:
        DataError: the folder cannot be written.
    """
    split = evaluation.split
    light = Brightening.of(split.rgb, split.foreground)
    _forget_others(folder, [_files(folder, *part) for part in zip(split.labels, split.names, strict=True)])
    for index, (label, name) in enumerate(zip(split.labels, split.names, strict=True)):
        picture, raw = _files(folder, label, name)
        make_folder(picture.parent)
        write_png(picture, _sheet(evaluation, [index], evaluation.detector.category, light))
        data = io.BytesIO()
        np.save(data, evaluation.scored.maps[index], allow_pickle=False)
        write_whole(raw, data.getvalue())
        advance()
    scores = evaluation.scored.scores
    shown = dict.fromkeys(
        i for parts in split.kinds.values() for i in sorted(parts, key=lambda i: -scores[i])[:_PER_TYPE]
    )
    title = f"{evaluation.detector.category}: the highest scores of each kind of part"
    write_png(folder / _OVERVIEW, _sheet(evaluation, list(shown), title, light))


def _forget_others(folder: Path, kept: Iterable[tuple[Path, Path]]) -> None:
    wanted = {picture for picture, _ in kept}
    for raw in folder.glob("*/*.npy"):  # other pictures have no map beside them
        picture = raw.with_suffix(".png")
        if picture not in wanted and _is_map(raw) and forget(picture):
            with contextlib.suppress(OSError):
                raw.unlink()


def _is_map(raw: Path) -> bool:
    """Whether the file can be a part's raw map; users may keep arrays of their own there."""
    try:
        found = np.load(raw, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    square = found.ndim == 2 and found.shape[0] == found.shape[1]
    return bool(square and found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1)


def _files(folder: Path, label: str, name: str) -> tuple[Path, Path]:
    """A part's picture and its raw map."""
    return folder / label / f"{name}.png", folder / label / f"{name}.npy"


def _sheet(evaluation: Evaluation, indices: list[int], title: str, light: Brightening) -> Picture:
    threshold, outline = evaluation.detector.threshold, evaluation.detector.outline
    note = (
        f"Heat map: places that reach the threshold, {threshold:.3f}, are outlined as far as the map is above"
        f" {min(threshold, outline):.2g}. The verdict and the score are below the map."
    )
    return contact_sheet(
        [_row(evaluation, index, light) for index in indices],
        column_titles=_COLUMNS,
        row_titles=[f"{evaluation.split.labels[i]} {evaluation.split.names[i]}" for i in indices],
        title=title,
        notes=[note, *light.notes],
    )


def _row(evaluation: Evaluation, index: int, light: Brightening) -> list[Tile]:
    split, detector = evaluation.split, evaluation.detector
    score = float(evaluation.scored.scores[index])
    part, rgb = split.foreground[index], light.shown(split.rgb[index])
    anomalous = bool(evaluation.rejected[index])
    heat = blend(
        rgb, evaluation.scored.maps[index],
        threshold=detector.threshold, outline=detector.outline, anomalous=anomalous,
    )  # fmt: skip
    return [
        Tile(rgb),
        Tile(depth_picture(split.depth[index], part)),
        Tile(shaded_relief(split.depth[index], part)),
        Tile(mask_picture(split.ground_truth[index], part)),
        Tile(heat, f"{'anomalous' if anomalous else 'normal'}, {score:.3f}"),
    ]
