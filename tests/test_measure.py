"""Sizes in millimetres against boxes whose size is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from das3d_cli.measure import defective, find_defects

PITCH_M = 0.0005


def flat(shape=(80, 100), pitch=PITCH_M):
    rows, columns = np.indices(shape)
    return np.stack((columns * pitch, rows * pitch, np.full(shape, 0.4)), axis=2).astype(np.float32)


def test_a_bar_is_as_long_and_wide_as_it_is():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 10:70] = 0.8
    anomaly[25, 40] = 0.9
    (defect,) = find_defects(anomaly, flat(), 0.5, 0.5)
    assert defect.score == pytest.approx(0.9)
    assert (defect.row, defect.column) == (25, 40)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    assert defect.width_mm == pytest.approx(5, rel=0.1)
    assert defect.area_mm2 == pytest.approx(150, rel=0.01)


def test_a_slanted_bar_is_no_longer():
    rows, columns = np.indices((100, 100))
    along, across = (rows + columns) / math.sqrt(2), (rows - columns) / math.sqrt(2)
    anomaly = ((abs(along - 70) < 30) & (abs(across) < 4)).astype(np.float32)
    (defect,) = find_defects(anomaly, flat((100, 100)), 0.5, 0.5)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    assert defect.width_mm == pytest.approx(4, rel=0.15)


def test_strongest_first_and_nothing_below_the_threshold():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[5:9, 5:9], anomaly[40:44, 40:44], anomaly[60:64, 60:64] = 0.6, 0.9, 0.4
    found = find_defects(anomaly, flat(), 0.5, 0.5)
    assert [round(defect.score, 3) for defect in found] == [0.9, 0.6]
    assert find_defects(anomaly, flat(), 0.95, 0.95) == []


def test_missing_points_do_not_spoil_the_size_and_no_points_give_none():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 10:70] = 0.8
    xyz = flat()
    xyz[::3, ::2] = np.nan
    (defect,) = find_defects(anomaly, xyz, 0.5, 0.5)
    assert defect.length_mm == pytest.approx(30, rel=0.06)
    xyz[15:35] = np.nan
    (defect,) = find_defects(anomaly, xyz, 0.5, 0.5)
    assert math.isnan(defect.length_mm)
    assert defect.area_mm2 == pytest.approx(150, rel=0.01)


def test_a_region_across_the_outline_is_not_as_long_as_the_step_to_the_table():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 46:56] = 0.8
    xyz = flat()
    xyz[:, 50:, 2] += 0.02  # the table, 20 mm below
    (defect,) = find_defects(anomaly, xyz, 0.5, 0.5)
    assert defect.length_mm == pytest.approx(5, rel=0.1)


def test_a_defect_that_reaches_the_threshold_goes_as_far_as_the_outline():
    anomaly = np.zeros((80, 100), np.float32)
    anomaly[20:30, 10:70], anomaly[24:26, 30:40] = 0.3, 0.9
    anomaly[60:70, 10:20] = 0.85  # a place of its own that does not reach it
    (defect,) = find_defects(anomaly, flat(), 0.9, 0.2)
    assert defect.area_mm2 == pytest.approx(150, rel=0.01)
    assert defect.score == pytest.approx(0.9)


def test_defective_pixels_are_those_of_a_flood_from_the_peaks():
    rng = np.random.default_rng(0)
    anomaly = cv2.GaussianBlur(rng.random((60, 60), dtype=np.float32), (0, 0), 2)
    low, high = np.quantile(anomaly, [0.6, 0.9])
    found = anomaly >= high
    while True:  # grow by a pixel at a time within what reaches the outline
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
