"""Finding the part in rendered scenes with known ground truth, and in real captures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from das3d_cli.data import plane
from das3d_cli.errors import DataError

find_part = partial(plane.find_part, plane_distance_m=0.005)
REAL = Path(__file__).parents[2] / "shared" / "realscans"
TABLE, FLOOR, WALL = 0, -2, -3


@dataclass
class Box:
    """A box or an upright cylinder on the table; metres, the table's plane is z = 0."""

    x: float
    y: float
    size: tuple[float, float, float]
    yaw: float = 0.0
    bottom: float = 0.0
    round: bool = False


@dataclass
class Scene:
    """A camera that looks at the table's middle from `distance` metres; `table` is (x0, x1, y0, y1), metres."""

    parts: list[Box]
    pitch: float = 45.0
    distance: float = 0.8
    shape: tuple[int, int] = (240, 320)
    focal: float = 262.0
    table: tuple[float, float, float, float] = (-5.0, 5.0, -5.0, 5.0)
    floor: float | None = None
    wall: float | None = None
    noise: float = 0.0  # metres at a distance of one metre; grows with its square
    quantised: bool = False
    dropped: float = 0.0

    def render(self, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The points (H, W, 3), and what each pixel shows (H, W): a part's number from 1 on, TABLE, FLOOR or WALL."""
        rng = np.random.default_rng(seed)
        (height, width), pitch = self.shape, np.radians(self.pitch)
        forward = np.array([0, np.cos(pitch), -np.sin(pitch)])
        to_world = np.stack([[1, 0, 0], np.cross(forward, [1, 0, 0]), forward], axis=1)
        rows, columns = np.mgrid[:height, :width].astype(float)
        rays = np.stack([columns - width / 2 + 0.5, rows - height / 2 + 0.5, np.full_like(rows, self.focal)], axis=-1)
        rays /= self.focal
        depth, shown = self._cast(-forward * self.distance, (rays @ to_world.T).reshape(-1, 3))
        depth, shown = depth.reshape(self.shape), shown.reshape(self.shape)
        # Disparities in eighths of a pixel, with smooth noise: focal length 580 pixels, baseline 0.075 m.
        if self.quantised:
            blur = cv2.GaussianBlur(rng.normal(size=self.shape), (0, 0), 1.5)
            depth = 43.5 / (np.round((43.5 / depth + 0.06 * blur / blur.std()) * 8) / 8)
        depth = depth + rng.normal(size=self.shape) * self.noise * depth**2
        depth[~np.isfinite(depth) | (rng.random(self.shape) < self.dropped)] = np.nan
        return (rays * depth[..., None]).astype(np.float32), shown

    def _cast(self, eye: NDArray[np.float64], rays: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        depth, shown = np.full(len(rays), np.inf), np.full(len(rays), -1)

        def put(t: NDArray[Any], what: int, hit: NDArray[np.bool_]) -> None:
            nearer = hit & (t > 0) & (t < depth)
            depth[nearer], shown[nearer] = t[nearer], what

        with np.errstate(all="ignore"):
            t = -eye[2] / rays[:, 2]
            x, y = (eye[:2, None] + t * rays[:, :2].T).tolist()
            x, y = np.array(x), np.array(y)
            put(t, TABLE, (x > self.table[0]) & (x < self.table[1]) & (y > self.table[2]) & (y < self.table[3]))
            if self.floor is not None:
                put((-self.floor - eye[2]) / rays[:, 2], FLOOR, np.ones(len(rays), bool))
            if self.wall is not None:
                put((self.wall - eye[1]) / rays[:, 1], WALL, np.ones(len(rays), bool))
            for number, part in enumerate(self.parts, 1):
                cos, sin = np.cos(part.yaw), np.sin(part.yaw)
                turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
                half = np.array(part.size) / 2
                start = (eye - [part.x, part.y, part.bottom + half[2]]) @ turn
                ray = rays @ turn
                one, two = (-half - start) / ray, (half - start) / ray
                enter, leave = np.minimum(one, two), np.maximum(one, two)
                if part.round:
                    a, b = (ray[:, :2] ** 2).sum(axis=1), ray[:, :2] @ start[:2]
                    root = np.sqrt(b * b - a * (start[:2] @ start[:2] - half[0] ** 2))
                    first = np.maximum((-b - root) / a, enter[:, 2])
                    put(first, number, first < np.minimum((-b + root) / a, leave[:, 2]))
                else:
                    put(enter.max(axis=1), number, enter.max(axis=1) < leave.min(axis=1))
        return depth, shown


def iou(found: NDArray[np.bool_], xyz: NDArray[np.float32], shown: NDArray[np.int64]) -> float:
    measured, truth = np.isfinite(xyz[..., 2]), shown >= 1
    return float((found & truth & measured).sum() / ((found | truth) & measured).sum())


TABLETOP = [
    Box(-0.12, 0.0, (0.14, 0.07, 0.2), yaw=0.4),
    Box(0.1, -0.05, (0.09, 0.09, 0.11), round=True),
    Box(0.05, 0.15, (0.2, 0.15, 0.06), yaw=-0.3),
    Box(0.05, 0.15, (0.08, 0.08, 0.1), bottom=0.06, round=True),
]
KINECT = {"quantised": True, "noise": 0.0005}
CLOSE = {"pitch": 85.0, "distance": 0.5, "focal": 880.0, "noise": 4e-4, "shape": (264, 264)}
BOSSES = [Box(x, y, (0.03, 0.03, 0.01), bottom=0.012, round=True) for x in (-0.04, 0, 0.04) for y in (-0.04, 0.04)]


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(Scene(TABLETOP, **KINECT), id="tabletop"),
        pytest.param(Scene(TABLETOP, pitch=30, **KINECT), id="oblique"),
        pytest.param(Scene(TABLETOP, dropped=0.4, **KINECT), id="40 percent missing"),
        pytest.param(Scene(TABLETOP, table=(-0.3, 5, -5, 0.3), floor=0.75, **KINECT), id="floor beside the table"),
        pytest.param(Scene(TABLETOP, pitch=32, table=(-5, 5, -5, 0.35), wall=0.35, **KINECT), id="wall at the table"),
        pytest.param(
            Scene(TABLETOP, pitch=25, table=(-5, 5, -5, 0.3), floor=0.75, wall=1.2, **KINECT), id="wall far behind"
        ),
        pytest.param(Scene([Box(0, 0, (0.12, 0.11, 0.03))], **CLOSE), id="flat top over most of the image"),
        pytest.param(Scene([Box(0, 0, (0.12, 0.11, 0.008))], **CLOSE), id="thin and flat"),
        pytest.param(
            Scene([Box(0, 0, (0.136, 0.136, 0.012)), *BOSSES], **CLOSE),
            id="a plate with bosses that hides most of the table",
        ),
        pytest.param(Scene(TABLETOP, pitch=80, noise=0.008), id="noise as high as the cut"),
        pytest.param(Scene([Box(0, 0, (0.06, 0.5, 0.03))], **CLOSE), id="crosses two borders"),
        pytest.param(Scene([Box(0.2, 0, (0.5, 0.5, 0.03))], **CLOSE), id="crosses three borders"),
        pytest.param(
            Scene([Box(0, 0, (0.05, 0.05, 0.03)), Box(0.04, 0, (0.008, 0.008, 0.01), round=True)], **CLOSE),
            id="a speck beside the part is the part's",
        ),
    ],
)
def test_the_part_of_a_rendered_scene_is_found(scene: Scene) -> None:
    xyz, shown = scene.render()
    assert iou(find_part(xyz).foreground, xyz, shown) > 0.96


