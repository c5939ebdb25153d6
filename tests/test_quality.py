"""The detection benchmark's own code: packed data is restored, and the tables show what was measured."""

from __future__ import annotations

import csv
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from das3d_cli.data.build import build
from das3d_cli.data.cache import load_split, open_cache
from das3d_cli.data.layouts import find_entries
from das3d_cli.settings import PreprocessSettings

sys.path.insert(0, str(Path(__file__).parent / "quality"))
sys.path.insert(0, str(Path(__file__).parents[1] / "sample_data"))

import btf
import data
import table
from experiments import EARLIER, EXPERIMENTS, PREPARED, STUDIES, cache_of, larger
from generator import __main__ as generator
from jobs import Job, write
from second_generator import scene

from das3d_cli.configure import resolve


def test_every_category_has_parts_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands: list[list[str]] = []
    monkeypatch.setattr(data.subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.setattr(data, "preprocess", lambda *_: None)
    data.make(tmp_path, tmp_path, list(data.CATEGORIES), 1)
    for category, command in zip(data.CATEGORIES, commands, strict=True):
        jobs = generator.plan(category, generator._parser().parse_args(command[2:]))
        found = [(job.split, job.label == "good") for job in jobs]
        assert 60 <= found.count(("train", True)) <= 100 and found.count(("validation", True)) > 0
        assert found.count(("test", True)) >= 20 and found.count(("test", False)) >= 40


def test_larger_test_sets_hold_other_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands: list[list[str]] = []
    written: list[tuple[str, str, int]] = []

    def render(command: list[str], check: bool) -> None:
        commands.append(command)
        (tmp_path / "larger/tire/train/good/rgb").mkdir(parents=True)

    def write(folder: Path, category: str, *part: Any) -> None:
        written.append(part)
        (folder / category / "test").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(data.subprocess, "run", render)
    monkeypatch.setattr(scene, "write", write)
    monkeypatch.setattr(scene, "ProcessPoolExecutor", lambda _: ThreadPoolExecutor(1))
    monkeypatch.setattr(data, "preprocess", lambda *_: None)
    for category in ("tire", "gland"):
        for split in ("train", "validation"):
            (tmp_path / "captures" / category / split / "good").mkdir(parents=True)
    for _ in range(2):  # as if the first call had been interrupted
        written.clear()
        data.make_larger(tmp_path / "captures", tmp_path / "larger", tmp_path / "cache", ["tire", "gland"], 1)
    assert not list((tmp_path / "captures/tire/train/good").iterdir())
    options = commands[0][commands[0].index("--seed") + 1], commands[0][commands[0].index("--test-good") + 1]
    assert options == ("7", "60") and str(data.COUNTS["seed"]) == "1"
    assert {split for split, _, _ in written} == {"test"}
    assert sorted(index for _, label, index in written if label == "good") == list(range(20, 80))
    assert sorted(index for _, label, index in written if label == "hole") == list(range(5, 17))
    assert (tmp_path / "larger/gland/train/good").is_dir() and (tmp_path / "larger/tire/validation").is_symlink()


def test_packed_caches_come_back(shared_dataset: Path, tmp_path: Path):
    build(find_entries(shared_dataset, ["tire"]), tmp_path / "cache", PreprocessSettings(size=64), workers=1)
    data.pack(tmp_path / "cache", ["tire"], tmp_path / "packed.tar")
    data.unpack(tmp_path / "packed.tar", tmp_path / "again")
    for split in ("train", "test"):
        one, other = (load_split(open_cache(tmp_path / name, "tire"), split) for name in ("cache", "again"))
        for name in ("rgb", "foreground", "valid", "ground_truth"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert np.abs(one.depth - other.depth).max() < 1 / 4095
        assert (one.labels, one.names) == (other.labels, other.names)


@pytest.mark.parametrize("name", PREPARED)
def test_another_preprocessing_has_a_cache_of_its_own(shared_dataset: Path, tmp_path: Path, name: str):
    cache = cache_of(name, tmp_path / "cache")
    assert cache != cache_of("das3d", tmp_path / "cache") == tmp_path / "cache"
    data.preprocess(shared_dataset, cache, ["tire"], 1, ["preprocess.size=64", PREPARED[name]])
    made = open_cache(cache, "tire").manifest.settings
    wanted = resolve({}, ["preprocess.size=64", *EXPERIMENTS[name]], environment={}).preprocess
    assert made == wanted != PreprocessSettings(size=64)


def test_a_coreset_takes_the_farthest_first():
    patches = torch.zeros(50, 33)
    patches[7, 3], patches[9, 5] = 100.0, -100.0
    picked = btf.coreset(patches)
    assert len(picked) == 5
    assert {tuple(row.nonzero().flatten().tolist()) for row in picked} >= {(3,), (5,)}


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("preset", ["cpu", "default"])
def test_every_experiment_is_of_settings_that_exist(name, preset):
    resolve({}, list(EXPERIMENTS[name]), environment={}, preset=preset)


def test_studies_show_known_experiments():
    known = {"btf", *EARLIER, *EXPERIMENTS}
    assert {name for study in STUDIES for name in study.experiments} <= {*known, *larger(*known)}


def test_every_row_is_of_a_known_experiment_of_today_or_of_an_earlier_design():
    with (Path(table.__file__).with_name("results.csv")).open(newline="", encoding="utf-8") as file:
        measured = {row["experiment"] for row in csv.DictReader(file)}
    known = {"btf", *EARLIER, *EXPERIMENTS}
    assert measured <= {*known, *larger(*known)}
    assert not set(EARLIER) & set(EXPERIMENTS)


def test_tables_hold_means_over_seeds(tmp_path: Path):
    for experiment, base in (("btf", 0.8), ("das3d", 0.9)):
        for category in data.CATEGORIES:
            for seed in (0, 1):
                value = base + 0.02 * seed
                figures = {"image_auroc": value, "image_ap": value, "pixel_auroc": value, "pixel_ap": value,
                           "aupro_30": value, "samples": 60}  # fmt: skip
                write(Job(experiment, category, seed, "cpu"), tmp_path / "results", {"all": figures}, 1.5, [], "run")
    rows = table.collect(tmp_path / "results", tmp_path / "results.csv")
    assert rows == table.collect(tmp_path / "nothing new", tmp_path / "results.csv")
    text = table.markdown(rows)
    line = next(line for line in text.splitlines() if line.startswith("| das3d"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:7] == ["0.910 ± 0.014 / 0.910 ± 0.014"] * 6  # five categories and their mean
    assert cells[7:] == ["0.910", "1.5", "2"]


def test_a_row_without_all_categories_has_no_mean(tmp_path: Path):
    figures = dict.fromkeys(("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro_30"), 0.8)
    for experiment, categories in (("btf", data.CATEGORIES), ("das3d", data.CATEGORIES[:2])):
        for category in categories:
            for seed in (0, 1) if (experiment, category) == ("das3d", data.CATEGORIES[0]) else (0,):
                job = Job(experiment, category, seed, "cpu")
                write(job, tmp_path / "results", {"all": figures | {"samples": 60}}, 1.5, [], "run")
    text = table.markdown(table.collect(tmp_path / "results", tmp_path / "results.csv"))
    line = next(line for line in text.splitlines() if line.startswith("| das3d"))
    assert [cell.strip() for cell in line.strip("|").split("|")][6:] == ["–", "–", "–", "1 to 2"]


def test_a_finished_job_tells_its_settings(tmp_path: Path):
    job = Job("das3d", "tire", 0, "cpu")
    write(job, tmp_path, {"all": {}}, 0.1, ["train.steps=3"], "tire-001")
    assert json.loads(job.file(tmp_path).read_text())["settings"] == ["train.steps=3"]


def test_parts_of_the_second_generator_are_a_category(tmp_path: Path):
    for split, label in (("train", "good"), ("validation", "good"), ("test", "good"), ("test", "chip")):
        scene.write(tmp_path / "captures", "gland", split, label, 0)
    summary = build(
        find_entries(tmp_path / "captures", ["gland"]), tmp_path / "cache", PreprocessSettings(size=64), workers=1
    )
    assert not summary.failures
    test = load_split(open_cache(tmp_path / "cache", "gland"), "test")
    marked = dict(zip(test.labels, test.ground_truth.sum(axis=(1, 2)).tolist(), strict=True))
    assert marked["good"] == 0 and 0 < marked["chip"] < 0.1 * 64**2
    assert (test.foreground.mean(axis=(1, 2)) > 0.05).all() and (test.foreground.mean(axis=(1, 2)) < 0.9).all()


def test_a_capture_of_the_second_generator_depends_on_its_name_alone(tmp_path: Path):
    for place, name in (("one", "000"), ("other", "000"), ("next", "001")):
        scene.write(tmp_path / place, "plate", "test", "scratch", int(name))
    files = {
        place: [file.read_bytes() for file in sorted((tmp_path / place).rglob("*.*"))]
        for place in ("one", "other", "next")
    }
    assert len(files["one"]) == 3 and files["one"] == files["other"]
    assert all(one != other for one, other in zip(files["one"], files["next"], strict=True))
