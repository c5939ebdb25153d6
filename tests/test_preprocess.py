"""From raw captures to samples: properties that follow from the definition, on known surfaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from das3d_cli.data.capture import Foreground, Geometry, RawCapture, Sample
from das3d_cli.data.preprocess import _range_of, extent_of, preprocess
from das3d_cli.data.square import to_raw
from das3d_cli.errors import DataError

FOCAL, TABLE_M, NOISE_M = 400.0, 0.4, 5e-5
PITCH_M = (TABLE_M - 0.02) / FOCAL  # pixel pitch on a part 20 mm high
COLOUR = (200, 120, 40)


def relief(
    height: NDArray[np.floating[Any]], *, tilt_deg: float = 0.0, seed: int = 0, table_m: float = TABLE_M
) -> RawCapture:
    """A pinhole camera's view of a table with the given heights in metres; the part has one colour."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(height.shape) - np.array(height.shape)[:, None, None] / 2 + 0.5
    rays = np.stack([columns / FOCAL, rows / FOCAL, np.ones_like(rows)], axis=-1)
    tilt = np.radians(tilt_deg)
    normal = np.array([0, -np.sin(tilt), -np.cos(tilt)])
    over = height + rng.normal(size=height.shape) * NOISE_M
    xyz = rays * ((over - table_m * np.cos(tilt)) / (rays @ normal))[..., None]
    rgb = np.where((height > 0)[..., None], np.array(COLOUR), 230).astype(np.uint8)
    return RawCapture(rgb, xyz.astype(np.float32))


