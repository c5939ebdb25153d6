"""The metrics against literal versions of their definitions: every pair of items, every threshold."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from das3d_cli.metrics import (
    LIMITS,
    Metrics,
    aupro,
    auroc,
    average_precision,
    evaluate,
    f1_max,
    pro_curve,
    pro_point,
    roc_curve,
)


def auroc_by_pairs(truth, scores):
    above = [(a > n) + 0.5 * (a == n) for a in scores[truth] for n in scores[~truth]]
    return float(np.mean(above))


def average_precision_by_thresholds(truth, scores):
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        picked = scores >= threshold
        recall = (picked & truth).sum() / truth.sum()
        total += (recall - recall_before) * (picked & truth).sum() / picked.sum()
        recall_before = recall
    return total


def f1_by_thresholds(truth, scores):
    best = 0.0
    for threshold in set(scores.tolist()):
        picked = scores >= threshold
        precision, recall = (picked & truth).sum() / picked.sum(), (picked & truth).sum() / truth.sum()
        best = max(best, 2 * precision * recall / (precision + recall) if recall else 0.0)
    return best


def regions_of(masks):
    regions = []
    for index, mask in enumerate(masks):
        count, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [(index, numbers == number) for number in range(1, count)]
    return regions


def aupro_by_thresholds(masks, maps, limit, marked=None):
    regions, normal = regions_of(masks), ~(masks if marked is None else marked)
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        found = maps >= threshold
        rates.append(found[normal].mean())
        overlaps.append(np.mean([found[index][region].mean() for index, region in regions]))
    return trapezia(rates, overlaps, limit)


def aupro_by_100_thresholds(masks, maps, limit, marked=None):
    regions, normal = regions_of(masks), sorted(maps[~(masks if marked is None else marked)].tolist())
    points = [(1.0, 1.0)]
    for number in range(100):
        place = int(number * (len(normal) - 1) / 99 + 1e-9)
        shares = [
            sum(value > normal[place] for value in maps[index][region]) / region.sum() for index, region in regions
        ]
        points.append(((len(normal) - place - 1) / len(normal), sum(shares) / len(shares)))
    rates, overlaps = zip(*reversed(points), strict=True)
    return trapezia(rates, overlaps, limit)


def trapezia(rates, overlaps, limit):
    """The area up to the limit, segment by segment, divided by the limit."""
    area = 0.0
    for left in range(len(rates) - 1):
        x0, x1, y0, y1 = rates[left], rates[left + 1], overlaps[left], overlaps[left + 1]
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.fixture(params=[0, 1, 2, 3], ids=lambda levels: f"seed{levels}")
def rng(request):
    return np.random.default_rng(request.param)


def some_maps(rng, levels, size=14):
    """Three masks, two of them with many regions touching at corners and borders, and maps in steps of 1 / `levels`."""
    masks = rng.random((3, size, size)) < 0.12
    masks[1, 3:9, 4:11] = True
    masks[2] = False
    maps = np.clip(rng.normal(0.4, 0.2, masks.shape) + 0.15 * masks, 0, 1)
    return masks, (np.round(maps * levels) / levels).astype(np.float32)


@pytest.mark.parametrize("levels", [1, 2, 5, 40, 10**6])
def test_auroc_and_average_precision_match_their_definitions(rng, levels):
    truth = rng.random(60) < 0.3
    scores = np.round((rng.random(60) + 0.3 * truth) * levels) / levels
    assert auroc(truth, scores) == pytest.approx(auroc_by_pairs(truth, scores), abs=1e-12)
    assert average_precision(truth, scores) == pytest.approx(average_precision_by_thresholds(truth, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [1, 3, 10, 10**6])
@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
def test_aupro_matches_a_loop_over_every_threshold(rng, levels, limit):
    masks, maps = some_maps(rng, levels)
    assert aupro(masks, maps, limit) == pytest.approx(aupro_by_thresholds(masks, maps, limit), abs=1e-12)


@pytest.mark.parametrize("levels", [1, 3, 10, 10**6])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 1.0])
def test_reference_aupro_matches_a_loop_over_its_100_thresholds(rng, levels, limit):
    masks, maps = some_maps(rng, levels)
    expected = aupro_by_100_thresholds(masks, maps, limit)
    assert aupro(masks, maps, limit, "reference") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("wrong", [{"limit": 30}, {"limit": 0}, {"variant": "Reference"}])
def test_an_area_that_is_not_defined_is_refused(rng, wrong):
    with pytest.raises(ValueError, match="must be"):
        aupro(rng.random((2, 8, 8)) > 0.9, rng.random((2, 8, 8)), **wrong)


def test_the_two_variants_agree_where_thresholds_abound_and_part_at_small_limits(rng):
    masks, maps = some_maps(rng, 10**6, size=96)
    maps[masks] += 0.5
    difference = [aupro(masks, maps, limit) - aupro(masks, maps, limit, "reference") for limit in (0.01, 0.3)]
    assert difference[0] > 5 * difference[1] > 0


@pytest.mark.parametrize("levels", [1, 2, 5, 40, 10**6])
def test_f1_max_matches_its_definition(rng, levels):
    truth = rng.random(60) < 0.3
    scores = np.round((rng.random(60) + 0.3 * truth) * levels) / levels
    assert f1_max(truth, scores) == pytest.approx(f1_by_thresholds(truth, scores), abs=1e-12)


@pytest.mark.parametrize("levels", [1, 10, 10**6])
def test_curves_run_through_every_threshold_from_corner_to_corner(rng, levels):
    masks, maps = some_maps(rng, levels)
    regions = regions_of(masks)
    for rates, shares in (roc_curve(masks, maps), pro_curve(masks, maps)):
        assert rates.dtype == shares.dtype == np.float64
        assert (rates[0], shares[0], rates[-1], shares[-1]) == (0.0, 0.0, 1.0, pytest.approx(1.0))
        assert (np.diff(rates) >= 0).all() and (np.diff(shares) >= 0).all()
    for threshold in np.unique(maps[masks])[::7]:
        found = maps >= threshold
        overlap = np.mean([found[index][region].mean() for index, region in regions])
        for (rates, shares), expected in (
            (roc_curve(masks, maps), found[masks].mean()),
            (pro_curve(masks, maps), overlap),
        ):
            assert np.hypot(rates - found[~masks].mean(), shares - expected).min() < 1e-12


@pytest.mark.parametrize("levels", [4, 1000])
def test_what_reaches_a_threshold_lies_on_the_curve_of_overlaps(rng, levels):
    masks, maps = some_maps(rng, levels)
    rates, shares = pro_curve(masks, maps)
    steps = np.diff(rates) + np.diff(shares)  # lengths along the curve, which never falls
    for threshold in np.append(np.unique(maps)[::5], [-1.0, maps.max() + 1]):
        found = maps >= threshold
        rate, overlap = pro_point(masks, found)
        assert rate == found[~masks].mean()
        assert overlap == pytest.approx(np.mean([found[i][region].mean() for i, region in regions_of(masks)]))
        place = np.interp(rate + overlap, np.append(0.0, np.cumsum(steps)), rates)
        assert place == pytest.approx(rate, abs=1e-9)


def test_pixel_figures_match_scikit_learn(rng):
    masks, maps = some_maps(rng, levels=20, size=64)
    assert auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert average_precision(masks, maps) == pytest.approx(
        average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12
    )


def test_aupro_weighs_regions_alike_and_pixel_auroc_does_not():
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 2:32, 2:32] = True  # found
    masks[0, 36:38, 36:38] = True  # missed
    maps = np.zeros(masks.shape, np.float32)
    maps[0, 2:32, 2:32] = 1.0
    # The last threshold adds the missed region and every normal pixel: PRO rises from 1/2 to 1.
    assert aupro(masks, maps, limit=1.0) == pytest.approx(0.75)
    assert auroc(masks, maps) > 0.99


def test_regions_that_touch_at_a_corner_are_one():
    masks = np.zeros((1, 12, 12), bool)
    masks[0, 2:4, 2:4] = masks[0, 4, 4] = True
    maps = np.zeros(masks.shape, np.float32)
    maps[0, 2:4, 2:4] = 1.0
    # 4 of 5 pixels without a false positive; as two regions, overlap would start at (1 + 0) / 2.
    assert aupro(masks, maps, limit=1.0) == pytest.approx((0.8 + 1.0) / 2)


@pytest.mark.parametrize("perfect", [True, False])
def test_perfect_and_worst_maps(perfect):
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 4:8, 4:8] = True
    maps = (masks if perfect else ~masks).astype(np.float32)
    expected = 1.0 if perfect else 0.0
    assert auroc(masks, maps) == expected
    assert aupro(masks, maps) == expected
    assert (average_precision(masks, maps) == 1.0) is perfect


@pytest.mark.parametrize("present", [True, False])
def test_a_single_class_is_undefined_not_an_error(present):
    masks = np.full((2, 5, 5), present)
    maps = np.linspace(0, 1, 50, dtype=np.float32).reshape(masks.shape)
    for value in (auroc(masks, maps), average_precision(masks, maps), f1_max(masks, maps), aupro(masks, maps),
                  aupro(masks, maps, variant="reference"), float(np.sum(pro_curve(masks, maps))),
                  sum(pro_point(masks, maps > 0.5))):  # fmt: skip
        assert math.isnan(value)


def test_nothing_is_undefined_not_an_error():
    assert math.isnan(auroc([], []))
    assert math.isnan(aupro(np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), np.float32)))


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        auroc([True, False], [1.0, math.nan])
    with pytest.raises(ValueError, match="NaN"):
        auroc([True, False], [math.nan, 1.0])


LABELS = ["hole", "good", "bent", "good", "hole"]


class TestEvaluate:
    @pytest.fixture
    def parts(self, rng):
        masks = np.zeros((5, 20, 20), bool)
        masks[0, 3:9, 3:9] = masks[2, 10:12, 1:18] = masks[4, 15:19, 2:7] = True
        maps = (rng.random(masks.shape) * 0.8 + 0.2 * masks).astype(np.float32)
        return np.array([0.9, 0.3, 0.2, 0.4, 0.35]), maps, masks

    def test_overall_figures_cover_all_parts(self, parts):
        scores, maps, masks = parts
        truth = np.array([True, False, True, False, True])
        expected = Metrics(
            auroc(truth, scores),
            average_precision(truth, scores),
            f1_max(truth, scores),
            auroc(masks, maps),
            average_precision(masks, maps),
            *(aupro(masks, maps, limit) for limit in LIMITS.values()),
            *(aupro(masks, maps, limit, "reference") for limit in LIMITS.values()),
            5,
        )
        assert evaluate(LABELS, scores, maps, masks)["all"] == pytest.approx(expected, rel=1e-12)

    def test_each_type_is_measured_against_the_good_parts_alone(self, parts):
        scores, maps, masks = parts
        results = evaluate(LABELS, scores, maps, masks)
        assert list(results) == ["all", "bent", "hole"]
        hole = [0, 1, 3, 4]
        assert results["hole"].samples == 2
        assert results["hole"].image_auroc == pytest.approx(0.75)
        assert results["hole"].pixel_auroc == pytest.approx(auroc(masks[hole], maps[hole]), rel=1e-12)
        assert results["hole"].aupro_30 == aupro(masks[hole], maps[hole])
        assert results["bent"].image_auroc == 0.0

    def test_without_defects_the_figures_are_undefined(self, parts):
        scores, maps, masks = parts
        only_good = evaluate(["good"] * 5, scores, maps, np.zeros_like(masks))
        assert list(only_good) == ["all"]
        assert all(math.isnan(value) for value in only_good["all"][:-1])

    def test_without_good_parts_pixels_still_count(self, parts):
        scores, maps, masks = parts
        result = evaluate(["hole"] * 5, scores, maps, masks)["all"]
        assert math.isnan(result.image_auroc)
        assert 0 < result.aupro_30 < 1


SEVERAL = ["good", "bump+stain", "bump", "bump+stain", "stain", "good", "a+b"]
# Indices of each type's parts, and of the good parts.
OF_TYPE = {"bump": ([1, 2, 3], [0, 5]), "stain": ([1, 3, 4], [0, 5]), "a+b": ([6], [0, 5])}


class TestSeveralTypesOnAPart:
    """On two parts, bump and stain touch and overlap, and some marked pixels belong to neither."""

    @pytest.fixture(params=[5, 10**6], ids=["ties", "no ties"])
    def parts(self, request):
        rng = np.random.default_rng(request.param)
        masks = rng.random((7, 11, 11)) < 0.1
        masks[:, 3:7, 4:8] = True
        masks[[0, 5]] = False
        by_type = {i: {name: masks[i] & (rng.random((11, 11)) < 0.5) for name in ("stain", "bump")} for i in (1, 3)}
        maps = np.clip(rng.normal(0.4, 0.2, masks.shape) + 0.15 * masks, 0, 1)
        return rng.random(7), (np.round(maps * request.param) / request.param).astype(np.float32), masks, by_type

    def truth(self, name, masks, by_type):
        """Indices of the type's parts and of the good ones, the type's masks on them, and the pixels left out."""
        of_type, good = OF_TYPE[name]
        places = of_type + good
        mine = np.stack([by_type[i][name] if i in by_type else masks[i] for i in places])
        return places, mine, masks[places] & ~mine

    def test_each_type_is_measured_by_its_own_mask_without_the_pixels_of_others(self, parts):
        scores, maps, masks, by_type = parts
        results = evaluate(SEVERAL, scores, maps, masks, by_type)
        assert list(results) == ["all", "a+b", "bump", "stain"]
        assert [found.samples for found in results.values()] == [7, 1, 3, 3]
        for name in OF_TYPE:
            places, mine, others = self.truth(name, masks, by_type)
            found, seen, anomalous = results[name], maps[places], mine.any(axis=(1, 2))
            assert others.any() == (name != "a+b")
            assert found.image_auroc == pytest.approx(auroc_by_pairs(anomalous, scores[places]), abs=1e-12)
            assert found.image_f1_max == pytest.approx(f1_by_thresholds(anomalous, scores[places]), abs=1e-12)
            assert found.pixel_auroc == pytest.approx(auroc_by_pairs(mine[~others], seen[~others]), abs=1e-12)
            precision = average_precision_by_thresholds(mine[~others], seen[~others])
            assert found.pixel_ap == pytest.approx(precision, abs=1e-12)
            for field, limit in LIMITS.items():
                exact = aupro_by_thresholds(mine, seen, limit, mine | others)
                assert getattr(found, field) == pytest.approx(exact, abs=1e-12)
                reference = aupro_by_100_thresholds(mine, seen, limit, mine | others)
                assert getattr(found, f"{field}_reference") == pytest.approx(reference, abs=1e-12)

    def test_all_counts_every_mark_once(self, parts):
        scores, maps, masks, by_type = parts
        assert evaluate(SEVERAL, scores, maps, masks, by_type)["all"] == evaluate(SEVERAL, scores, maps, masks)["all"]

    def test_what_is_left_out_moves_nothing(self, parts):
        scores, maps, masks, by_type = parts
        before = evaluate(SEVERAL, scores, maps, masks, by_type)
        places, _, others = self.truth("bump", masks, by_type)
        changed = maps[places]
        changed[others] = 1 - changed[others]
        maps = maps.copy()
        maps[places] = changed
        after = evaluate(SEVERAL, scores, maps, masks, by_type)
        assert after["bump"] == before["bump"]
        assert after["stain"].pixel_auroc != before["stain"].pixel_auroc != after["all"].pixel_auroc
