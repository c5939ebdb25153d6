"""Intervals: bootstrap ones against resampled test splits assembled part by part, others by coverage and by formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from das3d_cli import intervals as module
from das3d_cli.intervals import auroc_interval, intervals, share_interval
from das3d_cli.metrics import FIGURES, evaluate

DRAWN = [figure for figure in FIGURES if figure != "image_auroc"]
LABELS = ["good"] * 5 + ["hole"] * 4 + ["bent"] * 3


def some_split(seed=0, labels=LABELS, size=40):
    """Parts, some judged well and some badly, so that resamples differ."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(labels), size, size), bool)
    maps = rng.random(masks.shape) ** 3
    for index, label in enumerate(labels):
        if label != "good":
            row, column = rng.integers(0, size - 12, 2)
            masks[index, row : row + 12, column : column + 8] = True
            masks[index, 2:5, 2:5] = True
        maps[index] += rng.uniform(0, 1) * masks[index]
    scores = rng.random(len(labels)) + 0.4 * (np.array(labels) != "good")
    return scores, maps.astype(np.float32), masks


def test_bounds_are_those_of_splits_put_together_part_by_part(monkeypatch):
    monkeypatch.setattr(module, "_RESAMPLES", 60)
    scores, maps, masks = some_split()
    found = intervals(LABELS, scores, maps, masks)["all"]
    drawn = []
    for counts in module._draws(np.array(LABELS) != "good", seed=0):
        parts = np.repeat(np.arange(len(LABELS)), counts.astype(int))
        assert np.sum(np.array(LABELS)[parts] == "good") == 5
        drawn.append(evaluate([LABELS[i] for i in parts], scores[parts], maps[parts], masks[parts])["all"])
    for figure in DRAWN:
        low, high = np.quantile([getattr(metrics, figure) for metrics in drawn], [0.025, 0.975])
        tolerance = 1e-12 if figure.startswith("image") else 2e-3
        assert found[figure] == pytest.approx((low, high), abs=tolerance), figure


def test_bounds_of_a_type_are_those_of_its_own_masks(monkeypatch):
    monkeypatch.setattr(module, "_RESAMPLES", 25)
    scores, maps, masks = some_split()
    columns, by_type = np.arange(40), {}
    for index in (6, 7, 10):  # defect pixels in every fourth column have no type
        bent, hole = (masks[index] & (columns % 4 == remainder) for remainder in (0, 1))
        by_type[index] = {"hole": hole | (masks[index] & (columns % 4 == 2)), "bent": bent}
    found = intervals(LABELS, scores, maps, masks, by_type)
    assert found["all"] == intervals(LABELS, scores, maps, masks)["all"]
    its = {"hole": [0, 1, 2, 3, 4, 5, 6, 7, 8, 10], "bent": [0, 1, 2, 3, 4, 6, 7, 9, 10, 11]}
    for name, places in its.items():
        drawn = []
        for counts in module._draws(np.array(LABELS)[places] != "good", seed=0):
            parts = np.repeat(places, counts.astype(int))
            again = {new: by_type[old] for new, old in enumerate(parts) if old in by_type}
            labels = ["good" if i < 5 else name for i in parts]
            drawn.append(evaluate(labels, scores[parts], maps[parts], masks[parts], again)[name])
        for figure in DRAWN:
            low, high = np.quantile([getattr(metrics, figure) for metrics in drawn], [0.025, 0.975])
            tolerance = 1e-12 if figure.startswith("image") else 2e-3
            assert found[name][figure] == pytest.approx((low, high), abs=tolerance), (name, figure)


def test_every_group_has_bounds_round_its_figures_and_they_repeat():
    split = some_split()
    found, figures = intervals(LABELS, *split), evaluate(LABELS, *split)
    assert list(found) == list(figures)
    assert found == intervals(LABELS, *split)
    for name, metrics in figures.items():
        for figure, (low, high) in found[name].items():
            assert low - 2e-3 <= getattr(metrics, figure) <= high + 2e-3, (name, figure)


