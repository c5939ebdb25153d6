"""From the raw folder to tables and verdicts, whatever the layout and with one modality; by the command itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import captures
import cv2
import numpy as np
import pytest
from captures import CAMERA, save_camera, save_image, save_mask, save_tiff
from conftest import render

from das3d_cli.cli import main
from das3d_cli.data.cache import open_cache
from das3d_cli.detector import Detector
from das3d_cli.errors import DataError

TINY = ("--gpus", "cpu", "--steps", "2", "--batch-size", "2", "--set", "model.size=32", "--set", "train.validate_every=2",
        "--set", "model.reconstruction_width=4", "--set", "model.discriminator_width=4",
        "--set", "synthesis.texture_count=4")  # fmt: skip


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


Das3d = Callable[..., Done]


@pytest.fixture
def das3d(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Das3d:
    """Types a command in this process; imports of torch and open3d would cost seconds each time."""

    def run(*arguments: object, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["das3d", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return Done(int(caught.value.code or 0), *capsys.readouterr())

    return run


def ok(done: Done) -> Done:
    assert done.code == 0, done.stderr
    return done


def refused(done: Done, code: int, *parts: str) -> None:
    line = done.stderr.strip().splitlines()[-1]
    assert (done.code, line[:7]) == (code, "error: "), done
    assert [part for part in parts if part not in line] == [], line


def anomalous(folder: Path) -> Path:
    """A copy of the only run's model by which every part is anomalous."""
    from torch import device

    from das3d_cli.engine import checkpoint

    (run,) = (folder / "runs").iterdir()
    content = checkpoint.load(run / "checkpoints/best.pt", device("cpu"))
    checkpoint.save(folder / "strict.pt", content | {"threshold": 0.0})
    return folder / "strict.pt"


@pytest.mark.parametrize(
    ("layout", "write", "kind", "modality"),
    [
        ("eyecandies", captures.eyecandies, "bumps+colors", "both"),
        ("realiad", captures.realiad, "bump", "both"),
        ("mvtec3d", captures.adam, "bump", "depth"),
        ("flat", captures.mvtec, "bump", "rgb"),
        ("flat", lambda folder: captures.pairs(folder / "valve").parent, "bump", "both"),
        ("table", captures.depth_table, "bump", "both"),
    ],
    ids=["eyecandies", "realiad", "folder3d", "images", "pairs", "table"],
)
def test_every_layout_leads_to_a_table(
    tmp_path: Path, das3d: Das3d, layout: str, write: Callable[[Path], Path], kind: str, modality: str
) -> None:
    source = write(tmp_path / "raw")
    done = ok(das3d("preprocess", source, "out", "--size", 32, "--workers", 1, cwd=tmp_path))
    assert f"layout {layout}: " in done.stderr
    ok(das3d("train", "--modality", modality, *TINY, cwd=tmp_path))
    done = ok(das3d("evaluate", "--category", "all", "--out", "table.md", "--json", "--gpus", "cpu", cwd=tmp_path))
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["modality"], set(run["metrics"])) == (modality, {"all", kind})
    tables = (tmp_path / "table.md").read_text(encoding="utf-8")
    for title, figure in (("I-AUROC", "image_auroc"), ("P-AUROC", "pixel_auroc"), ("AUPRO@0.3", "aupro_30")):
        value = run["metrics"]["all"][figure]
        row = next(line for line in tables.splitlines() if f"| {title} |" in line)
        assert ("-" if value is None else f"{value:.3f}") in row, row


