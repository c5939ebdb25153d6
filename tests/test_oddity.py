"""What is said of parts that are unlike those trained on, and of like ones nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from das3d_cli.data.capture import Form, Geometry
from das3d_cli.data.oddity import oddities

FORM = Form(plane_distance_m=0.005, pitch_m=(4e-4, 4.2e-4), gap_m=0.003, within=True)
WINDOW_M = 0.1
USUAL = Geometry(
    (0.0, 0.0, -1.0, 0.4), 0.0, -0.03, 0.0, 300, 400, 250, 20, 60, 0.01, (0.0, 0.0), within=True, measured_fraction=0.97,
    clipped_fraction=0.005, pitch_m=4.1e-4, span_m=0.085, gap_m=0.004,
)  # fmt: skip


def test_nothing_is_said_of_a_part_like_others() -> None:
    assert oddities(USUAL, FORM, WINDOW_M) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"side": 500}, r"too wide for the parts' window by a factor of 2\.0"),
        ({"span_m": 0.02}, r"20 mm across, in the parts' window of 100 mm"),
        ({"within": False}, r"reaches the image's border"),
        ({"measured_fraction": 0.3, "gap_m": 0.05}, r"^70% of the part have no points"),
        ({"gap_m": 0.012}, r"circle of 12 mm the part has no points, where those trained on lacked 3 mm at most"),
        ({"clipped_fraction": 0.4}, r"^40% of the part's points are higher or lower"),
        ({"pitch_m": 4.8e-4, "side": 213}, r"^a pixel shows 0\.48 mm of the part, where it showed 0\.4 to 0\.42 mm"),
        ({"pitch_m": 3.5e-4, "side": 286}, r"^a pixel shows 0\.35 mm"),
    ],
)
def test_what_is_unlike_others_is_told_once(changes: dict[str, Any], told: str) -> None:
    (note,) = oddities(replace(USUAL, **changes), FORM, WINDOW_M)
    assert re.search(told, note), note


def test_of_whole_images_without_points_there_is_nothing_to_tell() -> None:
    alone = Geometry(None, None, None, None, 300, 400, 400, 50, 0, 1.0, (0.0, 0.0))
    assert oddities(alone, Form("rgb", "whole", plane_distance_m=0.005), None) == []
