"""das3d predict PART.tiff PART.png, or das3d predict --parts FOLDER."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from das3d_cli import console
from das3d_cli.commands import heatmaps
from das3d_cli.commands.options import DEFAULT_RUNS, Gpus, Run, Runs
from das3d_cli.configure import resolve
from das3d_cli.engine.interrupt import end_on_sigterm
from das3d_cli.errors import DataError, UsageError, unforeseen
from das3d_cli.files import on_a_line
from das3d_cli.modality import Modality
from das3d_cli.runs import newest_finished, using

if TYPE_CHECKING:
    from das3d_cli.data.capture import Camera, RawCapture
    from das3d_cli.data.parts import PartFiles
    from das3d_cli.detector import Detector, Prediction

ANOMALOUS, NOTED = 4, 5  # exit codes of --fail-on-anomaly and --fail-on-note
_LISTED = 8  # defects of one part
_STDIN = Path("-")


_Parts = tuple[Iterable["PartFiles"], Callable[["PartFiles"], Path | None]]  # parts; a part's heat map path


class _Judged(NamedTuple):
    """A part's verdict, its heat map if one was written, and the error that prevented either."""

    part: PartFiles
    found: Prediction | None
    picture: Path | None
    error: DataError | None


def run(
    first: Annotated[
        Path | None,
        typer.Argument(
            metavar="PART.tiff",
            readable=False,
            show_default=False,
            help="Point cloud or depth image, of the same kind and unit as the training data.",
        ),
    ] = None,
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="PART.png",
            readable=False,
            show_default=False,
            help="RGB image of the same size. If the run's training data had only one of the two, give only that one.",
        ),
    ] = None,
    parts: Annotated[
        Path | None,
        typer.Option(
            "--parts",
            readable=False,
            help="Judge many parts instead of one: a folder of NAME.tiff and NAME.png, side by side or in xyz/ and rgb/;"
            " the folder of one label in a data set; a data/ folder of Eyecandies; or a CSV file with the columns xyz and"
            " rgb, or depth, rgb, fx, fy, cx, cy and scale, and optionally name, to call parts differently from their files."
            " With -, read such a list from standard input and judge each part as soon as its line is there.",
            show_default=False,
        ),
    ] = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(
            "--heatmap", help="PNG file for the heat map; with --parts, a folder for them.", show_default=False
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="Lowest score that counts as anomalous. (default: the threshold that training set)",
            show_default=False,
        ),
    ] = None,
    model: Run = None,
    runs: Runs = DEFAULT_RUNS,
    gpus: Gpus = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per part, one per line.")] = False,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly",
            help=f"Exit with code {ANOMALOUS} if any part is anomalous and all parts could be used.",
        ),
    ] = False,
    fail_on_note: Annotated[
        bool,
        typer.Option(
            "--fail-on-note",
            help=f"Exit with code {NOTED} if all parts could be used, but there are notes on any of them, such as that the photo is dark:"
            f" its verdict needs a person to look at it. With --fail-on-anomaly too, {ANOMALOUS} goes first.",
        ),
    ] = False,
) -> None:
    end_on_sigterm()
    settings = resolve({"hardware.gpus": gpus})
    _check_call(first, parts, threshold)
    chosen = model or newest_finished(runs)
    from das3d_cli.data.workers import in_order
    from das3d_cli.detector import Detector

    detector = Detector.load(chosen, settings.hardware.gpus)
    detector.threshold = threshold or detector.threshold
    if parts == _STDIN:
        detector.warm_up()
    console.say(using(chosen, detector.category, detector.step, detector.settings.train.steps))
    if parts == _STDIN:
        files, place = _to_come(detector, heatmap, quiet=as_json)
    else:
        files, place = _known(detector, parts, first, second, heatmap)

    def judge(part: PartFiles) -> _Judged:
        return _judge(detector, part, place, one_of_many=bool(parts))

    count = failed = anomalous = noted = 0
    # No working ahead on a list from standard input: its writer may wait for each answer before the next part.
    for judged in in_order(judge, files) if parts and parts != _STDIN else map(judge, files):
        # The JSON records hold the notes already, and writing to a stderr that nobody reads would block this process.
        if not (as_json and parts == _STDIN):
            _tell(judged, one_of_many=bool(parts))
        if as_json:
            console.record(_record(judged, detector, chosen))
        elif judged.found:
            _show(judged.found, f"{judged.part.given or judged.part.first}  " if parts else "")
        count += 1
        failed += judged.error is not None
        anomalous += judged.found is not None and judged.found.anomalous
        if fail_on_note and judged.found:
            noted += bool(_notes(judged.found, judged.part, detector))
        if judged.error and not parts:
            raise judged.error
    if parts:
        console.say(f"parts: {count}; anomalous: {anomalous}; not judged, or without a heat map: {failed}")
    if failed:
        raise typer.Exit(1)
    if anomalous and fail_on_anomaly:
        raise typer.Exit(ANOMALOUS)
    if noted:
        raise typer.Exit(NOTED)


