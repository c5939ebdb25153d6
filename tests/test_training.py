"""Repeatable and resumable training that is strict about its inputs, and the detector it produces."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import json
import math
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import captures
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from das3d_cli import losses, runs
from das3d_cli.batch import Batch, Parts
from das3d_cli.commands.train import _lacking, _told
from das3d_cli.configure import resolve
from das3d_cli.data.build import build
from das3d_cli.data.cache import Cache, load_split, open_cache
from das3d_cli.data.capture import RawCapture
from das3d_cli.data.layouts import find_entries
from das3d_cli.detector import Detector
from das3d_cli.device import choose
from das3d_cli.engine import checkpoint, distributed, samples, training
from das3d_cli.engine.feed import Feed, batch_indices, placed
from das3d_cli.engine.samples import Data
from das3d_cli.engine.trainer import Trainer, learning_rate, loss_terms, total_loss
from das3d_cli.engine.validation import validate
from das3d_cli.errors import DataError, UsageError
from das3d_cli.evaluation import Outcome, evaluate_detector
from das3d_cli.model import Output
from das3d_cli.report.page import write_page
from das3d_cli.scoring import Scored, fewest_parts, good_threshold, judging, score, threshold_scores
from das3d_cli.settings import LossSettings, PreprocessSettings
from das3d_cli.template import Template

CPU = torch.device("cpu")
TINY = ["model.size=64", "model.reconstruction_width=4", "model.discriminator_width=4", "train.steps=6", "train.batch_size=2",
        "train.validate_every=3", "train.validation_defects=2", "synthesis.texture_count=8"]  # fmt: skip


def settings(*more: str):
    return resolve({}, [*TINY, *more], environment={})


@pytest.fixture(scope="module")
def cache_root(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    build(find_entries(shared_dataset), root, PreprocessSettings(size=64), workers=1)
    return root


@pytest.fixture(scope="module")
def cache(cache_root: Path) -> Cache:
    return open_cache(cache_root, "tire")


def ignore(step: int, values: dict[str, float]) -> None:
    pass


def trained(cache: Cache, base: Path, *more: str) -> Trainer:
    trainer = training.start(settings(*more), cache, base, CPU)
    training.finish(trainer, ignore)
    return trainer


@pytest.fixture(scope="module")
def finished(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return trained(cache, tmp_path_factory.mktemp("runs"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path)["network"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class TestRun:
    def test_folder_holds_everything_that_explains_it(self, finished: Trainer):
        run = finished.run
        assert run.name == "tire-001"
        assert json.loads((run / "settings.json").read_text())["train"]["steps"] == 6
        assert json.loads((run / "environment.json").read_text())["packages"]["torch"]
        assert json.loads((run / "summary.json").read_text())["category"] == "tire"
        records = runs.read_metrics(run)
        assert [record["step"] for record in records if "validation" in record] == [3, 6]
        assert all(math.isfinite(record["loss"]) for record in records if "loss" in record)

    def test_repeats_bit_for_bit(self, finished: Trainer, cache: Cache, tmp_path: Path):
        again = trained(cache, tmp_path)
        assert same(weights(finished.run / "checkpoints/last.pt"), weights(again.run / "checkpoints/last.pt"))

    def test_seed_matters(self, finished: Trainer, cache: Cache, tmp_path: Path):
        other = trained(cache, tmp_path, "seed=1")
        assert not same(weights(finished.run / "checkpoints/last.pt"), weights(other.run / "checkpoints/last.pt"))

    def test_steps_and_seeds_draw_others_and_places_their_own(self, finished: Trainer):
        """Independently of what else the seed changes, such as the order of the parts."""
        data, s = finished.data, finished.settings
        batch, places = data.train.pick(torch.tensor([0, 0])), torch.arange(2)

        def made(step: int, seed: int = 0) -> torch.Tensor:
            other = s.model_copy(update={"seed": seed})
            normal, augmented = samples.synthesised(batch, places, step, data.textures, other, 0.0, compared=True)
            return torch.cat((normal.rgb, augmented.rgb))

        one = made(3)
        assert torch.equal(one, made(3))
        assert not torch.equal(one, made(4)) and not torch.equal(one, made(3, seed=1))
        assert not torch.equal(one[0], one[1]) and not torch.equal(one[2], one[3])

    @pytest.mark.parametrize("modality", ["both", "depth", "rgb"])
    def test_added_material_is_a_defect_where_it_can_be_seen(self, finished: Trainer, modality: str):
        data, s = finished.data, finished.settings
        s = s.model_copy(update={
            "synthesis": s.synthesis.model_copy(update={"added_share": 1.0}),
            "model": s.model.model_copy(update={"modality": modality}),
        })  # fmt: skip
        batch = data.train.pick(torch.arange(4))
        normal, made = samples.synthesised(batch, torch.arange(4), 0, data.textures, s, normal_share=1.0, compared=True)
        added = made.foreground & ~normal.foreground
        assert added.flatten(1).any(dim=1).all() == (modality != "rgb")
        assert torch.equal(made.mask > 0, added) and made.refined[added].all()
        assert torch.equal(made.depth != normal.depth, added & (made.depth != normal.depth))

    def test_added_material_that_a_defect_pierces_leaves_nothing_to_find(self, finished: Trainer):
        data, s = finished.data, finished.settings
        changed = {"added_share": 1.0, "pierced_share": 1.0, "blob_radius_max": 0.3, "defects": 3}
        s = s.model_copy(update={"synthesis": s.synthesis.model_copy(update=changed)})
        batch = data.train.pick(torch.arange(48) % len(data.train.depth))
        normal, made = samples.synthesised(
            batch, torch.arange(48), 0, data.textures, s, normal_share=0.0, compared=True
        )
        grown = samples.synthesised(batch, torch.arange(48), 0, data.textures, s, normal_share=1.0, compared=True)[1]
        bare = ~(made.foreground | normal.foreground)
        assert (grown.foreground & bare).any()
        assert not made.mask[bare].any() and not made.refined[bare].any()
        assert made.mask[made.foreground & ~normal.foreground].all()

    @pytest.mark.parametrize(
        ("modality", "compared"), [("both", False), ("depth", False), ("both", True), ("rgb", False)]
    )
    def test_pieces_are_broken_off_parts_without_a_mean_part(self, finished: Trainer, modality: str, compared: bool):
        data, s = finished.data, finished.settings
        s = s.model_copy(update={
            "synthesis": s.synthesis.model_copy(update={"added_share": 0.0, "cut_share": 1.0}),
            "model": s.model.model_copy(update={"modality": modality}),
        })  # fmt: skip
        batch = data.train.pick(torch.arange(16) % 4)
        normal, made = samples.synthesised(batch, torch.arange(16), 0, data.textures, s, 1.0, compared=compared)
        missing = normal.foreground & ~made.foreground
        assert missing.any() == (modality != "rgb" and not compared)
        assert torch.equal(made.mask > 0, missing) and made.refined[missing].all()

    def test_grey_parts_get_grey_defects(self, shared_dataset: Path, tmp_path: Path):
        shutil.copytree(shared_dataset / "tire", tmp_path / "raw/tire")
        for photo in (tmp_path / "raw").rglob("rgb/*.png"):
            cv2.imwrite(str(photo), cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE))
        build(find_entries(tmp_path / "raw"), tmp_path / "out", PreprocessSettings(size=64), workers=1)
        s, grey = settings("synthesis.dropout=0", "synthesis.added_share=0.5"), open_cache(tmp_path / "out", "tire")
        data = samples.load_data(s, grey, CPU)
        batch = data.train.pick(torch.arange(16) % 4)
        normal, made = samples.synthesised(
            batch, torch.arange(16), 0, data.textures, s, normal_share=0.0, compared=True
        )
        for images in (normal.rgb, made.rgb):
            assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 1], images[:, 2])
        changed = ((made.rgb - normal.rgb).abs() > 0.05).any(dim=1, keepdim=True)
        assert changed.any() and made.mask[changed].mean() > 0.9

    def test_another_seed_begins_with_another_network(self, cache: Cache, tmp_path: Path):
        begun = [training.start(settings(f"seed={seed}"), cache, tmp_path, CPU).network for seed in (0, 1, 0)]
        first, other, again = (dict(network.named_parameters()) for network in begun)
        assert all(torch.equal(first[name], again[name]) for name in first)
        convolution = next(name for name in first if first[name].ndim == 4)
        assert not torch.equal(first[convolution], other[convolution])

    def test_the_optimiser_heeds_its_settings(self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        clipped = []
        clip = torch.nn.utils.clip_grad_norm_
        monkeypatch.setattr(
            "torch.nn.utils.clip_grad_norm_", lambda weights, most: clipped.append(most) or clip(weights, most)
        )
        trainer = trained(cache, tmp_path, "train.weight_decay=0.03", "train.clip=0.7", "train.steps=2")
        assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.03]
        assert clipped == [0.7, 0.7]

    @pytest.mark.parametrize(
        ("where", "call"),
        [
            ("torch.nn.utils.clip_grad_norm_", 2),
            ("das3d_cli.engine.trainer.validate", 1),
            ("das3d_cli.engine.samples.augment_often", 5),
        ],
    )
    def test_interrupted_and_resumed_equals_uninterrupted(
        self,
        finished: Trainer,
        cache: Cache,
        cache_root: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        where: str,
        call: int,
    ):
        """Ctrl-C arrives in the middle of a step or of a validation."""
        trainer = training.start(settings(), cache, tmp_path, CPU)
        module, name = where.rsplit(".", 1)
        original = getattr(importlib.import_module(module), name)
        calls = []

        def interrupted(*arguments, **options):
            calls.append(1)
            if len(calls) == call:
                signal.raise_signal(signal.SIGINT)
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                training.finish(trainer, ignore)
        assert not (trainer.run / "summary.json").exists()
        resumed = training.resume(trainer.run, cache_root, CPU)
        assert 0 < resumed.step < 6
        training.finish(resumed, ignore)
        for file in ("last.pt", "best.pt"):
            assert same(weights(finished.run / "checkpoints" / file), weights(resumed.run / "checkpoints" / file))
        assert resumed.best == finished.best
        records = [runs.read_metrics(trainer.run) for trainer in (finished, resumed)]
        assert [r["validation"] for r in records[0] if "validation" in r] == [
            r["validation"] for r in records[1] if "validation" in r
        ]

    def test_interrupt_in_the_last_validation_still_finishes(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        trainer = training.start(settings("train.steps=1"), cache, tmp_path, CPU)
        from das3d_cli.engine import trainer as module

        original = module.validate

        def interrupted(*arguments):
            signal.raise_signal(signal.SIGINT)
            return original(*arguments)

        monkeypatch.setattr(module, "validate", interrupted)
        training.finish(trainer, ignore)
        assert trainer.interrupted
        assert Detector.load(trainer.run, "cpu").category == "tire"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_changed_cache_is_not_resumed_with(
        self, cache: Cache, cache_root: Path, shared_dataset: Path, tmp_path: Path
    ):
        trainer = training.start(settings(), cache, tmp_path, CPU)
        trainer.save_state()
        moved = trainer.run.rename(tmp_path / "my favourite run")
        assert training.resume(moved, cache_root, CPU).identity["category"] == "tire"
        fewer = Path(shutil.copytree(shared_dataset, tmp_path / "fewer"))
        for kind in ("rgb", "xyz", "gt"):
            min((fewer / "tire/train/good" / kind).iterdir()).unlink()
        build(find_entries(fewer), tmp_path / "out", PreprocessSettings(size=64), workers=1)
        with pytest.raises(DataError, match="changed since"):
            training.resume(moved, tmp_path / "out", CPU)

    def test_nor_is_one_whose_parts_are_divided_otherwise(self, cache: Cache):
        samples = list(cache.manifest.samples)
        last = max(place for place, record in enumerate(samples) if record.split == "train")
        samples[last] = samples[last].model_copy(update={"split": "validation"})
        moved = dataclasses.replace(cache, manifest=cache.manifest.model_copy(update={"samples": samples}))
        assert training.identity(moved)["samples"] != training.identity(cache)["samples"]

    def test_made_up_textures_may_differ_from_processor_to_processor(
        self, cache: Cache, cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = training.start(settings(), cache, tmp_path, CPU).run
        made = samples.procedural_textures
        monkeypatch.setattr(samples, "procedural_textures", lambda *arguments: made(*arguments) ^ 1)
        assert training.resume(run, cache_root, CPU).step == 0

    def test_its_folder_is_claimed_before_anyone_can_take_it_for_a_run(self, cache: Cache, tmp_path: Path):
        found: list[tuple[bool, list[Path]]] = []
        run = training.start(
            settings(), cache, tmp_path, CPU, lambda run: found.append((run.is_dir(), list(run.glob("*.json"))))
        ).run
        assert found == [(True, [])] and (run / "settings.json").is_file()

    @pytest.mark.parametrize("failing", ["_write_settings", "Trainer"])
    def test_one_that_ends_before_its_first_checkpoint_leaves_nothing(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ):
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(training, failing, interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.start(settings(), cache, tmp_path, CPU)
        assert not list(tmp_path.iterdir())

    def test_settings_of_preprocessing_must_be_those_of_the_cache(self, cache: Cache, tmp_path: Path):
        with pytest.raises(UsageError, match=r"settings\.preprocess\.frame: set to image.*made with part"):
            training.start(settings("preprocess.frame=image"), cache, tmp_path, CPU)
        assert not list(tmp_path.iterdir())

    def test_test_split_is_never_read(self, cache_root: Path, tmp_path: Path):
        root = Path(shutil.copytree(cache_root, tmp_path / "cache"))
        shutil.rmtree(root / "tire" / "test")
        trained(open_cache(root, "tire"), tmp_path / "runs")

    def test_without_validation_split_part_of_train_is_held_out(self, cache: Cache):
        samples = [record for record in cache.manifest.samples if record.split != "validation"]
        lacking = Cache(cache.folder, cache.manifest.model_copy(update={"samples": samples}))
        whole, data = training.load_data(settings(), cache, CPU), training.load_data(settings(), lacking, CPU)
        assert len(data.validation) >= 1
        assert len(data.train) + len(data.validation) == len(whole.train)
        kept = {tensor.numpy().tobytes() for tensor in data.train.depth}
        assert not any(tensor.numpy().tobytes() in kept for tensor in data.validation.depth)

    def test_no_part_is_held_out_and_trained_on_under_another_light(self, tmp_path: Path):
        captures.realiad(tmp_path / "raw")
        layout = find_entries(tmp_path / "raw", lights=["L05", "L01"])
        build(layout, tmp_path / "out", PreprocessSettings(size=64), workers=1)
        for seed in range(4):
            data = training.load_data(settings(f"seed={seed}"), open_cache(tmp_path / "out", "fuse_holder"), CPU)
            kept, held = ([depth.numpy().tobytes() for depth in parts.depth] for parts in (data.train, data.validation))
            assert (len(kept), len(held)) == (4, 2)
            assert len({*held}) == 1 and not {*held} & {*kept}

    def test_diverging_loss_stops_with_a_message(self, cache: Cache, tmp_path: Path):
        trainer = training.start(settings("train.steps=20"), cache, tmp_path, CPU)
        with torch.no_grad():
            next(trainer.network.parameters()).fill_(float("nan"))
        with pytest.raises(DataError, match=r"loss became nan.*train\.lr"):
            training.finish(trainer, ignore)

    @pytest.mark.parametrize("modality", ["rgb", "depth"])
    def test_one_modality(self, cache: Cache, tmp_path: Path, modality: str):
        trainer = trained(cache, tmp_path, f"model.modality={modality}")
        split = load_split(cache, "test")
        detector = Detector.load(trainer.run, "cpu")
        changed = {"rgb": split.depth * 0.5, "depth": split.rgb // 2}[modality]
        given = {"rgb": (split.rgb, changed), "depth": (changed, split.depth)}[modality]
        before = detector.score(*split.inputs).scores
        assert np.array_equal(before, detector.score(*given, split.foreground, split.parallax).scores)

    def test_paper_preset_runs(self, shared_dataset: Path, tmp_path: Path):
        paper = resolve({}, ["preset=paper", *TINY, "train.steps=2", "train.validate_every=2"], environment={})
        assert paper.model.stem == 1 and not paper.model.direct_inputs
        build(
            find_entries(shared_dataset, ["tire"]),
            tmp_path,
            paper.preprocess.model_copy(update={"size": 64}),
            workers=1,
        )
        trainer = training.start(paper, open_cache(tmp_path, "tire"), tmp_path / "runs", CPU)
        training.finish(trainer, ignore)
        evaluate_detector(Detector.load(trainer.run, "cpu"), tmp_path)

    def test_size_that_does_not_divide_the_cache(self, cache: Cache, tmp_path: Path):
        with pytest.raises(
            UsageError, match=r"96 does not divide the cache's 64 pixels; use 64, or preprocess with --size 96"
        ):
            training.start(settings("model.size=96"), cache, tmp_path, CPU)
        assert not list(tmp_path.iterdir())

    def test_resuming_what_cannot_be_resumed(self, finished: Trainer, cache_root: Path, tmp_path: Path):
        with pytest.raises(UsageError, match="is finished"):
            training.resume(finished.run, cache_root, CPU)
        with pytest.raises(DataError, match="not a run folder"):
            training.resume(tmp_path, cache_root, CPU)
        fresh = Path(shutil.copytree(finished.run, tmp_path / "tire-009"))
        (fresh / "summary.json").unlink()
        (fresh / "checkpoints" / "last.pt").unlink()
        with pytest.raises(DataError, match="no checkpoint here"):
            training.resume(fresh, cache_root, CPU)

    def test_goes_on_with_the_same_textures_wherever_it_is_called(
        self, cache: Cache, cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        for name in ("a", "b"):
            cv2.imwrite(str(tmp_path / f"{name}.png"), np.random.default_rng(ord(name)).integers(0, 255, (80, 80, 3)))
        monkeypatch.chdir(tmp_path)
        run = training.start(settings("synthesis.textures=."), cache, tmp_path / "runs", CPU).run
        monkeypatch.chdir("/")
        assert training.resume(run, cache_root, CPU).step == 0
        cv2.imwrite(str(tmp_path / "c.png"), np.zeros((80, 80, 3)))
        with pytest.raises(DataError, match=r"not the textures that .* began with"):
            training.resume(run, cache_root, CPU)

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names of any bytes")
    def test_textures_may_lie_in_a_folder_whose_name_is_no_text(self, cache: Cache, cache_root: Path, tmp_path: Path):
        folder = tmp_path / "caf\udce9"
        folder.mkdir()
        (folder / "a.png").write_bytes(cv2.imencode(".png", np.zeros((80, 80, 3)))[1].tobytes())
        changed = settings().model_copy(
            update={"synthesis": settings().synthesis.model_copy(update={"textures": folder})}
        )
        run = training.start(changed, cache, tmp_path / "runs", CPU).run
        assert training.resume(run, cache_root, CPU).settings.synthesis.textures == folder

    def test_goes_on_with_less_memory_and_otherwise_as_it_began(
        self, finished: Trainer, cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = Path(shutil.copytree(finished.run, tmp_path / "tire-009"))
        (run / "summary.json").unlink()
        for wrong, reason in (
            (
                "train.lr=1",
                r"settings\.train\.lr: a run keeps its own, .*, only train\.accumulate, .* can be changed .*got 1, from --set",
            ),
            ("train.accumulate=3", r"train\.accumulate \(3\) must divide train\.batch_size \(2\)"),
            ("hardware.cache_share=2", r"settings\.hardware\.cache_share: .*got 2, from --set"),
        ):
            with pytest.raises(UsageError, match=reason):
                training.resume(run, cache_root, CPU, [wrong])
        kept = (run / "settings.json").read_bytes()
        assert kept == (finished.run / "settings.json").read_bytes()
        went_on = training.resume(run, cache_root, CPU, ["train.accumulate=2"])
        assert went_on.settings.train == finished.settings.train.model_copy(update={"accumulate": 2})
        assert training.resume(run, cache_root, CPU).settings == went_on.settings
        monkeypatch.setenv("DAS3D_TRAIN_ACCUMULATE", "1")
        monkeypatch.setenv("DAS3D_TRAIN_STEPS", "7")  # may have been set from the start, overridden by --steps
        assert training.resume(run, cache_root, CPU).settings == finished.settings

    def test_a_run_from_before_a_setting_is_not_turned_into_another(
        self, finished: Trainer, cache_root: Path, tmp_path: Path
    ):
        run = Path(shutil.copytree(finished.run, tmp_path / "tire-009"))
        (run / "summary.json").unlink()
        saved = json.loads((run / "settings.json").read_text())
        del saved["hardware"]["cache_share"]  # has no effect on what is learnt
        (run / "settings.json").write_text(json.dumps(saved))
        training.resume(run, cache_root, CPU)
        del saved["synthesis"]["soft_share"]
        (run / "settings.json").write_text(json.dumps(saved))
        with pytest.raises(DataError, match=r"that had no synthesis\.soft_share; train again"):
            training.resume(run, cache_root, CPU)
        (run / "settings.json").write_text(json.dumps(saved), encoding="utf-16")  # as an editor may save it
        with pytest.raises(DataError, match=r"settings\.json: damaged or not readable; restore it"):
            training.resume(run, cache_root, CPU)


def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trainings skip bfloat16, and with it most of the rounding."""
    monkeypatch.setattr("das3d_cli.engine.trainer.autocast", lambda *_, **__: contextlib.nullcontext())


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    """Gradients of one step, as the optimiser gets them, with batch normalisation independent of the batch."""
    trainer.network.eval().train = lambda: trainer.network
    trainer._advance()
    return [parameter.grad for parameter in trainer.network.parameters()]


