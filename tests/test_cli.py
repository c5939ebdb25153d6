"""The command as a user runs it: its own process, its exit code, its two output streams."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
import typer

from das3d_cli.commands import heatmaps
from das3d_cli.commands import predict as predict_command
from das3d_cli.commands import preprocess as preprocess_command
from das3d_cli.commands import train as train_command
from das3d_cli.configure import resolve
from das3d_cli.data.cache import open_cache
from das3d_cli.engine import training
from das3d_cli.errors import DataError
from das3d_cli.files import held
from das3d_cli.measure import Defect
from das3d_cli.settings import FIELDS

PACKAGE = Path(__file__).parents[1] / "das3d_cli"
TINY = ("--set", "model.size=64", "--set", "model.reconstruction_width=4", "--set", "model.discriminator_width=4",
        "--set", "train.validate_every=2", "--steps", "4", "--batch-size", "2", "--set", "synthesis.texture_count=8")  # fmt: skip


def das3d(
    *arguments: object, cwd: Path, environment: dict[str, str] | None = None, **streams: object
) -> subprocess.CompletedProcess[str]:
    """Run the command; `NO_COLOR` and a fixed width keep its text the same everywhere."""
    return subprocess.run(
        [sys.executable, "-m", "das3d_cli", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "160"} | (environment or {}),
        check=False,
        text=True,
        timeout=300,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
    )


def ok(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def fails(done: subprocess.CompletedProcess[str], code: int, *parts: str, printed: bool = False) -> None:
    """Check that a command failed with this code and a single error, stderr's last line, which holds all `parts`.

    There must be no traceback, and nothing on stdout unless `printed`.
    """
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and bool(done.stdout) == printed
    *before, line = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and not [other for other in before if "error" in other], done.stderr
    assert [part for part in parts if part not in line] == [], line


@pytest.fixture(scope="module")
def place(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after the README's first two commands, preprocess and train, with files for other commands."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(shared_dataset, folder / "mvtec3d")
    part = folder / "mvtec3d" / "tire" / "test"
    label = min(path.name for path in part.iterdir() if path.name != "good")
    name = min((part / label / "rgb").iterdir()).stem
    shutil.copy(part / label / "rgb" / f"{name}.png", folder / "part.png")
    shutil.copy(part / label / "xyz" / f"{name}.tiff", folder / "part.tiff")
    (folder / "mine").mkdir()
    (folder / "folder.html").mkdir()
    shutil.copy(folder / "part.png", folder / "mine" / "overview.png")
    shutil.copy(folder / "part.png", folder / "mine" / "samples.png")
    (folder / "twice.csv").write_text("xyz,rgb\npart.tiff,part.png\nelsewhere/part.tiff,elsewhere/part.png\n")
    ok(das3d("preprocess", "mvtec3d/", "out/", "--size", 64, cwd=folder))
    ok(das3d("train", "--category", "tire", "--gpus", "cpu", *TINY, cwd=folder))
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """That folder with more runs below set/: of both categories, of another modality, and with another setting."""
    train = ("train", "--runs", "set", "--gpus", "cpu", *TINY)
    ok(das3d(*train, "--category", "all", cwd=place))
    ok(das3d(*train, "--category", "tire", "--modality", "rgb", cwd=place))
    ok(das3d(*train, "--category", "tire", "--set", "synthesis.skew_filter=false", cwd=place))
    return place


class TestMainPath:
    def test_predict_writes_a_heat_map_and_says_which_run_it_used(self, place: Path):
        done = ok(das3d("predict", "part.tiff", "part.png", "--heatmap", "out.png", cwd=place))
        assert "score" in done.stdout and "threshold" in done.stdout
        assert "using runs/tire-001 (tire)" in done.stderr
        raw = cv2.imread(str(place / "part.png"))
        picture = cv2.imread(str(place / "out.png"))
        assert picture.shape[0] > raw.shape[0] and picture.shape[1] > raw.shape[1]

    def test_predict_as_json(self, place: Path):
        found = json.loads(ok(das3d("predict", "part.tiff", "part.png", "--json", cwd=place)).stdout)
        assert found["category"] == "tire" and 0 <= found["score"] <= 1
        assert found["anomalous"] == (found["score"] >= found["threshold"])
        for other in (found["score"], found["score"] + 1e-6):
            call = ("predict", "part.tiff", "part.png", "--json", "--threshold", repr(other))
            judged = json.loads(ok(das3d(*call, cwd=place)).stdout)
            assert (judged["anomalous"], judged["threshold"]) == (other == found["score"], other)
        assert found["notes"] == []
        cloud = tifffile.imread(place / "part.tiff")
        cloud[np.random.default_rng(0).random(cloud.shape[:2]) < 0.8] = 0
        tifffile.imwrite(place / "hardly.tiff", cloud, photometric="rgb")
        hardly = ok(das3d("predict", "hardly.tiff", "part.png", "--json", cwd=place))
        (note,) = json.loads(hardly.stdout)["notes"]
        assert "of the part has no points" in note and f"hardly.tiff: {note}\n" in hardly.stderr
        unusable = das3d("predict", "absent.tiff", "part.png", "--json", cwd=place)
        fails(unusable, 1, "absent.tiff", printed=True)
        told = json.loads(unusable.stdout)
        assert told["anomalous"] is None and told["xyz"] == "absent.tiff"
        assert unusable.stderr.endswith(f"error: {told['error']}\n")

    def test_a_photo_of_another_kind_than_the_trainings_is_told(self, place: Path, tmp_path: Path):
        photo = cv2.imread(str(place / "part.png"))
        cv2.imwrite(str(tmp_path / "part.jpg"), photo)
        (tmp_path / "part.jpg").rename(tmp_path / "part.png")  # the content counts, not the name
        told = ok(das3d("predict", "part.tiff", tmp_path / "part.png", "--json", cwd=place))
        (note,) = json.loads(told.stdout)["notes"]
        assert note.startswith("JPEG, but the photos used in training were PNG.")
        assert f"{tmp_path}/part.png: {note}\n" in told.stderr
        assert "JPEG" not in ok(das3d("predict", "part.tiff", "part.png", cwd=place)).stderr

    def test_exit_code_tells_the_verdict_only_when_asked(self, place: Path, tmp_path: Path):
        from das3d_cli.engine import checkpoint

        content = checkpoint.load(place / "runs/tire-001/checkpoints/best.pt")
        for threshold, code in ((0.0, 4), (1.1, 0)):
            checkpoint.save(tmp_path / "model.pt", content | {"threshold": threshold})
            arguments = ("predict", "part.tiff", "part.png", "--run", tmp_path / "model.pt")
            assert das3d(*arguments, cwd=place).returncode == 0
            assert das3d(*arguments, "--fail-on-anomaly", cwd=place).returncode == code
        assert das3d(*arguments, "--fail-on-note", cwd=place).returncode == 0
        cv2.imwrite(str(tmp_path / "dark.png"), cv2.imread(str(place / "part.png")) // 8)
        dark = ("predict", "part.tiff", tmp_path / "dark.png", "--run", tmp_path / "model.pt", "--fail-on-note")
        assert das3d(*dark, cwd=place).returncode == 5
        checkpoint.save(tmp_path / "model.pt", content | {"threshold": 0.0})
        assert das3d(*dark, "--fail-on-anomaly", cwd=place).returncode == 4
        checkpoint.save(tmp_path / "model.pt", content | {"threshold": 1.1})
        shutil.copy(place / "part.png", tmp_path / "cut.png")
        (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:99])
        assert das3d(*dark[:2], tmp_path / "cut.png", *dark[3:], cwd=place).returncode == 1

    def test_evaluate(self, place: Path, tmp_path: Path):
        done = ok(das3d("evaluate", "--pictures", tmp_path / "pictures", cwd=place))
        assert "I-AUROC" in done.stdout and "all" in done.stdout
        assert (tmp_path / "pictures" / "overview.png").stat().st_size > 1000
        maps = list((tmp_path / "pictures").glob("*/*.npy"))
        report = tmp_path / "report.html"
        found = json.loads(ok(das3d("evaluate", "--json", "--report", report, cwd=place)).stdout)
        assert found["report"] == str(report)
        assert report.read_text(encoding="utf-8").count('class="card"') == len(maps)
        assert len(maps) == found["metrics"]["all"]["samples"] == len(found["verdicts"])

    def test_no_bar_is_drawn_into_a_log_that_takes_colours(self, place: Path, tmp_path: Path):
        done = ok(das3d("preprocess", place / "mvtec3d", tmp_path, "--category", "cookie", "--workers", "1",
                        cwd=place, environment={"FORCE_COLOR": "1"}))  # fmt: skip
        assert "\x1b[?25l" not in done.stderr and "\r" not in done.stderr

    def test_what_cannot_be_written_costs_neither_the_figures_nor_the_other_files(self, place: Path, tmp_path: Path):
        unchecked = "import das3d_cli.files as f; f.check_folder = id; from das3d_cli import cli; cli.main()"
        lost = tmp_path / "gone" / "lost"
        outputs = [
            "--out",
            lost.with_suffix(".md"),
            "--out",
            tmp_path / "kept.md",
            "--report",
            lost.with_suffix(".html"),
        ]
        call = [sys.executable, "-c", unchecked, "evaluate", "--json", *outputs]
        done = subprocess.run(call, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        found = json.loads(done.stdout)
        assert found["metrics"]["all"]["samples"] and found["report"] is None
        assert "| all |" in (tmp_path / "kept.md").read_text()
        told = done.stderr.splitlines()[-2:]
        assert [line.partition(": ")[0] for line in told] == ["failed", "error"]
        assert all("gone" in line and "cannot be written" in line for line in told)

    def test_evaluate_tells_which_parts_were_missed(self, place: Path, tmp_path: Path):
        text = ok(das3d("evaluate", "--out", tmp_path / "x.json", cwd=place)).stdout
        found = json.loads((tmp_path / "x.json").read_text())
        verdicts = {(v["label"], v["name"]) for v in found["verdicts"] if not v["anomalous"] and v["label"] != "good"}
        assert verdicts == {(kind, name) for kind, names in found["missed"].items() for name in names}
        assert set(found["metrics"]) == set(found["intervals"]) == {"all", *found["missed"]}
        good = sum(v["label"] == "good" for v in found["verdicts"])
        missed = f"{len(verdicts)} of {len(found['verdicts']) - good} defective parts missed"
        assert f"{missed}, {len(found['false_alarms'])} of {good} good parts rejected" in text
        assert all(f"missed {kind}: {', '.join(names)}" in text for kind, names in found["missed"].items() if names)

    def test_benchmark(self, place: Path):
        done = ok(das3d("benchmark", "--gpus", "cpu", "--batch-sizes", "2,1", "--repeats", 3, "--json", cwd=place))
        speeds = json.loads(done.stdout)["speeds"]
        assert [speed["batch_size"] for speed in speeds] == [1, 2]
        for speed in speeds:
            assert 0 < speed["p5_ms"] <= speed["latency_ms"] <= speed["p95_ms"]
            seconds = speed["batch_size"] / speed["parts_per_second"]
            assert speed["p5_ms"] * 0.5 < 1000 * seconds < speed["p95_ms"] * 2
        assert 0 < speeds[0]["memory_mb"] <= speeds[1]["memory_mb"] < 2000

    def test_preview_needs_no_training(self, place: Path, tmp_path: Path):
        done = ok(das3d("synth-preview", "--category", "cookie", "-n", 2, "--out", tmp_path / "preview", cwd=place))
        for path in done.stdout.split():
            assert cv2.imread(path).std() > 10

    def test_previews_of_two_categories_lie_side_by_side(self, place: Path):
        written = [
            Path(line)
            for category in ("tire", "cookie")
            for line in ok(das3d("synth-preview", "--category", category, "-n", 1, cwd=place)).stdout.splitlines()
        ]
        assert {path.parent for path in written} == {Path("preview/tire"), Path("preview/cookie")}
        assert all((place / path).is_file() for path in written) and len(set(written)) == 4

    def test_an_interrupted_preprocess_says_how_to_go_on(
        self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("das3d_cli.data.build.build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preprocess_command.run(place / "mvtec3d", tmp_path / "out")
        assert capsys.readouterr().err.endswith("interrupted; give the same command again to continue\n")

    def test_interrupted_training_goes_on(self, place: Path):
        import signal
        import time

        long = [*TINY]
        long[long.index("--steps") + 1] = "2000"
        process = subprocess.Popen(
            [sys.executable, "-m", "das3d_cli", "train", "--category", "tire", *long, "--gpus", "cpu", "--runs", "long"],
            cwd=place, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        metrics = place / "long" / "tire-001" / "metrics.jsonl"
        for _ in range(600):
            if metrics.exists() and metrics.stat().st_size:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=60)
        assert process.returncode == 130, text
        assert "das3d train --resume long/tire-001" in text and "Traceback" not in text
        assert (place / "long/tire-001/checkpoints/last.pt").exists()
        fails(das3d("train", "--resume", "long/tire-001", "--steps", 5, cwd=place), 2, "--resume", "do not give others")
        fails(
            das3d("train", "--resume", "long/tire-001", "--set", "train.lr=1", cwd=place),
            2,
            "train.lr",
            "keeps its own",
        )
        fails(das3d("predict", "part.tiff", "part.png", "--runs", "long", cwd=place), 2, "no finished run here")

    def test_several_categories(self, place: Path):
        done = ok(das3d("train", "--category", "all", "--runs", "many", "--gpus", "cpu", "--json", *TINY, cwd=place))
        found = json.loads(done.stdout)
        assert [summary["category"] for summary in found["finished"]] == ["cookie", "tire"] and found["failed"] == []

    @pytest.mark.parametrize("damaged", ["train/good/*.npz", "manifest.json"])
    def test_a_category_that_fails_stops_no_other(self, place: Path, tmp_path: Path, damaged: str):
        root = Path(shutil.copytree(place / "out", tmp_path / "out"))
        victim = min(root.glob(f"cookie/{damaged}"))
        victim.write_bytes(victim.read_bytes()[:1000])
        arguments = ("--data", root, "--runs", tmp_path / "runs", "--gpus", "cpu", "--json", *TINY)
        done = das3d("train", "--category", "cookie,tire", *arguments, cwd=place)
        found = json.loads(done.stdout)
        assert done.returncode == 1 and [summary["category"] for summary in found["finished"]] == ["tire"]
        assert [(failure["category"], str(victim) in failure["error"]) for failure in found["failed"]] == [
            ("cookie", True)
        ]
        told = done.stderr.splitlines()[-2:]
        assert (
            told[0].startswith(f"failed: cookie: {victim}")
            and told[1] == "1 of 2 trainings failed; the others are finished"
        )
        assert "Traceback" not in done.stderr

    def test_the_unfinished_runs_of_a_folder_go_on(self, place: Path, tmp_path: Path):
        tiny = [text for text in TINY if "=" in text]
        settings = resolve({"train.steps": 4, "train.batch_size": 3}, tiny, None, preset="cpu")
        for category in ("cookie", "tire"):
            training.start(settings, open_cache(place / "out", category), tmp_path / "left", torch.device("cpu"))
        resume = ("train", "--resume", tmp_path / "left", "--gpus", "cpu", "--json")
        with held(tmp_path / "left" / "tire-001", "trains in"):
            done = das3d(*resume, cwd=place, environment={"DAS3D_TRAIN_ACCUMULATE": "3"})  # divides the batch size
        found = json.loads(done.stdout)
        assert done.returncode == 1 and [(one["category"], one["steps"]) for one in found["finished"]] == [
            ("cookie", 4)
        ]
        told = {"run": str(tmp_path / "left" / "tire-001")}
        assert found["failed"] == [told | {"error": f"{told['run']}: another process trains in it; end that one first"}]
        assert [one["run"] for one in json.loads(ok(das3d(*resume, cwd=place)).stdout)["finished"]] == [told["run"]]
        fails(das3d(*resume, cwd=place), 2, "all runs here are finished")

    def test_what_failed_and_what_is_left_at_an_interrupt_is_told(self, capsys: pytest.CaptureFixture[str]):
        def outcomes() -> Iterator[tuple[str, dict[str, str] | DataError]]:
            yield "first", {"run": "runs/first-001"}
            yield "second", DataError("its loss became nan")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_command._collect(outcomes(), ["first", "second", "third"], False, of="category")
        told = capsys.readouterr()
        assert told.out == "runs/first-001\n"
        assert told.err == "failed: second: its loss became nan\nnot finished: third\n"

    def test_an_interrupt_in_the_last_step_begins_no_other(self, capsys: pytest.CaptureFixture[str]):
        begun = []

        def outcomes() -> Iterator[tuple[str, dict[str, object]]]:
            for name in ("first", "second"):
                begun.append(name)
                yield name, {"run": f"runs/{name}-001", "interrupted": True}

        with pytest.raises(KeyboardInterrupt):
            train_command._collect(outcomes(), ["first", "second"], False, of="category")
        told = capsys.readouterr()
        assert (begun, told.out, told.err) == (["first"], "runs/first-001\n", "not finished: second\n")
        only = {"run": "runs/first-001", "interrupted": True}
        train_command._collect([("first", only)], ["first"], False, of="category")  # nothing was left to interrupt

    def test_nothing_but_the_result_goes_to_stdout(self, place: Path):
        done = ok(das3d("train", "--category", "cookie", "--runs", "quiet", "--gpus", "cpu", *TINY, cwd=place))
        assert done.stdout == "quiet/cookie-001\n"
        assert "training cookie" in done.stderr


class TestTables:
    """Tables of a whole data set, and of runs side by side."""

    def test_the_newest_run_of_each_category_and_modality(self, trained: Path, tmp_path: Path):
        names = [tmp_path / f"table.{ending}" for ending in ("json", "tex", "md", "csv")]
        done = ok(das3d("evaluate", "--category", "all", "--runs", "set",
                        *(word for name in names for word in ("--out", name)), cwd=trained))  # fmt: skip
        found = json.loads(names[0].read_text())
        runs = {(record["category"], record["modality"]): record for record in found["runs"]}
        assert {key: record["run"] for key, record in runs.items()} == {
            ("cookie", "both"): "set/cookie-001", ("tire", "both"): "set/tire-003", ("tire", "rgb"): "set/tire-002",
        }  # fmt: skip
        told = done.stderr.splitlines()
        assert "tire: set/tire-003 is the newest of 2 finished runs with --modality both" in told
        assert (
            "the runs in row ours with --modality both differ in their settings: synthesis.skew_filter; use `das3d train --runs` to give"
            " an experiment's runs a folder of their own" in told
        )
        alone = json.loads(ok(das3d("evaluate", "--run", "set/tire-003", "--json", cwd=trained)).stdout)
        assert alone["metrics"] == runs["tire", "both"]["metrics"], "the same code judges one run and many"
        assert (
            found["dataset"] == "MVTec 3D-AD"
            and found["means"][1]["modality"] == "both"
            and found["means"][1]["mean"]["image_auroc"] is None
        )
        for text in (done.stdout, *(name.read_text() for name in names[1:])):
            assert "Table 1: I-AUROC" in text and "Table 2: AUPRO@0.3 (reference)" in text and "ShapeGuided" in text
            assert f"{alone['metrics']['all']['image_auroc']:.3f}".rstrip("0").rstrip(".") in text

    def test_all_seeds_of_a_category_are_averaged(self, trained: Path, tmp_path: Path):
        """tire-001 has another setting than tire-003; tire-004, made here from tire-003, differs only in its seed."""
        for name in ("cookie-001", "tire-001", "tire-003"):
            shutil.copytree(trained / "set" / name, tmp_path / "runs" / name)
        other = Path(shutil.copytree(trained / "set/tire-003", tmp_path / "runs/tire-004"))
        changed = json.loads((other / "settings.json").read_text()) | {"seed": 7}
        (other / "settings.json").write_text(json.dumps(changed))
        content = torch.load(other / "checkpoints/best.pt", weights_only=True)
        content["settings"] = json.dumps(json.loads(content["settings"]) | {"seed": 7})
        torch.save(content, other / "checkpoints/best.pt")
        call = ("evaluate", "--category", "all", "--runs", tmp_path / "runs", "--json")
        done = ok(das3d(*call, "--all-seeds", cwd=trained))
        found = json.loads(done.stdout)
        assert [Path(record["run"]).name for record in found["runs"]] == ["cookie-001", "tire-004", "tire-003"]
        (row,) = found["means"]
        assert (row["method"], row["seeds"]) == ("ours", 2)
        assert (
            f"{tmp_path}/runs/tire-004 is the newest of 3 finished runs" in done.stderr
            and "; 1 more that differ" in done.stderr
        )
        newest = json.loads(ok(das3d(*call, cwd=trained)).stdout)
        assert len(newest["runs"]) == 2 and newest["means"][0]["seeds"] == 1

    def test_several_folders_have_a_row_each(self, trained: Path, tmp_path: Path):
        for name in ("plain", "other"):
            shutil.copytree(trained / "set/tire-003", tmp_path / name / "tire-003")
        call = ("evaluate", "--category", "tire", "--runs", tmp_path / "plain", "--runs", tmp_path / "other")
        done = ok(das3d(*call, "--out", tmp_path / "t.md", cwd=trained))
        assert (
            "| RGB+3D | plain | I-AUROC |" in (tmp_path / "t.md").read_text()
            and "other, RGB+3D: preset " in (tmp_path / "t.md").read_text()
        )
        assert done.stdout.count("ours") == 0

    @pytest.mark.parametrize(
        ("call", "parts"),
        [
            (("--all-seeds",), ["--all-seeds: needs --category"]),
            (("--runs", "set", "--runs", "runs"), ["--runs: several folders need --category"]),
            (("--category", "tire", "--runs", "set", "--runs", "./set/"), ["--runs: a folder is named twice"]),
            (("--category", "tire", "--runs", "set", "--runs", "out/../a/set"), ["--runs: two folders are called set"]),
        ],
    )
    def test_rows_that_nobody_could_tell_apart_are_refused(
        self, trained: Path, call: tuple[str, ...], parts: list[str]
    ):
        fails(das3d("evaluate", *call, cwd=trained), 2, *parts)

    def test_maps_of_the_raw_images_size_for_other_programs(self, trained: Path, tmp_path: Path):
        call = ("evaluate", "--runs", "set", "--maps", tmp_path / "maps")
        done = ok(das3d(*call, "--category", "cookie", "--json", cwd=trained))
        assert json.loads(done.stdout)["maps"] == str(tmp_path / "maps")
        raw = sorted((trained / "mvtec3d/cookie/test").glob("*/rgb/*.png"))
        scores = {f"{v['label']}/{v['name']}": v["score"] for v in json.loads(done.stdout)["runs"][0]["verdicts"]}
        assert len(raw) == len(scores) == len(list((tmp_path / "maps").rglob("*.*")))
        for photo in raw:
            name = f"{photo.parents[1].name}/{photo.stem}"
            found = tifffile.imread(tmp_path / f"maps/cookie/test/{name}.tiff")
            assert found.dtype == np.float32 and found.shape == cv2.imread(str(photo)).shape[:2]
            assert found.max() == pytest.approx(scores[name], rel=0.2) and found.min() >= 0
        # Its own maps are replaced.
        assert ok(das3d(*call, "--category", "cookie", cwd=trained)).stdout.endswith(f"{tmp_path}/maps\n")
        fails(
            das3d(*call, "--category", "tire", cwd=trained),
            2,
            "takes one run per category, but tire has several",
        )
        named = ("evaluate", "--run", "set/tire-001", "--run", "set/tire-003", "--maps", tmp_path / "maps")
        fails(das3d(*named, cwd=trained), 2, "takes one --run at a time, but 2 are given")
        (tmp_path / "other").mkdir()
        (tmp_path / "other/cookie").touch()
        blocked = ("evaluate", "--runs", "set", "--maps", tmp_path / "other", "--category", "cookie")
        fails(das3d(*blocked, cwd=trained), 1, f"{tmp_path}/other/cookie/test/", "cannot be written")
        tifffile.imwrite(tmp_path / f"maps/cookie/test/{name}.tiff", np.zeros((4, 4, 3), np.float32), photometric="rgb")
        fails(
            das3d(*call, "--category", "cookie", cwd=trained),
            2,
            f"would replace {tmp_path}/maps/cookie/test/{name}.tiff",
        )
        assert tifffile.imread(tmp_path / f"maps/cookie/test/{name}.tiff").shape == (4, 4, 3)

    def test_pictures_of_the_run_that_a_category_has(self, trained: Path, tmp_path: Path):
        call = ("evaluate", "--runs", "set", "--pictures", tmp_path / "shown", "--report", tmp_path / "page.html")
        fails(das3d(*call, "--category", "tire", cwd=trained), 2, "2 are picked by --category", "--run set/tire-00")
        assert not (tmp_path / "shown").exists()
        done = ok(das3d(*call, "--category", "cookie", "--json", cwd=trained))
        assert json.loads(done.stdout)["run"] == "set/cookie-001"
        assert (tmp_path / "shown/overview.png").is_file() and (tmp_path / "page.html").is_file()

    def test_a_run_that_cannot_be_evaluated_is_told_and_the_rest_is_shown(self, trained: Path, tmp_path: Path):
        root = Path(shutil.copytree(trained / "out", tmp_path / "out"))
        for path in (root / "cookie/test").rglob("*.npz"):
            path.write_bytes(b"")
        done = das3d("evaluate", "--category", "all", "--runs", "set", "--data", root, "--json", cwd=trained)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert [record["run"] for record in json.loads(done.stdout)["runs"]] == ["set/tire-003", "set/tire-002"]
        (lacking,) = json.loads(done.stdout)["failed"]
        assert lacking["run"].startswith("set/cookie-") and f"{root}/cookie/test/" in lacking["error"]
        failed, told = done.stderr.splitlines()[-2:]
        assert failed.startswith(f"failed: {root}/cookie/test/") and failed.endswith("run das3d preprocess again")
        assert told == "1 of 3 runs could not be evaluated; the tables show the others"
        shutil.rmtree(root / "cookie")
        (cookie,) = (trained / "set").glob("cookie-*")
        done = das3d("evaluate", "--run", cookie, "--run", "set/tire-002", "--data", root, "--json", cwd=trained)
        assert done.returncode == 1 and [one["run"] for one in json.loads(done.stdout)["runs"]] == ["set/tire-002"]
        assert done.stderr.splitlines()[-2].startswith(f"failed: category cookie: not in {root}")

    def test_a_category_without_a_run_is_told_and_the_rest_is_shown(self, place: Path):
        done = ok(das3d("evaluate", "--category", "all", "--json", cwd=place))
        assert "cookie: no finished run in runs" in done.stderr
        assert [record["category"] for record in json.loads(done.stdout)["runs"]] == ["tire"]

    def test_runs_side_by_side(self, trained: Path, tmp_path: Path):
        done = ok(das3d("evaluate", "--run", "set/tire-001", "--run", "set/tire-003", "--out", tmp_path / "x.json",
                        cwd=trained))  # fmt: skip
        assert "synthesis.skew_filter=true" in done.stdout and "synthesis.skew_filter=false" in done.stdout
        found = json.loads((tmp_path / "x.json").read_text())
        assert [record["settings"] for record in found["runs"]] == [{"synthesis.skew_filter": v} for v in (True, False)]


class TestManyParts:
    """`predict --parts`, and the same from a program."""

    @staticmethod
    def spoilt(place: Path, folder: Path) -> Path:
        """A data set's training parts plus a damaged one, first by name, and one without an image, last by name."""
        shutil.copytree(place / "mvtec3d/tire/train/good", folder)
        (folder / "xyz/0-damaged.tiff").write_bytes((place / "part.tiff").read_bytes()[:1000])
        shutil.copy(place / "part.png", folder / "rgb/0-damaged.png")
        shutil.copy(place / "part.tiff", folder / "xyz/alone.tiff")
        return folder

    def test_each_is_judged_as_it_is_alone_and_the_unusable_are_told_of(self, place: Path, tmp_path: Path):
        parts = self.spoilt(place, tmp_path / "parts")
        done = das3d("predict", "--parts", parts, "--json", "--heatmap", tmp_path / "new" / "maps", cwd=place)
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert [line for line in lines if line.startswith("failed: ")] == [lines[1], lines[2]]
        assert "xyz/0-damaged.tiff: damaged" in lines[1] and "rgb/alone.png: no such file" in lines[2]
        first, *found, last = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(Path(part["xyz"]).stem, part["anomalous"]) for part in (first, last)] == [
            ("0-damaged", None),
            ("alone", None),
        ]
        assert [f"failed: {part['error']}" for part in (first, last)] == lines[1:3]
        names = sorted(path.stem for path in (parts / "rgb").iterdir() if path.stem.isdigit())
        assert [Path(part["xyz"]).stem for part in found] == [Path(part["rgb"]).stem for part in found] == names
        assert sorted(path.stem for path in (tmp_path / "new" / "maps").iterdir()) == names
        one = json.loads(ok(das3d("predict", found[1]["xyz"], found[1]["rgb"], "--json", cwd=place)).stdout)
        assert found[1].keys() == one.keys() and found[1]["score"] == pytest.approx(one["score"], abs=1e-5)

    def test_what_nobody_foresaw_in_one_costs_no_other_its_verdict(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        verdict = predict_command._verdict

        def faulty(detector: Any, part: Any, picture: Any) -> Any:
            if part.name == "001":
                raise ZeroDivisionError("of a kind\nthat nobody foresaw")
            return verdict(detector, part, picture)

        monkeypatch.setattr(predict_command, "_verdict", faulty)
        monkeypatch.setattr(predict_command, "_one_thread_each", lambda: None)
        parts, run = place / "mvtec3d/tire/train/good", place / "runs/tire-001"
        with pytest.raises(typer.Exit) as ended:
            predict_command.run(None, None, parts, model=run, gpus="cpu", as_json=True)
        told = capsys.readouterr()
        assert ended.value.exit_code == 1
        records = [json.loads(line) for line in told.out.splitlines()]
        assert [Path(record["rgb"]).stem for record in records if "error" in record] == ["001"]
        assert len(records) == len(list((parts / "rgb").iterdir()))
        assert f"failed: {parts}/xyz/001.tiff: ZeroDivisionError: of a kind that nobody foresaw\n" in told.err

    def test_of_many_defects_only_the_strongest_are_listed(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        verdict = predict_command._verdict
        defects = [Defect(1 - n / 100, n, n, 5.0, 2.0, 8.0) for n in range(11)]

        def scattered(*given: Any) -> Any:
            found, capture = verdict(*given)
            return replace(found, anomalous=True, defects=defects), capture

        monkeypatch.setattr(predict_command, "_verdict", scattered)
        given = place / "part.tiff", place / "part.png"
        predict_command.run(*given, model=place / "runs/tire-001", gpus="cpu")
        first, *listed, last = capsys.readouterr().out.splitlines()
        assert first.startswith("ANOMALOUS") and last == "  and 3 more with lower scores; --json lists all"
        assert [line.split(":")[0] for line in listed] == [f"  defect at row {n}, column {n}" for n in range(8)]
        predict_command.run(*given, model=place / "runs/tire-001", gpus="cpu", as_json=True)
        assert len(json.loads(capsys.readouterr().out)["defects"]) == 11

    def test_what_nobody_foresaw_in_drawing_costs_no_verdict(
        self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        draw = heatmaps.draw

        def faulty(picture: Path, *given: Any) -> None:
            if picture.stem == "001":
                raise ZeroDivisionError("in drawing")
            draw(picture, *given)

        monkeypatch.setattr(heatmaps, "draw", faulty)
        monkeypatch.setattr(predict_command, "_one_thread_each", lambda: None)
        parts, run = place / "mvtec3d/tire/train/good", place / "runs/tire-001"
        with pytest.raises(typer.Exit) as ended:
            predict_command.run(None, None, parts, tmp_path / "maps", model=run, gpus="cpu", as_json=True)
        told = capsys.readouterr()
        assert ended.value.exit_code == 1
        records = {Path(record["rgb"]).stem: record for record in map(json.loads, told.out.splitlines())}
        assert all(isinstance(record["score"], float) for record in records.values())
        assert [name for name, record in records.items() if not record["heatmap"]] == ["001"]
        assert f"failed: {parts}/xyz/001.tiff: ZeroDivisionError: in drawing\n" in told.err

    def test_a_list_of_files_and_its_verdict(self, place: Path, tmp_path: Path):
        from das3d_cli.engine import checkpoint

        content = checkpoint.load(place / "runs/tire-001/checkpoints/best.pt")
        checkpoint.save(tmp_path / "model.pt", content | {"threshold": 0.0})
        (tmp_path / "list.csv").write_text(f"no,rgb,xyz\n1,{place}/part.png,part.tiff\n2,again.png,again.tiff\n")
        for source, copy in (("part.tiff", "part.tiff"), ("part.tiff", "again.tiff"), ("part.png", "again.png")):
            shutil.copy(place / source, tmp_path / copy)
        arguments = ("predict", "--parts", tmp_path / "list.csv", "--run", tmp_path / "model.pt")
        assert ok(das3d(*arguments, cwd=place)).stdout.count("ANOMALOUS") == 2
        assert das3d(*arguments, "--fail-on-anomaly", cwd=place).returncode == 4
        shutil.copy(tmp_path / "again.png", tmp_path / "third.png")
        with (tmp_path / "list.csv").open("a") as file:
            file.write("3,third.png,\n")
        done = das3d(*arguments, "--json", cwd=place)
        verdicts = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 1 and [verdict["anomalous"] for verdict in verdicts] == [True, True, None]
        assert verdicts[2]["error"] == f"{tmp_path}/list.csv: row 4: names no xyz file"
        assert das3d(*arguments, "--fail-on-anomaly", cwd=place).returncode == 1  # an unusable part outranks an anomaly

    def test_parts_are_judged_as_a_program_names_them(self, place: Path, tmp_path: Path):
        for name in ("part.tiff", "part.png"):
            shutil.copy(place / name, tmp_path / name)
        call = [sys.executable, "-m", "das3d_cli", "predict", "--parts", "-", "--json", "--heatmap", tmp_path / "maps"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(call, cwd=place, text=True, bufsize=1, **pipes) as process:
            assert process.stdin and process.stdout and process.stderr
            at_last = threading.Timer(240, process.kill)  # else a missing answer would hang the test
            at_last.start()

            def answer(line: str) -> dict[str, Any]:
                process.stdin.write(f"{line}\n")  # the next line is written only after the answer to this one
                return json.loads(process.stdout.readline())

            process.stdin.write("name,xyz,rgb,category\n")
            first = answer(f"first,{tmp_path}/part.tiff,{tmp_path}/part.png,")
            alone = json.loads(ok(das3d("predict", "part.tiff", "part.png", "--json", cwd=place)).stdout)
            assert first["score"] == pytest.approx(alone["score"], abs=1e-5)
            assert (first["name"], first["heatmap"]) == ("first", str(tmp_path / "maps/first.png"))
            other = sorted((place / "mvtec3d/tire/train/good/xyz").iterdir())[1]
            shutil.copy(other, tmp_path / "part.tiff")
            shutil.copy(other.parents[1] / f"rgb/{other.stem}.png", tmp_path / "part.png")
            again = answer(f"first,{tmp_path}/part.tiff,{tmp_path}/part.png,tire")
            assert again["score"] != first["score"] and again["heatmap"] == first["heatmap"]
            unplaced = answer(f"first,{other},{place}/part.png,")
            assert unplaced["score"] > 0 and unplaced["heatmap"] is None
            assert unplaced["notes"][-1].endswith("is called first too; rename one of them")
            assert "nowhere.tiff: no such file" in answer(f",nowhere.tiff,{place}/part.png,")["error"]
            assert answer('"a,b')["error"].startswith("standard input: row 6: unexpected end of data; look for")
            assert "is of cookie, but the run is for tire" in answer(",a.tiff,a.png,cookie")["error"]
            rest, told = process.communicate()
            at_last.cancel()
        assert process.returncode == 1 and rest == ""
        assert told.splitlines()[-1].startswith("parts: 6; anomalous: 0; ")

    @pytest.mark.parametrize("written", ["", "part.tiff,part.png\n", "xyz\n"])
    def test_a_list_that_is_written_begins_with_the_columns_names(self, place: Path, written: str):
        done = das3d("predict", "--parts", "-", cwd=place, input=written)
        assert (done.returncode, done.stdout) == (1, "")
        assert "standard input: the first line must name the columns xyz and rgb" in done.stderr

    def test_a_list_may_end_before_its_first_part(self, place: Path):
        done = das3d("predict", "--parts", "-", cwd=place, input="xyz,rgb\n")
        assert (done.returncode, done.stdout) == (0, "") and "parts: 0" in done.stderr

    def test_no_earlier_heat_map_passes_for_that_of_a_part_that_fails(self, place: Path, tmp_path: Path):
        shutil.copy(place / "part.png", tmp_path)
        shutil.copy(place / "part.tiff", tmp_path)
        call = ("predict", tmp_path / "part.tiff", tmp_path / "part.png", "--heatmap", tmp_path / "map.png")
        ok(das3d(*call, cwd=place))
        assert (tmp_path / "map.png").is_file()
        (tmp_path / "part.tiff").write_bytes(b"II")
        assert das3d(*call, cwd=place).returncode == 1
        assert not (tmp_path / "map.png").exists()

    def test_from_a_program(self, place: Path):
        from das3d_cli.data.readers import read_capture
        from das3d_cli.detector import Detector
        from das3d_cli.errors import DataError

        detector = Detector.load(place / "runs/tire-001", "cpu")
        good = place / "mvtec3d/tire/train/good"
        files = [(path, good / "xyz" / f"{path.stem}.tiff") for path in sorted((good / "rgb").iterdir())]
        captures = [(c.rgb, c.xyz) for c in (read_capture(*pair) for pair in files)]
        captures[1] = (captures[1][0][:, 2:], captures[1][1][:, 2:])  # of another size
        together = detector.predict_many(captures)
        for capture, found in zip(captures, together, strict=True):
            alone = detector.predict(*capture)
            assert found.anomaly_map.shape == capture[0].shape[:2]
            assert np.allclose(found.anomaly_map, alone.anomaly_map, atol=1e-5)
            assert found.score == pytest.approx(alone.score, abs=1e-5)
        assert detector.predict_many([]) == []
        with pytest.raises(DataError, match=r"captures\[1\]: xyz: every point is missing"):
            detector.predict_many([captures[0], (captures[1][0], 0 * captures[1][1])])
        for odd in (captures[0], [None], [captures[0][:1]], [(*captures[0], None)]):
            with pytest.raises(DataError, match=r"captures\[0\]: must be a pair \(rgb, xyz\)"):
                detector.predict_many(odd)


@pytest.fixture(scope="class")
def outcomes(
    place: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Results of the selected cases of bad input by test name; as many run at a time as there are cores."""
    before = sorted(place.rglob("*"))
    cases = [case for case in request.session.items if case.name.startswith("test_bad_input_is_one_line[")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {case.name: pool.submit(das3d, *case.callspec.params["arguments"], cwd=place) for case in cases}
    assert sorted(place.rglob("*")) == before, "one of them has written something"


class TestUsage:
    def test_help_lists_all_commands(self, tmp_path: Path):
        text = ok(das3d("--help", cwd=tmp_path)).stdout
        assert [
            c for c in ("preprocess", "synth-preview", "train", "evaluate", "benchmark", "predict") if c not in text
        ] == []

    def test_help_of_a_command_shows_the_settings_own_words(self, tmp_path: Path):
        text = " ".join(ok(das3d("train", "--help", cwd=tmp_path, environment={"COLUMNS": "400"})).stdout.split())
        for key in ("train.steps", "seed", "model.modality"):
            assert FIELDS[key].description[1:] in text

    @pytest.mark.parametrize(
        ("arguments", "code", "parts"),
        [
            (["train", "--gpus", "0"], 2, ["--gpus 0", "--gpus cpu"]),
            (["train", "--data", "nowhere", "--gpus", "cpu"], 1, ["nowhere", "das3d preprocess"]),
            (["train", "--category", "tyre", "--gpus", "cpu"], 2, ["tyre", "tire"]),
            (["train", "--gpus", "cpu"], 2, ["cookie, tire", "--category"]),
            (["train", "--set", "train.lr=-1"], 2, ["settings.train.lr", "-1", "--set"]),
            (["train", "--steps", "0"], 2, ["settings.train.steps", "--steps"]),
            (["train", "--config", "absent.toml"], 2, ["absent.toml"]),
            (["train", "--category", "tire", "--gpus", "cpu", "--textures", "nowhere", *TINY], 1, ["nowhere"]),
            (["train", "--category", "tire,tyre", "--gpus", "cpu", *TINY], 2, ["tyre"]),
            (["train", "--set", "model.size=48"], 2, ["model.size (48)", "multiple of 32"]),
            (["train", "--set", "train.clip=inf"], 2, ["settings.train.clip", "finite"]),
            (["train", "--modality", "sound"], 2, ["--modality", "sound"]),
            (["train", "--steps", "many"], 2, ["--steps", "see das3d train --help"]),
            (["train", "--stepps", "3"], 2, ["--stepps"]),
            (["trane"], 2, ["trane"]),
            (["predict", "part.tiff"], 2, ["PART.png"]),
            (["predict", "part.tiff", "--parts", "mvtec3d"], 2, ["--parts mvtec3d", "part.tiff"]),
            (["predict", "--parts", "mvtec3d"], 1, ["mvtec3d", "no part", "NAME.tiff"]),
            (["predict", "--parts", "nowhere"], 1, ["nowhere", "cannot be read"]),
            (["predict", "--parts", "part.png"], 1, ["part.png", "CSV"]),
            (["predict", "--parts", "twice.csv", "--heatmap", "maps"], 2, ["part"]),
            (["train", "--resume", "nowhere"], 1, ["nowhere", "not a run folder"]),
            (["train", "--category", "tire", "--gpus", "cpu", "--runs", "part.png", *TINY], 1, ["part.png"]),
            (["preprocess", "nowhere", "x"], 1, ["nowhere"]),
            (["preprocess", "mvtec3d", "x", "--category", "foam"], 2, ["foam", "cookie, tire"]),
            (["preprocess", "mvtec3d", "mvtec3d/out"], 2, ["mvtec3d/out"]),
            (["preprocess", "out", "mvtec3d"], 2, ["out: is a cache that das3d wrote, not a data set"]),
            (["preprocess", "out", "x"], 2, ["out: is a cache that das3d wrote, not a data set"]),
            (["preprocess", "runs", "x"], 1, ["runs", "train,validation,test"]),
            (["preprocess", "mvtec3d", "part.png"], 1, ["part.png", "cannot be written"]),
            (["evaluate", "--run", "nowhere"], 1, ["nowhere"]),
            (["evaluate", "--data", "nowhere"], 1, ["nowhere"]),
            (["evaluate", "--pictures", "part.png"], 2, ["--pictures part.png: is a file"]),
            (["evaluate", "--pictures", "mine"], 2, ["--pictures mine: would replace mine/overview.png", "choose"]),
            (["evaluate", "--report", "folder.html"], 1, ["folder.html: cannot be written: it is a folder"]),
            (["evaluate", "--report", "part.png"], 2, ["--report part.png", "end in .html"]),
            (["evaluate", "--report", "no/where.html"], 1, ["no/where.html", "there is no folder no"]),
            (["evaluate", "--report", "x.html", "--run", "a", "--run", "b"], 2, ["x.html", "2 are given", "--run a", "again"]),
            (["evaluate", "--run", "runs/tire-001", "--category", "tire"], 2, ["--run", "--category"]),
            (["evaluate", "--category", "tire,cookie"], 2, ["cookie", "das3d train"]),
            (["train", "--category", ","], 2, ["--category", "no name"]),
            (["train", "--category", "all", "--category", "tire"], 2, ["--category: all, tire", "not both"]),
            (["predict", "--parts", "mvtec3d", "--parts", "twice.csv"], 2, ["--parts: takes one value but is given 2 times"]),
            (["train", "--seed", "1", "--seed=2"], 2, ["--seed: takes one value"]),
            (["predict", "--parts", "part.tiff", "--parts", "part.png"], 2, ["--parts: takes one value"]),
            (["train", "--data", "long" * 99], 1, ["longlong: file name too long"]),
            (["evaluate", "--runs", "long" * 99], 1, ["longlong: file name too long"]),
            (["train", "--category", ""], 2, ["after --category is empty", "not set"]),
            (["predict", "--parts", ""], 2, ["after --parts is empty", "not set"]),
            ([""], 2, ["the first argument is empty"]),
            (["evaluate", "--category", "all", "--data", "nowhere"], 1, ["nowhere", "das3d preprocess"]),
            (["evaluate", "--out", "table.doc"], 2, ["table.doc", ".tex"]),
            (["evaluate", "--out", "no/table.md"], 1, ["no/table.md"]),
            (["evaluate", "--out", "twice.csv"], 2, ["--out twice.csv: would replace"]),
            (["evaluate", "--out", "new.md", "--out", "./new.md"], 2, ["new.md: is named twice"]),
            (["evaluate", "--pictures="], 2, ["after --pictures= is empty", "not set"]),
            (["train", "--set=synthesis.textures="], 2, ["textures: is empty"]),
            (["benchmark", "--batch-sizes", "1,none"], 2, ["--batch-sizes 1,none", "1,4,16"]),
            (["benchmark", "--run", "nowhere"], 1, ["nowhere"]),
            (["benchmark", "--batch-sizes", "9000000000", "--gpus", "cpu"], 1, ["creating 9000000000 made-up parts", "--batch-sizes"]),
            (["predict", "part.png", "part.tiff"], 1, ["part.tiff", "swapped"]),
            (["predict", "absent.tiff", "part.png"], 1, ["absent.tiff"]),
            (["predict", "part.tiff", "part.png", "--heatmap", "no/where.png"], 1, ["no/where.png"]),
            (["predict", "part.tiff", "part.png", "--heatmap", "out.jpg"], 2, ["--heatmap out.jpg", "end in .png"]),
            (["predict", "part.tiff", "part.png", "--runs", "mvtec3d"], 2, ["no finished run"]),
            (["predict", "part.tiff", "part.png", "--threshold", "nan"], 2, ["--threshold nan", "above 0 and at most 1"]),
            (["predict", "part.tiff", "part.png", "--threshold", "60"], 2, ["--threshold 60.0", "above 0 and at most 1"]),
            (["predict", "part.tiff", "part.png", "--heatmap", "part.png"], 2, ["--heatmap part.png: is one of the part's own files"]),
            (["synth-preview", "--category", "tire", "--out", "mine"], 2, ["--out mine: would replace mine/samples.png"]),
            (["synth-preview", "--category", "all"], 2, ["choose one"]),
            (["synth-preview", "--category", "tire", "--set", "preprocess.frame=image"], 2, ["frame: set to image", "das3d preprocess"]),
        ],
    )  # fmt: skip
    def test_bad_input_is_one_line(
        self, request: pytest.FixtureRequest, outcomes, arguments: Sequence[str], code: int, parts: Sequence[str]
    ):
        fails(outcomes[request.node.name].result(), code, *parts)

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names of any bytes")
    def test_a_file_that_has_no_valid_text_as_name_is_called_by_it(self, tmp_path: Path):
        script = "import sys; from das3d_cli import cli, console; cli.app = lambda **_: console.result(sys.argv[1]); cli.main()"
        done = subprocess.run([sys.executable, "-c", script, b"caf\xe9.png"], capture_output=True,
                              check=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"})  # fmt: skip
        assert done.stdout == b"caf\xe9.png\n"

    @pytest.mark.parametrize(
        "environment",
        [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
        ids=["encoding", "locale"],
    )
    def test_what_the_terminal_cannot_spell_costs_no_result(self, environment: dict[str, str]):
        script = (
            "from rich.table import Table; from das3d_cli import cli, console;"
            " cli.app = lambda **_: console.show(Table('3.9\\xb0', 'of tilt')); cli.main()"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True,
                              env=os.environ | environment)  # fmt: skip
        assert b"3.9?" in done.stdout and b"of tilt" in done.stdout

    def test_a_name_moves_no_cursor(self, place: Path, tmp_path: Path):
        told = das3d("train", "--config", "a\x1b[2Jb.toml", cwd=tmp_path)
        fails(told, 2, "a?[2Jb.toml")
        (tmp_path / "parts").mkdir()
        for suffix in ("png", "tiff"):
            shutil.copy(place / f"part.{suffix}", tmp_path / f"parts/a\x1b[2J\nb.{suffix}")
        judged = ok(das3d("predict", "--parts", tmp_path / "parts", cwd=place))
        assert "\x1b" not in told.stderr + judged.stderr + judged.stdout
        assert "parts/a?[2J?b.tiff  " in judged.stdout

    def test_environment_reaches_the_settings(self, place: Path):
        fails(das3d("train", cwd=place, environment={"DAS3D_TRAIN_LR": "fast"}), 2, "DAS3D_TRAIN_LR", "fast")


class TestBadCaptures:
    """Files that a camera, a copy or a person may have spoilt."""

    @pytest.mark.parametrize(
        ("change", "part"),
        [
            (lambda xyz, rgb: (np.zeros_like(xyz), rgb), "missing"),
            (lambda xyz, rgb: (xyz[..., 2], rgb), "H x W x 3"),
            (lambda xyz, rgb: ((xyz * 1000).astype(np.int16), rgb), "int16"),
            (lambda xyz, rgb: (np.where(xyz > 0.4, np.inf, xyz).astype(np.float32), rgb), "inf"),
            (lambda xyz, rgb: (xyz[:-2], rgb), "size"),
            (lambda xyz, rgb: (xyz, rgb.astype(np.uint16) * 257), "16"),
            (lambda xyz, rgb: (xyz, np.dstack((rgb, rgb[..., :1]))), "alpha"),
        ],
        ids=["all missing", "2-D", "integer", "inf", "other size", "16-bit", "alpha"],
    )  # fmt: skip
    def test_unusable_values(self, place: Path, tmp_path: Path, change, part: str):
        xyz, rgb = change(tifffile.imread(place / "part.tiff"), cv2.imread(str(place / "part.png")))
        tifffile.imwrite(tmp_path / "bad.tiff", xyz, photometric="minisblack")
        cv2.imwrite(str(tmp_path / "bad.png"), rgb)
        done = das3d("predict", tmp_path / "bad.tiff", tmp_path / "bad.png", "--heatmap", tmp_path / "x.png", cwd=place)
        fails(done, 1, part)
        assert not (tmp_path / "x.png").exists()

    @pytest.mark.parametrize("kind", ["tiff", "png"])
    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_cut_short(self, place: Path, tmp_path: Path, kind: str, share: float):
        files = {name: Path(shutil.copy(place / f"part.{name}", tmp_path)) for name in ("tiff", "png")}
        whole = files[kind].read_bytes()
        files[kind].write_bytes(whole[: int(share * len(whole))])
        fails(das3d("predict", files["tiff"], files["png"], cwd=place), 1, str(files[kind]))

    def test_unusable_captures_are_listed_and_the_rest_goes_on(self, dataset: Path, tmp_path: Path):
        victim = min((dataset / "tire/train/good/xyz").iterdir())
        victim.write_bytes(victim.read_bytes()[:100])
        done = das3d(
            "preprocess", dataset, tmp_path / "out", "--category", "tire", "--size", 64, "--workers", 1, cwd=tmp_path
        )
        assert done.returncode == 1
        assert f"failed: {victim}: " in done.stderr and "Traceback" not in done.stderr
        assert len(list((tmp_path / "out").glob("tire/*/*/*.npz"))) == len(list(dataset.glob("tire/*/*/xyz/*"))) - 1

    def test_who_may_not_read_a_file_is_told_by_its_reader(self, place: Path):
        """Typer would check that itself, and exit as if the call were wrong."""
        call = (
            "import os, sys; os.access = lambda path, mode, **_: mode != os.R_OK\nfrom das3d_cli import cli; cli.main()"
        )
        arguments = ["part.tiff", "part.png", "--run", "runs/tire-001"]
        done = subprocess.run(
            [sys.executable, "-c", call, "predict", *arguments], cwd=place, capture_output=True, text=True, check=False
        )
        assert "score" in ok(done).stdout


def _change_model(run: Path, **changed: object) -> None:
    path = run / "checkpoints" / "best.pt"
    torch.save(torch.load(path, weights_only=True) | changed, path)


class TestBadRuns:
    @pytest.mark.parametrize(
        ("spoil", "part"),
        [
            (lambda run: (run / "checkpoints/best.pt").unlink(), r"best.pt, is gone; restore it"),
            (lambda run: _change_model(run, das3d_format=99), "format 99"),
            (lambda run: _change_model(run, settings='{"unheard_of": 1}'), "do not fit this version"),
            (lambda run: _change_model(run, preprocessing=-1), "another version"),
            (lambda run: (run / "checkpoints/best.pt").write_bytes(b"PK junk"), "not a das3d checkpoint"),
        ],
    )
    def test_unusable_run(self, place: Path, tmp_path: Path, spoil, part: str):
        run = Path(shutil.copytree(place / "runs" / "tire-001", tmp_path / "tire-001"))
        spoil(run)
        fails(das3d("predict", "part.tiff", "part.png", "--run", run, cwd=place), 1, str(run), part)

    def test_corrupted_cache(self, place: Path, tmp_path: Path):
        root = Path(shutil.copytree(place / "out", tmp_path / "out"))
        victim = min(root.glob("tire/test/*/*.npz"))
        victim.write_bytes(victim.read_bytes()[:1000])
        fails(das3d("evaluate", "--data", root, cwd=place), 1, str(victim), "das3d preprocess")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
class TestFullDisk:
    """A limit on the size of files stands in for a full disk."""

    @pytest.mark.parametrize(
        ("arguments", "room"),
        [
            (["preprocess", "mvtec3d", "full", "--category", "tire", "--size", "64", "--workers", "1"], 20_000),
            (["train", "--category", "tire", "--runs", "full", "--gpus", "cpu", *TINY], 100_000),
            (["predict", "part.tiff", "part.png", "--heatmap", "full.png"], 1_000),
            (["evaluate", "--pictures", "full"], 1_000),
            (["synth-preview", "--category", "tire", "-n", "1", "--out", "full"], 1_000),
        ],
        ids=["preprocess", "train", "predict", "evaluate", "synth-preview"],
    )  # fmt: skip
    def test_is_one_line_and_leaves_nothing_half_written(self, place: Path, arguments: Sequence[str], room: int):
        import resource

        before = set(place.rglob("*"))
        done = subprocess.run(
            [sys.executable, "-m", "das3d_cli", *arguments],
            check=False,
            cwd=place,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
        )
        # Verdicts are printed all the same.
        fails(done, 1, "full", "cannot be written", printed=arguments[0] in ("predict", "evaluate"))
        made = [path for path in set(place.rglob("*")) - before if path.is_file()]
        # Small files may stay: a training's settings and the like, or samples that there was room for.
        assert [path for path in made if path.stat().st_size >= room or "tmp" in path.name] == []
        assert [path for path in made if path.suffix == ".png"] == []
        shutil.rmtree(place / "full", ignore_errors=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
class TestFullLog:
    """Standard streams that lead to a full disk or to nobody, or are closed."""

    def test_results_cannot_be_told(self, place: Path):
        with open("/dev/full", "w") as full:
            done = das3d("predict", "part.tiff", "part.png", cwd=place, stdout=full)
        fails(done, 1, "standard output: cannot be written: no space left")

    @pytest.mark.parametrize("call", [["--help"], ["--version"], ["predict", "--help"]])
    def test_nor_help(self, place: Path, call: list[str]):
        with open("/dev/full", "w") as full:
            done = das3d(*call, cwd=place, stdout=full)
        assert (done.returncode, done.stdout) == (1, None)
        assert done.stderr.startswith(
            "error: standard output or a file: cannot be written: no space left on device; free"
        )

    @pytest.mark.parametrize(
        "call",
        [["predict", "part.tiff", "part.png"], ["predict", "--parts", "mine", "--json"], ["evaluate"], ["--version"]],
    )
    def test_a_verdict_that_nobody_gets_is_not_called_a_success(self, place: Path, call: list[str]):
        closing = f"import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'das3d_cli', *{call}])"
        done = subprocess.run([sys.executable, "-c", closing], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "Exception" not in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: standard output: is closed")

    def test_what_is_said_besides_is_not_worth_an_end(self, place: Path):
        with open("/dev/full", "w") as full:
            done = das3d("predict", "part.tiff", "part.png", cwd=place, stderr=full)
        assert done.returncode == 0 and "score" in done.stdout

    def test_nor_is_that_nobody_reads_it(self, place: Path):
        ours, theirs = os.pipe()
        os.close(ours)
        done = das3d("predict", "part.tiff", "part.png", cwd=place, stderr=theirs)
        os.close(theirs)
        assert done.returncode == 0 and "score" in done.stdout

    @pytest.mark.parametrize("closed", [0, 1, 2])
    def test_nothing_takes_the_place_of_a_stream_that_is_closed(self, tmp_path: Path, closed: int):
        script = (
            f"import os; os.close({closed}); import sys; sys.std{('in', 'out', 'err')[closed]} = None\n"
            f"from das3d_cli import cli\n"
            f"def app(**_):\n"
            f"    with open({str(tmp_path / 'data')!r}, 'w') as file: assert file.fileno() > 2, file\n"
            f"    print('result')\n"
            f"    child = 'import sys; sys.stderr.write(str(sys.stdin.fileno()))'\n"
            f"    import subprocess; subprocess.run([sys.executable, '-c', child], check=True)\n"
            f"    raise cli.UsageError('no such caf\\udce9')\n"
            f"cli.app = app\n"
            f"cli.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 2
        assert done.stdout == ("" if closed == 1 else "result\n")
        assert done.stderr == ("" if closed == 2 else "0error: no such caf\\udce9\n")

    def test_the_next_categories_are_trained_all_the_same(self, monkeypatch: pytest.MonkeyPatch):
        trained = []

        def outcomes() -> Iterator[tuple[str, dict[str, str]]]:
            for name in ("first", "second"):
                trained.append(name)
                yield name, {"run": f"runs/{name}-001"}

        with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing it fails too
            monkeypatch.setattr(sys, "stdout", full)
            with pytest.raises(DataError, match="standard output: cannot be written"):
                train_command._collect(outcomes(), ["first", "second"], False, of="category")
        monkeypatch.undo()
        assert trained == ["first", "second"]


class TestReadme:
    TEXT = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")

    def test_linked_files_exist(self):
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", self.TEXT)
        assert links
        assert [link for link in links if not (PACKAGE.parent / link).exists()] == []

    def test_its_commands_take_the_options_that_it_shows(self, tmp_path: Path):
        lines = [line.split("#")[0].split() for line in self.TEXT.splitlines() if line.strip().startswith("das3d ")]
        assert len(lines) >= 5
        for command, *arguments in (line[1:] for line in lines):
            options = [word for word in arguments if word.startswith("--") and word != "--help"]
            if command != "COMMAND":
                text = ok(das3d(command, "--help", cwd=tmp_path)).stdout
                assert [option for option in options if option not in text] == [], command


def imports_of(path: Path) -> set[str]:
    """The das3d_cli modules that a file imports at its top level."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("das3d_cli"):
            found |= (
                {node.module} if node.module != "das3d_cli" else {f"das3d_cli.{alias.name}" for alias in node.names}
            )
    return {name.removeprefix("das3d_cli.") for name in found}


class TestStructure:
    # Lowest layer first; each may import from itself and the layers below it.
    LAYERS = (
        ("errors", "presets", "modality"), ("files", "sources"), ("settings", "configure", "runs"),
        ("data", "device", "memory", "affine", "batch", "contrast", "polar", "registration", "ways", "modes",
         "template", "model", "losses", "synthesis", "scoring", "curves", "metrics", "intervals",
         "measure"),
        ("engine", "detector", "evaluation", "benchmark"), ("report",), ("commands", "cli", "console"), ("__main__",),
    )  # fmt: skip
    PLAIN = ("synthesis", "affine.py", "contrast.py", "polar.py", "registration.py", "ways.py", "modes.py",
             "template.py", "model.py", "losses.py", "scoring.py", "curves.py", "metrics.py",
             "intervals.py", "measure.py", "batch.py", "data", "data/layouts")  # fmt: skip
    # The modules of data/ that may know the settings: they make caches by them and store them there.
    BY_SETTINGS = ("build.py", "cache.py", "common.py")

    def test_imports_point_down(self):
        rank = {name: level for level, names in enumerate(self.LAYERS) for name in names} | {"__version__": 0, "": 0}
        for path in PACKAGE.rglob("*.py"):
            own = path.relative_to(PACKAGE).with_suffix("").parts[0]
            if own == "__init__":
                continue
            above = {name for name in imports_of(path) if rank[name.split(".")[0]] > rank[own]}
            assert not above, f"{path.name} imports from above: {above}"

    def test_numerical_modules_know_no_settings(self):
        for name in self.PLAIN:
            for path in [PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).glob("*.py"):
                assert path.name in self.BY_SETTINGS or "settings" not in imports_of(path), path

    @pytest.mark.parametrize(
        ("command", "heavy"),
        [
            (["--help"], ["torch", "open3d", "cv2", "numpy", "sklearn", "scipy", "pydantic.main"]),
            (["predict", "--help"], ["torch", "open3d", "cv2", "sklearn", "scipy"]),  # its options need the settings
            (["train", "--help"], ["torch", "open3d", "cv2", "sklearn", "scipy"]),
            (["preprocess", "nowhere", "cache"], ["torch", "sklearn", "scipy"]),
        ],
    )
    def test_no_command_waits_for_modules_that_it_does_not_need(self, command: list[str], heavy: list[str]):
        script = f"import sys; sys.argv = ['das3d', *{command}]\nfrom das3d_cli.cli import main\ntry: main()\nexcept SystemExit: pass\n" \
                 f"print([m for m in {heavy} if m in sys.modules])"  # fmt: skip
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip().splitlines()[-1] == "[]"
