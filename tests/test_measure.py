"""Sizes in millimetres, measured on shapes of known size."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from das3d_cli.measure import Defect, Surface, defective, find_defects

PITCH_M = 0.0005


def flat(shape=(80, 100), pitch=PITCH_M, down=None):
    rows, columns = np.indices(shape)
    return np.stack((columns * pitch, rows * (down or pitch), np.full(shape, 0.4)), axis=2).astype(np.float32)


def seen(depth, focal=500.0):
    """The points (H, W, 3) that a pinhole camera measures at these depths (H, W), metres."""
    rows, columns = np.indices(depth.shape)
    across, down = columns - depth.shape[1] / 2, rows - depth.shape[0] / 2
    return np.stack((across * depth / focal, down * depth / focal, depth), axis=2).astype(np.float32)


def on_table(height_mm):
    """Depths of a table at 0.5 m and a part of 100 x 100 pixels on it, far from the optical axis."""
    depth = np.full((400, 400), 0.5)
    depth[100:200, 250:350] -= height_mm / 1000
    return depth


def sized(anomaly, xyz, threshold, outline, table_m=math.inf, normal=(0.0, 0.0, -1.0)):
    """The defects of a part that consists of all points nearer than the table."""
    return find_defects(anomaly, Surface(xyz, xyz[..., 2] < table_m - 0.005, normal), threshold, outline)


def region(rows, columns, shape=(400, 400)):
    anomaly = np.zeros(shape, np.float32)
    anomaly[rows, columns] = 0.8
    return anomaly


def assert_size(defect, length, width, rel=0.05):
    assert defect.length_mm == pytest.approx(length, rel=rel)
    assert defect.width_mm == pytest.approx(width, rel=rel)
    assert defect.area_mm2 == pytest.approx(length * width, rel=rel)


def test_a_bar_is_as_long_and_wide_as_it_is():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 10:70] = 0.8
    anomaly[25, 40] = 0.9
    (defect,) = sized(anomaly, flat(), 0.5, 0.5)
    assert defect.score == pytest.approx(0.9)
    assert (defect.row, defect.column) == (25, 40)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    assert defect.width_mm == pytest.approx(5, rel=0.1)
    assert defect.area_mm2 == pytest.approx(150, rel=0.01)


def test_a_slanted_bar_is_no_longer():
    rows, columns = np.indices((100, 100))
    along, across = (rows + columns) / math.sqrt(2), (rows - columns) / math.sqrt(2)
    anomaly = ((abs(along - 70) < 30) & (abs(across) < 4)).astype(np.float32)
    (defect,) = sized(anomaly, flat((100, 100)), 0.5, 0.5)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    assert defect.width_mm == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("angle", [0, 30, 77])
@pytest.mark.parametrize(("length", "width"), [(20.5, 20.5), (60, 20), (30, 4)])
def test_all_of_an_ellipse_counts(length, width, angle):
    """A rule such as "reject over 20 mm" depends on it."""
    rows, columns = (axis - 79.5 for axis in np.indices((160, 160)))
    turn = math.radians(angle)
    along, across = columns * math.cos(turn) + rows * math.sin(turn), rows * math.cos(turn) - columns * math.sin(turn)
    anomaly = (np.hypot(along / length, across / width) <= 0.5 / PITCH_M / 1000).astype(np.float32)
    (defect,) = sized(anomaly, flat((160, 160)), 0.5, 0.5)
    assert (defect.length_mm, defect.width_mm) == pytest.approx((length, width), abs=0.8)  # pixels are 0.5 mm


@pytest.mark.parametrize("enlarged", [1, 2, 3])
def test_a_defect_as_large_as_the_part_of_a_large_capture_is_measured_by_some_of_its_points(enlarged):
    anomaly = region(slice(60, 660), slice(45, 945), (720, 990))
    xyz = flat((720 // enlarged, 990 // enlarged), PITCH_M * enlarged).repeat(enlarged, 0).repeat(enlarged, 1)
    (defect,) = sized(anomaly, xyz, 0.5, 0.5)
    assert_size(defect, 450, 300, rel=0.001 if enlarged == 1 else 0.01)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((6.54, 4.96, 20.04), "6.5 x 5.0 mm, 20.0 mm2"), ((0.21, 0.034, 0.006), "0.21 x 0.03 mm, 0.01 mm2"),
        ((math.nan, math.nan, math.nan), "size unknown, because points are missing"),
    ],
)  # fmt: skip
def test_small_sizes_are_told_with_more_decimals(size, told):
    assert Defect(0.9, 3, 4, *size).extent == told


def test_strongest_first_and_nothing_below_the_threshold():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[5:9, 5:9], anomaly[40:44, 40:44], anomaly[60:64, 60:64] = 0.6, 0.9, 0.4
    found = sized(anomaly, flat(), 0.5, 0.5)
    assert [round(defect.score, 3) for defect in found] == [0.9, 0.6]
    assert sized(anomaly, flat(), 0.95, 0.95) == []


def test_missing_points_do_not_spoil_the_size_nor_does_a_region_without_any():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 10:70] = 0.8
    xyz = flat()
    xyz[::3, ::2] = np.nan
    (defect,) = sized(anomaly, xyz, 0.5, 0.5)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    xyz[15:35] = np.nan
    (defect,) = sized(anomaly, xyz, 0.5, 0.5)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    assert defect.area_mm2 == pytest.approx(150, rel=0.01)


def test_a_region_across_the_outline_is_not_as_long_as_the_step_to_the_table():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 46:56] = 0.8
    xyz = flat()
    xyz[:, 50:, 2] += 0.02  # the table, 20 mm below
    (defect,) = sized(anomaly, xyz, 0.5, 0.5, table_m=0.42)
    assert defect.length_mm == pytest.approx(5, rel=0.1)


def test_a_defect_that_reaches_the_threshold_goes_as_far_as_the_outline():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 10:70], anomaly[24:26, 30:40] = 0.3, 0.9
    anomaly[60:70, 10:20] = 0.85  # a separate region that does not reach the threshold
    (defect,) = sized(anomaly, flat(), float(anomaly.max()), 0.2)
    assert defect.area_mm2 == pytest.approx(150, rel=0.01)
    assert defect.score == pytest.approx(0.9)


def test_defective_pixels_are_those_of_a_flood_from_the_peaks():
    rng = np.random.default_rng(0)
    anomaly = cv2.GaussianBlur(rng.random((60, 60), dtype=np.float32), (0, 0), 2)
    low, high = np.quantile(anomaly, [0.6, 0.9])
    found = anomaly >= high
    while True:  # grow by one pixel, within the pixels that reach the outline
        grown = (cv2.dilate(found.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & (anomaly >= low)
        if (grown == found).all():
            break
        found = grown
    assert (defective(anomaly, high, low) == found).all()
    assert 0 < found.sum() < (anomaly >= low).sum()


@pytest.mark.parametrize("outline", [0.5, 0.7])
def test_an_outline_over_the_threshold_is_the_threshold(outline):
    anomaly = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    assert (defective(anomaly, 0.5, outline) == (anomaly >= 0.5)).all()


@pytest.mark.parametrize(("across", "down"), [(0.0002, 0.001), (0.001, 0.0002)])
def test_pixels_need_not_be_square(across, down):
    anomaly = region(slice(100, 100 + round(0.01 / down)), slice(100, 100 + round(0.01 / across)))
    (defect,) = sized(anomaly, flat((400, 400), across, down), 0.5, 0.5)
    assert_size(defect, 10, 10, rel=0.1)
    assert defect.area_mm2 == pytest.approx(100, rel=0.001)


@pytest.mark.parametrize("height_mm", [30, 60, 100])
class TestTallParts:
    """In perspective, a pixel is smaller on a tall part than on the table."""

    def test_sizes_are_those_at_the_part(self, height_mm):
        (defect,) = sized(region(slice(130, 155), slice(280, 320)), seen(on_table(height_mm)), 0.5, 0.5, table_m=0.5)
        pixel = 1 - height_mm / 500
        assert_size(defect, 40 * pixel, 25 * pixel)

    def test_a_hole_is_as_large_as_its_rim_whether_or_not_the_table_shows_through(self, height_mm):
        depth = on_table(height_mm)
        depth[132:153, 282:318] = 0.5
        (defect,) = sized(region(slice(130, 155), slice(280, 320)), seen(depth), 0.5, 0.5, table_m=0.5)
        pixel = 1 - height_mm / 500
        assert_size(defect, 40 * pixel, 25 * pixel)

    @pytest.mark.parametrize("left", [280, 320])
    def test_a_broken_edge_or_corner_is_as_large_as_what_is_gone(self, height_mm, left):
        depth = on_table(height_mm)
        depth[180:, left : left + 40] = 0.5
        (defect,) = sized(region(slice(178, 203), slice(left, left + 40)), seen(depth), 0.5, 0.5, table_m=0.5)
        pixel = 1 - height_mm / 500
        assert_size(defect, 40 * pixel, 25 * pixel)


@pytest.mark.parametrize("times", [2, 3, 6])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_a_cloud_enlarged_to_the_image_by_repeating_points_has_the_same_sizes(times, slope):
    side = 480 // times
    columns = np.broadcast_to(np.arange(side), (side, side))
    xyz = seen(0.5 + slope * 0.001 * times * (columns - side / 2), 500 / times)
    enlarged = xyz.repeat(times, axis=0).repeat(times, axis=1)
    for size in (8, 40):
        bar = region(slice(241, 241 + size), slice(241, 241 + size // 2), (480, 480))
        (defect,) = sized(bar, enlarged, 0.5, 0.5)
        assert_size(defect, size, size / 2)


def test_a_hole_without_points_but_for_two_is_as_large_as_its_outline():
    xyz = flat()
    kept = xyz[30, 40].copy(), xyz[41, 57].copy()
    xyz[16:64, 26:74] = np.nan
    xyz[30, 40], xyz[41, 57] = kept
    (defect,) = sized(region(slice(20, 60), slice(30, 70), (80, 100)), xyz, 0.5, 0.5)
    assert_size(defect, 20, 20)


def test_points_along_one_rim_alone_do_not_make_a_hole_narrow():
    xyz = flat()
    xyz[21:60, 30:70] = np.nan
    (defect,) = sized(region(slice(20, 60), slice(30, 70), (80, 100)), xyz, 0.5, 0.5)
    assert_size(defect, 20, 20)


def test_flying_and_noisy_points_do_not_change_a_size():
    rng = np.random.default_rng(0)
    depth = on_table(60) + rng.normal(0, 0.0003, (400, 400))
    flying = rng.random((400, 400)) < 0.01
    depth[flying] *= rng.uniform(0.7, 1.3, flying.sum())
    (defect,) = sized(region(slice(130, 155), slice(280, 320)), seen(depth), 0.5, 0.5, table_m=0.5)
    assert_size(defect, 40 * 0.88, 25 * 0.88)


@pytest.mark.parametrize("points", [[], [(30, 40)], [(30, 40), (41, 57)], [(25, 35), (35, 45), (45, 55), (55, 65)]])
def test_too_few_points_or_points_in_a_line_give_no_size(points):
    xyz, known = np.full((80, 100, 3), np.nan, np.float32), flat()
    for place in points:
        xyz[place] = known[place]
    (defect,) = sized(region(slice(20, 60), slice(30, 70), (80, 100)), xyz, 0.5, 0.5)
    assert np.isnan([defect.length_mm, defect.width_mm, defect.area_mm2]).all()
    assert (defect.row, defect.column) == (20, 30)


def test_three_points_are_enough():
    xyz, known = np.full((80, 100, 3), np.nan, np.float32), flat()
    for place in [(25, 35), (30, 62), (55, 40)]:
        xyz[place] = known[place]
    (defect,) = sized(region(slice(20, 60), slice(30, 70), (80, 100)), xyz, 0.5, 0.5)
    assert_size(defect, 20, 20)


def test_points_in_a_line_give_a_single_pixel_no_size():
    xyz, known = np.full((80, 100, 3), np.nan, np.float32), flat()
    for place in [(40, column) for column in range(40, 60)]:
        xyz[place] = known[place]
    (defect,) = sized(region(40, 50, (80, 100)), xyz, 0.5, 0.5)
    assert np.isnan(defect.length_mm)


def test_a_single_pixel_is_as_large_as_it_is():
    (defect,) = sized(region(40, 50, (80, 100)), flat(), 0.5, 0.5)
    assert_size(defect, 0.5, 0.5, rel=0.001)


def test_what_is_passed_by_a_hair_has_no_defect():
    """The threshold is above a good part's score by less than the map's precision."""
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[3, 3] = 0.4321
    score = float(anomaly_map.max())
    assert not defective(anomaly_map, np.nextafter(score, 1), 0.2).any()
    assert defective(anomaly_map, score, 0.2).sum() == 1


@pytest.mark.parametrize("tilt_deg", [0, 30, 60])
@pytest.mark.parametrize("parallel", [False, True])
def test_on_a_tilted_table_sizes_are_those_along_it(tilt_deg, parallel):
    tilt = math.radians(tilt_deg)
    normal = np.array((0, -math.sin(tilt), -math.cos(tilt)))
    across, down = (axis - 200 for axis in np.indices((400, 400))[::-1])
    if parallel:
        x, y = across * PITCH_M / 2, down * PITCH_M / 2
        xyz = np.stack((x, y, 0.4 - y * math.tan(tilt)), axis=2)
    else:
        rays = np.stack((across / 800, down / 800, np.ones(across.shape)), axis=2)
        xyz = rays * (-0.4 * math.cos(tilt) / (rays @ normal))[..., None]
    upwards = xyz[..., 1] * math.cos(tilt) - (xyz[..., 2] - 0.4) * math.sin(tilt)
    anomaly = np.where((np.abs(xyz[..., 0]) < 0.01) & (np.abs(upwards) < 0.015), np.float32(0.8), np.float32(0))
    (defect,) = sized(anomaly, xyz.astype(np.float32), 0.5, 0.5, normal=tuple(normal))
    assert (defect.length_mm, defect.width_mm) == pytest.approx((30, 20), abs=1)
    assert defect.area_mm2 == pytest.approx(600, rel=0.06)  # pixels are 0.5 mm or less
    other = np.array((1, -1, -1))  # a camera that looks along -z
    (same,) = sized(anomaly, (xyz * other).astype(np.float32), 0.5, 0.5, normal=tuple(normal * other))
    assert same == pytest.approx(defect, rel=1e-4)


@pytest.mark.parametrize("wall_mm", [20, 80, 150])
def test_a_defect_at_the_foot_of_a_wall_is_as_large_as_it_is(wall_mm):
    """The wall's points lie one below the other, nearer to the camera than all points around the defect."""
    depth, top = np.full((400, 400), 0.45), 0.45 - wall_mm / 1000
    foot, edge = (200 + round(500 * 0.03 / z) for z in (0.45, top))
    depth[:, foot:edge] = 0.03 * 500 / (np.arange(foot, edge) - 200)
    depth[:, edge : edge + 40] = top
    (defect,) = sized(region(slice(180, 210), slice(foot - 20, foot)), seen(depth), 0.5, 0.5, table_m=0.5)
    assert_size(defect, 27, 18, rel=0.01)


