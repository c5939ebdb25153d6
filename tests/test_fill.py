"""Missing points that are the part's by their surroundings or colours, and stray points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from das3d_cli.data.fill import enclosed, part_coloured, stray

PART, TABLE = (190, 120, 60), (70, 75, 85)
SHADOW = 0.4  # share of the table's brightness


def scene(part: tuple[int, ...] = PART, table: tuple[int, ...] = TABLE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image of a disc on a table with its shadow on the right, and the disc's mask."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:240, :320]
    disc = np.hypot(y - 120, x - 150) < 70
    shadow = (np.hypot(y - 125, x - 170) < 70) & ~disc
    rgb = np.where(disc[..., None], part, np.where(shadow[..., None], SHADOW * np.array(table), table))
    return np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8), disc


def missing_right(disc: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A band along both sides of the disc's right rim, which a projector on the left would leave unmeasured."""
    band = cv2.morphologyEx(disc.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((19, 19), np.uint8)) > 0
    return band & (np.arange(disc.shape[1]) > 150)


@pytest.mark.parametrize(("seen", "inside"), [(0, True), (1, True), (2, False)])
def test_a_missing_point_is_the_parts_if_all_but_one_view_from_it_end_there(seen: int, inside: bool) -> None:
    foreground = np.ones((21, 21), bool)
    measured = foreground.copy()
    measured[10, 10] = False
    for row, column in ((0, 10), (20, 0))[:seen]:  # up, and down to the left
        places = np.linspace((10, 10), (row, column), 11).round().astype(int)[1:]
        measured[tuple(places[:-1].T)] = False
        foreground[row, column] = False
    assert enclosed(measured, foreground & measured)[10, 10] == inside


def test_a_rim_without_points_comes_back_and_the_shadow_on_the_table_stays_out() -> None:
    rgb, disc = scene()
    missing = missing_right(disc)
    found = part_coloured(rgb, ~missing, disc & ~missing)
    assert not found[~missing].any()
    wrong = found != (disc & missing)
    assert wrong.sum() < 0.03 * missing.sum()


@pytest.mark.parametrize("apart", [0, 4], ids=["one colour", "hardly apart"])
def test_colours_that_tell_nothing_add_nothing(apart: int) -> None:
    _, disc = scene()
    noise = np.random.default_rng(1).normal(80, 12, (*disc.shape, 3))
    rgb = np.clip(noise + apart * disc[..., None], 0, 255).astype(np.uint8)
    missing = missing_right(disc)
    assert not part_coloured(rgb, ~missing, disc & ~missing).any()


@pytest.mark.parametrize(("noise", "surely"), [(15, False), (4, True)])
def test_what_looks_like_the_part_in_its_shadow_is_a_rim_alone_unless_colours_differ_for_sure(
    noise: int, surely: bool
) -> None:
    _, disc = scene()
    missing = missing_right(disc)
    grey = np.where(disc | missing, 90, 125)[..., None] + np.random.default_rng(2).normal(0, noise, (*disc.shape, 1))
    rgb = np.repeat(np.clip(grey, 0, 255).astype(np.uint8), 3, axis=2)
    known = disc & ~missing
    found = part_coloured(rgb, ~missing, known)
    away = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 5)[found]
    assert found.any() and (away.max() > 5 if surely else away.max() <= 1.5)


@pytest.mark.parametrize("everything", [True, False], ids=["all part", "no part"])
def test_without_a_part_or_a_table_nothing_is_added(everything: bool) -> None:
    rgb, disc = scene()
    missing = missing_right(disc)
    foreground = np.full_like(disc, everything) & ~missing
    assert not part_coloured(rgb, ~missing, foreground).any()


def test_missing_points_apart_from_the_part_stay_out() -> None:
    rgb, disc = scene()
    rgb[5:25, 290:315] = PART
    missing = missing_right(disc)
    missing[5:25, 290:315] = True
    assert not part_coloured(rgb, ~missing, disc & ~missing)[5:25, 290:315].any()


def test_large_images_are_judged_alike() -> None:
    rgb, disc = scene()
    missing = missing_right(disc)
    small = part_coloured(rgb, ~missing, disc & ~missing)
    large = part_coloured(*(np.repeat(np.repeat(a, 4, 0), 4, 1) for a in (rgb, ~missing, disc & ~missing)))
    assert (large[2::4, 2::4] != small).sum() < 0.05 * missing.sum()


@pytest.mark.parametrize("seed", range(3))
def test_stray_points_are_those_whose_neighbours_say_so_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.choice([0.30, 0.31, 0.40], (23, 31)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.5] = np.nan
    expected = np.zeros(depth.shape, np.bool_)
    for row, column in np.argwhere(~np.isnan(depth)):
        others = [
            depth[r, c]
            for r in range(max(0, row - 1), min(len(depth), row + 2))
            for c in range(max(0, column - 1), min(depth.shape[1], column + 2))
            if (r, c) != (row, column)
        ]
        alike = sum(abs(other - depth[row, column]) < 0.02 for other in others)
        expected[row, column] = np.isnan(others).any() and alike == 0
    assert expected.any()
    np.testing.assert_array_equal(stray(depth, 0.02), expected)


def test_a_pinhole_amid_measured_points_is_no_stray_point() -> None:
    depth = np.full((9, 9), 0.3, np.float32)
    depth[4, 4] = 0.35
    assert not stray(depth, 0.01).any()
