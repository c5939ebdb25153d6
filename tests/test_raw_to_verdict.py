"""From raw folders to tables and verdicts on the command line: every layout, and one modality alone."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import captures
import cv2
import numpy as np
import pytest
from captures import CAMERA, save_camera, save_image, save_mask, save_tiff
from conftest import render
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from das3d_cli.cli import main
from das3d_cli.data.cache import open_cache
from das3d_cli.detector import Detector
from das3d_cli.errors import DataError

TINY = ("--gpus", "cpu", "--steps", "2", "--batch-size", "2", "--set", "model.size=32", "--set", "train.validate_every=2",
        "--set", "model.reconstruction_width=4", "--set", "model.discriminator_width=4",
        "--set", "synthesis.texture_count=4")  # fmt: skip


def own_parts(folder: Path) -> Path:
    return captures.pairs(folder / "valve").parent


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


Das3d = Callable[..., Done]


@pytest.fixture
def das3d(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Das3d:
    """Run a command in this process: a new one would spend seconds on importing torch and open3d."""

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


def with_threshold(folder: Path, threshold: float) -> Path:
    """Copy the only run's model with another threshold: at 0 every part is anomalous, above 1 none is."""

    from das3d_cli.engine import checkpoint

    (run,) = (folder / "runs").iterdir()
    content = checkpoint.load(run / "checkpoints/best.pt")
    checkpoint.save(folder / "copy.pt", content | {"threshold": threshold})
    return folder / "copy.pt"


@pytest.mark.parametrize(
    ("layout", "write", "kinds", "modality"),
    [
        ("eyecandies", captures.eyecandies, {"bumps", "colors"}, "both"),
        ("realiad", captures.realiad, {"bump"}, "both"),
        ("mvtec3d", captures.adam, {"bump"}, "depth"),
        ("flat", captures.mvtec, {"bump"}, "rgb"),
        ("flat", own_parts, {"bump"}, "both"),
        ("table", captures.depth_table, {"bump"}, "both"),
    ],
    ids=["eyecandies", "realiad", "folder3d", "images", "pairs", "table"],
)
def test_every_layout_leads_to_a_table(
    tmp_path: Path, das3d: Das3d, layout: str, write: Callable[[Path], Path], kinds: set[str], modality: str
) -> None:
    source = write(tmp_path / "raw")
    done = ok(das3d("preprocess", source, "out", "--size", 32, "--workers", 1, cwd=tmp_path))
    assert f"layout {layout}, " in done.stderr
    ok(das3d("train", "--modality", modality, *TINY, cwd=tmp_path))
    done = ok(das3d("evaluate", "--category", "all", "--out", "table.md", "--json", "--gpus", "cpu", cwd=tmp_path))
    (run,) = json.loads(done.stdout)["runs"]
    assert ("valve: no good parts in the test split" in done.stderr) == (write is own_parts)
    assert (run["modality"], set(run["metrics"])) == (modality, {"all", *kinds})
    tables = (tmp_path / "table.md").read_text(encoding="utf-8")
    for title, figure in (("I-AUROC", "image_auroc"), ("P-AUROC", "pixel_auroc"), ("AUPRO@0.3", "aupro_30")):
        value = run["metrics"]["all"][figure]
        row = next(line for line in tables.splitlines() if f"| {title} |" in line)
        assert ("-" if value is None else f"{value:.3f}") in row, row


def test_a_category_that_was_renamed_is_told(tmp_path: Path, das3d: Das3d) -> None:
    captures.mvtec(tmp_path / "raw")
    again = ("preprocess", "raw", "out", "--size", 32, "--workers", 1)
    assert "also holds" not in ok(das3d(*again, cwd=tmp_path)).stderr
    (tmp_path / "raw/hazelnut").rename(tmp_path / "raw/nut")
    told = "out: also holds hazelnut, which raw does not; remove what is gone or was renamed, and keep what comes from other folders"
    assert told in ok(das3d(*again, cwd=tmp_path)).stderr
    assert told not in ok(das3d(*again, "--category", "nut", cwd=tmp_path)).stderr


