"""das3d evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import DEFAULT_CACHE, DEFAULT_RUNS, AsJson, Cache, Gpus, Run, Runs
from das3d_cli.files import as_json as to_json
from das3d_cli.runs import newest_finished, write_json
from das3d_cli.settings import resolve


def run(
    model: Run = None,
    data: Cache = DEFAULT_CACHE,
    runs: Runs = DEFAULT_RUNS,
    gpus: Gpus = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures",
            help="Write the figures, and a picture and the raw anomaly map of every test part, here.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    settings = resolve({"hardware.gpus": gpus})
    chosen = model or newest_finished(runs)
    from das3d_cli.detector import Detector
    from das3d_cli.evaluation import evaluate_detector
    from das3d_cli.report.tables import metrics_table

    detector = Detector.load(chosen, settings.hardware.gpus)
    console.say(f"using {chosen} ({detector.category})")
    evaluation = evaluate_detector(detector, data)
    found = {
        "run": str(chosen),
        "category": detector.category,
        "threshold": detector.threshold,
        "metrics": {name: metrics._asdict() for name, metrics in evaluation.metrics.items()},
        "verdicts": evaluation.verdicts(),
        "pictures": str(pictures) if pictures else None,
    }
    if pictures:
        from das3d_cli.report.gallery import write_gallery

        with console.progress("pictures") as bar:
            task = bar.add_task("", total=len(evaluation.split.labels), note="")
            write_gallery(pictures, evaluation, advance=lambda: bar.advance(task))
        write_json(pictures / "evaluation.json", found)
    if as_json:
        console.result(to_json(found))
        return
    console.stdout.print(
        metrics_table(evaluation.metrics, f"{detector.category}: {len(evaluation.split.labels)} test parts")
    )
    missed, alarms = len(evaluation.missed()), len(evaluation.false_alarms())
    console.result(
        f"at threshold {detector.threshold:.3f}: {missed} defective parts missed, {alarms} good parts rejected"
    )
    if pictures:
        console.result(str(pictures))