def _known(
    detector: Detector, parts: Path | None, first: Path | None, second: Path | None, heatmap: Path | None
) -> _Parts:
    """The parts that the command line names."""
    from das3d_cli.data.parts import find_parts, not_read

    used = detector.settings.preprocess
    files = (
        find_parts(parts, detector.needs, used.light_names(), detector.category, used.layout)
        if parts
        else [_one_part(first, second, detector.needs)]
    )
    pictures = heatmaps.planned(files, parts, heatmap)
    for note in not_read(parts, detector.needs, detector.category, files) if parts else ():
        console.say(note)
    if others := [part for part in files if _of_another_kind(part, detector.usual.photos)]:
        count = f" and {len(others) - 1} more" if len(others) > 1 else ""
        console.say(f"{others[0].rgb}{count}: {_of_another_kind(others[0], detector.usual.photos)}")
    if len(files) > 1:
        _one_thread_each()
    return files, pictures.__getitem__


def _to_come(detector: Detector, heatmap: Path | None, *, quiet: bool) -> _Parts:
    """The parts that standard input names, each as soon as its line is there."""
    from das3d_cli.data.parts import parts_to_come

    # A file's name may hold any bytes, not just valid UTF-8.
    lines = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", "surrogateescape", newline="\n")

    def files() -> Iterator[PartFiles]:
        for part in parts_to_come(lines, detector.needs, detector.category):
            if not quiet and (other := _of_another_kind(part, detector.usual.photos)):
                console.say(f"{part.rgb}: {other}")
            yield part

    return files(), heatmaps.to_come(heatmap) if heatmap else lambda _: None


def _check_call(first: Path | None, parts: Path | None, threshold: float | None) -> None:
    if parts and first:
        raise UsageError(f"--parts {parts}: already names all parts; leave out {first}")
    if not (parts or first):
        raise UsageError("Missing argument 'PART.tiff'; give it, or use --parts; see das3d predict --help")
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"--threshold {threshold}: must be a score above 0 and at most 1")


def _of_another_kind(part: PartFiles, photos: str) -> str:
    """A note if a photo's file format is not that of the training's photos, else ""."""
    from das3d_cli.data.readers import kind_of_photo

    kind = kind_of_photo(part.rgb) if part.rgb else photos
    if not photos or kind in ("", photos):
        return ""
    return (
        f"{kind}, but the photos used in training were {photos}. A JPEG's colours are coarser, which can look like a defect: judge"
        " photos stored in the same format as in training"
    )


def _one_part(first: Path | None, second: Path | None, needs: Modality) -> PartFiles:
    """The part that the two arguments name.

    Raises:
        UsageError: one file too few or too many for what the run needs.
    """
    from das3d_cli.data.parts import PartFiles

    if needs == "rgb":
        if second is not None:
            raise UsageError("this run uses only RGB images; give only PART.png")
        return PartFiles(None, first)
    if second is None and needs == "both":
        raise UsageError(
            f"{first}: not enough for this run, which needs both files to find the part; give PART.tiff and PART.png, in this order"
        )
    return PartFiles(first, second)