def test_captures_that_training_lacks_are_told(tmp_path: Path, das3d: Das3d) -> None:
    damaged = next((own_parts(tmp_path / "raw") / "valve/good").glob("*.tiff"))
    damaged.write_bytes(b"II")
    assert das3d("preprocess", "raw", "out", "--size", 32, "--workers", 1, cwd=tmp_path).code == 1
    told = ok(das3d("train", *TINY, cwd=tmp_path)).stderr
    assert f"valve: captures that could not be preprocessed and are left out: 1 (valve/good/{damaged.name})" in told


class TestImagesAlone:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        captures.mvtec(tmp_path / "mvtec")
        save_image(tmp_path / "part.png", render("ring", seed=7).capture.rgb)
        return tmp_path

    def test_from_folder_to_verdict(self, place: Path, das3d: Das3d) -> None:
        done = ok(das3d("preprocess", "mvtec", "out", "--size", 32, "--workers", 1, cwd=place))
        assert "layout flat, recognised by hazelnut/train/good/000.png" in done.stderr
        assert "only RGB images: hazelnut" in done.stderr and "coordinates" not in done.stderr
        row = next(line for line in done.stdout.splitlines() if "train" in line)
        assert row.count(" - ") == 3  # no missing points, no tilts
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
        strict = with_threshold(place, 0.0)
        done = ok(das3d("predict", "part.png", "--run", strict, "--gpus", "cpu", cwd=place))
        assert "size unknown, because points are missing" in done.stdout
        detector, grey = Detector.load(strict, "cpu"), raw[..., 1]
        assert detector.predict(grey).score == detector.predict(np.repeat(grey[..., None], 3, axis=2)).score
        found = json.loads(
            ok(das3d("predict", "part.png", "--json", "--run", strict, "--gpus", "cpu", cwd=place)).stdout
        )
        assert (found["xyz"], found["rgb"]) == (None, "part.png")
        assert found["defects"][0]["length_mm"] is None and found["defects"][0]["area_mm2"] is None
        save_tiff(place / "part.tiff", render("ring").capture.xyz)
        refused(das3d("predict", "part.tiff", "part.png", "--gpus", "cpu", cwd=place), 2, "only RGB images", "PART.png")
        refused(das3d("predict", "part.tiff", "--gpus", "cpu", cwd=place), 1, "part.tiff: is a TIFF, but a PNG")

        detector = Detector.load(strict, "cpu")
        with pytest.raises(DataError, match="needs rgb without xyz"):
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
        assert "only points: valve" in done.stderr
        assert "coordinates taken to be in mm: valve" in done.stderr
        refused(das3d("train", *TINY, cwd=place), 2, "point clouds without RGB images", "use --modality depth")
        ok(das3d("train", "--modality", "depth", *TINY, cwd=place))
        ok(das3d("evaluate", "--gpus", "cpu", cwd=place))
        strict = with_threshold(place, 0.0)
        done = ok(das3d("predict", "part.tiff", "--heatmap", "out.png", "--run", strict, "--gpus", "cpu", cwd=place))
        assert " mm, " in done.stdout
        assert cv2.imread(str(place / "out.png")).std() > 10
        save_tiff(place / "metres.tiff", render("ring", seed=7).capture.xyz)
        refused(das3d("predict", "metres.tiff", "--gpus", "cpu", cwd=place), 1, "metres.tiff: ", "looks like metres")

        detector, xyz = Detector.load(strict, "cpu"), render("ring", seed=7).capture.xyz
        assert detector.needs == "depth"
        assert 5 < detector.predict(None, xyz).defects[0].length_mm < 200
        assert detector.predict(render("ring", seed=7).capture.rgb, xyz).score == detector.predict(None, xyz).score
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
    refused(das3d("predict", "part_depth.png", "--gpus", "cpu", cwd=tmp_path), 2, "not enough for this run", "PART.png")
    (tmp_path / "camera.json").write_text('{"cx": 60}')  # the one beside the part takes precedence
    refused(das3d("predict", "part_depth.png", "part.png", "--gpus", "cpu", cwd=tmp_path), 1, "camera.json", "fx")
    captures.save_tiff(tmp_path / "part.tiff", points.astype(np.float32))  # a point cloud needs no camera
    again = ok(das3d("predict", "part.tiff", "part.png", "--gpus", "cpu", "--json", cwd=tmp_path)).stdout
    assert json.loads(again)["score"] == pytest.approx(found["score"], abs=1e-4)
    save_camera(tmp_path, fx=CAMERA.fx / 2)
    told = ("part_depth.png: ", "a pixel shows", "its camera is the right one")
    refused(das3d("predict", "part_depth.png", "part.png", "--gpus", "cpu", cwd=tmp_path), 1, *told)