def test_more_parts_narrow_the_bounds():
    def width(times):
        scores, maps, masks = some_split(1, LABELS * times)
        low, high = intervals(LABELS * times, scores, maps, masks)["all"]["image_auroc"]
        return high - low

    assert width(8) < 0.6 * width(1)


@pytest.mark.parametrize("labels", [["good"] * 4, ["good"] + ["hole"] * 4, ["good"] * 4 + ["hole"]])
def test_what_cannot_be_drawn_anew_is_undefined_not_an_error(labels):
    found = intervals(labels, *some_split(0, labels))["all"]
    assert all(math.isnan(bound) for bounds in found.values() for bound in bounds)


def test_bounds_that_all_draws_agree_on_are_not_given():
    labels = ["good"] * 15 + ["hole"] * 7
    scores, maps, masks = some_split(0, labels)
    scores[15:] += 2
    found = intervals(labels, scores, maps + 2 * masks, masks)["all"]  # every resample is ranked perfectly
    assert all(math.isnan(bound) for figure in DRAWN for bound in found[figure])
    low, high = found["image_auroc"]
    assert low < 0.8 < high == 1.0


def test_without_good_parts_pixel_figures_have_bounds():
    found = intervals(["hole"] * 5, *some_split(0, ["hole"] * 5))["all"]
    assert math.isnan(found["image_auroc"][0])
    assert 0 < found["aupro_30"][0] <= found["aupro_30"][1] <= 1


@pytest.mark.parametrize(("hits", "number"), [(0, 15), (33, 35), (35, 35), (0, 1), (1, 1), (7, 1000)])
def test_shares_have_the_bounds_of_clopper_and_pearson(hits, number):
    known = binomtest(hits, number).proportion_ci(0.95, method="exact")
    assert share_interval(hits, number) == pytest.approx((known.low, known.high), abs=1e-9)


@pytest.mark.parametrize(
    ("true", "good", "defective"), [(0.97, 15, 5), (0.97, 15, 35), (0.99, 20, 40), (0.8, 15, 5), (0.5, 8, 8)]
)
def test_the_interval_of_image_auroc_holds_the_true_one_as_often_as_it_says(true, good, defective):
    """For 1000 splits with normally distributed scores; bootstrap intervals held it in 62 to 87 % of them."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(1000, good, 1))
    higher = rng.normal(norm.ppf(true) * math.sqrt(2), size=(1000, 1, defective))
    found = np.array([auroc_interval(seen, defective, good) for seen in (higher > normal).mean(axis=(1, 2))])
    assert 0.93 <= np.mean((found[:, 0] <= true) & (true <= found[:, 1])) <= 1
    assert np.isfinite(found).all() and (found[:, 0] < found[:, 1]).all()


def test_the_interval_of_few_parts_is_newcombes():
    """His fifth method: Hanley and McNeil's variance at the true AUROC, m and n in its numerator set to their mean."""
    seen, m, n = 0.75, 3, 4
    true = np.linspace(0, 1, 200_001)
    shared = (m + n) / 2 - 1
    variance = true * (1 - true) * (1 + shared * (1 - true) / (2 - true) + shared * true / (1 + true)) / (m * n)
    within = true[np.abs(true - seen) <= norm.ppf(0.975) * np.sqrt(variance)]
    assert auroc_interval(seen, m, n) == pytest.approx((within[0], within[-1]), abs=1e-4)


@pytest.mark.parametrize("seen", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_an_interval_of_image_auroc_is_the_mirrored_ones_mirror(seen):
    low, high = auroc_interval(seen, 7, 12)
    assert low <= seen <= high and high - low > 0.05
    assert (1 - high, 1 - low) == pytest.approx(auroc_interval(1 - seen, 7, 12), abs=1e-6)