def _one_thread_each() -> None:
    """Limit libraries to one thread: parts judged in parallel keep the cores busier than splitting the work on each."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _judge(
    detector: Detector, part: PartFiles, place: Callable[[PartFiles], Path | None], *, one_of_many: bool
) -> _Judged:
    found: Prediction | None = None
    picture, unplaced = _placed(part, place)
    try:
        found, capture = _verdict(detector, part, picture)
        if unplaced:
            raise unplaced
        if picture:
            heatmaps.draw(picture, detector, part, found, capture)
    except DataError as error:
        return _Judged(part, found, None, error)
    except Exception as error:
        if not one_of_many:
            raise
        # Whatever goes wrong with one of many parts, the others must get their verdicts.
        return _Judged(part, found, None, DataError(f"{part.first}: {unforeseen(error)}"))
    return _Judged(part, found, picture, None)


def _placed(part: PartFiles, place: Callable[[PartFiles], Path | None]) -> tuple[Path | None, DataError | None]:
    """Where a part's heat map goes, or why it cannot be written; the part still gets its verdict."""
    try:
        return place(part), None
    except DataError as error:
        return None, error


def _verdict(detector: Detector, part: PartFiles, picture: Path | None) -> tuple[Prediction, RawCapture]:
    """The verdict on a part, and its raw capture."""
    import torch

    from das3d_cli.data.depth import limits_beside
    from das3d_cli.data.readers import read_capture
    from das3d_cli.device import within_memory

    if part.problem:
        raise DataError(part.problem)
    if picture:
        from das3d_cli.report.own_png import forget

        forget(picture)

    def camera() -> Camera | None:
        return part.find_camera() or detector.form.camera

    with within_memory(torch.device("cpu"), f"while reading {part.first}; free some memory"):
        capture = read_capture(part.rgb, part.xyz, camera, limits_beside(part.xyz), detector.form.unit)
    try:
        return detector.predict_capture(capture), capture
    except DataError as error:
        raise DataError(f"{part.first}: {error}") from None


def _tell(judged: _Judged, *, one_of_many: bool) -> None:
    """Say what is odd about a part and, for one of many, why it failed; the caller reports a single part's error."""
    if judged.error and one_of_many:
        console.say(f"failed: {judged.error}")
    for note in judged.found.notes if judged.found else []:
        console.say(f"{judged.part.first}: {note}")


def _record(judged: _Judged, detector: Detector, run: Path) -> dict[str, Any]:
    part, found, picture, error = judged
    about = {
        "name": part.name, "xyz": str(part.xyz) if part.xyz else None, "rgb": str(part.rgb) if part.rgb else None,
        "run": str(run), "model": detector.fingerprint, "category": detector.category,
    }  # fmt: skip
    if not found:
        return about | {"anomalous": None, "error": str(error)}
    notes = [*_notes(found, part, detector), *([f"no heat map: {error}"] if error else [])]
    return about | found.as_dict() | {"notes": notes, "heatmap": str(picture) if picture else None}


def _notes(found: Prediction, part: PartFiles, detector: Detector) -> list[str]:
    other = _of_another_kind(part, detector.usual.photos)
    return [*found.notes, *([other] if other else [])]


def _show(found: Prediction, name: str) -> None:
    verdict = "ANOMALOUS" if found.anomalous else "NORMAL"
    console.result(f"{on_a_line(name)}{verdict}  score {found.score:.3f}  threshold {found.threshold:.3f}")
    for d in found.defects[:_LISTED]:
        console.result(f"  defect at row {d.row}, column {d.column}: {d.extent}, score {d.score:.3f}")
    if (more := len(found.defects) - _LISTED) > 0:
        console.result(f"  and {more} more with lower scores; --json lists all")