class TestMicroBatches:
    def test_have_the_gradient_of_the_whole_batch(self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        float32(monkeypatch)
        made = [
            training.start(settings("train.batch_size=6", f"train.accumulate={n}"), cache, tmp_path, CPU)
            for n in (1, 3)
        ]
        whole, portions = (gradients(trainer) for trainer in made)
        scale = max(float(g.abs().max()) for g in whole)
        for a, b in zip(whole, portions, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * scale)

    def test_train_to_the_end(self, cache: Cache, tmp_path: Path):
        trainer = trained(cache, tmp_path, "train.batch_size=4", "train.accumulate=2")
        assert [r["step"] for r in runs.read_metrics(trainer.run) if "loss" in r] == [3, 6]

    def test_must_be_equal(self):
        with pytest.raises(UsageError, match=r"train\.accumulate \(4\) must divide train\.batch_size \(6\)"):
            settings("train.batch_size=6", "train.accumulate=4")


class TestFeed:
    @pytest.fixture
    def parts(self, cache: Cache) -> Parts:
        return training.load_data(settings(), cache, CPU).train

    def test_parts_that_stay_in_main_memory_make_the_same_batches(self, parts: Parts):
        indices = [torch.tensor([2, 0]), torch.tensor([1, 3]), torch.tensor([0, 3]), torch.tensor([1, 1])]
        resident = Feed(parts, CPU, indices.__getitem__)
        fetching = Feed(parts, CPU, [*indices, indices[0]].__getitem__)
        fetching._resident = False
        for step in (0, 1, 3, 0, 2):  # in order and out of order
            for a, b in zip(resident.batch(step), fetching.batch(step), strict=True):
                assert torch.equal(a, b)

    def test_an_error_while_fetching_ahead_is_told(self, parts: Parts):
        feed = Feed(parts, torch.device("meta"), [torch.tensor([0]), torch.tensor([99])].__getitem__)
        feed.batch(0)
        with pytest.raises(IndexError):
            feed.batch(1)

    def test_parts_move_to_the_device_only_if_all_fit(self, parts: Parts):
        meta = torch.device("meta")
        needed = 2 * parts.size_bytes
        assert [some.depth.device for some in placed([parts, parts], meta, needed)] == [meta, meta]
        assert [some.depth.device for some in placed([parts, parts], meta, needed - 1)] == [CPU, CPU]

    def test_many_are_averaged_down_as_each_is_alone(self):
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (150, 8, 8, 3), np.uint8), draw.random((150, 8, 8), np.float32)
        arrays = *images, draw.random((150, 8, 8)) < 0.7, draw.random((150, 2), np.float32)
        together = Parts.stack(*arrays, size=4, device=CPU)
        for place in (0, 63, 64, 149):
            alone = Parts.stack(*(array[place : place + 1] for array in arrays), size=4, device=CPU)
            assert all(torch.equal(a[place], b[0]) for a, b in zip(together, alone, strict=True))

    def test_half_the_precision_of_the_depth_is_a_tenth_of_a_sensors_noise(self):
        depth = np.linspace(0, 1, 317**2, dtype=np.float32).reshape(1, 317, 317)
        rgb, everywhere = np.zeros((1, 317, 317, 3), np.uint8), np.ones_like(depth, bool)
        parts = Parts.stack(rgb, depth, everywhere, np.zeros((1, 2), np.float32), size=317, device=CPU)
        assert parts.depth.dtype == torch.float16
        found = parts.unpacked().depth
        assert found.dtype == torch.float32
        assert float((found - torch.from_numpy(depth)).abs().max()) < 0.003 / 10
        assert bool((found <= 1).all())

    def test_training_from_main_memory_is_the_same(
        self, finished: Trainer, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        trainer = training.start(settings(), cache, tmp_path, CPU)
        trainer.feed._resident = False
        training.finish(trainer, ignore)
        assert same(weights(finished.run / "checkpoints/last.pt"), weights(trainer.run / "checkpoints/last.pt"))

    def test_the_template_reckons_with_halved_depths_in_full_precision(self, parts: Parts):
        """Sums in float16 would be rounded."""
        learnt = []
        for depth in (parts.depth, parts.depth.float()):
            template = Template(64, uses_rgb=True, uses_depth=True)
            template.learn(parts.rgb, depth, parts.foreground, parts.parallax)
            learnt.append(template.images)
        assert torch.equal(*learnt)


def test_the_loss_is_equation_13_with_its_weights_and_the_two_beside_it():
    draw = torch.Generator().manual_seed(0)
    normal_rgb, rebuilt_rgb = torch.rand(2, 2, 3, 32, 32, generator=draw)
    normal_depth, rebuilt_depth = torch.rand(2, 2, 1, 32, 32, generator=draw)
    logits = torch.randn(2, 2, 32, 32, generator=draw)
    mask = (torch.rand(2, 1, 32, 32, generator=draw) < 0.2).float()
    normal = Batch(normal_rgb, normal_depth, torch.ones(2, 1, 32, 32, dtype=torch.bool), torch.zeros(2, 2))
    found = loss_terms(Output(logits, rebuilt_rgb, rebuilt_depth), normal, mask, 2.0, (1 - mask).sum(), 2)

    anomalous = logits.exp()[:, 1:] / logits.exp().sum(dim=1, keepdim=True)
    of_truth = torch.where(mask > 0, anomalous, 1 - anomalous)
    overlap, area = ((anomalous * mask).sum((1, 2, 3)), (anomalous + mask).sum((1, 2, 3)))
    coarse = [F.avg_pool2d(image, 2) for image in (rebuilt_rgb, normal_rgb)]
    expected = {
        "reconstruct_depth": ((rebuilt_depth - normal_depth) ** 2).mean(),
        "reconstruct_rgb": ((rebuilt_rgb - normal_rgb) ** 2).mean(),
        "ssim": 1 - losses.ssim_map(*coarse).mean(),
        "focal": (-((1 - of_truth) ** 2) * of_truth.log()).mean(),
        "dice": (1 - (2 * overlap + 1) / (area + 1)).mean(),
        "false_alarm": (anomalous**2)[mask == 0].mean(),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    weights = LossSettings(reconstruction=2, ssim=3, focal=5, dice=7, false_alarm=11)
    total = [2.0, 2.0, 3.0, 5.0, 7.0, 11.0] @ torch.stack(list(expected.values())).numpy()
    assert float(total_loss(found, weights)) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("qualities", "best"), [((0.5, 0.9, 0.7), 4), ((0.9, 0.5, 0.7), 2), ((0.5, 0.7, 0.7), 6)])
def test_the_best_state_is_kept_and_of_equals_the_latest(cache, tmp_path, monkeypatch, qualities, best):
    states = []

    def found(network, *arguments):
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"quality": qualities[len(states) - 1], "threshold": 0.1 * len(states), "highest": 0}

    monkeypatch.setattr("das3d_cli.engine.trainer.validate", found)
    run = trained(cache, tmp_path, "train.validate_every=2").run
    kept = checkpoint.load(run / "checkpoints" / "best.pt")
    assert (kept["step"], kept["threshold"]) == (best, pytest.approx(0.05 * best))
    assert same(kept["network"], states[best // 2 - 1])
    assert not any(same(kept["network"], other) for other in states if other is not states[best // 2 - 1])
    assert json.loads((run / "summary.json").read_text())["best"]["step"] == best


@pytest.mark.parametrize("ways", [1, 2])
def test_nothing_in_a_step_waits_for_the_device(ways: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Tensors on the meta device take a GPU's path through the code but have no values: code that reads one fails."""
    meta = torch.device("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(torch.ones((), device=meta) > 0)

    def learn(self: Template, *parts: torch.Tensor) -> None:
        self.images, self.mean_marks = (one.expand(ways, -1, -1, -1) for one in (self.images, self.mean_marks))
        self.compare(True)

    monkeypatch.setattr(Template, "learn", learn)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, **options: torch.optim.SGD(weights, lr=0.1))
    parts = Parts(
        torch.zeros(4, 3, 64, 64, dtype=torch.uint8, device=meta), torch.zeros(4, 1, 64, 64, device=meta),
        torch.zeros(4, 1, 64, 64, dtype=torch.bool, device=meta), torch.zeros(4, 2, device=meta),
    )  # fmt: skip
    trainer = Trainer(settings(), Data(parts, parts, parts.rgb, (), ()), {}, tmp_path)
    losses = trainer._advance()
    assert all(value.device == meta and value.shape == () for value in losses.values())
    assert judging(trainer.network)(*parts.unpacked()).shape == (4, 2, 64, 64)


def test_of_large_maps_a_validation_ranks_some_pixels(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = trained(cache, tmp_path)
    arguments = trainer.network, trainer.data.validation, trainer.data.train, trainer.data.textures, trainer.settings
    of_all = validate(*arguments)
    monkeypatch.setattr("das3d_cli.engine.validation._RANKED_SIDE", 32)  # of 64
    of_some = validate(*arguments)
    assert of_some["pixel_ap"] != of_all["pixel_ap"]
    assert of_some["pixel_ap"] == pytest.approx(of_all["pixel_ap"], abs=0.03)
    assert of_some["image_auroc"] == of_all["image_auroc"]


def test_a_threshold_that_defects_miss_is_told(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = trained(cache, tmp_path)
    arguments = trainer.network, trainer.data.validation, trainer.data.train, trainer.data.textures, trainer.settings
    for reached, share in ((0.0, 1.0), (1.1, 0.0)):
        monkeypatch.setattr("das3d_cli.engine.validation.good_threshold", lambda *_, reached=reached: reached)
        assert validate(*arguments)["defects_found"] == share
        assert (
            len(
                [
                    *_told(
                        "tire",
                        {
                            "threshold": reached,
                            "defects_found": share,
                            "highest": "train/good/000",
                            "second_highest": reached,
                        },
                    )
                ]
            )
            == 2 - share
        )
    monkeypatch.undo()
    found = validate(*arguments)
    assert 0 <= found["defects_found"] <= 1 and found == validate(*arguments)


def test_validation_looks_at_defects_in_both_images_and_in_either_each_drawn_anew(
    finished: Trainer, monkeypatch: pytest.MonkeyPatch
):
    from das3d_cli.engine import validation

    drawn, seen, thresholds = [], [], []
    augment, score, threshold_scores = validation.augment, validation.score, validation.threshold_scores

    def noted(*images, **options):
        drawn.append((options["modality"], augment(*images, **options)))
        return drawn[-1][1]

    monkeypatch.setattr(validation, "augment", noted)
    monkeypatch.setattr(validation, "score", lambda look, batch, *more: seen.append(batch) or score(look, batch, *more))
    monkeypatch.setattr(
        validation,
        "threshold_scores",
        lambda held, learnt, share: thresholds.append((held, learnt)) or threshold_scores(held, learnt, share),
    )
    data = finished.data
    s = finished.settings
    s = s.model_copy(update={
        "train": s.train.model_copy(update={"validation_defects": 4}),
        "synthesis": s.synthesis.model_copy(update={"pierced_share": 1.0, "soft_share": 0.0}),
    })  # fmt: skip
    found = validate(finished.network, data.validation, data.train, data.textures, s)
    assert [modality for modality, _ in drawn] == ["both", "rgb", "depth", "both"]
    assert not torch.equal(drawn[0][1].mask, drawn[3][1].mask)
    judged = [batch.foreground for batch in seen if any(torch.equal(batch.rgb, made.rgb) for _, made in drawn)]
    assert len(judged) == 4 and judged[0].sum() < data.validation.foreground.sum()  # a hole is not foreground
    assert found["quality"] == (found["image_auroc"] + found["pixel_ap"]) / 2
    ((held, learnt),) = thresholds
    assert (len(held), len(learnt)) == (len(data.validation), len(data.train)) == (2, 4)


def test_few_good_parts_and_copies_of_them_are_told():
    some = SimpleNamespace(names=tuple(f"train/good/{n}" for n in range(18)), fingerprints=tuple("abcdefghijklmnopqr"))
    (few,) = _lacking(len(some.names), some, 0.95)
    assert (
        few.startswith("18 good parts are too few:")
        and "more than 5% of other good parts may be rejected; use at least 19" in few
    )
    assert [*_lacking(18, some, 0.9), *_lacking(18, some, 1.0)] == []
    some = SimpleNamespace(names=("train/good/a", "train/good/b", "validation/good/c"), fingerprints=("1", "2", "1"))
    _, copies = _lacking(len(some.names), some, 0.95)
    assert copies.endswith("tell nothing about new parts: 1 (validation/good/c of train/good/a); remove them")


@pytest.mark.parametrize("good_share", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_with_the_fewest_parts_a_new_one_scores_highest_no_more_often_than_the_share_allows(good_share):
    number = fewest_parts(good_share)
    assert 1 / (number + 1) <= 1 - good_share + 1e-12 < 1 / number


def test_the_good_part_that_scores_highest_is_told(cache: Cache, tmp_path: Path):
    trainer = trained(cache, tmp_path)
    data, look, s = trainer.data, judging(copy.deepcopy(trainer.network)), trainer.settings
    known, held_out = (
        score(look, parts.unpacked(), s.score.smoothing, s.views_taken).scores
        for parts in (data.train, data.validation)
    )
    scores = threshold_scores(held_out, known, s.score.good_share)
    found = validate(trainer.network, data.validation, data.train, data.textures, s)
    assert found["highest"] == scores.argmax() and scores.argmax() != scores.argmin()
    assert found["second_highest"] == pytest.approx(np.sort(scores)[-2])
    there = {f"{split}/good/{sample.name}" for split in ("train", "validation") for sample in cache.samples(split)}
    assert len(data.names) == len(scores) and set(data.names) <= there
    kept = json.loads((trainer.run / "summary.json").read_text())["best"]
    assert kept["highest"] in data.names
    assert f"of the good parts that set it, {kept['highest']} scores highest" in next(_told("tire", kept))


@pytest.mark.parametrize(
    ("threshold", "following", "told"), [(0.97, 0.04, 1), (1.0, 0.9, 1), (0.6, 0.1, 0), (0.3, 0.3, 0)]
)
def test_one_good_part_that_sets_the_threshold_alone_is_told(threshold, following, told):
    best = {"threshold": threshold, "defects_found": 0.9, "highest": "validation/good/008", "second_highest": following}
    lines = [*_told("flange", best)][1:]
    assert len(lines) == told and all(f"no other comes above {following:.3f}" in line for line in lines)


@pytest.mark.parametrize("processes", [2, 5])  # for 2 parts held out and 4 to train on
def test_each_process_validates_on_its_share(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
):
    trainer = trained(cache, tmp_path)
    arguments = trainer.network, trainer.data.validation, trainer.data.train, trainer.data.textures, trainer.settings
    alone = validate(*arguments)
    shares = []
    monkeypatch.setattr(distributed, "size", lambda: processes)
    monkeypatch.setattr(distributed, "gathered", lambda own: shares.append(own) or shares)
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        together = validate(*arguments)
    assert together == pytest.approx(alone, abs=1e-5)
    held_out, trained_on = (len(arguments[place]) for place in (1, 2))
    assert max(sum(len(some.good) for some in judged) for judged, _ in shares) == -(-held_out // processes)
    known = [(place, score) for _, own in shares for some in own for place, score in zip(*some, strict=True)]
    assert sorted(place for place, _ in known) == list(range(trained_on))


class TestDetector:
    def test_judges_good_parts_as_when_its_threshold_was_set(
        self, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        coarse = torch.autocast("cpu", dtype=torch.bfloat16)  # so that any difference would show
        monkeypatch.setattr("das3d_cli.scoring.autocast", lambda _: coarse)
        run = trained(cache, tmp_path, "score.good_share=1").run
        detector, (known, held_out) = (
            Detector.load(run, "cpu"),
            [load_split(cache, split).inputs for split in ("train", "validation")],
        )
        known, held_out = (
            np.concatenate([detector.score(*(array[[i]] for array in inputs)).scores for i in range(len(inputs[0]))])
            for inputs in (known, held_out)
        )
        assert max(known.max(), held_out.max()) < detector.threshold
        expected = good_threshold(threshold_scores(held_out, known, 1.0), 1.0)
        assert detector.threshold == pytest.approx(expected, rel=1e-9)

    def test_scores_do_not_depend_on_the_batch(self, finished: Trainer, cache: Cache):
        split = load_split(cache, "test")
        detector = Detector.load(finished.run, "cpu")
        together = detector.score(*split.inputs)
        alone = detector.score(*(array[1:2] for array in split.inputs))
        np.testing.assert_allclose(together.maps[1], alone.maps[0], atol=1e-5)

    def test_nor_on_how_many_are_on_the_device_at_a_time(
        self, finished: Trainer, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ):
        inputs, detector = load_split(cache, "test").inputs, Detector.load(finished.run, "cpu")
        together = detector.score(*inputs)
        monkeypatch.setattr("das3d_cli.detector.TOGETHER", 2)
        by_two = detector.score(*inputs)
        assert len(inputs[0]) == 3
        np.testing.assert_allclose(together.maps, by_two.maps, atol=1e-5)
        np.testing.assert_allclose(together.scores, by_two.scores, atol=1e-5)

    def test_samples_that_do_not_fit_are_told(self, finished: Trainer, cache: Cache):
        inputs, detector = load_split(cache, "test").inputs, Detector.load(finished.run, "cpu")
        rgb, depth, foreground, parallax = inputs
        for unfit in (
            tuple(array[:0] for array in inputs),
            (rgb[:, 1:, 1:], depth[:, 1:, 1:], foreground[:, 1:, 1:], parallax),
            (rgb, depth[:1], foreground, parallax),
            (rgb[0], depth[0], foreground[0], parallax[0]),
        ):
            with pytest.raises(DataError, match=r"must be \(N, S, S, 3\)"):
                detector.score(*unfit)

    def test_predict_treats_a_raw_capture_as_the_cache_does(
        self, finished: Trainer, cache: Cache, shared_dataset: Path
    ):
        from das3d_cli.data.readers import read_capture

        record = cache.samples("test")[0]
        split = load_split(cache, "test")
        detector = Detector.load(finished.run, "cpu")
        folder = shared_dataset / "tire" / "test" / record.label
        capture = read_capture(folder / "rgb" / f"{record.name}.png", folder / "xyz" / f"{record.name}.tiff")
        prediction = detector.predict(capture.rgb, capture.xyz)
        assert np.array_equal(prediction.sample.depth, split.depth[0])
        assert prediction.score == pytest.approx(float(detector.score(*split.inputs).scores[0]), abs=1e-6)
        assert prediction.anomaly_map.shape == capture.rgb.shape[:2]
        assert prediction.anomalous == (prediction.score >= prediction.threshold)
        detector.threshold = prediction.score
        assert detector.predict(capture.rgb, capture.xyz).defects[0].score == prediction.score
        hardly = np.where(
            np.random.default_rng(0).random(capture.shape)[..., None] < 0.8, np.float32(np.nan), capture.xyz
        )
        told, *rest = detector.predict(capture.rgb, hardly).notes
        assert prediction.notes == [] and "of the part has no points" in told
        assert all("of the part looks defective" in note for note in rest)

    def test_a_part_that_looks_defective_all_over_is_noted(
        self, finished: Trainer, capture, monkeypatch: pytest.MonkeyPatch
    ):
        detector, part = Detector.load(finished.run, "cpu"), capture("ring")
        size = detector.prepare(part).depth.shape[0]

        def notes(score: float, around: float) -> list[str]:
            found = np.full((1, size, size), around, np.float32)
            found[0, size // 2, size // 4] = score  # on the ring
            monkeypatch.setattr(detector, "score", lambda *given: Scored(found, found.max((1, 2)).astype(np.float64)))
            return [note.split(", ")[0] for note in detector.predict(part.rgb, part.xyz).notes]

        detector.threshold = 0.5
        assert notes(0.9, 0.3) == ["100% of the part looks defective"]
        assert notes(0.9, 0.1) == [] and notes(0.4, 0.3) == []  # a small defect, and no defect
        detector.threshold = 0.15
        assert notes(0.9, 0.18) == ["100% of the part looks defective"]

    def test_what_the_readers_refuse_predict_refuses_too(self, finished: Trainer, capture):
        detector, part = Detector.load(finished.run, "cpu"), capture("ring")
        for rgb, xyz, reason in (
            (part.rgb.astype(np.float32), part.xyz, "holds float32 values"),
            (part.rgb, part.xyz[..., 2], "H x W x 3"),
            (part.rgb[:-1], part.xyz, "same size"),
            (part.rgb, np.full_like(part.xyz, np.inf), "infinite"),
            (part.rgb, part.xyz * 1000, "millimetres"),
            (part.rgb.tolist(), part.xyz, "holds int64 values"),
            (part.rgb[:1], part.xyz[:1], "two rows and two columns"),
            (part.rgb, np.where(np.isnan(part.xyz), np.float32(1e10), part.xyz), r"holds a point 1e\+10 m away"),
        ):
            with pytest.raises(DataError, match=reason):
                detector.predict(rgb, xyz)
        assert detector.predict(part.rgb, part.xyz.tolist()).score == detector.predict(part.rgb, part.xyz).score

    def test_a_capture_that_was_read_is_judged_as_its_arrays_are(self, finished: Trainer, capture):
        detector, part = Detector.load(finished.run, "cpu"), capture("ring")
        read, given = detector.predict_capture(part), detector.predict(part.rgb, part.xyz)
        assert read.score == given.score and np.array_equal(read.anomaly_map, given.anomaly_map)
        with pytest.raises(DataError, match="needs rgb and xyz"):
            detector.predict_capture(RawCapture(part.rgb, None))

    def test_no_part_passes_for_want_of_a_score(self, finished: Trainer, cache_root: Path, capture):
        detector, part = Detector.load(finished.run, "cpu"), capture("ring")
        look = detector._look
        detector._look = lambda *images: look(*images) * torch.nan
        with pytest.raises(DataError, match="score is not a number"):
            detector.predict(part.rgb, part.xyz)
        with pytest.raises(DataError, match="score is not a number"):
            evaluate_detector(detector, cache_root)

    @pytest.mark.parametrize(
        "damage",
        [
            {"threshold": float("nan")},
            {"threshold": None},
            {"threshold": "0.5"},
            {"depth_range_m": [0.1]},
            {"network": {}},
        ],
    )
    def test_a_model_file_whose_content_is_none_of_a_model(self, finished: Trainer, tmp_path: Path, damage):
        content = checkpoint.load(finished.run / "checkpoints" / "best.pt")
        checkpoint.save(tmp_path / "odd.pt", content | damage)
        with pytest.raises(DataError, match=r"odd\.pt: not a model of this version"):
            Detector.load(tmp_path / "odd.pt", "cpu")

    def test_a_model_from_before_a_setting_does_not_judge_by_todays_default(self, finished: Trainer, tmp_path: Path):
        content = checkpoint.load(finished.run / "checkpoints" / "best.pt")
        settings = json.loads(content["settings"])
        del settings["train"]["validate_every"]  # not used by a detector
        checkpoint.save(tmp_path / "older.pt", content | {"settings": json.dumps(settings)})
        Detector.load(tmp_path / "older.pt", "cpu")
        del settings["score"]["views"]
        checkpoint.save(tmp_path / "older.pt", content | {"settings": json.dumps(settings)})
        with pytest.raises(
            DataError, match=r"older\.pt: saved by a version of das3d that had no score\.views; train again"
        ):
            Detector.load(tmp_path / "older.pt", "cpu")

    def test_a_device_that_fails_is_not_the_models_fault(self, finished: Trainer, monkeypatch: pytest.MonkeyPatch):
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("CUDA error: no kernel image is available")

        monkeypatch.setattr(torch.nn.Module, "to", fail)
        with pytest.raises(RuntimeError, match="no kernel image"):
            Detector.load(finished.run, "cpu")

    def test_predictions_can_be_told_apart(self, finished: Trainer, capture):
        part = capture("ring")
        one, other = Detector.load(finished.run, "cpu").predict_many([(part.rgb, part.xyz)] * 2)
        assert one != other and len({one, other}) == 2

    def test_a_state_is_not_a_model(self, finished: Trainer):
        with pytest.raises(DataError, match=r"use best\.pt"):
            Detector.load(finished.run / "checkpoints" / "last.pt", "cpu")

    def test_a_model_file_is_enough(self, finished: Trainer, tmp_path: Path):
        file = Path(shutil.copy(finished.run / "checkpoints" / "best.pt", tmp_path / "tire.pt"))
        assert Detector.load(file, "cpu").category == "tire"

    def test_evaluation_uses_the_same_scores(self, finished: Trainer, cache: Cache, cache_root: Path):
        evaluation = evaluate_detector(Detector.load(finished.run, "cpu"), cache_root)
        assert set(evaluation.metrics) == {"all"} | set(evaluation.split.labels) - {"good"}
        assert evaluation.metrics["all"].samples == len(evaluation.split.labels)
        assert len(evaluation.verdicts()) == len(evaluation.split.labels)

    def test_parts_that_it_was_trained_on_are_told(
        self, finished: Trainer, shared_dataset: Path, cache_root: Path, tmp_path: Path
    ):
        """Known parts are copied to the test split after training, under other names; another test part is damaged."""
        assert evaluate_detector(Detector.load(finished.run, "cpu"), cache_root).notes == []
        own = Path(shutil.copytree(shared_dataset, tmp_path / "mvtec3d")) / "tire"
        for number, split in enumerate(("train", "validation")):
            for kind in ("rgb", "xyz", "gt"):
                suffix = "tiff" if kind == "xyz" else "png"
                shutil.copy(own / split / f"good/{kind}/001.{suffix}", own / f"test/good/{kind}/99{number}.{suffix}")
        (own / "test/bump/xyz/000.tiff").write_bytes(b"II")
        build(find_entries(own), tmp_path / "out", PreprocessSettings(size=64), workers=1)
        evaluation = evaluate_detector(Detector.load(finished.run, "cpu"), tmp_path / "out")
        known, unused = evaluation.notes
        assert known.startswith("test parts that were used to train") and known.endswith(": 2 (good/990, good/991)")
        assert unused.endswith("that could not be preprocessed and are not counted: 1 (test/bump/xyz/000.tiff)")
        record = Outcome.of(finished.run, evaluation).record()
        assert (record["known"], record["unused"]) == (["good/990", "good/991"], ["test/bump/xyz/000.tiff"])
        write_page(tmp_path / "page.html", evaluation, "run")
        page = (tmp_path / "page.html").read_text()
        assert "Test parts that were used to train" in page and "never seen" not in page

    def test_a_cache_preprocessed_otherwise_is_refused(self, finished: Trainer, shared_dataset: Path, tmp_path: Path):
        build(
            find_entries(shared_dataset, ["tire"]),
            tmp_path,
            PreprocessSettings(size=64, plane_distance_mm=4),
            workers=1,
        )
        with pytest.raises(DataError, match="preprocessed with other settings"):
            evaluate_detector(Detector.load(finished.run, "cpu"), tmp_path)

    def test_a_cache_whose_layout_and_unit_were_chosen_is_none_preprocessed_otherwise(
        self, finished: Trainer, shared_dataset: Path, tmp_path: Path
    ):
        chosen = PreprocessSettings(size=64, layout="mvtec3d", units="m")
        build(find_entries(shared_dataset, ["tire"]), tmp_path, chosen, workers=1)
        assert evaluate_detector(Detector.load(finished.run, "cpu"), tmp_path).metrics["all"].samples == 3

    def test_a_cache_of_other_training_captures_is_told_from_other_settings(self, finished: Trainer, cache_root: Path):
        detector = Detector.load(finished.run, "cpu")
        near, far = detector.depth_range_m
        detector.depth_range_m = near, far + 0.001
        with pytest.raises(DataError, match=r"made from other training captures than this run's; train again on it"):
            evaluate_detector(detector, cache_root)

    def test_bad_model_files(self, finished: Trainer, tmp_path: Path):
        class Evil:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "ran",))

        (tmp_path / "text.pt").write_text("hello")
        whole = (finished.run / "checkpoints" / "best.pt").read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
        torch.save({"das3d_format": 99}, tmp_path / "future.pt")
        tensor = (
            checkpoint.load(finished.run / "checkpoints" / "best.pt")["network"]["template.images"].numpy().tobytes()
        )
        start = whole.index(tensor) + len(tensor) // 2
        (tmp_path / "sector.pt").write_bytes(whole[:start] + b"\xff" * 512 + whole[start + 512 :])
        torch.save({"das3d_format": checkpoint.FORMAT, "evil": Evil()}, tmp_path / "evil.pt")
        torch.save({"das3d_format": checkpoint.FORMAT}, tmp_path / "hollow.pt")
        for name, reason in (("text", "not a das3d checkpoint"), ("cut", "not a das3d checkpoint"), ("sector", "damaged"),
                             ("future", "format 99"),
                             ("evil", "not a das3d checkpoint"), ("hollow", "another version"), ("absent", "no such file")):  # fmt: skip
            with pytest.raises(DataError, match=reason) as error:
                Detector.load(tmp_path / f"{name}.pt", "cpu")
            assert "\n" not in str(error.value)
        assert not (tmp_path / "ran").exists()


class TestPieces:
    def test_every_sample_comes_once_per_pass(self):
        seen = np.concatenate([batch_indices(0, step, 4, 10) for step in range(5)])
        assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
        assert list(seen[:10]) != list(seen[10:])

    def test_learning_rate_rises_then_falls_to_zero(self):
        rates = [learning_rate(step, 100, 1.0) for step in range(101)]
        assert max(rates) == rates[10] == 1.0
        assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
        assert rates[100] == pytest.approx(0)

    def test_shrinking_does_not_mix_part_and_background(self):
        foreground = np.zeros((1, 8, 8), bool)
        foreground[:, :, :5] = True
        depth = np.where(foreground, 0.25, 1.0).astype(np.float32)
        rgb = np.where(foreground[..., None], 200, 0).astype(np.uint8).repeat(3, -1)
        parts = Parts.stack(rgb, depth, foreground, np.zeros((1, 2), np.float32), size=4, device=CPU)
        assert parts.foreground[0, 0].sum(1).tolist() == [3, 3, 3, 3]
        assert parts.depth.unique().tolist() == [0.25]
        assert parts.rgb[0, :, :, :3].unique().tolist() == [200] and parts.rgb[0, :, :, 3].max() == 0

    def test_gpus(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose("auto") == choose("cpu") == CPU
        with pytest.raises(UsageError, match="--gpus cpu"):
            choose("0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert choose("auto") == choose("all") == choose("0,1") == torch.device("cuda", 0)
        assert choose("1") == torch.device("cuda", 1)
        with pytest.raises(UsageError, match="has only GPU 0, 1; use these"):
            choose("2")