def test_eyecandies_parts_without_ground_truth_are_judged(tmp_path: Path, das3d: Das3d) -> None:
    captures.eyecandies(tmp_path / "raw")
    done = ok(
        das3d("preprocess", "raw", "out", "--size", 32, "--workers", 1, "--set", "preprocess.lights=0,5", cwd=tmp_path)
    )
    assert "layout eyecandies, recognised by GummyBear/train/data/000_info_depth.yaml" in done.stderr
    assert "GummyBear/test_private has no ground truth and is left out" in done.stderr
    manifest = open_cache(tmp_path / "out", "GummyBear").manifest
    assert Counter((one.split, one.label) for one in manifest.samples) == {
        ("train", "good"): 6, ("validation", "good"): 1, ("test", "good"): 1, ("test", "bumps+colors"): 1,
    }  # fmt: skip
    ok(das3d("train", "--modality", "depth", *TINY, cwd=tmp_path))
    private = tmp_path / "raw/GummyBear/test_private/data"
    files = [private / "000_depth.png", private / "000_image_0.png"]
    # The detector judges depth alone, but finds the part by colours too, as in training.
    alone = json.loads(ok(das3d("predict", *files, "--gpus", "cpu", "--json", cwd=tmp_path)).stdout)
    refused(das3d("predict", files[0], "--gpus", "cpu", cwd=tmp_path), 2, "give PART.tiff and PART.png")
    refused(
        das3d("predict", *files, "--heatmap", files[1], "--gpus", "cpu", cwd=tmp_path),
        2,
        "is one of the part's own files",
    )
    private.rename(tmp_path / "private")
    found = json.loads(ok(das3d("predict", "--parts", "private", "--gpus", "cpu", "--json", cwd=tmp_path)).stdout)
    assert (found["xyz"], found["rgb"]) == ("private/000_depth.png", "private/000_image_0.png")
    assert found["score"] == alone["score"]
    refused(das3d("predict", "--parts", "private", "--heatmap", "private", "--gpus", "cpu", cwd=tmp_path), 2,
            "--heatmap private: das3d looks for parts in this folder")  # fmt: skip
    (tmp_path / "private").rename(private)
    lone = Path(files[0].rename(tmp_path / "000_depth.png"))
    refused(das3d("predict", lone, files[1], "--gpus", "cpu", cwd=tmp_path), 1, "000_depth.png: ")