def test_what_stands_beside_the_table_is_background() -> None:
    cupboard = Box(0.25, 0.9, (0.3, 0.3, 1.2), yaw=0.3, bottom=-0.75)
    scene = Scene([*TABLETOP, cupboard], pitch=25, table=(-5, 5, -5, 0.3), floor=0.75, **KINECT)
    xyz, shown = scene.render()
    assert (shown == len(scene.parts)).sum() > 1000
    shown[shown == len(scene.parts)] = FLOOR
    assert iou(find_part(xyz).foreground, xyz, shown) > 0.96


def test_a_small_part_beside_a_large_one_is_kept_whole() -> None:
    xyz, shown = Scene([Box(0, 0, (0.05, 0.05, 0.03)), Box(0.045, 0, (0.01, 0.01, 0.01))], **CLOSE).render()
    found = find_part(xyz).foreground
    assert found[shown == 2].mean() > 0.9


@pytest.mark.parametrize("distance", [0.003, 0.005, 0.012])
def test_with_little_noise_the_cut_is_exactly_at_the_distance(distance: float) -> None:
    """A ramp that rises from the table is cut at the given height, neither above nor below it."""
    rows, columns = np.mgrid[:240, :320]
    relief = np.clip((columns - 80) * 2e-4, 0, 0.03) * ((rows > 60) & (rows < 180) & (columns < 240))
    z = 0.5 - relief + np.random.default_rng(0).normal(size=relief.shape) * 5e-5
    xyz = np.stack([(columns - 160) * z / 900, (rows - 120) * z / 900, z], axis=-1).astype(np.float32)
    found = find_part(xyz, plane_distance_m=distance).foreground
    assert found[relief > distance + 3e-4].all()
    assert not found[relief < distance - 3e-4].any()


