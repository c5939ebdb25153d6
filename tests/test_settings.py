"""Layers of settings override each other in order; a mistake is one line that names key, value and source."""

from __future__ import annotations

import pytest

from das3d_cli.configure import load, resolve
from das3d_cli.errors import DataError, UsageError
from das3d_cli.presets import PRESETS
from das3d_cli.settings import FIELDS, Settings


def resolved(**given):
    return resolve(**({"environment": {}} | given))


def test_layers_override_one_another_in_order(tmp_path):
    config = tmp_path / "my.toml"
    config.write_text("seed = 1\n[train]\nsteps = 10\nbatch_size = 2\nlr = 0.5\n")
    environment = {"DAS3D_TRAIN_STEPS": "20", "DAS3D_TRAIN_BATCH_SIZE": "3", "PATH": "/bin"}
    found = resolved(config=config, environment=environment, flags={"train.steps": 30, "train.lr": None}, preset="cpu")
    assert (found.train.steps, found.train.batch_size, found.train.lr, found.seed) == (30, 3, 0.5, 1)
    assert found.model.size == PRESETS["cpu"]["model.size"]
    assert resolved(flags={"train.steps": 30}, assignments=["train.steps=40"]).train.steps == 30


def test_a_preset_yields_to_everything_given(tmp_path):
    assert resolved(assignments=["preset=paper", "model.stem=2"]).model.stem == 2
    assert resolved(assignments=["preset=paper"]).model.stem == 1
    assert resolved(assignments=["preset=paper"], preset="cpu").model.stem == 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_names_known_settings(name):
    assert set(PRESETS[name]) <= set(FIELDS)
    assert resolved(assignments=[f"preset={name}"]).preset == name


def test_the_papers_preset_is_the_papers():
    """A new setting that changes what is learnt must be listed here with the paper's value."""
    found = resolved(assignments=["preset=paper"]).model_dump(
        include={"preprocess": {"plane_distance_mm", "size", "depth_axis", "frame", "scaling", "headroom"},
                 "synthesis": True, "model": True, "loss": True, "score": {"smoothing", "views"}}
    )  # fmt: skip
    assert found == {
        "preprocess": {
            "size": 256, "plane_distance_mm": 5.0, "depth_axis": "camera", "frame": "image", "scaling": "capture", "headroom": 0.0,
        },
        "synthesis": {
            "defects": 1, "perlin_scale_max": 5, "mask_threshold": 0.5, "blobs_max": 0, "blob_radius_min": 0.02,
            "blob_radius_max": 0.15, "blob_aspect_max": 20.0, "skew_filter": True, "alpha_max": 0.5, "sigma_min": 0.002,
            "sigma_max": 0.024, "sigma_aspect_max": 4.0, "sigma_correlation": 0.7, "kernel_norm": "sum", "strength_min": 0.04,
            "strength_max": 0.6, "strength_scale": "uniform",
            "change_threshold": 0.012, "pierced_share": 0.0, "soft_share": 0.0, "soft_radius_min": 0.04, "soft_radius_max": 0.16,
            "added_share": 0.0, "cut_share": 0.0,
            "beta_max": 0.8, "dropout": 0.5, "normal_share": 0.0, "rotate": True, "flip": False, "relight": 0.0,
            "textures": None, "texture_count": 256,
        },
        "model": {
            "modality": "both", "size": 256, "stem": 1, "reconstruction_shrink": 1, "reconstruction_width": 64,
            "discriminator_width": 64, "discriminator_levels": 4, "direct_inputs": False, "template": False,
        },
        "loss": {"reconstruction": 1.0, "ssim": 1.0, "focal": 1.0, "focal_gamma": 2.0, "dice": 0.0, "false_alarm": 0.0},
        "score": {"smoothing": 0.02, "views": 1},
    }  # fmt: skip


