"""The committed sample data matches its README, and its generator is deterministic and consistent."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1] / "sample_data"
DATA = ROOT / "mvtec3d"
SHAPE = (160, 192)
DEFECTS = {
    "tire": {"bump", "contamination", "cut", "dent", "hole", "missing", "stain"},
    "cookie": {"bump", "chip", "contamination", "crack", "dent", "hole", "stain"},
}
sys.path.insert(0, str(ROOT))

from generator import __main__ as command  # noqa: E402
from generator.defects import KINDS  # noqa: E402
from generator.parts.families import FAMILIES  # noqa: E402
from generator.parts.pose import Pose  # noqa: E402
from generator.scene import capture  # noqa: E402
from generator.sensor import STEP_M  # noqa: E402
from generator.surface import Grid  # noqa: E402
from generator.writer import encode_png  # noqa: E402


def stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def read_png(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image[..., ::-1] if image.ndim == 3 else image, dtype=np.uint8)


@pytest.mark.parametrize("category", DEFECTS)
def test_layout_is_complete(category: str) -> None:
    expected = {("train", "good"): 40, ("validation", "good"): 10, ("test", "good"): 15}
    expected |= {("test", kind): 5 for kind in DEFECTS[category]}
    found = {(path.parent.name, path.name) for path in (DATA / category).glob("*/*")}
    assert found == set(expected)
    for (split, label), count in expected.items():
        folder = DATA / category / split / label
        names = [f"{k:03d}" for k in range(count)]
        kinds = {"rgb", "xyz", "gt"} if split == "test" else {"rgb", "xyz"}
        assert {path.name for path in folder.iterdir()} == kinds
        assert all(stems(folder / kind) == names for kind in kinds)


@pytest.mark.parametrize("category", DEFECTS)
def test_ground_truth_is_small_on_defects_and_empty_on_good_parts(category: str) -> None:
    for path in (DATA / category / "test").glob("*/gt/*.png"):
        mask = read_png(path)
        assert mask.shape == SHAPE
        assert set(np.unique(mask)) <= {0, 255}
        if path.parents[1].name == "good":
            assert not mask.any()
        else:
            assert 12 < (mask > 0).sum() < 0.012 * mask.size, path  # at most 3.3 % of a part that fills a third


@pytest.mark.parametrize("category", DEFECTS)
def test_points_lie_on_the_rays_of_one_pinhole_camera(category: str) -> None:
    """x / z must be linear in the column and y / z in the row, with one focal length for the station."""
    rows, cols = np.indices(SHAPE)
    focal = []
    for path in sorted((DATA / category).glob("*/*/xyz/*.tiff"))[::9]:
        xyz = tifffile.imread(path)
        assert xyz.shape == (*SHAPE, 3)
        assert xyz.dtype == np.float32
        seen = xyz[..., 2] != 0
        assert (xyz[~seen] == 0).all()
        assert 0.005 < 1 - seen.mean() < 0.15
        assert 0.25 < xyz[..., 2][seen].min() < xyz[..., 2].max() < 0.6
        x, y, z = xyz[seen].astype(np.float64).T
        for value, pixel in ((x / z, cols[seen]), (y / z, rows[seen])):
            slope, offset = np.polyfit(pixel, value, 1)
            assert np.abs(value - slope * pixel - offset).max() < 1.1 * STEP_M / z.min()
            focal.append(1 / slope)
    assert np.ptp(focal) < 0.002 * np.mean(focal)


@pytest.mark.parametrize("category", DEFECTS)
def test_parts_stand_on_a_plane_that_tilts_from_capture_to_capture(category: str) -> None:
    tilts = []
    for path in sorted((DATA / category / "train").glob("good/xyz/*.tiff"))[:8]:
        xyz = tifffile.imread(path).astype(np.float64)
        border = np.concatenate([xyz[:10].reshape(-1, 3), xyz[-10:].reshape(-1, 3)])
        border = border[border[:, 2] != 0]
        centre = border.mean(axis=0)
        normal = np.linalg.svd(border - centre, full_matrices=False)[2][2]
        normal *= -np.sign(normal[2])
        height = (xyz[xyz[..., 2] != 0] - centre) @ normal
        assert ((border - centre) @ normal).std() < 0.00015
        assert 0.20 < (height > 0.005).mean() < 0.45
        assert 0.012 < np.percentile(height, 99) < 0.030
        tilts.append(np.degrees(np.arccos(-normal[2])))
    assert max(tilts) < 12
    assert np.ptp(tilts) > 1


def test_no_two_parts_are_alike() -> None:
    images = [read_png(path).astype(int) for path in sorted((DATA / "cookie/train/good/rgb").iterdir())[:6]]
    for k, image in enumerate(images):
        assert image.shape == (*SHAPE, 3)
        assert all(np.abs(image - other).mean() > 3 for other in images[:k])


def test_total_size_stays_below_15_mb() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 14e6
    assert (ROOT / "preview.png").stat().st_size < 400e3


@pytest.mark.parametrize(("category", "label", "index"), [("tire", "missing", 3), ("cookie", "crack", 1)])
def test_committed_capture_is_reproduced(category: str, label: str, index: int) -> None:
    made = capture(category, "test", label, index)
    folder, name = DATA / category / "test" / label, f"{index:03d}"
    np.testing.assert_array_equal(read_png(folder / "rgb" / f"{name}.png"), made.rgb)
    np.testing.assert_array_equal(tifffile.imread(folder / "xyz" / f"{name}.tiff"), made.xyz)
    np.testing.assert_array_equal(read_png(folder / "gt" / f"{name}.png") > 0, made.ground_truth)


def test_files_do_not_depend_on_workers(tmp_path: Path) -> None:
    plan = "--categories cap --train 1 --validation 0 --test-good 1 --per-defect 1 --defects hole --resolution 48x64"
    for workers in ("1", "2"):
        command.main([*plan.split(), "--write-foreground", "--out", str(tmp_path / workers), "--workers", workers])
    first = {path.relative_to(tmp_path / "1"): path for path in (tmp_path / "1").rglob("*.*")}
    assert len(first) == 3 * 3 + 2  # rgb, xyz and foreground of three captures, ground truth in test
    for name, path in first.items():
        assert path.read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_families_and_defects_cover_what_a_benchmark_needs() -> None:
    assert len(FAMILIES) >= 6
    assert len(KINDS) >= 9
    for family in FAMILIES.values():
        assert len(family.defects) >= 7
        assert set(family.defects) <= set(KINDS)


@pytest.mark.parametrize("category", FAMILIES)
def test_every_family_fills_the_picture_and_casts_points(category: str) -> None:
    made = capture(category, "train", "good", 0, resolution=(64, 80))
    assert made.foreground[[0, -1]].sum() + made.foreground[:, [0, -1]].sum() == 0
    rows, cols = np.nonzero(made.foreground)
    assert 0.5 < max(np.ptp(rows), np.ptp(cols)) / 64 < 0.95
    assert (made.xyz[..., 2][made.foreground] > 0).mean() > 0.75
    assert not made.ground_truth.any()


@pytest.mark.parametrize(("label", "in_depth", "in_colour"), [("stain", False, True), ("bump", True, False)])
def test_stain_is_colour_alone_and_bump_is_geometry_alone(label: str, in_depth: bool, in_colour: bool) -> None:
    family = FAMILIES["potato"]
    part = family.make(Pose(0.3, 0.0, 0.0), Grid(50.0, 0.8), np.random.default_rng(0))
    broken = KINDS[label](part, np.random.default_rng(1), 1.0)
    assert bool((part.height != broken.height).any()) == in_depth
    assert bool((part.albedo != broken.albedo).any()) == in_colour


@pytest.mark.parametrize("shape", [(5, 7), (6, 9, 3)])
def test_png_is_read_back_as_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(image))
    np.testing.assert_array_equal(read_png(path), image)


@pytest.mark.parametrize("flag", [["--categories", "spoon"], ["--resolution", "tall"], ["--defects", "rust"]])
def test_wrong_arguments_are_refused(flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main([*flag, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert flag[0] in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
