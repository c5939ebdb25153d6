"""The shift of a photo against its points, found from the part's outline in both."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from das3d_cli.data import alignment

HEIGHT, WIDTH = 180, 220


def photo_offset(rgb: NDArray[np.uint8], part: NDArray[np.bool_]) -> tuple[float, float] | None:
    """`alignment.photo_offset` with every pixel measured."""
    return alignment.photo_offset(rgb, part, np.ones(part.shape, bool))


@cache
def shape(times: int, x: float = 0.0, y: float = 0.0) -> NDArray[np.float32]:
    """A lobed part's share of each pixel, (HEIGHT * times, WIDTH * times), shifted by x and y pixels at `times` = 1."""
    fine = 3
    rows, columns = (np.mgrid[: HEIGHT * times * fine, : WIDTH * times * fine] + 0.5) / (times * fine)
    across, down = columns - 112 - x, rows - 87 - y
    radius = 50 + 8 * np.cos(3 * np.arctan2(down, across))
    return cv2.resize(
        (np.hypot(across, down) < radius).astype(np.float32),
        (WIDTH * times, HEIGHT * times),
        interpolation=cv2.INTER_AREA,
    )


def photo(cover: NDArray[np.float32], part: float, table: float, grain: float) -> NDArray[np.uint8]:
    """A grey photo, uint8, (H, W, 3), of the part and the table, each in a mottled tone."""
    noise = np.random.default_rng(3).standard_normal((2, *cover.shape)).astype(np.float32)
    mottled = [cv2.GaussianBlur(one, (0, 0), 2) * 7 * grain for one in noise]  # standard deviation: about `grain`
    tone = cover * (part + mottled[0]) + (1 - cover) * (table + mottled[1])
    return np.repeat(np.rint(np.clip(tone, 0, 255)).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("part", "table", "grain"), [(60, 150, 4), (150, 90, 4), (30, 42, 1), (140, 110, 10)])
@pytest.mark.parametrize("moved", [(0.0, 0.0), (1.0, 0.0), (-0.5, 2.25), (2.0, -3.0)])
def test_a_photo_is_found_where_it_lies(
    times: int, part: float, table: float, grain: float, moved: tuple[float, float]
) -> None:
    found = photo_offset(photo(shape(times, *moved), part, table, grain), shape(times) >= 0.5)
    assert found is not None
    assert np.abs(np.array(found) / times - moved).max() < 0.35


def test_a_bright_reflection_beside_the_outline_moves_nothing() -> None:
    image = photo(shape(1), 60, 100, 2)
    image[60:110, 165:169] = 255
    found = photo_offset(image, shape(1) >= 0.5)
    assert found is not None
    assert np.hypot(*found) < 0.35


def test_more_than_it_looks_for_is_told_as_the_most() -> None:
    found = photo_offset(photo(shape(1, 9.0), 60, 150, 1), shape(1) >= 0.5)
    assert found is not None
    assert 7 < found[0] <= 9


@pytest.mark.parametrize(
    "part",
    [
        (slice(None), slice(None)), (slice(50, 58), slice(70, 78)), (slice(50, 51), slice(70, 71)),
        (slice(50, 51), slice(None)),
    ],
    ids=["all", "few pixels", "one pixel", "a line"],
)  # fmt: skip
def test_where_too_little_outline_shows_nothing_is_told(part: tuple[slice, slice]) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[part] = True
    assert photo_offset(photo(shape(1), 60, 150, 2), mask) is None


def test_an_outline_that_fits_as_well_elsewhere_tells_nothing() -> None:
    bar, longer = np.zeros((2, HEIGHT, WIDTH), np.float32)
    bar[80:100, 40:180], longer[80:100] = 1, 1
    assert photo_offset(photo(longer, 60, 150, 4), bar > 0) is None
    assert photo_offset(photo(bar, 60, 150, 4), bar > 0) == pytest.approx((0, 0), abs=0.35)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_a_photo_without_a_change_tells_nothing(tone: int) -> None:
    assert photo_offset(np.full((HEIGHT, WIDTH, 3), tone, np.uint8), shape(1) >= 0.5) is None


def test_where_a_photo_is_white_it_says_nothing() -> None:
    image = photo(shape(1, 1.0), 60, 150, 2)
    image[:, 125:] = 255
    found = photo_offset(image, shape(1) >= 0.5)
    assert found is not None
    assert np.hypot(found[0] - 1, found[1]) < 0.6


@pytest.mark.parametrize("falls", [(4, 0), (6, -2), (-3, 3)])
def test_a_hard_shadow_beside_the_part_is_not_taken_for_it(falls: tuple[int, int]) -> None:
    cover = shape(1)
    shadow = np.max([shape(1, falls[0] * k / 8, falls[1] * k / 8) for k in range(9)], axis=0)
    bright = np.where((shadow * (1 - cover) > 0.5)[..., None], 20, photo(cover, 90, 150, 2)).astype(np.uint8)
    found = photo_offset(bright, cover >= 0.5)
    assert found is not None
    assert np.hypot(*found) < 0.7


def test_where_the_photo_itself_told_the_part_it_does_not_count() -> None:
    points, moved = shape(1) >= 0.5, shape(1, 3.0, 0.0)
    measured = np.ones((HEIGHT, WIDTH), bool)
    measured[:, 130:] = False
    found = alignment.photo_offset(photo(moved, 60, 150, 2), np.where(measured, points, moved >= 0.5), measured)
    assert found is not None
    assert np.hypot(found[0] - 3, found[1]) < 0.6


def test_no_part_tells_nothing() -> None:
    assert photo_offset(photo(shape(1), 60, 150, 2), np.zeros((HEIGHT, WIDTH), bool)) is None


def test_a_long_narrow_image_tells_nothing() -> None:
    assert photo_offset(np.zeros((16, 20_000, 3), np.uint8), np.ones((16, 20_000), bool)) is None


def test_a_part_at_the_border_is_told_by_the_rest_of_its_outline() -> None:
    image, mask = photo(shape(1, 2.0), 60, 150, 2), shape(1) >= 0.5
    found = photo_offset(image[:, :150], mask[:, :150])
    assert found is not None
    assert np.hypot(found[0] - 2, found[1]) < 0.35
