"""das3d predict PART.tiff PART.png."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import DEFAULT_RUNS, AsJson, Gpus, Run, Runs
from das3d_cli.files import as_json as to_json
from das3d_cli.runs import newest_finished
from das3d_cli.settings import resolve

ANOMALOUS = 4  # exit code of --fail-on-anomaly


def run(
    xyz: Annotated[Path, typer.Argument(metavar="PART.tiff", help="Point cloud, H x W x 3, float, metres.")],
    rgb: Annotated[Path, typer.Argument(metavar="PART.png", help="RGB image of the same size.")],
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
    from das3d_cli.data.readers import read_capture
    from das3d_cli.detector import Detector

    capture = read_capture(rgb, xyz)
    detector = Detector.load(chosen, settings.hardware.gpus)
    console.say(f"using {chosen} ({detector.category})")
    found = detector.predict(capture.rgb, capture.xyz)
    largest = found.defects[0] if found.defects else None
    if heatmap:
        from das3d_cli.report.draw import write_png
        from das3d_cli.report.heatmap import overlay

        write_png(heatmap, overlay(
            capture.rgb, found.anomaly_map, threshold=found.threshold, score=found.score, anomalous=found.anomalous,
            defect_mm=largest.length_mm if largest else None, title=f"{detector.category}  {xyz.stem}",
        ))  # fmt: skip
    if as_json:
        console.result(to_json({
            "xyz": str(xyz), "rgb": str(rgb), "run": str(chosen), "category": detector.category,
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
