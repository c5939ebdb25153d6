"""das3d synth-preview."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from das3d_cli import console
from das3d_cli.commands.options import (
    DEFAULT_CACHE,
    Assignments,
    CacheFolder,
    Config,
    ModalityName,
    PresetName,
    Seed,
    Textures,
    chosen_category,
)
from das3d_cli.configure import resolve


def run(
    data: CacheFolder = DEFAULT_CACHE,
    category: Annotated[
        list[str] | None,
        typer.Option("--category", help="Category, if the cache holds several.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option("-n", "--samples", min=1, max=64, help="Rows of the sheet.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the two sheets. (default: preview/CATEGORY)", show_default=False),
    ] = None,
    seed: Seed = None,
    preset: PresetName = None,
    modality: ModalityName = None,
    textures: Textures = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    flags = {"seed": seed, "preset": preset, "model.modality": modality, "synthesis.textures": textures}
    settings = resolve(flags, assignments, config)
    from das3d_cli.data.cache import categories, open_cache
    from das3d_cli.report.preview import write_preview

    name = chosen_category(categories(data), category, data)
    for path in write_preview(out or Path("preview") / name, open_cache(data, name), settings, samples):
        console.result(str(path))
