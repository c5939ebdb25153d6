"""Preview of what training would synthesise: a sheet of samples, and a sheet of what each setting does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das3d_cli.batch import Batch
from das3d_cli.data.cache import Cache
from das3d_cli.engine.samples import Data, check_preprocessing, load_data, synthesised
from das3d_cli.files import make_folder
from das3d_cli.model import Das3d
from das3d_cli.report.draw import Picture
from das3d_cli.report.own_png import check_replaceable, write_png
from das3d_cli.report.pictures import (
    Brightening,
    depth_picture,
    mask_picture,
    shaded_relief,
    signed_picture,
    ternary_picture,
)
from das3d_cli.report.sheet import Tile, contact_sheet
from das3d_cli.settings import Settings
from das3d_cli.synthesis.augment import Augmented, augment
from das3d_cli.synthesis.random import ItemRandom

_COLUMNS = (
    "good part: RGB", "good part: depth", "ternary mask", "change of depth", "defect mask",
    "with defects: RGB", "with defects: depth", "good part: relief", "with defects: relief",
)  # fmt: skip
# Rows of the settings sheet: the setting varied, the row's title, and the values shown.
_VARIED: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("alpha_max", "skew |α| up to", (0.0, 0.25, 0.5, 1.0, 2.0)),
    ("sigma", "filter σ, share of the side", (0.002, 0.006, 0.012, 0.024, 0.04)),
    ("strength", "strength p_z", (0.04, 0.1, 0.2, 0.4, 0.6)),
    ("mask_threshold", "mask threshold t_p", (0.3, 0.4, 0.5, 0.6, 0.7)),
    ("change_threshold", "change threshold t_h", (0.004, 0.012, 0.03, 0.06, 0.12)),
    ("blob_radius", "patch radius, share of the side", (0.03, 0.06, 0.1, 0.15, 0.2)),
    ("beta_max", "texture blend β up to", (0.0, 0.2, 0.4, 0.8, 1.0)),
)


def write_preview(folder: Path, cache: Cache, settings: Settings, count: int) -> list[Path]:
    """Write samples.png and settings.png; returns their paths.

    Raises:
        DataError: the cache lacks training parts, or the folder cannot be written.
        UsageError: foreign files have these names there, or a preprocessing setting differs from the cache's.
    """
    paths = [folder / "samples.png", folder / "settings.png"]
    for path in paths:
        check_replaceable(f"--out {folder}", path)
    check_preprocessing(settings, cache)
    cached, own = cache.manifest.settings, settings.model.size
    seen = own if cached.size % own == 0 else cached.size  # a cache unfit for training is shown at its own size
    settings = settings.model_copy(
        update={"preprocess": cached, "model": settings.model.model_copy(update={"size": seen})}
    )
    data = load_data(settings, cache, torch.device("cpu"))
    make_folder(folder)
    indices = torch.arange(count)
    batch = data.train.pick(indices % len(data.train))
    compared = _are_compared(settings, data)
    batch, made = synthesised(batch, indices, 0, data.textures, settings, normal_share=0.0, compared=compared)
    write_png(paths[0], _samples_sheet(cache.manifest.category, batch, made, settings))
    one = Batch(*(tensor[:1] for tensor in data.train.pick(torch.arange(1))))
    write_png(paths[1], _settings_sheet(cache.manifest.category, one, data.textures, settings))
    return paths


def _are_compared(settings: Settings, data: Data) -> bool:
    """Whether training would compare these parts with a mean part."""
    network = Das3d(**settings.model.model_dump())
    if network.template is not None:
        network.template.learn(*data.train)
    return network.compares


def _samples_sheet(category: str, batch: Batch, made: Augmented, settings: Settings) -> Picture:
    rows, titles, light = [], [], _light(batch)
    for i in range(len(batch.depth)):
        rows.append(_sample_row(batch, made, i, light))
        seen = [name for name, changed in (("RGB", _differs(made.rgb[i], batch.rgb[i])),
                                           ("depth", _differs(made.depth[i], batch.depth[i]))) if changed]  # fmt: skip
        titles.append(f"{i + 1}: {' + '.join(seen) or 'normal'}")
    note = (
        "Ternary mask M_t (Eq. 1 and 2): blue will move towards the camera, red away from it. Change of depth p_z Δ_Z: the same"
        " colours; its peak is a share of the depth range. Defect mask: the refined mask M* (Eq. 7), material added beside the part or in"
        " a hole, and pieces broken off, if parts share no shape. RGB and depth with defects (Eq. 8 and 6) are shown after augmentation"
        " dropout (Eq. 12); the row's title says which of them kept a defect. Depth colours span each row's own range, from its nearest to"
        " its farthest point. Relief: the depth, lit from the upper left."
    )
    return contact_sheet(
        rows,
        _COLUMNS,
        titles,
        f"{category}: artificial defects, seed {settings.seed}",
        [note, *light.notes],
    )


def _sample_row(batch: Batch, made: Augmented, i: int, light: Brightening) -> list[Tile]:
    part, left = batch.foreground[i, 0].numpy(), made.foreground[i, 0].numpy()
    depth, depth_made = batch.depth[i, 0].numpy(), made.depth[i, 0].numpy()
    change = made.change[i, 0].numpy()
    limits = (float(depth[part].min()), float(depth[part].max()))
    return [
        Tile(_rgb(batch.rgb[i], light)),
        Tile(depth_picture(depth, part, limits)),
        Tile(ternary_picture(made.ternary[i, 0].numpy(), part)),
        Tile(signed_picture(change, part), f"peak {change.flat[np.abs(change).argmax()]:+.2f}"),
        Tile(
            mask_picture(made.refined[i, 0].numpy() > 0, part),
            f"{100 * made.refined[i].sum() / part.sum():.1f} % of the part",
        ),
        Tile(_rgb(made.rgb[i], light)),
        Tile(depth_picture(depth_made, left, limits)),
        Tile(shaded_relief(depth, part)),
        Tile(shaded_relief(depth_made, left)),
    ]


def _settings_sheet(category: str, one: Batch, textures: Tensor, settings: Settings) -> Picture:
    always = {"dropout": 0.0, "pierced_share": 0.0, "soft_share": 0.0}
    plain = settings.synthesis.augmentation() | always | _arguments("strength", 0.3) | _arguments("sigma", 0.012)
    part, light = one.foreground[0, 0].numpy(), _light(one)
    rows = []
    for name, _, values in _VARIED:
        row = []
        for value in values:
            random = ItemRandom.of(settings.seed, 0, torch.zeros(1, dtype=torch.int64))
            made = augment(*one.images, textures, random, **(plain | _arguments(name, value)))
            picture = _rgb(made.rgb[0], light) if name == "beta_max" else shaded_relief(made.depth[0, 0].numpy(), part)
            row += [Tile(picture, f"{value:g}"), Tile(mask_picture(made.refined[0, 0].numpy() > 0, part))]
        rows.append(row)
    note = (
        "All pictures use the same random draw; each row changes one setting, whose value is below. Left: relief of the part with defects"
        " (its RGB in the last row), right: where its defects are, the refined mask M*."
    )
    titles = [title for _, title, _ in _VARIED]
    return contact_sheet(
        rows,
        (),
        titles,
        f"{category}: what each synthesis setting does, seed {settings.seed}",
        [note, *light.notes],
    )


def _arguments(name: str, value: float) -> dict[str, Any]:
    """Arguments of `augment` for a row's setting and value; a range becomes the single value."""
    if name in ("sigma", "strength", "blob_radius"):
        return {f"{name}_min": value, f"{name}_max": value}
    if name == "alpha_max":  # a narrow filter has no room to show its skew
        return {name: value, **_arguments("sigma", 0.04)}
    return {name: value}


def _differs(a: Tensor, b: Tensor) -> bool:
    return bool((a != b).any())


def _light(batch: Batch) -> Brightening:
    return Brightening.of(np.stack([_bytes(image) for image in batch.rgb]), batch.foreground[:, 0].numpy())


def _rgb(image: Tensor, light: Brightening) -> Picture:
    return light.shown(_bytes(image))


def _bytes(image: Tensor) -> Picture:
    return np.asarray((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