class TestImagesAlone:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        captures.mvtec(tmp_path / "mvtec")
        save_image(tmp_path / "part.png", render("ring", seed=7).capture.rgb)
        return tmp_path

    def test_from_folder_to_verdict(self, place: Path, das3d: Das3d) -> None:
        done = ok(das3d("preprocess", "mvtec", "out", "--size", 32, "--workers", 1, cwd=place))
        assert "layout flat: hazelnut/train/good/000.png is there" in done.stderr
        assert "RGB images alone: hazelnut" in done.stderr and "coordinates" not in done.stderr
        row = next(line for line in done.stdout.splitlines() if "train" in line)
        assert row.count(" - ") == 2  # no tilt
        before = sorted(place.rglob("*"))
        for arguments in ((), ("--modality", "both"), ("--modality", "depth")):
            refused(das3d("train", *TINY, *arguments, cwd=place), 2,
                    "out/hazelnut: holds RGB images without point clouds", "use --modality rgb")  # fmt: skip
        refused(das3d("synth-preview", cwd=place), 2, "use --modality rgb")
        assert sorted(place.rglob("*")) == before
        ok(das3d("synth-preview", "--modality", "rgb", "-n", 2, cwd=place))
        ok(das3d("train", "--modality", "rgb", *TINY, cwd=place))
        found = json.loads(ok(das3d("evaluate", "--pictures", "pictures", "--json", "--gpus", "cpu", cwd=place)).stdout)
        assert found["metrics"]["bump"]["samples"] > 0
        assert (place / "pictures/overview.png").stat().st_size > 1000

        assert (
            ok(das3d("predict", "part.png", "--heatmap", "out.png", "--gpus", "cpu", cwd=place)).stdout.split()[1]
            == "score"
        )
        picture, raw = cv2.imread(str(place / "out.png")), cv2.imread(str(place / "part.png"))
        assert picture.shape[0] > raw.shape[0] and picture.shape[1] > raw.shape[1]
        strict = anomalous(place)
        done = ok(das3d("predict", "part.png", "--run", strict, "--gpus", "cpu", cwd=place))
        assert "size unknown, no points measured" in done.stdout
        found = json.loads(
            ok(das3d("predict", "part.png", "--json", "--run", strict, "--gpus", "cpu", cwd=place)).stdout
        )
        assert (found["xyz"], found["rgb"]) == (None, "part.png")
        assert found["defects"][0]["length_mm"] is None and found["defects"][0]["area_mm2"] is None
        save_tiff(place / "part.tiff", render("ring").capture.xyz)
        refused(
            das3d("predict", "part.tiff", "part.png", "--gpus", "cpu", cwd=place), 2, "RGB images alone", "PART.png"
        )
        refused(das3d("predict", "part.tiff", "--gpus", "cpu", cwd=place), 1, "part.tiff: is a TIFF, a PNG")

        detector = Detector.load(strict, "cpu")
        with pytest.raises(DataError, match="needs rgb alone"):
            detector.predict(render("ring").capture.rgb, render("ring").capture.xyz)
        part = render("ring", seed=7).capture.rgb
        assert detector.predict(part).score == found["score"]
        seen = detector.predict(part).sample
        assert seen.foreground.mean() == pytest.approx(96 / 120, abs=0.05)


class TestPointsAlone:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        for name, part in captures.parts().items():
            stem = tmp_path / "scans" / "valve" / name
            save_tiff(stem.parent / f"xyz/{stem.name}.tiff", part.capture.xyz * 1000)
            save_mask(stem.parent / f"gt/{stem.name}.png", part.ground_truth)
        save_tiff(tmp_path / "part.tiff", render("ring", seed=7).capture.xyz * 1000)
        return tmp_path

    def test_from_folder_to_verdict(self, place: Path, das3d: Das3d) -> None:
        done = ok(das3d("preprocess", "scans", "out", "--size", 32, "--workers", 1, cwd=place))
        assert "points alone: valve" in done.stderr
        assert "coordinates taken to be in mm: valve" in done.stderr
        refused(das3d("train", *TINY, cwd=place), 2, "point clouds without RGB images", "use --modality depth")
        ok(das3d("train", "--modality", "depth", *TINY, cwd=place))
        ok(das3d("evaluate", "--gpus", "cpu", cwd=place))
        strict = anomalous(place)
        done = ok(das3d("predict", "part.tiff", "--heatmap", "out.png", "--run", strict, "--gpus", "cpu", cwd=place))
        assert " mm, " in done.stdout
        assert cv2.imread(str(place / "out.png")).std() > 10
        save_tiff(place / "metres.tiff", render("ring", seed=7).capture.xyz)
        refused(das3d("predict", "metres.tiff", "--gpus", "cpu", cwd=place), 1, "metres.tiff: ", "looks like metres")

        detector, xyz = Detector.load(strict, "cpu"), render("ring", seed=7).capture.xyz
        assert detector.needs == "depth"
        assert 5 < detector.predict(None, xyz).defects[0].length_mm < 200
        with pytest.raises(DataError, match="needs xyz"):
            detector.predict(render("ring").capture.rgb)