def disc(
    shape: tuple[int, int],
    radius: float,
    height: float = 0.02,
    hole: float = -1.0,
    centre: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    middle = np.array(centre or (shape[0] / 2, shape[1] / 2))
    rows, columns = np.indices(shape) - middle[:, None, None] + 0.5
    distance = np.hypot(rows, columns)
    return np.where((distance < radius) & (distance >= hole), height, 0.0)


def prepared(capture: RawCapture, size: int = 64, axis: Literal["camera", "plane"] = "plane", **options: Any) -> Sample:
    options = {"depth_range_m": (-0.03, 0.0), "window_m": None, **options}
    return preprocess(capture, size=size, plane_distance_m=0.005, depth_axis=axis, **options)


@pytest.mark.parametrize(("shape", "size"), [((160, 160), 64), ((120, 160), 50), ((160, 90), 64), ((96, 96), 160)])
def test_part_and_background_do_not_mix(shape: tuple[int, int], size: int) -> None:
    height = disc(shape, 30)
    sample = prepared(relief(height), size)
    inside = sample.foreground
    assert sample.rgb.shape == (size, size, 3)
    assert sample.rgb.dtype == np.uint8
    assert sample.depth.dtype == np.float32
    # 20 mm high is 1/3 of the way from -30 mm to 0
    assert np.abs(sample.depth[inside] - 1 / 3).max() < 8 * NOISE_M / 0.03
    assert (sample.rgb[inside] == COLOUR).all()
    assert (sample.rgb[~inside] == 0).all()
    assert (sample.depth[~inside] == sample.depth[inside].max()).all()
    assert (sample.valid == inside).all()
    side = max(shape)
    assert inside.sum() == pytest.approx((height > 0).sum() * (size / side) ** 2, rel=0.04)
    rows, columns = np.nonzero(inside)
    assert (rows.mean(), columns.mean()) == pytest.approx(((size - 1) / 2, (size - 1) / 2), abs=0.3)


def test_geometry_tells_where_the_sample_came_from() -> None:
    capture = relief(disc((120, 160), 30), tilt_deg=10)
    capture.xyz[:30, :40] = np.nan
    geometry = prepared(capture).geometry
    assert (geometry.raw_height, geometry.raw_width, geometry.pad_top, geometry.pad_left) == (120, 160, 20, 0)
    assert geometry.missing_fraction == pytest.approx(1 / 16)
    assert geometry.tilt_deg == pytest.approx(10, abs=0.1)
    assert (geometry.near_m, geometry.far_m) == (-0.03, 0.0)
    assert geometry.plane == pytest.approx(
        (0, -np.sin(np.radians(10)), -np.cos(np.radians(10)), TABLE_M * np.cos(np.radians(10))), abs=2e-3
    )


@pytest.mark.parametrize("tilt", [-20.0, 0.0, 8.0, 25.0])
def test_over_the_plane_a_tilted_table_does_not_tilt_the_part(tilt: float) -> None:
    sample = prepared(relief(disc((160, 160), 45), tilt_deg=tilt))
    assert np.abs(sample.depth[sample.foreground] - 1 / 3).max() < 0.02


def test_along_the_camera_a_tilted_table_tilts_the_part() -> None:
    sample = prepared(relief(disc((160, 160), 45), tilt_deg=10), axis="camera", depth_range_m=(0.3, 0.5))
    depth = np.where(sample.foreground, sample.depth, np.nan)
    # on a plane inclined by 10 degrees, depth changes by tan(10 deg) / focal per pixel and metre of distance
    slope = np.nanmean(depth[40:50, 32]) - np.nanmean(depth[14:24, 32])
    assert abs(slope) * 0.2 == pytest.approx(0.38 * np.tan(np.radians(10)) * 26 * 2.5 / FOCAL, rel=0.05)


def test_the_range_maps_linearly_onto_0_to_1_and_clips() -> None:
    rows = np.indices((160, 160))[0]
    height = np.where(disc((160, 160), 60) > 0, 0.01 + 0.0001 * rows, 0)
    wide = prepared(relief(height), depth_range_m=(-0.04, 0.0))
    narrow = prepared(relief(height), depth_range_m=(-0.02, -0.015))
    expected = np.clip((wide.depth * 0.04 - 0.02) / 0.005, 0, 1)
    both = wide.foreground & narrow.foreground
    assert np.abs(narrow.depth - expected)[both].max() < 1e-3
    assert narrow.depth.min() == 0
    assert narrow.depth.max() == 1


def test_a_captures_own_range_spans_the_part_and_a_small_defect_does_not_change_it() -> None:
    rows = np.indices((160, 160))[0]
    height = np.where(disc((160, 160), 60) > 0, 0.01 + 0.0001 * rows, 0)
    sound = prepared(relief(height), depth_range_m=None)
    assert sound.geometry.near_m == pytest.approx(-0.01 - 0.0001 * 140, abs=5e-4)
    assert sound.geometry.far_m == pytest.approx(-0.01 - 0.0001 * 20, abs=5e-4)
    height[80:86, 80:86] += 0.02
    bumped = prepared(relief(height), depth_range_m=None)
    assert bumped.geometry.near_m == pytest.approx(sound.geometry.near_m, abs=3e-4)
    assert bumped.geometry.far_m == pytest.approx(sound.geometry.far_m, abs=3e-4)


@pytest.mark.parametrize("axis", ["camera", "plane"])
def test_the_measured_range_is_the_one_that_none_takes(axis: Literal["camera", "plane"]) -> None:
    capture = relief(disc((120, 160), 40), tilt_deg=12)
    sample = prepared(capture, axis=axis, depth_range_m=None)
    measured = extent_of(capture, plane_distance_m=0.005, depth_axis=axis)[:2]
    assert measured == (sample.geometry.near_m, sample.geometry.far_m)
    assert measured[0] < measured[1]


def test_missing_points_inside_the_part_are_filled_from_the_part() -> None:
    rows, columns = np.indices((160, 160)) - 80
    dome = 0.03 - 2e-6 * (rows**2 + columns**2)
    height = np.where(np.hypot(rows, columns) < 60, dome, 0)
    capture = relief(height)
    holes = np.zeros(height.shape, bool)
    holes[70:95, 60:75] = holes[100:104, 60:120] = True
    holes |= (np.random.default_rng(1).random(height.shape) < 0.1) & (height > 0)
    capture.xyz[holes] = np.nan
    whole, holed = prepared(relief(height), 80), prepared(capture, 80)
    assert holed.foreground[35:48, 30:38].all()
    assert not holed.valid[36:47, 31:37].any()
    assert whole.valid[36:47, 31:37].all()
    both = whole.foreground & holed.foreground
    assert both.sum() > 0.98 * whole.foreground.sum()
    assert np.abs(whole.depth - holed.depth)[both].max() * 0.03 < 7e-4
    assert not (holed.valid & ~holed.foreground).any()


@pytest.mark.parametrize(("rule", "column"), [("table", 80), ("table", 132), ("border", 80), ("whole", 80)])
def test_a_few_points_amid_missing_ones_are_no_holes_in_the_part(rule: Foreground, column: int) -> None:
    height = disc((160, 160), 60)  # its rim is in column 140
    rows, columns = np.indices(height.shape)
    sparse = (np.abs(rows - 80) < 16) & (np.abs(columns - column) < 16) & (height > 0)
    capture = relief(height)
    lost = sparse & ((rows % 6 > 1) | (columns % 6 > 1))
    capture.xyz[lost] = np.nan
    if rule == "whole":
        capture.xyz[height == 0] = np.nan
    shown = prepared(capture, 160, foreground=rule)
    assert (shown.foreground == (height > 0)).mean() > 0.999
    assert (shown.valid[sparse] == ~lost[sparse]).mean() > 0.99
    assert np.abs(shown.depth[sparse] - shown.depth[80, 40]).max() * 0.03 < 7e-4


def test_a_single_point_at_the_bottom_of_a_bore_makes_no_pit_in_its_shadow() -> None:
    height = np.where(np.hypot(*(np.indices((160, 160)) - 80)) < 60, 0.03, 0)
    capture = relief(height)
    shadow = np.hypot(*(np.indices(height.shape) - np.array((70, 65))[:, None, None])) < 12
    capture.xyz[shadow] = np.nan
    with_point = RawCapture(capture.rgb, capture.xyz.copy())
    with_point.xyz[70, 54] = relief(height - 0.015).xyz[70, 54]
    without, seen = prepared(capture, 160), prepared(with_point, 160)
    assert with_point.xyz[70, 54, 2] > 0.38
    assert np.abs(without.depth - seen.depth).max() < 1e-3
    assert not seen.valid[70, 54]


def test_a_shadow_beside_the_part_and_a_rings_hole_stay_background() -> None:
    height = disc((160, 160), 60, hole=25)
    rows, columns = np.indices(height.shape) - 80
    shadow = (height == 0) & (np.hypot(rows, columns - 8) < 60) & (np.hypot(rows, columns) > 25)
    shadow |= (height == 0) & (np.hypot(rows, columns) < 26) & (np.hypot(rows, columns - 8) > 25)
    assert shadow.sum() > 500
    capture = relief(height)
    capture.xyz[shadow] = np.nan
    foreground = prepared(capture, 160).foreground
    assert not foreground[np.hypot(rows, columns) < 17].any()
    assert foreground[shadow].mean() < 0.05
    assert foreground[height > 0].mean() > 0.99


@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (90, 90)])
def test_a_map_finds_its_way_back_to_raw_pixels(shape: tuple[int, int]) -> None:
    height = disc(shape, 40)
    geometry = prepared(relief(height), 64).geometry
    row, column = shape[0] // 2 + 13, shape[1] // 2 - 21
    spot = np.zeros(shape, np.float32)
    spot[row - 3 : row + 4, column - 3 : column + 4] = 1
    side = max(shape)
    top, left = geometry.pad_top, geometry.pad_left
    square = cv2.copyMakeBorder(
        spot, top, side - shape[0] - top, left, side - shape[1] - left, cv2.BORDER_CONSTANT, value=0
    )
    back = to_raw(cv2.resize(square, (64, 64), interpolation=cv2.INTER_AREA), geometry)
    assert back.shape == shape
    assert back.dtype == np.float32
    weights = back / back.sum()
    rows, columns = np.indices(shape)
    assert ((rows * weights).sum(), (columns * weights).sum()) == pytest.approx((row, column), abs=0.2)


