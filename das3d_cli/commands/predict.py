"""das3d predict PART.tiff PART.png."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import DEFAULT_RUNS, AsJson, Gpus, Run, Runs
from das3d_cli.errors import UsageError
from das3d_cli.files import as_json as to_json
from das3d_cli.runs import newest_finished
from das3d_cli.settings import Modality, resolve

ANOMALOUS = 4  # exit code of --fail-on-anomaly


def run(
    first: Annotated[
        Path,
        typer.Argument(metavar="PART.tiff", help="Point cloud or depth image, of the training data's kind and unit."),
    ],
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="PART.png",
            show_default=False,
            help="RGB image of the same size. A run that looks at one of the two takes that one alone.",
        ),
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option("--heatmap", help="Write the heat map here, as PNG.", show_default=False)
    ] = None,
    model: Run = None,
    runs: Runs = DEFAULT_RUNS,
    gpus: Gpus = None,
    as_json: AsJson = False,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help=f"Exit with code {ANOMALOUS} if the part is anomalous.")
    ] = False,
) -> None:
    settings = resolve({"hardware.gpus": gpus})
    chosen = model or newest_finished(runs)
    from das3d_cli.data.depth import limits_beside
    from das3d_cli.data.readers import read_capture
    from das3d_cli.detector import Detector

    detector = Detector.load(chosen, settings.hardware.gpus)
    console.say(f"using {chosen} ({detector.category})")
    xyz, rgb = _sort(first, second, detector.needs)
    form = detector.form
    capture = read_capture(rgb, xyz, form.camera, limits_beside(xyz, form.camera), form.unit)
    found = detector.predict(capture.rgb, capture.xyz)
    length = found.defects[0].length_mm if found.defects else math.nan
    if heatmap:
        from das3d_cli.report.draw import write_png
        from das3d_cli.report.heatmap import overlay
        from das3d_cli.report.pictures import picture_of

        write_png(heatmap, overlay(
            picture_of(capture), found.anomaly_map, threshold=found.threshold, score=found.score, anomalous=found.anomalous,
            defect_mm=None if math.isnan(length) else length, title=f"{detector.category}  {first.stem}",
        ))  # fmt: skip
    if as_json:
        console.result(to_json({
            "xyz": str(xyz) if xyz else None, "rgb": str(rgb) if rgb else None,
            "run": str(chosen), "category": detector.category,
            "anomalous": found.anomalous, "score": found.score, "threshold": found.threshold,
            "defects": [defect._asdict() for defect in found.defects],
            "heatmap": str(heatmap) if heatmap else None,
        }))  # fmt: skip
    else:
        console.result(
            f"{'ANOMALOUS' if found.anomalous else 'NORMAL'}  score {found.score:.3f}  threshold {found.threshold:.3f}"
        )
        for d in found.defects:
            extent = f"{d.length_mm:.1f} x {d.width_mm:.1f} mm, {d.area_mm2:.1f} mm2"
            measured = extent if d.length_mm == d.length_mm else "size unknown, no points measured"
            console.result(f"  defect at row {d.row}, column {d.column}: {measured}, score {d.score:.3f}")
    if found.anomalous and fail_on_anomaly:
        raise typer.Exit(ANOMALOUS)


def _sort(first: Path, second: Path | None, needs: Modality) -> tuple[Path | None, Path | None]:
    """(xyz, rgb) of the files given.

    Raises:
        UsageError: one too few or too many for what the run needs.
    """
    if needs == "rgb":
        if second is not None:
            raise UsageError("this run looks at RGB images alone; give PART.png alone")
        return None, first
    if second is None and needs == "both":
        raise UsageError(f"{first}: alone is not enough for this run; give PART.tiff and PART.png, in this order")
    return first, second