def test_depth_images_are_judged_by_the_camera_of_the_training(tmp_path: Path, das3d: Das3d) -> None:
    for name, part in captures.parts().items():
        stem = tmp_path / "scans/valve" / name
        save_image(stem.with_suffix(".png"), part.capture.rgb)
        captures.save_depth(stem.with_name(f"{stem.name}_depth.png"), part.capture.xyz)
        if stem.parent.name != "good":
            save_mask(stem.with_name(f"{stem.name}_mask.png"), part.ground_truth)
    save_camera(tmp_path / "scans/valve", fx=CAMERA.fx, scale=1e-4)
    ok(das3d("preprocess", "scans", "out", "--size", 32, "--workers", 1, cwd=tmp_path))
    ok(das3d("train", *TINY, cwd=tmp_path))
    for folder in ("scans", "out"):
        (tmp_path / folder).rename(tmp_path / f"{folder} elsewhere")
    part = render("ring", seed=7).capture
    save_image(tmp_path / "part.png", part.rgb)
    captures.save_depth(tmp_path / "part_depth.png", part.xyz)
    found = json.loads(
        ok(das3d("predict", "part_depth.png", "part.png", "--gpus", "cpu", "--json", cwd=tmp_path)).stdout
    )
    (run,) = (tmp_path / "runs").iterdir()
    xyz = np.stack(
        np.broadcast_arrays(*np.ogrid[:96, :120], np.rint(np.nan_to_num(part.xyz[..., 2]) * 1e4) / 1e4), axis=2
    )
    z = xyz[..., 2]
    points = np.stack([(xyz[..., 1] - 60) / CAMERA.fx * z, (xyz[..., 0] - 48) / CAMERA.fx * z, z], axis=2)
    assert found["score"] == pytest.approx(
        Detector.load(run, "cpu").predict(part.rgb, points.astype(np.float32)).score, abs=1e-4
    )
    refused(das3d("predict", "part_depth.png", "--gpus", "cpu", cwd=tmp_path), 2, "alone is not enough", "PART.png")


def test_eyecandies_parts_without_ground_truth_are_judged(tmp_path: Path, das3d: Das3d) -> None:
    captures.eyecandies(tmp_path / "raw")
    done = ok(
        das3d("preprocess", "raw", "out", "--size", 32, "--workers", 1, "--set", "preprocess.lights=0,5", cwd=tmp_path)
    )
    assert "layout eyecandies: GummyBear/train/data/000_info_depth.yaml is there" in done.stderr
    assert "GummyBear/test_private has no ground truth and is left out" in done.stderr
    manifest = open_cache(tmp_path / "out", "GummyBear").manifest
    assert manifest.counts["train"] == {"good": 6} and manifest.counts["test"] == {"good": 1, "bumps+colors": 1}
    ok(das3d("train", "--modality", "depth", *TINY, cwd=tmp_path))
    private = tmp_path / "raw/GummyBear/test_private/data"
    files = [private / "000_depth.png", private / "000_image_0.png"]
    for given in (files, files[:1]):
        found = json.loads(ok(das3d("predict", *given, "--gpus", "cpu", "--json", cwd=tmp_path)).stdout)
        assert 0 <= found["score"] <= 1
    lone = Path(files[0].rename(tmp_path / "000_depth.png"))
    refused(das3d("predict", lone, "--gpus", "cpu", cwd=tmp_path), 1, "000_depth.png: ")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--layout", "mvtec"], 2, ["--layout", "mvtec"]),
        (["--layout", "eyecandies"], 1, ["raw", "expected <Category>"]),
        (["--set", "preprocess.units=inch"], 2, ["settings.preprocess.units", "inch"]),
        (["--set", "preprocess.lights=0;1"], 2, ["settings.preprocess.lights", "0;1"]),
        (["--set", "preprocess.foreground=border"], 2, ["settings.preprocess.foreground", "needs point clouds"]),
    ],
)
def test_bad_ways_to_read_are_one_line(
    tmp_path: Path, das3d: Das3d, arguments: list[str], code: int, parts: list[str]
) -> None:
    captures.mvtec(tmp_path / "raw")
    refused(das3d("preprocess", "raw", "out", "--workers", 1, *arguments, cwd=tmp_path), code, *parts)
    assert not (tmp_path / "out").exists()