def test_each_type_of_an_eyecandies_part_has_its_row(tmp_path: Path, das3d: Das3d) -> None:
    folder = captures.eyecandies(tmp_path / "raw") / "GummyBear/test_public/data"
    captures.write_eyecandies(folder, "01", render("ring", seed=12))
    captures.write_eyecandies(folder, "11", render("ring", seed=11, defect="stain"), ("colors",))
    marked = cv2.imread(str(folder / "10_mask.png"), cv2.IMREAD_GRAYSCALE)
    marked[50:58, 40:48] = 255  # a defect of no type
    save_image(folder / "10_mask.png", marked)
    ok(das3d("preprocess", "raw", "out", "--size", 32, "--workers", 1, "--set", "preprocess.frame=image", cwd=tmp_path))
    ok(das3d("train", *TINY, cwd=tmp_path))
    lax = with_threshold(tmp_path, 1.1)
    done = ok(das3d("evaluate", "--run", lax, "--pictures", "shown", "--report", "page.html",
                    "--out", tmp_path / "shown" / "table.csv",
                    "--gpus", "cpu", cwd=tmp_path))  # fmt: skip
    found = json.loads((tmp_path / "shown/evaluation.json").read_text())
    counts = {name: metrics["samples"] for name, metrics in found["metrics"].items()}
    assert counts == {"all": 4, "bumps": 1, "colors": 2}
    assert found["missed"] == {"bumps": ["10"], "colors": ["10", "11"]}
    assert "2 of 2 defective parts missed, 0 of 2 good parts rejected" in done.stdout
    assert "missed bumps: 10\n" in done.stdout and "missed colors: 10, 11\n" in done.stdout
    assert "a part with several types" in done.stdout
    assert {(v["label"], v["name"]): v["types"] for v in found["verdicts"]} == {
        ("good", "00"): [], ("good", "01"): [], ("bumps+colors", "10"): ["bumps", "colors"], ("colors", "11"): ["colors"],
    }  # fmt: skip
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0 of 2 defective parts found" in page and page.count('class="card"') == 4
    assert "counts in the row of each" in page

    maps = {name: np.load(next((tmp_path / "shown").glob(f"*/{name}.npy"))) for name in ("00", "01", "10", "11")}
    bumps, colors, marked = (shrunk(folder / f"10_{name}.png") for name in ("bumps_mask", "colors_mask", "mask"))
    assert bumps.any() and colors.any() and (marked & ~bumps & ~colors).sum() > 2
    nothing, stain = np.zeros_like(marked), shrunk(folder / "11_mask.png")
    with (tmp_path / "shown/table.csv").open(encoding="utf-8") as file:
        rows = {row["defect type"]: row for row in csv.DictReader(file) if row["P-AP"] and not row["95 %"]}
    for kind, defects in (
        ("all", {"00": nothing, "01": nothing, "10": marked, "11": stain}),
        ("bumps", {"00": nothing, "01": nothing, "10": bumps}),
        ("colors", {"00": nothing, "01": nothing, "10": colors, "11": stain}),
    ):
        kept = {name: mask | ~marked if name == "10" else ~nothing for name, mask in defects.items()}
        truth, values = (np.concatenate([of[name][kept[name]] for name in defects]) for of in (defects, maps))
        metrics = found["metrics"][kind]
        assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(truth, values), abs=1e-9), kind
        assert metrics["pixel_ap"] == pytest.approx(average_precision_score(truth, values), abs=1e-9), kind
        assert float(rows[kind]["P-AP"]) == pytest.approx(metrics["pixel_ap"], abs=1e-6)


def shrunk(path: Path) -> NDArray[np.bool_]:
    """A raw mask of 96 x 120 pixels, padded to a square and shrunk to 32 x 32 like the whole image."""
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
    square = np.pad(mask, ((12, 12), (0, 0))).astype(np.float32)
    return np.asarray(cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA) >= 0.5)


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


def test_many_odd_captures_are_told_in_few_lines(tmp_path: Path, das3d: Das3d) -> None:
    captures.mvtec(tmp_path / "raw")
    test = next((tmp_path / "raw").glob("*/test"))
    (test / "good").mkdir(exist_ok=True)
    for number in range(25):  # each too dark and of another size: two notes
        cv2.imwrite(str(test / f"good/dark{number}.png"), np.zeros((40, 40, 3), np.uint8))
    done = ok(das3d("preprocess", "raw", "out", "--size", 32, "--workers", 1, cwd=tmp_path))
    assert len([line for line in done.stderr.splitlines() if "dark" in line]) == 20
    assert "30 more notes like these; --json lists all" in done.stderr
    done = ok(das3d("preprocess", "raw", "out", "--size", 32, "--workers", 1, "--json", cwd=tmp_path))
    assert len(json.loads(done.stdout)["notes"]) == 50


def test_parts_that_lie_in_two_ways_are_compared_with_their_like(tmp_path: Path, das3d: Das3d) -> None:
    """Discs and rings stand for the two faces of a part."""
    for number in range(12):
        capture = render("ring" if number % 2 else "disc", seed=number).capture
        save_image(tmp_path / f"mydata/valve/good/{number:03d}.png", capture.rgb)
        save_tiff(tmp_path / f"mydata/valve/good/{number:03d}.tiff", capture.xyz)
    ok(das3d("preprocess", "mydata", "out", "--size", 32, "--workers", 1, cwd=tmp_path))
    told = ok(das3d("train", *TINY, cwd=tmp_path)).stderr
    assert "valve: good parts lie in 2 different ways; each is compared with the mean of those like it" in told
    (run,) = (tmp_path / "runs").iterdir()
    assert Detector.load(run, "cpu").network.mean_parts == 2
    folder = tmp_path / "mydata/valve/good"
    judged = ok(das3d("predict", folder / "000.tiff", folder / "000.png", "--gpus", "cpu", "--json", cwd=tmp_path))
    assert 0 <= json.loads(judged.stdout)["score"] <= 1
