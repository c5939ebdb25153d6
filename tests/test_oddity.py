"""Notes on parts unlike those trained on, and none on parts like them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from das3d_cli.data.capture import Camera, Fixture, Form, Geometry
from das3d_cli.data.oddity import Usual, oddities, of_all, of_defects, usual_of
from das3d_cli.data.sharpness import sharpness

FORM = Form(plane_distance_m=0.005, pitch_m=(4e-4, 4.2e-4))
USUAL = Usual(
    within=True, gap_m=0.003, brightness=(80.0, 120.0), grey=False, size=(400, 300), photo_offset=(-0.1, 0.3, 0.2),
    tilt_deg=(0.0, 3.0), tint=(0.1, 0.2), sharpness=0.02,
)  # fmt: skip
WINDOW_M = 0.1
PART = Geometry(
    (0.0, 0.0, -1.0, 0.4), 0.0, -0.03, 0.0, 300, 400, 250, 20, 60, 0.01, (0.0, 0.0), within=True, measured_fraction=0.97,
    clipped_fraction=0.005, pitch_m=4.1e-4, span_m=0.085, gap_m=0.004, brightness=100.0, grey=False, tint=0.12, sharpness=0.024,
    photo_offset=(0.3, 0.1),
)  # fmt: skip


def test_nothing_is_said_of_a_part_like_others() -> None:
    assert oddities(PART, FORM, USUAL, WINDOW_M) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"side": 500}, r"found is 2\.0 times as wide as the window"),
        ({"span_m": 0.02}, r"only 20 mm across, in a window of 100 mm"),
        ({"within": False}, r"reaches the image's border"),
        ({"measured_fraction": 0.3, "gap_m": 0.05}, r"^70% of the part has no points"),
        ({"gap_m": 0.012}, r"no points in a circle of 12 mm, while the gaps of training parts are at most 3 mm wide"),
        ({"clipped_fraction": 0.4}, r"^40% of the part's points are above or below"),
        (
            {"pitch_m": 4.8e-4, "side": 213},
            r"^a pixel shows 0\.48 mm of the part, but 0\.4 to 0\.42 mm of the training parts",
        ),
        ({"pitch_m": 3.5e-4, "side": 286}, r"^a pixel shows 0\.35 mm"),
        ({"brightness": 3.0}, r"^the part's mean brightness is 3 of 255, but 80 to 120 for training parts;"),
        ({"tilt_deg": None}, r"^no table is visible around the part, .*; most training parts show a table,"),
        ({"brightness": 200.0}, r"^the part's mean brightness is 200 of 255"),
        ({"brightness": 181.0}, r"^the part's mean brightness is 181 of 255, but 80 to 120"),
        ({"tilt_deg": 14.0}, r"^the table is seen at 14 degrees to its normal, but at 0 to 3 in training captures;"),
        ({"sharpness": 0.014}, r"^the photo shows 70% of the fine detail .* check focus, lens and motion$"),
        ({"tint": -0.15}, r"^red and blue seem to be exchanged, compared with training photos;"),
        ({"grey": True}, r"^the photo is grey, but training photos have colours; take it as they were taken$"),
        (
            {"photo_offset": (-0.1, -1.0)},
            r"^the photo lies 1\.3 pixels from where training photos lie .*, most of which lie within 0\.2 of it; check",
        ),
    ],
)
def test_what_is_unlike_others_is_told_once(changes: dict[str, Any], told: str) -> None:
    (note,) = oddities(replace(PART, **changes), FORM, USUAL, WINDOW_M)
    assert re.search(told, note), note


def test_a_slightly_other_view_light_or_colour_is_not_told() -> None:
    for changes in (
        {"tilt_deg": 12.0},
        {"tint": -0.05},
        {"tint": 0.4},
        {"brightness": 175.0},
        {"sharpness": 0.016},
        {"sharpness": 0.1},
    ):
        assert oddities(replace(PART, **changes), FORM, USUAL, WINDOW_M) == []
    bright = replace(USUAL, brightness=(200.0, 230.0))
    assert oddities(replace(PART, brightness=240.0), FORM, bright, WINDOW_M) == []
    (note,) = oddities(replace(PART, brightness=244.0), FORM, bright, WINDOW_M)
    assert note.startswith("the part's mean brightness is 244 of 255, but 200 to 230 for training parts")


def test_a_fixture_is_told_of_once_and_again_where_it_has_moved() -> None:
    form = replace(FORM, fixture=Fixture(400, 300, (((10, 10), (30, 10), (30, 30), (10, 30)),), taken=0.12))
    shares = [replace(PART, fixture_share=share) for share in (0.1, *[0.9] * 10, 0.95)]
    usual = replace(USUAL, fixture_share=usual_of(shares, 0.0, 1.0, "").fixture_share)
    (note,) = of_all(usual, form)
    assert note.startswith(
        "12% of what stands on the table is in the same place in all captures, unlike the rest: it is taken for"
    )
    assert oddities(replace(PART, fixture_share=0.87), form, usual, WINDOW_M) == []
    (note,) = oddities(replace(PART, fixture_share=0.84), form, usual, WINDOW_M)
    assert note.startswith("the fixture does not stand where it stood in training captures,")


def test_a_dark_photo_is_not_called_blurred_as_well() -> None:
    (note,) = oddities(replace(PART, brightness=5.0, sharpness=0.001), FORM, USUAL, WINDOW_M)
    assert note.startswith("the part's mean brightness")


class TestSharpness:
    @staticmethod
    def photo(*, blur: float = 0.0, noise: float = 0.0, light: float = 1.0) -> NDArray[np.uint8]:
        """A grainy disc on a black ground."""
        random = np.random.default_rng(0)
        grain = cv2.GaussianBlur(random.normal(0, 40, (128, 128)).astype(np.float32), (0, 0), 0.8)
        rows, columns = np.mgrid[:128, :128] - 63.5
        image = (120 + grain) * (np.hypot(rows, columns) < 50)
        image = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
        image = light * image + random.normal(0, noise, image.shape)
        return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)

    PART = np.asarray(np.hypot(*(np.mgrid[:128, :128] - 63.5)) < 48)

    def test_blur_takes_it_away_and_noise_and_light_hardly_change_it(self) -> None:
        sharp = sharpness(self.photo(), self.PART)
        assert sharp
        assert sharpness(self.photo(light=0.6), self.PART) == pytest.approx(sharp, rel=0.05)
        assert sharpness(self.photo(noise=2), self.PART) == pytest.approx(sharp, rel=0.1)
        for noise in (0, 2):
            blurred = [sharpness(self.photo(blur=sigma, noise=noise), self.PART) for sigma in (1.5, 3)]
            assert blurred[1] and blurred[0] and blurred[1] < 0.3 * sharp < blurred[0] < 0.75 * sharp

    def test_the_surroundings_do_not_count(self) -> None:
        image, other = self.photo(), self.photo()
        other[~self.PART] = 255
        assert sharpness(other, self.PART) == sharpness(image, self.PART)

    def test_of_nothing_it_says_nothing(self) -> None:
        few = np.zeros((128, 128), np.bool_)
        few[60:68, 60:68] = True
        assert sharpness(self.photo(), few) is None
        assert sharpness(np.zeros((128, 128, 3), np.uint8), self.PART) is None


@pytest.mark.parametrize(("usual", "own"), [((-0.3, -0.1), 0.2), ((0.1, 0.3), -0.2)])
def test_exchanged_colours_are_told_if_all_training_photos_lean_the_same_way(
    usual: tuple[float, float], own: float
) -> None:
    swapped = replace(PART, tint=own)
    assert len(oddities(swapped, FORM, replace(USUAL, tint=usual), WINDOW_M)) == 1
    for vague in ((-0.3, 0.3), (-0.03, -0.01), (0.01, 0.03), None):
        assert oddities(swapped, FORM, replace(USUAL, tint=vague), WINDOW_M) == []


def test_a_part_that_looks_defective_all_over_is_told_apart_from_one_with_a_large_defect() -> None:
    assert of_defects(np.arange(100) < 20) == []
    (note,) = of_defects(np.arange(100) < 64)
    assert note.startswith(
        "64% of the part looks defective, more than a defect usually takes; check that it is the right part"
    )


def test_how_far_photos_may_lie_off_their_points_follows_from_the_parts() -> None:
    off = replace(PART, photo_offset=(2.0, 0.3))
    assert oddities(off, FORM, replace(USUAL, photo_offset=(0.0, 0.0, 1.0)), WINDOW_M) == []
    assert oddities(off, FORM, replace(USUAL, photo_offset=None), WINDOW_M) == []
    assert oddities(replace(PART, photo_offset=None), FORM, USUAL, WINDOW_M) == []
    parts = [replace(PART, photo_offset=(1.0, y / 10)) for y in range(-10, 11)]
    assert usual_of(parts, 0.0, 1.0, "").photo_offset == pytest.approx((1.0, 0.0, 0.9))
    assert usual_of(parts[:7], 0.0, 1.0, "").photo_offset is None


def test_of_photos_alone_another_size_is_told() -> None:
    form, usual = (
        Form("rgb", "whole", plane_distance_m=0.005),
        Usual(within=True, brightness=(80.0, 120.0), grey=False, size=(400, 300)),
    )
    alone = Geometry(None, None, None, None, 300, 400, 400, 50, 0, 1.0, (0.0, 0.0), brightness=90.0)
    assert oddities(alone, form, usual, None) == []
    (note,) = oddities(replace(alone, raw_width=1, raw_height=1), form, usual, None)
    assert note.startswith("the photo has 1 x 1 pixels, but training photos have 400 x 300;")


@pytest.mark.parametrize(
    ("width", "advice"), [(400, "from the same distance"), (800, "in 400 x 300 pixels, as these were")]
)
def test_where_pixels_show_more_or_less_it_is_told_whether_the_image_has_another_size(width: int, advice: str) -> None:
    (note,) = oddities(replace(PART, pitch_m=5e-4, side=200, raw_width=width), FORM, USUAL, WINDOW_M)
    assert note.startswith("a pixel shows 0.5 mm of the part") and note.endswith(f"capture it {advice}")


def test_usual_is_what_most_good_parts_are_like() -> None:
    parts = [
        replace(PART, within=i > 0, gap_m=i * 1e-3, brightness=90.0 + i, sharpness=0.03 - i * 1e-3) for i in range(12)
    ]
    assert usual_of(parts, 0.03, 1.2, "PNG") == Usual(
        True,
        0.011,
        0.03,
        1.2,
        True,
        (90.0, 101.0),
        (400, 300),
        "PNG",
        (0.3, 0.1, 0.0),
        False,
        (0.0, 0.0),
        (0.12, 0.12),
        pytest.approx(0.019),
    )
    mixed = [*parts, replace(PART, raw_width=500, within=False)]
    assert usual_of([*parts, replace(PART, grey=True)], 0.0, 1.0, "").grey is None
    assert (usual_of(mixed, 0.0, 1.0, "").within, usual_of(mixed, 0.0, 1.0, "").size) == (False, None)
    assert usual_of([], 0.0, 1.0, "") == Usual()


def test_one_of_three_may_reach_the_border_and_half_may_lack_a_table() -> None:
    at_border, cut = replace(PART, within=False), replace(PART, tilt_deg=None)
    assert usual_of([at_border, PART, PART], 0.0, 1.0, "").within
    assert not usual_of([at_border, at_border, PART], 0.0, 1.0, "").within
    assert not usual_of([at_border, PART], 0.0, 1.0, "").within  # too few to tell
    assert usual_of([cut, cut, PART, PART], 0.0, 1.0, "").table


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gap_m": 0.0064}, 0), ({"gap_m": 0.0066}, 1), ({"side": 303}, 0), ({"side": 307}, 1),
        ({"span_m": 0.034}, 0), ({"span_m": 0.033}, 1),
    ],
)  # fmt: skip
def test_just_before_and_just_past_where_it_begins_to_be_told(changes: dict[str, Any], told: int) -> None:
    assert len(oddities(replace(PART, **changes), FORM, USUAL, WINDOW_M)) == told


def test_parts_that_were_cut_out_are_told_once_for_all() -> None:
    cut = replace(PART, tilt_deg=None)
    usual = replace(USUAL, table=False)
    assert usual_of([cut] * 3 + [PART], 0.0, 1.0, "").table is False
    assert usual_of([cut] + [PART] * 3, 0.0, 1.0, "").table is True
    assert oddities(cut, FORM, usual, WINDOW_M) == []
    (note,) = oddities(PART, FORM, usual, WINDOW_M)
    assert note.startswith("a table is visible around the part")
    (note,) = of_all(usual, FORM)
    assert note.startswith("no table is visible around the part") and "sizes across it" in note
    whole = replace(FORM, foreground="whole")  # requested, so not odd
    assert of_all(usual, whole) == oddities(PART, whole, usual, WINDOW_M) == []


def test_pixels_that_are_not_square_are_told() -> None:
    (note,) = of_all(replace(USUAL, aspect=2.0), FORM)
    assert note.startswith("pixels are not square, with one side 2.0 times as long as the other")
    assert of_all(replace(USUAL, aspect=1.05), FORM) == []


def test_of_dark_parts_a_black_photo_is_told() -> None:
    dark = replace(USUAL, brightness=(12.0, 14.0))
    assert oddities(replace(PART, brightness=9.0), FORM, dark, WINDOW_M) == []
    (note,) = oddities(replace(PART, brightness=0.5), FORM, dark, WINDOW_M)
    assert note.startswith("the part's mean brightness is 0 of 255")


@pytest.mark.parametrize(
    ("low", "told"), [(0.1, []), (0.45, ["45% of a typical part's area rises by less than 5 mm above the table"])]
)
def test_parts_that_are_mostly_too_low_are_told(low: float, told: list[str]) -> None:
    assert [note.partition(" and")[0] for note in of_all(Usual(low_fraction=low), FORM)] == told


@pytest.mark.parametrize(
    ("camera", "told"),
    [(Camera(400, 400), 0), (Camera(400, 400, 206, 144), 0), (Camera(800, 800, 400, 300), 1), (Camera(200, 200, 100, 75), 1),
     (Camera(400, 400, 200, 20), 1)],
)  # fmt: skip
def test_a_camera_of_images_of_another_size_is_told(camera: Camera, told: int) -> None:
    found = of_all(USUAL, replace(FORM, camera=camera))
    assert len(found) == told
    assert all("lies far from the middle of 400 x 300 pixels" in note for note in found)
    assert of_all(replace(USUAL, size=None), replace(FORM, camera=camera)) == []