def test_the_samples_foreground_comes_back_onto_the_raw_part() -> None:
    height = disc((120, 200), 40)
    sample = prepared(relief(height), 100)
    back = to_raw(sample.foreground.astype(np.float32), sample.geometry) > 0.5
    assert (back ^ (height > 0)).sum() < 0.05 * (height > 0).sum()


def test_a_tiny_defect_stays_in_the_ground_truth_and_a_large_one_keeps_its_area() -> None:
    truth = np.zeros((160, 160), bool)
    truth[70, 71] = truth[95:97, 60] = True
    truth[75:95, 80:110] = True
    small = prepared(relief(disc((160, 160), 60)), 40, ground_truth=truth).ground_truth
    assert small is not None
    assert small.dtype == np.bool_
    assert cv2.connectedComponents(small.astype(np.uint8))[0] - 1 == 3
    assert small[70 // 4, 71 // 4]
    assert small[19:24, 20:28].sum() == pytest.approx(600 / 16, rel=0.1)
    assert prepared(relief(disc((160, 160), 60))).ground_truth is None


@pytest.mark.parametrize("reach", [60, 30, 9])  # raw pixels, 5 to a sample's pixel
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("angle", [0, 7, 30, 45, 90])
def test_a_scratch_thinner_than_a_pixel_stays_in_one_piece(reach: int, width: int, angle: float) -> None:
    truth = np.zeros((400, 400), np.uint8)
    along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) * reach
    ends = [tuple(round(float(v)) for v in 200 + sign * along) for sign in (1, -1)]
    cv2.line(truth, ends[0], ends[1], 1, width)
    small = prepared(relief(disc((400, 400), 150)), 80, ground_truth=truth > 0).ground_truth
    assert small is not None
    assert cv2.connectedComponents(small.astype(np.uint8), connectivity=8)[0] - 1 == 1
    length = max(np.ptp(axis) + 1 for axis in np.nonzero(small))
    assert length == pytest.approx(2 * max(abs(along)) / 5, abs=2.5)  # it keeps all pixels it touches
    assert truth.sum() / 25 / 2 <= small.sum() <= 3 * (2 * reach / 5 + 1)