def test_the_plane_is_the_tables() -> None:
    scene = Scene(TABLETOP, pitch=40, distance=0.9, **KINECT)
    table = find_part(scene.render()[0])
    a, b, c, d = table.plane
    assert np.linalg.norm([a, b, c]) == pytest.approx(1)
    assert table.tilt_deg == pytest.approx(50, abs=0.3)
    assert d == pytest.approx(0.9 * np.sin(np.radians(40)), abs=0.002)
    assert (a, b, c) == pytest.approx((0, -np.cos(np.radians(40)), -np.sin(np.radians(40))), abs=0.006)


def test_a_camera_that_looks_down_minus_z_sees_the_same() -> None:
    xyz, _ = Scene(TABLETOP, **KINECT).render()
    flipped = xyz * np.array([1, -1, -1], np.float32)
    one, other = find_part(xyz), find_part(flipped)
    assert (one.foreground ^ other.foreground).sum() <= 0.001 * one.foreground.sum()
    assert other.plane == pytest.approx(np.array(one.plane) * [1, -1, -1, 1], abs=1e-4)


def test_a_missing_border_changes_nothing_inside() -> None:
    xyz, shown = Scene(TABLETOP, **KINECT).render()
    xyz[:30] = xyz[-20:] = np.nan
    xyz[:, :30] = xyz[:, -20:] = np.nan
    assert iou(find_part(xyz).foreground, xyz, shown) > 0.96


def test_points_under_the_table_are_background() -> None:
    xyz, shown = Scene([Box(0, 0, (0.05, 0.05, 0.03))], **CLOSE).render()
    hole = np.zeros(shown.shape, bool)
    hole[20:60, 20:60] = True
    xyz[hole] *= 1.2
    found = find_part(xyz).foreground
    assert not found[hole].any()
    assert iou(found, xyz, shown) > 0.98


def test_the_hole_of_a_ring_is_background() -> None:
    rows, columns = np.mgrid[:264, :264] - 132
    radius = np.hypot(rows, columns)
    z = np.where((radius > 40) & (radius < 90), 0.48, 0.5)
    z += np.random.default_rng(0).normal(size=z.shape) * 1e-4
    xyz = np.stack([columns * z / 900, rows * z / 900, z], axis=-1).astype(np.float32)
    assert np.array_equal(find_part(xyz).foreground, (radius > 40) & (radius < 90))


@pytest.mark.parametrize("shape", ["dome", "box"])
def test_a_capture_whose_background_is_gone_is_all_part(shape: str) -> None:
    rows, columns = np.mgrid[:200, :200] - 100
    radius = np.hypot(rows, columns)
    z = 0.5 - np.sqrt(np.maximum(0, 0.03**2 - (radius * 4e-4) ** 2)) if shape == "dome" else np.full(radius.shape, 0.45)
    z = z + np.random.default_rng(0).normal(size=z.shape) * 1e-4
    xyz = np.stack([columns * z / 900, rows * z / 900, z], axis=-1).astype(np.float32)
    xyz[radius > 70] = np.nan
    table = find_part(xyz)
    assert np.array_equal(table.foreground, radius <= 70)
    assert table.tilt_deg is None
    heights = xyz[radius <= 70] @ np.array(table.plane[:3]) + table.plane[3]
    assert np.quantile(heights, 0.02) == pytest.approx(0, abs=1e-5) and heights.min() > -1.5e-3


def test_a_hole_in_a_part_that_was_cut_out_shifts_no_heights() -> None:
    rows, columns = np.mgrid[:200, :200] - 100
    radius = np.hypot(rows, columns)
    z = 0.45 + np.random.default_rng(0).normal(size=radius.shape) * 1e-4

    def plane_with(holes: list[tuple[int, int]]) -> tuple[float, float, float, float]:
        deep = z.copy()
        for row, column in holes:
            deep[np.hypot(rows - row, columns - column) < 8] += 0.02
        xyz = np.stack([columns * deep / 900, rows * deep / 900, deep], axis=-1).astype(np.float32)
        xyz[radius > 70] = np.nan
        return find_part(xyz).plane

    assert plane_with([(20, 10)]) == pytest.approx(plane_with([]), abs=2e-4)


