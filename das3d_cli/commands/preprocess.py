"""das3d preprocess SRC DST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import AsJson, Assignments, Categories, Config, PresetName, Workers, option, split_names
from das3d_cli.configure import resolve
from das3d_cli.settings import PLANE_DISTANCE_MM, LayoutName, PreprocessSettings

if TYPE_CHECKING:
    from das3d_cli.data.capture import Form

_DISTANCE = f"preprocess.plane_distance_mm={PLANE_DISTANCE_MM:g}"  # the default for all but low parts
_NOTES = 20  # maximum number of notes printed: enough to see what is wrong


def run(
    src: Annotated[
        Path,
        typer.Argument(metavar="SRC", readable=False, help="Data set, or CSV table of captures; it is never changed."),
    ],
    dst: Annotated[Path, typer.Argument(metavar="DST", readable=False, help="Folder of the cache.")],
    category: Categories = None,
    size: Annotated[int | None, option("preprocess.size", "--size")] = None,
    layout: Annotated[LayoutName | None, option("preprocess.layout", "--layout")] = None,
    workers: Workers = None,
    preset: PresetName = None,
    as_json: AsJson = False,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    flags = {"preprocess.size": size, "preprocess.layout": layout, "hardware.workers": workers, "preset": preset}
    settings = resolve(flags, assignments, config)
    from das3d_cli.data.build import build, check_source
    from das3d_cli.data.cache import categories
    from das3d_cli.data.layouts import find_entries
    from das3d_cli.report.preprocessed import preprocess_table

    check_source(src)
    found = find_entries(
        src, split_names(category), layout=settings.preprocess.layout, lights=settings.preprocess.light_names()
    )
    for line in (f"layout {found.name}, recognised by {found.why}", *found.notes):
        console.say(line)
    with console.progress("preprocess") as bar:
        task = bar.add_task("", total=len(found.entries), note="")
        try:
            summary = build(
                found,
                dst,
                settings.preprocess,
                workers=settings.hardware.workers,
                progress=lambda done, total, text: bar.update(task, completed=done, description=text),
            )
        except KeyboardInterrupt:
            console.say("interrupted; give the same command again to continue")
            raise
    for line in (*_told(summary.forms, settings.preprocess), *summary.notes[:_NOTES]):
        console.say(line)
    if len(summary.notes) > _NOTES:
        console.say(f"{len(summary.notes) - _NOTES} more notes like these; --json lists all of them")
    others = sorted(
        set(categories(dst)) - {row.category for row in summary.rows} - {item.category for item in summary.failures}
    )
    if others and not split_names(category):
        console.say(
            f"{dst}: also holds {', '.join(others)}, which {src} does not; remove what is gone or was renamed, and keep what"
            " comes from other folders"
        )
    if as_json:
        failed = [
            {"category": failure.category, "path": str(failure.path), "error": failure.reason}
            for failure in summary.failures
        ]
        forms = {category: asdict(form) for category, form in summary.forms.items()}
        console.record({
            "cache": str(dst), "layout": found.name, "captures": forms, "samples": [asdict(row) for row in summary.rows],
            "failed": failed, "notes": summary.notes,
        })  # fmt: skip
    else:
        console.show(preprocess_table(summary))
    for failure in summary.failures:
        console.say(f"failed: {failure}")
    if summary.failures:
        console.say(
            f"{len(summary.failures)} failed; "
            + (f"the rest is in {dst}" if summary.rows else "nothing could be preprocessed")
        )
        raise typer.Exit(1)


def _told(forms: Mapping[str, Form], settings: PreprocessSettings) -> list[str]:
    """What was recognised in the captures: categories without points or colours, units of the points, low parts."""
    lines: dict[str, list[str]] = {}
    for category, form in forms.items():
        if form.modalities != "both":
            lines.setdefault({"rgb": "only RGB images", "depth": "only points"}[form.modalities], []).append(category)
        if form.modalities != "rgb" and settings.units == "auto":
            lines.setdefault(f"coordinates taken to be in {form.unit}", []).append(category)
        if form.plane_distance_m < settings.plane_distance_m():
            cut = f"{form.plane_distance_m * 1000:.2g} mm"
            told = (
                f"low parts: what is less than {cut} above the table counts as table; if these are mats or trays lower than"
                f" {PLANE_DISTANCE_MM:g} mm, use --set {_DISTANCE}"
            )
            lines.setdefault(told, []).append(category)
    return [f"{text}: {', '.join(names)}" for text, names in lines.items()]