def test_a_defect_far_from_the_part_is_measured_as_far_away_as_that():
    xyz = seen(on_table(100))
    (defect,) = sized(region(slice(10, 30), slice(20, 60)), xyz, 0.5, 0.5, table_m=0.5)
    assert_size(defect, 40 * 0.8, 20 * 0.8)
    (defect,) = find_defects(
        region(slice(10, 30), slice(20, 60)), Surface(xyz, np.zeros((400, 400), bool), (0.0, 0.0, -1.0)), 0.5, 0.5
    )
    assert np.isnan(defect.length_mm)


@pytest.mark.parametrize("tilt_deg", [0.0, 0.3, 2.0])
def test_on_a_height_map_rays_are_parallel_where_it_is_flat_as_well(tilt_deg):
    xyz = flat((100, 100))
    xyz[..., 2] = 0.002
    xyz[20:80, 20:80, 2] = 0.007
    tilt = math.radians(tilt_deg)
    (defect,) = sized(
        region(slice(40, 56), slice(30, 38), (100, 100)), xyz, 0.5, 0.5, normal=(0, -math.sin(tilt), -math.cos(tilt))
    )
    assert_size(defect, 8, 4, rel=0.01)


def test_without_surface_a_size_is_not_known():
    (defect,) = find_defects(region(40, 50), None, 0.5, 0.5)
    assert (defect.row, defect.column) == (40, 50) and np.isnan(
        [defect.length_mm, defect.width_mm, defect.area_mm2]
    ).all()