def test_of_a_height_map_what_is_high_is_near_by_either_axis() -> None:
    rows, columns = np.indices((120, 120)) - 59.5
    away = np.hypot(rows, columns) / 40
    height = np.where(away < 1, 0.02 - 0.012 * away**2, 0.0)
    for z in (0.1 + height, 0.4 - height):  # height over an arbitrary level, or distance along parallel rays
        capture = RawCapture(None, np.stack([columns * 5e-4, rows * 5e-4, z], axis=-1).astype(np.float32))
        for axis in ("camera", "plane"):
            depth = prepared(capture, axis=axis, depth_range_m=None).depth
            assert depth[32, 32] < 0.1 and depth[32, 12] > 0.8


def test_pixels_that_are_not_square_are_measured() -> None:
    rows, columns = np.indices((160, 120))
    height = np.where((abs(rows - 80) < 30) & (abs(columns - 60) < 20), 0.02, 0.0)
    for down, right, aspect in ((4e-4, 4e-4, 1.0), (8e-4, 4e-4, 2.0), (3e-4, 4e-4, 4 / 3)):
        xyz = np.stack([columns * right, rows * down, 0.5 - height], axis=-1).astype(np.float32)
        found = extent_of(RawCapture(None, xyz), plane_distance_m=0.005, depth_axis="plane")
        assert found.aspect == pytest.approx(aspect, rel=1e-3)