def test_a_flat_side_of_a_part_that_was_cut_out_is_no_table() -> None:
    """Something stands on the flat side, but what drops away around it is only the part's edge."""
    rows, columns = np.mgrid[:200, :200] - 100
    radius = np.hypot(rows, columns)
    z = np.where(radius < 20, 0.44, np.where(radius < 50, 0.45, 0.45 + (radius - 50) * 1e-3))
    xyz = np.stack([columns * z / 900, rows * z / 900, z], axis=-1).astype(np.float32)
    xyz[radius > 70] = np.nan
    table = find_part(xyz)
    assert np.array_equal(table.foreground, radius <= 70) and not table.seen


def test_a_region_without_a_seed_goes_however_large_it_is() -> None:
    mask = np.zeros((200, 200), bool)
    mask[20:80, 20:80] = mask[120:180, 120:180] = True
    seeds = np.zeros_like(mask)
    seeds[140:150, 140:150] = True
    assert np.array_equal(plane.without_specks(mask, seeds), mask & (np.indices(mask.shape)[0] > 100))


def test_a_point_far_behind_a_part_that_was_cut_out_changes_nothing() -> None:
    xyz = np.full((200, 200, 3), np.nan, np.float32)
    rows, columns = np.mgrid[:200, :200] - 100
    part = np.hypot(rows, columns) < 70
    xyz[part] = np.stack([columns / 2000, rows / 2000, np.full(rows.shape, 0.45)], axis=-1)[part]
    alone = find_part(xyz)
    xyz[5, 5] = (-0.05, -0.05, 0.9)
    table = find_part(xyz)
    assert table.plane == alone.plane and np.array_equal(table.foreground, part)


def test_nor_does_one_at_its_rim_that_flies() -> None:
    rows, columns = np.mgrid[:200, :200] - 100
    radius = np.hypot(rows, columns)
    z = 0.45 + radius * 1e-4
    xyz = np.stack([columns * z / 900, rows * z / 900, z], axis=-1).astype(np.float32)
    xyz[radius > 70] = np.nan
    alone = find_part(xyz)
    place = (100, 170)
    assert not np.isnan(xyz[place]).any()
    xyz[place] *= (xyz[place][2] + 0.02) / xyz[place][2]
    assert find_part(xyz).plane == pytest.approx(alone.plane, abs=2e-4)


@pytest.mark.parametrize("table_mm", [-200, -50, -10, -1, 0, 1, 10, 50, 200])
@pytest.mark.parametrize("up", [1, -1])
@pytest.mark.parametrize("dome_mm", [0, 6])
def test_of_parallel_rays_z_may_be_a_height_over_anything(table_mm: float, up: int, dome_mm: float) -> None:
    rows, columns = np.mgrid[:150, :150] - 75
    away = np.hypot(rows, columns) / 30
    part = away < 1
    height = np.where(part, 20 - dome_mm * away**2, 0)
    z = (table_mm + up * height) / 1000 + np.random.default_rng(0).normal(size=part.shape) * 2e-5
    xyz = np.stack([columns * 6e-4, rows * 6e-4, z], axis=-1).astype(np.float32)
    table = find_part(xyz)
    assert np.array_equal(table.foreground, part)
    heights = xyz @ np.array(table.plane[:3]) + table.plane[3]
    assert heights == pytest.approx(height / 1000, abs=5e-4)


@pytest.mark.parametrize("up", [1, -1])
@pytest.mark.parametrize(
    ("share", "left", "top", "right", "bottom"),
    [(0.75, 20, 0, 130, 150), (0.60, 30, 0, 120, 150), (0.60, 0, 10, 108, 135), (0.66, 0, 0, 125, 120)],
)
def test_of_parallel_rays_a_part_may_be_larger_than_what_shows_of_the_table(
    share: float, left: int, top: int, right: int, bottom: int, up: int
) -> None:
    part = np.zeros((150, 150), bool)
    part[top:bottom, left:right] = True
    assert part.mean() == pytest.approx(share, abs=0.02)
    pocket = np.hypot(*(np.mgrid[:150, :150] - 75)) < 20
    z = 0.1 + up * (0.02 * part - 0.006 * pocket) + np.random.default_rng(0).normal(size=part.shape) * 2e-5
    rows, columns = np.mgrid[:150, :150] - 75
    xyz = np.stack([columns * 6e-4, rows * 6e-4, z], axis=-1).astype(np.float32)
    assert iou(find_part(xyz).foreground, xyz, part.astype(np.int64)) > 0.99


