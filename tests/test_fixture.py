"""What stands in the same place in all captures, while the parts do not, is no part."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from das3d_cli.data.build import build
from das3d_cli.data.cache import load_split, open_cache
from das3d_cli.data.capture import Form
from das3d_cli.data.fixture import find_fixture
from das3d_cli.data.foreground import find_foreground
from das3d_cli.data.layouts import find_entries
from das3d_cli.errors import DataError
from das3d_cli.settings import PreprocessSettings

HEIGHT, WIDTH, FOCAL, TABLE_M = 120, 160, 384.0, 0.4
CORNERS = ((15, 25), (15, 125), (95, 25), (95, 125))  # first row and column of four blocks, 10 x 14 pixels
Mask = NDArray[np.bool_]


def blocks(*, at: tuple[int, int] = (0, 0)) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    for row, column in CORNERS:
        mask[row + at[0] : row + at[0] + 10, column + at[1] : column + at[1] + 14] = True
    return mask


def box(row: int, column: int, angle: float = 0.0) -> Mask:
    """A part of 50 x 70 pixels."""
    corners = cv2.boxPoints(((80.0 + column, 60.0 + row), (70.0, 50.0), angle))
    return cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [np.rint(corners).astype(np.int32)], 1).astype(bool)


def lid(column: int) -> Mask:
    """A loose piece of 25 x 90 pixels beside the part."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[92:117, column : column + 90] = True
    return mask


def moved(count: int, reach: int = 6) -> list[Mask]:
    rng = np.random.default_rng(0)
    return [
        box(*(int(by) for by in rng.integers(-reach, reach + 1, 2)), float(rng.uniform(-4, 4))) for _ in range(count)
    ]


def scene(part: Mask, held: Mask, seed: int = 0, height_m: float = 0.020) -> NDArray[np.float32]:
    """Points of a part beside pieces 9 mm high on a table, metres."""
    z = TABLE_M - np.where(part, height_m, np.where(held, 0.009, 0.0))
    z += np.random.default_rng(seed).normal(0, 1e-4, z.shape)
    rows, columns = np.indices(z.shape)
    return np.stack([(columns - WIDTH / 2) / FOCAL * z, (rows - HEIGHT / 2) / FOCAL * z, z], axis=2).astype(np.float32)


def write(folder: Path, parts: list[Mask], held: Mask, height_m: float) -> None:
    for kind in ("rgb", "xyz"):
        (folder / kind).mkdir(parents=True)
    for seed, part in enumerate(parts):
        rgb = np.where(part[..., None], (70, 60, 50), np.where(held[..., None], (60, 60, 60), (190, 195, 200)))
        cv2.imwrite(str(folder / f"rgb/{seed:03}.png"), rgb.astype(np.uint8))
        tifffile.imwrite(folder / f"xyz/{seed:03}.tiff", scene(part, held, seed, height_m), photometric="rgb")


def test_pieces_that_stand_still_are_found_and_the_part_is_not() -> None:
    found = find_fixture([part | blocks() for part in moved(12)])
    assert found
    table = find_foreground(scene(box(3, -5), blocks()), "table", plane_distance_m=0.005, fixture=found)
    assert np.array_equal(table.foreground, box(3, -5))
    assert table.fixture_share
    assert table.fixture_share > 0.97


def test_parts_that_lean_on_a_piece_do_not_hide_it() -> None:
    leaning = box(0, 0)
    leaning[60:100, 120:128] = True
    found = find_fixture([*(part | blocks() for part in moved(8)), *[leaning | blocks()] * 4])
    assert found
    assert len(found.outlines) == 4


def test_the_inside_of_a_frame_is_not_the_fixture() -> None:
    frame = np.ones((HEIGHT, WIDTH), np.bool_)
    frame[:8] = frame[-8:] = frame[:, :8] = frame[:, -8:] = False
    frame[12:-12, 12:-12] = False
    found = find_fixture([part | frame for part in moved(12)])
    assert found
    table = find_foreground(scene(box(0, 0), frame), "table", plane_distance_m=0.005, fixture=found)
    assert np.array_equal(table.foreground, box(0, 0))


@pytest.mark.parametrize(
    "standing",
    [
        moved(12),
        [blocks()] * 12,  # parts that all lie in the same place
        [part | blocks() for part in moved(7)],
        [*(part | blocks() for part in moved(12)), np.ones((HEIGHT, 2 * WIDTH), np.bool_)],
        [box(0, 0) | blocks(at=(shift % 5 - 2, 3 * shift - 15)) for shift in range(12)],
        [box(0, 0) | lid(5 * shift + 3) for shift in range(12)],
        [np.zeros((HEIGHT, WIDTH), np.bool_)] * 12,
        [],
    ],
    ids=[
        "no fixture",
        "nothing moves",
        "too few",
        "two sizes",
        "only the fixture moves",
        "a loose lid beside the part",
        "nothing stands",
        "nothing",
    ],
)
def test_all_else_is_no_fixture(standing: list[Mask]) -> None:
    assert find_fixture(standing) is None


def test_what_is_told_of_captures_that_do_not_fit() -> None:
    found = find_fixture([part | blocks() for part in moved(12)])
    assert found
    with pytest.raises(DataError, match=r"^no part found: nothing but the fixture stands on the table"):
        find_foreground(
            scene(np.zeros((HEIGHT, WIDTH), np.bool_), blocks()), "table", plane_distance_m=0.005, fixture=found
        )
    with pytest.raises(DataError, match=r"^the capture has 80 x 60 pixels, but .* have 160 x 120; capture it as"):
        find_foreground(scene(box(0, 0), blocks())[::2, ::2], "table", plane_distance_m=0.005, fixture=found)
    pushed = find_foreground(scene(box(0, 0), blocks(at=(3, 2))), "table", plane_distance_m=0.005, fixture=found)
    assert pushed.fixture_share == pytest.approx(7 * 12 / (10 * 14))  # what a block still covers of its place


@pytest.mark.parametrize("height_m", [0.020, 0.003])
def test_a_category_is_preprocessed_without_its_fixture(tmp_path: Path, height_m: float) -> None:
    parts = moved(10)
    write(tmp_path / "data/box/train/good", parts, blocks(), height_m)
    data = find_entries(tmp_path / "data")
    told = build(data, tmp_path / "out", PreprocessSettings(size=64), workers=1).notes
    assert [note for note in told if "taken for a fixture and ignored" in note]
    manifest = open_cache(tmp_path / "out", "box").manifest
    form = manifest.form
    assert form.fixture
    assert form.plane_distance_m < height_m
    assert Form.of_saved(asdict(form)) == form
    kept = build(data, tmp_path / "kept", PreprocessSettings(size=64, fixture="keep"), workers=1).notes
    assert not [note for note in kept if "fixture" in note]
    own, with_it = (load_split(open_cache(tmp_path / name, "box"), "train") for name in ("out", "kept"))
    for part, shown, record in zip(parts, own.foreground, manifest.samples, strict=True):
        assert shown.sum() * (record.geometry.side / 64) ** 2 == pytest.approx(part.sum(), rel=0.03)
    assert with_it.foreground.mean() < own.foreground.mean()  # in a larger window