def test_each_type_keeps_its_tiny_defects_though_another_lies_beside() -> None:
    bumps, stains = np.zeros((2, 160, 160), bool)
    bumps[75:95, 80:108] = True
    # A quarter of a sample pixel wide. Merged with the bump it is one defect, which has pixels even without the stain.
    stains[75:79, 108] = True
    stains[60, 60] = True
    capture, marked = relief(disc((160, 160), 60)), bumps | stains
    marked[100:108, 60:68] = True
    sample = prepared(capture, 40, ground_truth=marked, by_type={"bump": bumps, "stain": stains})
    for name, mask in (("bump", bumps), ("stain", stains)):
        assert np.array_equal(sample.by_type[name], prepared(capture, 40, ground_truth=mask).ground_truth)
    assert sample.by_type["stain"].nonzero()[0].tolist() == [15, 19]
    whole = prepared(capture, 40, ground_truth=marked)
    assert np.array_equal(sample.ground_truth, whole.ground_truth | sample.by_type["stain"] | sample.by_type["bump"])
    assert sample.ground_truth[25:27, 15:17].all()  # marked, but of no type
    assert np.array_equal(sample.rgb, whole.rgb) and whole.by_type == {}


def test_the_result_is_the_same_bit_for_bit(capture: Callable[..., RawCapture]) -> None:
    one, other = (prepared(capture("ring", missing=0.1), depth_range_m=None) for _ in range(2))
    for name in ("rgb", "depth", "foreground", "valid"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.geometry == other.geometry


def test_the_capture_is_not_written_to(capture: Callable[..., RawCapture]) -> None:
    taken = capture("disc", missing=0.1)
    rgb, xyz = taken.rgb.copy(), taken.xyz.copy()
    prepared(taken)
    assert np.array_equal(taken.rgb, rgb)
    assert np.array_equal(taken.xyz, xyz, equal_nan=True)


GOOD = relief(disc((60, 80), 20))


@pytest.mark.parametrize(
    ("capture", "truth", "message"),
    [
        pytest.param(RawCapture(GOOD.rgb[:, :70], GOOD.xyz), None, "the same size", id="other width"),
        pytest.param(RawCapture(GOOD.rgb[..., 0], GOOD.xyz), None, r"\(H, W, 3\)", id="grey"),
        pytest.param(RawCapture(GOOD.rgb, GOOD.xyz[..., 2]), None, r"\(H, W, 3\)", id="depth only"),
        pytest.param(RawCapture(GOOD.rgb, np.full_like(GOOD.xyz, np.nan)), None, "missing", id="all missing"),
        pytest.param(relief(np.zeros((60, 80))), None, "no part found", id="empty table"),
        pytest.param(GOOD, np.zeros((60, 70), bool), "ground truth", id="ground truth of another size"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    capture: RawCapture, truth: NDArray[np.bool_] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepared(capture, ground_truth=truth)
    assert "\n" not in str(caught.value)


def test_brightness_is_that_of_the_part_alone() -> None:
    assert prepared(relief(disc((160, 160), 30))).geometry.brightness == pytest.approx(np.mean(COLOUR), abs=1)


def test_a_gap_of_one_point_is_a_pixel_wide() -> None:
    capture = relief(disc((160, 160), 40))
    assert prepared(RawCapture(None, capture.xyz)).geometry.gap_m == 0
    capture.xyz[80, 80] = np.nan
    geometry = prepared(RawCapture(None, capture.xyz)).geometry
    assert geometry.gap_m == pytest.approx(geometry.pitch_m, rel=0.02)


def test_the_range_of_a_level_part_has_it_in_the_middle() -> None:
    assert _range_of(np.full(10, 0.3, np.float32)) == pytest.approx((0.2995, 0.3005))


@pytest.mark.parametrize("depth_range_m", [(0.0, 0.0), (0.5, 0.4), (np.nan, 1.0), (0.0, np.inf)])
def test_a_depth_range_that_is_none_is_refused(depth_range_m: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="depth_range_m"):
        prepared(GOOD, depth_range_m=depth_range_m)


@pytest.mark.parametrize("window_px", [None, 90])
@pytest.mark.parametrize("axis", ["plane", "camera"])
@pytest.mark.parametrize("tilt_deg", [0.0, 6.0])
def test_the_parallax_is_what_the_camera_sees_of_a_rising_point(
    tilt_deg: float, axis: Literal["camera", "plane"], window_px: int | None
) -> None:
    capture = relief(disc((120, 160), 30, centre=(50, 110)), tilt_deg=tilt_deg)
    assert capture.xyz is not None
    near = 0.35 if axis == "camera" else -0.03
    found = prepared(
        capture, axis=axis, window_m=window_px and window_px * PITCH_M, depth_range_m=(near, near + 0.03)
    ).geometry
    assert found.plane is not None
    middle = capture.xyz[disc((120, 160), 30, centre=(50, 110)) > 0].mean(axis=0).astype(np.float64)
    upwards = np.array(found.plane[:3]) if axis == "plane" else np.array([0.0, 0.0, -1.0])
    risen = middle + 1e-5 * upwards
    moved = FOCAL * (risen[:2] / risen[2] - middle[:2] / middle[2]) * (0.03 / 1e-5)
    np.testing.assert_allclose(found.parallax, moved / (found.side / 2), rtol=0.01, atol=5e-4)


def test_images_alone_have_no_parallax() -> None:
    assert prepared(RawCapture(relief(disc((40, 40), 9)).rgb, None)).geometry.parallax == (0, 0)


@pytest.mark.parametrize(("spot", "found"), [((10, 40), (0, 16)), ((90, 90), (59, 66)), ((50, 50), (26, 26))])
def test_a_peak_beyond_the_image_is_found_at_its_border(spot: tuple[int, int], found: tuple[int, int]) -> None:
    geometry = Geometry(None, None, None, None, 60, 80, 100, 24, 24, 0, (0, 0))
    map_ = np.zeros((100, 100), np.float32)
    # The last is beyond the image, where no defect is measured.
    map_[spot], map_[70, 70], map_[12, 20:90] = 0.9, 0.5, 0.3
    raw = to_raw(map_, geometry)
    assert (raw[found], raw[46, 46], np.count_nonzero(raw)) == (np.float32(0.9), 0.5, 2)


@pytest.mark.parametrize("aside", [0, 40])
@pytest.mark.parametrize("slope_m", [0, 0.003])
def test_what_a_pixel_shows_follows_from_the_distance_alone(aside: int, slope_m: float) -> None:
    """The part's position and its visible walls and slopes do not matter."""
    part = disc((120, 200), 14, centre=(60, 100 + aside)) > 0
    height = np.where(part, 0.02 + slope_m * (np.arange(200) - 86 - aside), 0)
    capture = relief(height)
    distance = np.asarray(capture.xyz)[part][:, 2].mean()
    found = extent_of(capture, plane_distance_m=0.005, depth_axis="plane").pitch_m
    assert found == pytest.approx(distance / FOCAL, rel=0.01)
    turned = RawCapture(np.rot90(capture.rgb), np.rot90(capture.xyz) * np.float32([1, -1, 1]))
    assert extent_of(turned, plane_distance_m=0.005, depth_axis="plane").pitch_m == pytest.approx(found, rel=1e-3)


def test_to_raw_keeps_a_constant_map() -> None:
    geometry = Geometry((0.0, 0.0, -1.0, 1.0), 0.0, 0.0, 1.0, 30, 50, 50, 10, 0, 0.0, (0.0, 0.0))
    assert (to_raw(np.full((16, 16), 0.25, np.float32), geometry) == 0.25).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (90, 2), (15, 15)])
@pytest.mark.parametrize("points", [True, False])
def test_a_capture_of_a_few_pixels_is_refused(shape: tuple[int, int], points: bool) -> None:
    capture = RawCapture(np.zeros((*shape, 3), np.uint8), np.ones((*shape, 3), np.float32) if points else None)
    with pytest.raises(
        DataError, match=rf"^{shape[1]} x {shape[0]} pixels cannot show a part; at least 16 x 16 are needed$"
    ):
        prepared(capture)


class TestWindow:
    """A window of fixed size in metres follows the part; the paper uses the whole image."""

    def test_the_part_is_centred_and_larger(self) -> None:
        capture = relief(disc((120, 160), 30, centre=(50, 110)))
        whole, near = prepared(capture), prepared(capture, window_m=70 * PITCH_M)
        assert near.foreground.sum() > 3 * whole.foreground.sum()
        rows, columns = np.nonzero(near.foreground)
        size = near.depth.shape[0]
        assert abs(rows.mean() - (size - 1) / 2) < 1.5
        assert abs(columns.mean() - (size - 1) / 2) < 1.5
        assert near.geometry.side == 70

    def test_a_window_may_reach_over_the_edge_of_the_image(self) -> None:
        sample = prepared(relief(disc((120, 160), 30, centre=(32, 128))), window_m=100 * PITCH_M)
        assert sample.geometry.pad_top > 0
        assert sample.foreground.any(axis=1).sum() == pytest.approx(0.6 * sample.depth.shape[0], abs=3)

    @pytest.mark.parametrize("given", ["ground_truth", "by_type"])
    def test_a_defect_beyond_it_is_told(self, given: str) -> None:
        capture, truth = relief(disc((120, 160), 20, centre=(60, 40))), np.zeros((120, 160), bool)
        truth[50:70, 80:150] = True
        masks: dict[str, Any] = {given: truth if given == "ground_truth" else {"missing": truth}}
        with pytest.raises(DataError, match=r"^100% of what the ground truth marks .* preprocess.frame=image$"):
            prepared(capture, window_m=50 * PITCH_M, **masks)
        assert prepared(capture, **masks).ground_truth is not None
        truth[:], truth[50:60, 30:50] = False, True
        assert prepared(capture, window_m=50 * PITCH_M, **masks).ground_truth is not None

    def test_a_larger_part_widens_it_so_that_nothing_is_lost(self) -> None:
        capture = relief(disc((120, 160), 45))
        sample = prepared(capture, window_m=40 * PITCH_M)
        assert sample.geometry.side >= 90
        assert not sample.foreground[0].any()

    @pytest.mark.parametrize("window_px", [None, 70, 150])
    def test_a_map_finds_its_way_back(self, window_px: int | None) -> None:
        height = disc((120, 160), 30, centre=(50, 110))
        sample = prepared(relief(height), window_m=window_px and window_px * PITCH_M)
        raw = to_raw(sample.foreground.astype(np.float32), sample.geometry) > 0.5
        truth = height > 0
        assert raw.shape == truth.shape
        assert (raw & truth).sum() / (raw | truth).sum() > 0.93

    def test_span_does_not_depend_on_how_the_part_lies(self) -> None:
        spans = []
        for turned in (False, True):
            bar = np.zeros((160, 160))
            bar[70:90, 30:130] = 0.02
            capture = relief(bar.T.copy() if turned else bar)
            spans.append(extent_of(capture, plane_distance_m=0.005, depth_axis="plane").span_m / PITCH_M)
        assert spans[0] == pytest.approx(spans[1], abs=2)
        assert spans[0] == pytest.approx(np.hypot(100, 20), abs=4)

    @pytest.mark.parametrize(
        ("times", "side"), [(0.9, 80 / 0.9), (0.96, 80 / 0.96), (0.98, 80), (1.0, 80), (1.02, 80), (1.1, 80 / 1.1)]
    )
    def test_before_a_camera_that_hardly_moves_all_parts_are_resampled_alike(self, times: float, side: float) -> None:
        capture = relief(disc((160, 160), 30), table_m=0.02 + (TABLE_M - 0.02) * times)
        usual = (0.99 * PITCH_M, 1.01 * PITCH_M)
        assert prepared(capture, window_m=80 * PITCH_M, pitch_m=usual).geometry.side == pytest.approx(side, abs=1)

    def test_a_crumb_elsewhere_on_the_table_does_not_move_the_part(self) -> None:
        scene = disc((240, 240), 30)
        crumbed = scene.copy()
        crumbed[225:228, 225:228] = 0.01
        usual, found = (prepared(relief(heights), window_m=70 * PITCH_M) for heights in (scene, crumbed))
        assert found.geometry.side == usual.geometry.side == pytest.approx(70, abs=1)
        assert np.array_equal(found.foreground, usual.foreground)
        crumbed[100:140, 200:230] = 0.02  # as large as a part is no crumb
        assert prepared(relief(crumbed), window_m=70 * PITCH_M).geometry.side > 100

    @pytest.mark.parametrize(
        ("times", "told"),
        [(10, "10 times what"), (1000, "1000 times what"), (0.1, "1/10 of what"), (1e-3, "1/1000 of what")],
    )
    def test_points_in_another_unit_are_told(self, times: float, told: str) -> None:
        """In too small a unit nothing rises above the table, in too large a one everything does."""
        capture = relief(disc((160, 160), 30))
        assert capture.xyz is not None
        wrong = RawCapture(capture.rgb, capture.xyz * np.float32(times))
        with pytest.raises(
            DataError, match=f"^a pixel shows about {told} it shows .* check that the points are in the unit of those"
        ):
            prepared(wrong, window_m=80 * PITCH_M, pitch_m=(PITCH_M, PITCH_M))

    def test_the_unit_of_a_small_part_cut_out_of_a_large_capture_is_right(self) -> None:
        capture = relief(disc((400, 400), 6))
        xyz = np.where(disc((400, 400), 6)[..., None] > 0, capture.xyz, np.float32(np.nan))
        found = prepared(RawCapture(capture.rgb, xyz), window_m=80 * PITCH_M, pitch_m=(PITCH_M, PITCH_M))
        assert found.geometry.pitch_m == pytest.approx(PITCH_M, rel=0.1)

    @pytest.mark.parametrize("table_m", [0.3, 0.37, 0.45])
    def test_a_part_looks_the_same_from_nearer_and_from_farther(self, table_m: float) -> None:
        usual = prepared(relief(disc((160, 160), 30, hole=12)), window_m=80 * PITCH_M)
        enlarged = PITCH_M / ((table_m - 0.02) / FOCAL)
        capture = relief(disc((160, 160), 30 * enlarged, hole=12 * enlarged), table_m=table_m)
        other = prepared(capture, window_m=80 * PITCH_M)
        assert (other.geometry.pitch_m, other.geometry.span_m) == pytest.approx(
            (PITCH_M / enlarged, 60 * PITCH_M), rel=0.03
        )
        both, either = usual.foreground & other.foreground, usual.foreground | other.foreground
        assert both.sum() > 0.92 * either.sum()
        assert np.abs(usual.depth - other.depth)[both].max() < 0.01


@pytest.mark.parametrize("radius", [3, 8, 15])
def test_the_widest_gap_is_the_largest_circle_without_points(radius: int) -> None:
    capture = relief(disc((160, 160), 50))
    assert capture.xyz is not None
    capture.xyz[disc((160, 160), radius, centre=(70, 90)) > 0] = np.nan
    capture.xyz[100:103, 60:100] = np.nan  # a scratch: long, but only three pixels wide
    gap = 2 * radius * PITCH_M
    assert prepared(capture).geometry.gap_m == pytest.approx(gap, abs=2.5 * PITCH_M)  # measured to pixel centres
    assert prepared(relief(disc((160, 160), 50))).geometry.gap_m == 0


@pytest.mark.parametrize("height", [0.008, 0.015, 0.1])
def test_what_of_a_dome_is_too_low_to_be_looked_at(height: float) -> None:
    """Seen from far above, the share of a paraboloid between two heights is their difference divided by its height."""
    rows, columns = np.indices((300, 300)) - 149.5
    dome = np.maximum(0, height * (1 - (rows**2 + columns**2) / 120**2))
    xyz = np.stack([columns * 1e-4, rows * 1e-4, 0.4 - dome], axis=2).astype(np.float32)
    found = extent_of(RawCapture(None, xyz), plane_distance_m=0.005, depth_axis="plane").low_fraction
    lowest = 0.005 / 3
    assert found == pytest.approx((0.005 - lowest) / (height - lowest), abs=0.02)


def test_how_much_of_a_part_is_out_of_the_range_of_depths_is_told() -> None:
    geometry = prepared(relief(disc((120, 160), 40, height=0.02) + disc((120, 160), 20, height=0.02))).geometry
    assert geometry.clipped_fraction == pytest.approx(0.25, abs=0.03)  # its middle is 40 mm high, the range 30 mm
    assert prepared(GOOD).geometry.clipped_fraction < 0.01