def test_every_setting_explains_itself():
    assert [key for key, field in FIELDS.items() if not field.description] == []


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"assignments": ["train.lr=-1"]}, ["settings.train.lr", "-1", "--set", "greater than 0"]),
        ({"assignments": ["train.lrr=1"]}, ["settings.train.lrr", "no such setting", "did you mean train.lr?"]),
        ({"assignments": ["train.lr"]}, ["--set train.lr", "section.key=value"]),
        ({"assignments": ["model.stem=3"]}, ["settings.model.stem", "less than or equal to 2", "got 3"]),
        ({"assignments": ["synthesis.flip=perhaps"]}, ["settings.synthesis.flip", "perhaps"]),
        ({"assignments": ["preset=huge"]}, ["settings.preset", "huge", "--set"]),
        ({"assignments": ["model.size=32", "train.batch_size=1"]}, ["model.size (32)", "batch_size / train.accumulate"]),
        ({"assignments": ["model.reconstruction_shrink=3"]}, ["model.reconstruction_shrink (3)", "1, 2 or 4"]),
        ({"assignments": ["synthesis.sigma_min=0.1"]}, ["synthesis.sigma_min (0.1)", "synthesis.sigma_max"]),
        ({"assignments": ["preprocess.plane_distance_mm=AUTO"]}, ["plane_distance_mm", "number; or must be 'auto'"]),
        ({"assignments": ["synthesis.textures="]}, ["settings.synthesis.textures: is empty (from --set)", "not set"]),
        ({"environment": {"DAS3D_SYNTHESIS_TEXTURES": ""}}, ["textures: is empty (from environment DAS3D_SYNTHESIS_TEXTURES)"]),
        ({"assignments": ["hardware.gpus=first"]}, ["settings.hardware.gpus", "first"]),
        ({"flags": {"train.batch_size": 0}}, ["settings.train.batch_size", "got 0", "--batch-size"]),
        ({"environment": {"DAS3D_TRAIN_STEPS": "many"}}, ["settings.train.steps", "many", "DAS3D_TRAIN_STEPS"]),
        ({"environment": {"DAS3D_TRIAN_STEPS": "1"}}, ["DAS3D_TRIAN_STEPS", "no such setting"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_key_value_and_source(given, parts):
    with pytest.raises(UsageError) as error:
        resolved(**given)
    text = str(error.value)
    assert "\n" not in text
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(("text", "part"), [("steps = ", "not valid TOML"), ("steps = 1", "settings.steps"), (None, "cannot be read"),
                                            ("[train]\nstep = 1", "did you mean train.steps?")])  # fmt: skip
def test_a_bad_config_file_is_named(tmp_path, text, part):
    config = tmp_path / "bad.toml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(UsageError) as error:
        resolved(config=config)
    assert str(config) in str(error.value) and part in str(error.value)


def test_a_config_file_may_write_numbers_as_such(tmp_path):
    config = tmp_path / "das3d.toml"
    config.write_text("[model]\n[hardware]\ngpus = 0\n[preprocess]\nlights = 4\n")
    found = resolved(config=config)
    assert (found.hardware.gpus, found.preprocess.lights) == ("0", "4")


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path):
    config = tmp_path / "das3d.toml"
    config.write_bytes(b"\xef\xbb\xbf[train]\r\nsteps = 5\r\n")
    assert resolved(config=config).train.steps == 5


def test_saved_settings_come_back_and_foreign_ones_are_refused(tmp_path):
    settings = resolved(assignments=["train.steps=7", "synthesis.textures=/some/where"])
    assert load(settings.model_dump_json(), tmp_path, FIELDS) == settings
    for text in ('{"train": {"steps": 0}}', '{"unheard_of": 1}', "[]"):
        with pytest.raises(DataError, match="do not fit this version"):
            load(text, tmp_path, [])
    with pytest.raises(DataError, match="are damaged"):
        load("{}x", tmp_path, [])


def test_the_defaults_are_valid():
    assert Settings() == resolved()


def test_parts_that_training_never_turns_are_looked_at_as_they_lie():
    assert resolved().views_taken == resolved().score.views > 1
    assert resolved(assignments=["synthesis.rotate=false"]).views_taken == 1
