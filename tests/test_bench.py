"""The speed benchmark itself: its references do what they stand for, and its tables show what was measured."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import clock, dsr, growth, peers, plain, ready, steps, table
from torch.utils.flop_counter import FlopCounterMode

from das3d_cli.configure import resolve
from das3d_cli.data.layouts import find_entries
from das3d_cli.data.readers import read_capture
from das3d_cli.metrics import aupro
from das3d_cli.synthesis.augment import augment
from das3d_cli.synthesis.random import ItemRandom

PAPER = resolve({}, ["preset=paper"], environment={})
SIZE, COUNT = 64, 150
CPU = torch.device("cpu")


def _part(size: int = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    foreground = np.hypot(rows - 0.5, columns - 0.5) < 0.4
    depth = np.where(foreground, 0.5, 1).astype(np.float32)
    return rng.random((size, size, 3), dtype=np.float32) * foreground[..., None], depth, foreground


def test_plain_synthesis_makes_the_same_kind_of_defects():
    rgb, depth, foreground = _part()
    textures = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    random = np.random.default_rng(2)
    one = [plain.synthesise(random, rgb, depth, foreground, textures, PAPER) for _ in range(COUNT)]
    tensors = (
        torch.from_numpy(rgb).permute(2, 0, 1).expand(COUNT, -1, -1, -1),
        torch.from_numpy(depth).expand(COUNT, 1, -1, -1),
        torch.from_numpy(foreground).expand(COUNT, 1, -1, -1),
    )
    streams = ItemRandom.of(0, 0, torch.arange(COUNT))
    other = augment(*tensors, torch.from_numpy(textures).permute(0, 3, 1, 2), streams, **PAPER.synthesis.augmentation())
    areas = np.array([made.mask.mean() for made in one]), other.mask.mean(dim=(1, 2, 3)).numpy()
    normal = [(area == 0).mean() for area in areas]
    assert normal[0] == pytest.approx(0.25, abs=0.1) and normal[0] == pytest.approx(normal[1], abs=0.1)  # p_d squared
    assert np.median(areas[0][areas[0] > 0]) == pytest.approx(np.median(areas[1][areas[1] > 0]), rel=0.35)
    bumps = (
        [np.abs(made.depth - depth).max() for made in one],
        (other.depth - tensors[1]).abs().amax(dim=(1, 2, 3)).numpy(),
    )
    deep = [np.mean(values, where=np.asarray(values) > 0) for values in bumps]
    assert deep[0] == pytest.approx(deep[1], rel=0.25)
    for made in one[:20]:
        changed = (np.abs(made.rgb - rgb).max(axis=2) > 0) | (
            np.abs(made.depth - depth) >= PAPER.synthesis.change_threshold
        )
        assert not (changed & (made.mask == 0)).any()


def test_plain_training_learns():
    small = ("model.size=32", "model.template=false", "model.reconstruction_width=8", "model.discriminator_width=4")
    settings = resolve({}, [*small, "train.batch_size=4"], environment={})
    rgb, depth, foreground = _part(32)
    samples = ((rgb * 255).astype(np.uint8)[None], depth[None], foreground[None])
    torch.manual_seed(0)
    loop = plain.Loop(settings, *samples, np.zeros((1, 32, 32, 3), np.uint8), torch.device("cpu"))
    seen = [loop.step() for _ in range(15)]
    assert np.mean(seen[-3:]) < 0.97 * np.mean(seen[:3])


def test_the_network_beside_ours_is_as_large_as_the_published_one():
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        made = dsr.Dsr().eval()(torch.zeros(1, 4, dsr.SIZE, dsr.SIZE))
    assert made.shape == (1, 2, dsr.SIZE, dsr.SIZE)
    assert counter.get_total_flops() == pytest.approx(504e9, rel=0.01)


def test_a_hundred_thresholds_are_near_the_exact_figure():
    rng = np.random.default_rng(0)
    masks = np.zeros((8, 64, 64), bool)
    masks[:4, 10:20, 10:20], masks[2:6, 40:44, 30:50] = True, True
    maps = rng.random(masks.shape, np.float32) + 0.5 * masks
    assert peers.aupro(masks, maps) == pytest.approx(aupro(masks, maps), abs=0.03)
    assert peers.aupro(masks, maps + 2 * masks) == pytest.approx(1, abs=1e-3)


def test_peers_preprocessing_finds_the_part(part):
    if not peers.have_open3d():
        pytest.skip("no Open3D here")
    made = part("disc", missing=0.0)
    rgb, xyz = peers.preprocess(made.capture.rgb, np.nan_to_num(made.capture.xyz))
    found = (xyz != 0).all(axis=2)
    assert found.shape == rgb.shape[:2] == (200, 200)
    image = np.s_[52:148, 40:160]
    assert (found[image] & made.foreground).sum() / (found[image] | made.foreground).sum() > 0.95
    measured = ~np.isnan(made.capture.xyz[..., 2])
    assert (rgb[image][measured & ~made.foreground] == 0).all()


def test_a_table_says_what_was_measured():
    seconds = {"ours": [0.1, 0.3, 0.2], "theirs": [0.8, 3.0, 1.0]}
    text = table.markdown("Head.", [clock.Section("Title", "Text.", clock.times(seconds, against="theirs"))])
    assert "| ours | 200 | 100 to 300 | ms | theirs takes 8.00 times as long (5.00 to 10.0) |" in text
    assert "| theirs | 1000 | 800 to 3000 | ms |  |" in text
    grown = table.markdown("", [clock.Section("", "", clock.growth({"small": [0.1], "large": [0.4]}))])
    assert "| large | 400 |  | ms | 4.00 times the one before |" in grown


def _allocate(megabytes: int):
    return lambda: bytearray(megabytes << 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells a process's peak")
def test_memory_is_what_the_work_itself_needs(monkeypatch):
    held = bytearray(200 << 20)  # by the process before the work starts, so not counted
    monkeypatch.setattr(clock, "ProcessPoolExecutor", lambda *args, **options: ThreadPoolExecutor(1))
    assert clock.peak_megabytes(_allocate, 100) == pytest.approx(100, abs=20) and held


def test_works_take_turns():
    order: list[str] = []
    found = clock.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(seconds) for seconds in found.values()] == [2, 2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ready.make_cache(tmp_path_factory.mktemp("bench") / "cache")


def test_a_training_is_measured_from_all_sides(cache: Path):
    rows = {row.what: row for row in steps.steps(cache, "cpu", CPU, 1, "model.size=64", "train.batch_size=2").rows}
    assert all(np.isfinite(value) and value > 0 for row in rows.values() for value in row.values)
    assert {"synthesis", "training step", "one pass over 40 parts", "synthesis in the step"} <= set(rows)
    assert rows["memory of a training step beyond data, weights and textures"].unit == "MB"


def test_growth_is_measured(cache: Path, tmp_path: Path):
    sections = (growth.costs(tmp_path, cache, 1, quick=True), growth.network_costs(cache, CPU, 1, quick=True))
    rows = {row.what: row for section in sections for row in section.rows}
    assert {"preprocessing, 200 px", "training step of 4, 128 px", "the template of 40 parts"} <= set(rows)
    assert all(value > 0 for row in rows.values() for value in row.values)


def test_the_models_that_are_timed_load_and_judge(
    shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "SAMPLES", shared_dataset)
    models = ready.make_models(ready.make_cache(tmp_path / "cache"), tmp_path)
    assert models.keys() == set(ready.PRESETS)
    part = find_entries(shared_dataset, [ready.CATEGORY]).entries[0]
    capture = read_capture(part.rgb, part.xyz)
    for model in models.values():
        assert ready.load(model, CPU).predict(capture.rgb, capture.xyz).anomalous
