"""das3d benchmark."""

from __future__ import annotations

from typing import Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import DEFAULT_RUNS, AsJson, Gpus, Out, Run, Runs
from das3d_cli.configure import resolve
from das3d_cli.errors import UsageError
from das3d_cli.report.formats import check_targets, terminal, write_tables
from das3d_cli.runs import newest_finished


def run(
    model: Run = None,
    runs: Runs = DEFAULT_RUNS,
    gpus: Gpus = None,
    batch_sizes: Annotated[
        str,
        typer.Option(
            "--batch-sizes", metavar="N,...", help="Parts to judge at once; separate several numbers by commas."
        ),
    ] = "1,4,16",
    repeats: Annotated[int, typer.Option("--repeats", min=2, help="How many batches of each size to time.")] = 30,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    settings = resolve({"hardware.gpus": gpus})
    sizes = [int(word) for word in batch_sizes.split(",") if word.isdecimal() and int(word) > 0]
    if len(sizes) != batch_sizes.count(",") + 1:
        raise UsageError(
            f"--batch-sizes {batch_sizes}: give whole numbers above 0, separated by commas, such as 1,4,16"
        )
    check_targets(out or [])
    chosen = model or newest_finished(runs)
    from das3d_cli.benchmark import benchmark, device_name
    from das3d_cli.report.paper import benchmark_table

    h = settings.hardware
    detector, speeds = benchmark(chosen, h.gpus, sizes, repeats, cuda_graphs=h.cuda_graphs)
    device = device_name(detector.device)
    table = benchmark_table(speeds, str(chosen), device, cuda=detector.device.type == "cuda")
    found = {
        "run": str(chosen),
        "category": detector.category,
        "device": device,
        "repeats": repeats,
        "speeds": [speed._asdict() for speed in speeds],
    }
    failed = write_tables(out or [], [table], found)
    if as_json:
        console.record(found)
    else:
        console.show(terminal(table))
    if failed:
        raise failed[0]
