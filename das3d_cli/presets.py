"""Presets of sizes and choices: the settings that each one changes, by dotted key."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "cpu": {
        "model.size": 128,
        "model.reconstruction_width": 8,
        "model.discriminator_width": 32,
        "train.steps": 4500,
        "train.lr": 6e-3,
        "train.batch_size": 4,
    },
    "paper": {
        "preprocess.plane_distance_mm": 5.0,
        "preprocess.fixture": "keep",
        "preprocess.depth_axis": "camera",
        "preprocess.frame": "image",
        "preprocess.scaling": "capture",
        "preprocess.headroom": 0.0,
        "synthesis.defects": 1,
        "synthesis.blobs_max": 0,
        "synthesis.kernel_norm": "sum",
        "synthesis.strength_scale": "uniform",
        "synthesis.pierced_share": 0.0,
        "synthesis.soft_share": 0.0,
        "synthesis.added_share": 0.0,
        "synthesis.cut_share": 0.0,
        "synthesis.dropout": 0.5,
        "synthesis.normal_share": 0.0,
        "synthesis.relight": 0.0,
        "model.stem": 1,
        "model.reconstruction_shrink": 1,
        "model.reconstruction_width": 64,
        "model.discriminator_width": 64,
        "model.discriminator_levels": 4,
        "model.direct_inputs": False,
        "model.template": False,
        "loss.ssim": 1.0,
        "loss.focal": 1.0,
        "loss.dice": 0.0,
        "loss.false_alarm": 0.0,
        "score.views": 1,
    },
}
