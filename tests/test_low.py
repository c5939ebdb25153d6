"""Parts so low that much of them would count as table are cut lower; lookalikes are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import captures
import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from test_plane import Box, Scene, iou

from das3d_cli.cli import main
from das3d_cli.data.cache import open_cache, read_sample
from das3d_cli.data.low import fitting_distance, flat_height
from das3d_cli.data.plane import find_part
from das3d_cli.detector import Detector

# The noise is 0.08 mm on the table.
ABOVE: dict[str, Any] = {"pitch": 80.0, "distance": 0.4, "noise": 0.0005, "dropped": 0.02}
BOARD = Box(0, 0, (0.1, 0.07, 0.0016), yaw=0.2)
ON_BOARD = [
    Box(-0.02, 0.01, (0.02, 0.02, 0.012), bottom=0.0016),
    Box(0.03, -0.01, (0.012, 0.02, 0.007), bottom=0.0016),
]


def scene(*parts: Box, **options: Any) -> Scene:
    return Scene(list(parts), **(ABOVE | options))


@pytest.mark.parametrize(
    ("found", "height"),
    [
        (scene(BOARD, *ON_BOARD), 0.0016),
        (scene(BOARD), 0.0016),
        (scene(replace(BOARD, size=(0.1, 0.07, 0.0012))), 0.0012),
        (scene(replace(BOARD, size=(0.1, 0.07, 0.0035)), pitch=60.0), 0.0035),
        (scene(Box(0.02, 0.01, (0.05, 0.05, 0.002), round=True)), 0.002),
        (scene(Box(0, 0, (0.33, 0.24, 0.0016)), *ON_BOARD, pitch=88.0, distance=0.3), 0.0016),
    ],
    ids=["board with parts on it", "bare board", "1.2 mm", "3.5 mm at a slant", "disc", "most of the image"],
)
def test_the_height_of_a_flat_part(found: Scene, height: float):
    xyz, shown = found.render()
    assert flat_height(xyz, 0.005) == pytest.approx(height, rel=0.08)
    assert iou(find_part(xyz, plane_distance_m=height / 2).foreground, xyz, shown) > 0.93


@pytest.mark.parametrize(
    "other",
    [
        scene(Box(0, 0, (0.06, 0.06, 0.03))),
        scene(Box(0, 0, (0.06, 0.06, 0.006), round=True)),
        scene(Box(0, 0, (0.09, 0.09, 0.002)), Box(0, 0, (0.085, 0.085, 0.02))),
        scene(replace(BOARD, size=(5, 0.2, 0.002)), Box(0, 0, (0.06, 0.06, 0.03), bottom=0.002)),
        scene(BOARD, *ON_BOARD, noise=0.005),
        scene(replace(BOARD, size=(0.1, 0.07, 0.0006))),
    ],
    ids=["block", "6 mm", "foot of a tall part", "mat across the image", "noise of 0.8 mm", "0.6 mm"],
)
def test_what_is_no_flat_part_or_cannot_be_told(other: Scene):
    assert flat_height(other.render()[0], 0.005) is None


def test_neither_an_uneven_table_nor_a_shallow_dome_is_a_flat_part():
    rows, columns = np.mgrid[-1:1:240j, -1:1:320j]
    for rise in (
        0.002 * np.sin(4 * columns) * np.cos(3 * rows),
        0.0045 * np.clip(1 - 2 * (rows**2 + columns**2), 0, 1),
    ):
        z = 0.4 - rise + np.random.default_rng(0).normal(size=rise.shape) * 5e-5
        xyz = np.stack([columns * z * 0.5, rows * z * 0.4, z], axis=-1).astype(np.float32)
        assert flat_height(xyz, 0.005) is None


@pytest.mark.parametrize(
    ("found", "distance"),
    [
        (scene(Box(0, 0, (0.06, 0.06, 0.008), round=True)), 0.002),
        (scene(Box(0, 0, (0.06, 0.06, 0.012)), pitch=60.0), 0.003),
        (scene(Box(0, 0, (0.09, 0.09, 0.002)), Box(0, 0, (0.085, 0.085, 0.016))), 0.004),
        (scene(BOARD, *ON_BOARD), 0.0008),
        (scene(Box(0, 0, (0.06, 0.06, 0.03))), None),
        (scene(Box(0, 0, (0.06, 0.06, 0.008)), noise=0.005), 0.0047),
    ],
    ids=["8 mm", "12 mm at a slant", "16 mm with a foot", "board", "30 mm", "noise of 0.8 mm"],
)
def test_low_parts_are_cut_at_a_quarter_of_their_height(found: Scene, distance: float | None):
    xyz, shown = found.render()
    fitting = fitting_distance(xyz, 0.005)
    assert fitting == (distance and pytest.approx(distance, rel=0.08))
    assert iou(find_part(xyz, plane_distance_m=fitting or 0.005).foreground, xyz, shown) > 0.9


def test_noise_and_an_uneven_table_set_a_lower_bound():
    rows, columns = np.mgrid[-0.06:0.06:120j, -0.08:0.08:160j]
    board = (abs(rows) < 0.02) & (abs(columns) < 0.03)
    uneven = np.where(board, 0.012, 0.002 * np.cos(60 * rows) * np.cos(60 * columns))
    noisy = 0.008 * board + np.random.default_rng(1).normal(size=board.shape) * 5e-4
    for z, least in ((uneven, 0.0033), (noisy, 0.0027)):
        fitting = fitting_distance(height_map(z), 0.005)
        assert fitting is not None
        assert least < fitting < 0.0045
        found = find_part(height_map(z), plane_distance_m=fitting).foreground
        assert (found == board).mean() > 0.99


def boards(folder: Path) -> Path:
    """Write a data set of boards at different places: six to train on, and one marked as broken to test."""
    rng = np.random.default_rng(5)
    for label, count in (("train/good", 6), ("test/broken", 1)):
        for number in range(count):
            x, y = rng.uniform(-0.02, 0.02, 2)
            parts = [replace(box, x=box.x + x, y=box.y + y) for box in (replace(BOARD, yaw=0.0), *ON_BOARD)]
            xyz, shown = scene(*parts, pitch=85.0).render(seed=number)
            xyz[np.isnan(xyz)] = 0
            stem = folder / "board" / label
            captures.save_tiff(stem / "xyz" / f"{number:03}.tiff", xyz)
            captures.save_image(stem / "rgb" / f"{number:03}.png", np.full((*shown.shape, 3), 90, np.uint8))
            if label == "test/broken":
                mask = np.zeros(shown.shape, np.bool_)
                mask[110:114, 150:154] = True
                captures.save_mask(stem / "gt" / f"{number:03}.png", mask)
    return folder


@pytest.fixture
def das3d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process, beside the boards, and return its stderr."""
    boards(tmp_path / "raw")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["das3d", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr().err
        assert int(caught.value.code or 0) == code, told
        return told

    return run


PREPROCESS = ("preprocess", "raw", "out", "--size", "64", "--workers", "1")
TRAIN = ("train", "--gpus", "cpu", "--steps", "2", "--batch-size", "2", "--set", "model.size=32",
         "--set", "synthesis.texture_count=4")  # fmt: skip


def test_a_category_of_boards_is_cut_at_half_their_height(das3d: Callable[..., str]):
    told = (
        "low parts: what is less than 0.8 mm above the table counts as table; if these are mats or trays lower than"
        " 5 mm, use --set preprocess.plane_distance_mm=5: board"
    )
    assert told in das3d(*PREPROCESS)
    cache = open_cache(Path("out"), "board")
    assert cache.manifest.form.plane_distance_m == pytest.approx(0.0008, rel=0.08)
    sample = read_sample(cache.folder / cache.samples("train")[0].path)
    outline, _ = cv2.findContours(sample.foreground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    _, sides, _ = cv2.minAreaRect(max(outline, key=cv2.contourArea))
    assert min(sides) / max(sides) == pytest.approx(0.7, abs=0.06)  # the board's sides, not those of parts on it

    das3d(*TRAIN)
    (run,) = Path("runs").iterdir()
    assert Detector.load(run, "cpu").form.plane_distance_m == cache.manifest.form.plane_distance_m
    assert told not in das3d(*PREPROCESS, "--set", "preprocess.plane_distance_mm=5")
    assert open_cache(Path("out"), "board").manifest.form.plane_distance_m == 0.005
    assert "preprocessed with other settings than this run's training data" in das3d(
        "evaluate", "--gpus", "cpu", code=1
    )


def height_map(z: NDArray[np.float64]) -> NDArray[np.float32]:
    """Points 1 mm apart under parallel rays."""
    rows, columns = np.mgrid[: z.shape[0], : z.shape[1]] * 1e-3
    noise = np.random.default_rng(0).normal(size=z.shape) * 2e-5
    return np.stack([columns, rows, z + noise], axis=-1).astype(np.float32)


@pytest.mark.parametrize("lift", [0.0, 0.3, -0.3])
def test_low_parts_in_height_maps_are_cut_like_others(lift: float):
    rows, columns = np.mgrid[-0.06:0.06:120j, -0.08:0.08:160j]
    board = (abs(rows) < 0.03) & (abs(columns) < 0.04)
    dome = np.clip(0.004 - 2 * (rows**2 + columns**2), 0, None)
    pins = board & (abs(rows) < 0.005) & (abs(columns) < 0.03)
    fitting = {
        name: fitting_distance(height_map(z + lift), 0.005)
        for name, z in {
            "board": 0.0016 * board,
            "thin board": 0.0013 * board,
            "board with pins": 0.0016 * board + 0.01 * pins,
            "dome": dome,
            "block": 0.008 * board,
            "pocket": -0.002 * board,
        }.items()
    }
    assert fitting == {
        "board": pytest.approx(0.0008, rel=0.05),
        "thin board": pytest.approx(0.00065, rel=0.05),
        "board with pins": pytest.approx(0.0008, rel=0.05),
        "dome": pytest.approx(0.001, rel=0.1),
        "block": pytest.approx(0.002, rel=0.05),
        "pocket": None,
    }


def test_depths_under_parallel_rays_are_not_searched_for_parts_lower_than_usual():
    board = np.zeros((120, 160))
    board[30:90, 40:120] = 0.0016
    assert fitting_distance(height_map(0.3 - board), 0.005) is None
    board[30:90, 40:120] = 0.008
    assert fitting_distance(height_map(0.3 - board), 0.005) == pytest.approx(0.002, rel=0.05)


def test_point_clouds_that_take_their_size_from_the_image(das3d: Callable[..., str], tmp_path: Path):
    for file in (tmp_path / "raw").rglob("*.tiff"):
        points = np.asarray(tifffile.imread(file))
        captures.save_ply(file.with_suffix(".ply"), points, size="none")
        file.unlink()
    das3d(*PREPROCESS)
    assert open_cache(Path("out"), "board").manifest.form.plane_distance_m == pytest.approx(0.0008, rel=0.08)