@pytest.mark.parametrize("height", [0.0, 0.003])
def test_a_table_with_an_unmeasured_frame_is_no_part(height: float) -> None:
    xyz, _ = Scene([Box(0, 0, (0.05, 0.05, height))] if height else [], **CLOSE).render()
    xyz[:8] = xyz[-8:] = np.nan
    xyz[:, :8] = xyz[:, -8:] = np.nan
    with pytest.raises(
        DataError,
        match=rf"nothing rises more than 5 mm above the table, and no point lies farther from it than {'3' if height else '0'}\S* mm;"
        r" check that a part is there. .* a lower --set preprocess.plane_distance_mm",
    ):
        find_part(xyz)
    if height:
        assert 0.02 < find_part(xyz, plane_distance_m=0.0015).foreground.mean() < 0.5


def test_the_result_is_the_same_bit_for_bit() -> None:
    xyz, _ = Scene(TABLETOP, dropped=0.2, **KINECT).render()
    one, other = find_part(xyz), find_part(xyz.copy())
    assert one.plane == other.plane
    assert np.array_equal(one.foreground, other.foreground)


def test_threads_do_not_disturb_each_other() -> None:
    captures = [Scene(TABLETOP, dropped=0.2, **KINECT).render(seed)[0] for seed in range(4)]
    alone = [find_part(xyz).plane for xyz in captures]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert [table.plane for table in pool.map(find_part, captures)] == alone


def _unstructured() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0.4, 1.4, (120, 160, 3)).astype(np.float32)


def test_a_strip_of_a_few_points_in_a_large_image_is_the_part() -> None:
    xyz = np.full((1000, 1000, 3), np.nan, np.float32)
    rows, columns = np.mgrid[:5, :100]
    xyz[503:508, 500:600] = np.stack([columns * 5e-4, rows * 5e-4, np.full(rows.shape, 0.5)], axis=-1)
    assert np.array_equal(find_part(xyz).foreground, ~np.isnan(xyz[..., 2]))


@pytest.mark.parametrize(
    ("xyz", "message"),
    [
        pytest.param(_unstructured(), "no table found", id="no plane"),
        pytest.param(Scene([], **CLOSE).render()[0], "no part found", id="empty table"),
        pytest.param(np.ones((2, 2, 3), np.float32), "no table found", id="four points"),
        pytest.param(np.ones((60, 80, 3), np.float32), "no table found", id="one point, repeated"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(xyz: NDArray[np.float32], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_part(xyz)
    assert "\n" not in str(caught.value)


def _real(name: str) -> NDArray[np.float32]:
    path = REAL / name / "xyz.tiff"
    if not path.is_file():
        pytest.skip("the real captures are not here")
    return np.asarray(tifffile.imread(path))


@pytest.mark.parametrize("name", ["tabletop_a", "tabletop_b"])
def test_real_tabletops_agree_with_their_annotation(name: str) -> None:
    xyz = _real(name)
    label = cv2.imread(str(REAL / name / "label.png"), cv2.IMREAD_UNCHANGED)
    truth = np.where(label >= 20, 1, 0)
    assert iou(find_part(xyz).foreground, xyz, truth) > 0.985


@pytest.mark.parametrize(
    ("name", "part", "background"),
    [
        # (row, column): on the bottles and the carton; then on the carpet: near, below the bottles, far corners
        ("milk_cartoon", [(215, 140), (160, 280), (190, 445)], [(420, 400), (360, 300), (25, 60), (25, 590)]),
        # on the mug and its handle; then on the table, on the wall, inside the handle
        ("table_mug_stereo", [(320, 385), (290, 380), (312, 492)], [(450, 580), (400, 250), (60, 500), (330, 455)]),
    ],
)
def test_other_real_captures_have_a_sensible_part(
    name: str, part: list[tuple[int, int]], background: list[tuple[int, int]]
) -> None:
    xyz = _real(name)
    found = find_part(xyz).foreground
    for pixels, wanted in ((part, 1.0), (background, 0.0)):
        for row, column in pixels:
            window = np.s_[row - 4 : row + 5, column - 4 : column + 5]
            measured = np.isfinite(xyz[window][..., 2])
            assert not measured.any() or found[window][measured].mean() == pytest.approx(wanted, abs=0.2), (row, column)
