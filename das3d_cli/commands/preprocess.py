"""das3d preprocess SRC DST."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import AsJson, Assignments, Categories, Config, PresetName, Workers, option, split_names
from das3d_cli.files import as_json as to_json
from das3d_cli.settings import resolve


def run(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="Data set in the MVTec 3D-AD layout; it is only read.")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the cache.")],
    category: Categories = None,
    size: Annotated[int | None, option("preprocess.size", "--size")] = None,
    workers: Workers = None,
    preset: PresetName = None,
    as_json: AsJson = False,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    settings = resolve({"preprocess.size": size, "hardware.workers": workers, "preset": preset}, assignments, config)
    from das3d_cli.data.build import build
    from das3d_cli.data.layouts import find_entries
    from das3d_cli.report.tables import preprocess_table

    layout = find_entries(src, split_names(category))
    with console.progress("preprocess") as bar:
        task = bar.add_task("", total=len(layout.entries), note="")
        summary = build(
            layout,
            dst,
            settings.preprocess,
            workers=settings.hardware.workers,
            progress=lambda done, total, text: bar.update(task, completed=done, description=text),
        )
    if as_json:
        failures = [asdict(failure) | {"path": str(failure.path)} for failure in summary.failures]
        console.result(to_json({"cache": str(dst), "samples": summary.as_dicts(), "failures": failures}))
    else:
        console.stdout.print(preprocess_table(summary))
    for failure in summary.failures:
        console.say(f"failed: {failure}")
    if summary.failures:
        console.say(f"{len(summary.failures)} captures could not be used; the rest is in {dst}")
        raise typer.Exit(1)
