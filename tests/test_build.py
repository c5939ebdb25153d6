"""Build: every usable capture is cached once, with any number of workers, and again only if something changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captures
import cv2
import numpy as np
import pytest
import tifffile
from conftest import HEIGHT, WIDTH, Part

from das3d_cli.data import build as building
from das3d_cli.data.build import build
from das3d_cli.data.cache import load_split, open_cache, read_sample
from das3d_cli.data.layouts import find_entries
from das3d_cli.data.preprocess import extent_of, preprocess
from das3d_cli.data.readers import read_capture, read_ground_truth
from das3d_cli.data.summary import Summary
from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import held
from das3d_cli.settings import PreprocessSettings

SMALL = PreprocessSettings(size=48)
OF_CATEGORY = {"train/good": 4, "validation/good": 2, "test/bump": 1, "test/good": 1, "test/stain": 1}


def run(root: Path, dst: Path, settings: PreprocessSettings = SMALL, workers: int = 1, **options: Any) -> Summary:
    return build(find_entries(root, ["tire"]), dst, settings, workers=workers, **options)


def counts(summary: Summary) -> tuple[int, int]:
    return sum(row.new for row in summary.rows), sum(row.skipped for row in summary.rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """The cache of "tire", read-only, and the summary of its build."""
    dst = tmp_path_factory.mktemp("built") / "out"
    return dst, run(shared_dataset, dst)


@pytest.fixture
def dst(built: tuple[Path, Summary], tmp_path: Path) -> Path:
    """A copy of that cache, up to date with `dataset`, that a test may change."""
    return Path(shutil.copytree(built[0], tmp_path / "out"))


def test_samples_are_those_of_preprocess_in_one_depth_range(shared_dataset: Path, built: tuple[Path, Summary]) -> None:
    opened = open_cache(built[0], "tire")
    geometry: dict[str, Any] = {"plane_distance_m": 0.005, "depth_axis": SMALL.depth_axis}
    entries = find_entries(shared_dataset, ["tire"]).entries
    ranges = [extent_of(read_capture(e.rgb, e.xyz), **geometry) for e in entries if e.split == "train"]
    near, far = min(r[0] for r in ranges), max(r[1] for r in ranges)
    near -= SMALL.headroom * (far - near)
    assert opened.manifest.depth_range_m == (near, far)
    window = 1.1 * max(r.span_m for r in ranges)
    assert opened.manifest.window_m == window
    for entry, record in zip(entries, opened.manifest.samples, strict=True):
        assert entry.ground_truth
        sample = read_sample(built[0] / "tire" / record.path)
        expected = preprocess(read_capture(entry.rgb, entry.xyz), size=48, depth_range_m=(near, far), window_m=window,
                              pitch_m=opened.manifest.form.pitch_m,
                              ground_truth=read_ground_truth(entry.ground_truth), **geometry)  # fmt: skip
        assert record.geometry == sample.geometry == expected.geometry
        for name in ("rgb", "depth", "foreground", "valid", "ground_truth"):
            assert np.array_equal(getattr(sample, name), getattr(expected, name))


def test_summary_and_manifest_count_alike(built: tuple[Path, Summary]) -> None:
    dst, summary = built
    assert {f"{row.split}/{row.label}": row.samples for row in summary.rows} == OF_CATEGORY
    assert counts(summary) == (9, 0)
    assert summary.failures == []
    for row in summary.rows:
        assert row.tilt_mean_deg == pytest.approx(6, abs=0.1)
        assert row.tilt_mean_deg <= row.tilt_max_deg
        assert 0.015 < row.missing_fraction < 0.04
    assert all(row.samples == row.new + row.skipped for row in summary.rows)
    manifest = json.loads((dst / "tire/manifest.json").read_bytes())
    assert len(manifest["samples"]) == 9
    assert manifest["settings"] == SMALL.model_dump()
    assert load_split(open_cache(dst, "tire"), "test").labels == ["bump", "good", "stain"]


def test_a_label_with_a_plus_is_one_type(dataset: Path, tmp_path: Path) -> None:
    (dataset / "tire/test/bump").rename(dataset / "tire/test/bump+stain")
    run(dataset, tmp_path / "out")
    split = load_split(open_cache(tmp_path / "out", "tire"), "test")
    assert split.types == [("bump+stain",), (), ("stain",)]
    assert split.kinds == {"bump+stain": [0], "good": [1], "stain": [2]}


def test_several_workers_write_the_same_bytes(
    shared_dataset: Path, built: tuple[Path, Summary], tmp_path: Path
) -> None:
    summary = run(shared_dataset, tmp_path / "out", workers=2)
    assert summary == built[1]
    assert contents(tmp_path / "out") == contents(built[0])


def test_capture_scaling_has_no_common_range(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "out", PreprocessSettings(size=48, scaling="capture"))
    opened = open_cache(tmp_path / "out", "tire")
    assert opened.manifest.depth_range_m is None
    assert len({record.geometry.near_m for record in opened.manifest.samples}) == 9


def test_what_is_done_and_unchanged_is_skipped(dataset: Path, dst: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("work done twice")

    before = contents(dst)
    monkeypatch.setattr(building, "read_capture", refuse)
    assert counts(run(dataset, dst)) == (0, 9)
    assert contents(dst) == before


def test_what_was_recognised_may_be_chosen(dataset: Path, dst: Path) -> None:
    assert counts(run(dataset, dst, SMALL.model_copy(update={"layout": "mvtec3d", "units": "m"}))) == (0, 9)
    assert open_cache(dst, "tire").manifest.settings.units == "m"
    assert counts(run(dataset, dst)) == (0, 9)


def test_files_that_changed_places_are_read_again_though_size_and_time_are_equal(dataset: Path, dst: Path) -> None:
    one, other = (dataset / f"tire/test/{label}/xyz/000.tiff" for label in ("good", "bump"))
    assert one.stat().st_size == other.stat().st_size
    for path in (one, other):
        os.utime(path, ns=(10**18, 10**18))
    run(dataset, dst)
    contents_of_one = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(contents_of_one)
    for path in (one, other):
        os.utime(path, ns=(10**18, 10**18))
    assert counts(run(dataset, dst)) == (2, 7)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that fails as it is read")
def test_a_file_that_cannot_be_read_costs_no_other(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "tire/test/bump/xyz/000.tiff"
    path.unlink()
    path.symlink_to("/proc/self/mem")
    summary = run(dataset, tmp_path / "out")
    assert [failure.path for failure in summary.failures] == [path]
    assert counts(summary) == (8, 0)


def test_changes_are_done_again(dataset: Path, dst: Path) -> None:
    before = contents(dst)
    test_file = dataset / "tire/test/bump/rgb/000.png"
    os.utime(test_file, ns=(0, 0))
    assert counts(run(dataset, dst)) == (1, 8)
    (dataset / "tire/test/bump/gt/000.png").touch()
    assert counts(run(dataset, dst)) == (1, 8)
    assert contents(dst).keys() == before.keys()
    assert counts(run(dataset, dst, PreprocessSettings(size=64))) == (9, 0)
    assert load_split(open_cache(dst, "tire"), "train").depth.shape == (4, 64, 64)


def test_other_depth_limits_are_other_samples(tmp_path: Path) -> None:
    source = captures.eyecandies(tmp_path / "raw")
    build(find_entries(source), tmp_path / "out", SMALL, workers=1)
    (source / "GummyBear/test_public/data/00_info_depth.yaml").write_text("normalization: {max: 0.6, min: 0.3}")
    assert counts(build(find_entries(source), tmp_path / "out", SMALL, workers=1)) == (1, 5)


def test_lost_and_damaged_samples_are_made_again(dataset: Path, dst: Path) -> None:
    before = contents(dst)
    (dst / "tire/train/good/001.npz").unlink()
    damaged = dst / "tire/validation/good/000.npz"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    assert counts(run(dataset, dst)) == (2, 7)
    assert contents(dst) == before


def test_killed_run_goes_on(dataset: Path, built: tuple[Path, Summary], tmp_path: Path) -> None:
    dst = tmp_path / "out"

    def stop(done: int, total: int, text: str) -> None:
        assert total == 9
        assert text.startswith("tire")
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dataset, dst, progress=stop)
    left = contents(dst)
    assert len(left) == 5
    assert all(left[name] == contents(built[0])[name] for name in left)
    (dst / "tire/train/good/.009.npz.das3d-tmp").write_bytes(b"half")
    assert counts(run(dataset, dst)) == (4, 5)
    assert contents(dst) == contents(built[0])


def test_unusable_captures_are_listed_and_the_rest_is_done(dataset: Path, dst: Path) -> None:
    train = dataset / "tire/train/good"
    tiff = train / "xyz/000.tiff"
    tiff.write_bytes(tiff.read_bytes()[:5000])
    (train / "xyz/001.tiff").unlink()
    summary = run(dataset, dst)
    told = {failure.path.relative_to(dataset).as_posix(): failure.reason for failure in summary.failures}
    assert told.keys() == {"tire/train/good/xyz/000.tiff", "tire/train/good/rgb/001.png"}
    assert told["tire/train/good/xyz/000.tiff"].startswith("damaged or unsupported TIFF")
    assert sum(row.samples for row in summary.rows) == 7
    assert not (dst / "tire/train/good/000.npz").exists()
    manifest = open_cache(dst, "tire").manifest
    assert dict(manifest.failures) == told
    assert len([one for one in manifest.samples if one.split == "train"]) == 2


def test_one_capture_of_two_parts_does_not_widen_the_window_of_all(
    dataset: Path, built: tuple[Path, Summary], tmp_path: Path
) -> None:
    path = dataset / "tire/train/good/xyz/002.tiff"
    cloud = tifffile.imread(path)
    for corner in np.s_[:8, :8], np.s_[-8:, -8:]:
        cloud[corner] *= 0.93  # 28 mm above the table
    tifffile.imwrite(path, cloud, photometric="rgb")
    summary = run(dataset, tmp_path / "out")
    wide, at_border = summary.notes
    assert wide.startswith(
        f"{path}: what was found is 2.0 times as wide as the window that shows a part, so it is shown smaller"
    )
    assert at_border.startswith(f"{path}: the part reaches the image's border")
    assert run(dataset, tmp_path / "out", workers=2).notes == summary.notes
    made, before = (open_cache(root, "tire").manifest for root in (tmp_path / "out", built[0]))
    assert made.window_m == pytest.approx(before.window_m, rel=0.02)
    assert [one.path for one in made.samples] == [one.path for one in before.samples]
    assert made.depth_range_m == pytest.approx(before.depth_range_m, abs=3e-4)


def test_a_photo_of_another_kind_makes_no_other_sample_again(dataset: Path, dst: Path) -> None:
    run(dataset, dst)
    assert open_cache(dst, "tire").manifest.usual.photos == "PNG"
    photo = min((dataset / "tire/test/good/rgb").iterdir())
    cv2.imwrite(str(photo.with_suffix(".jpg")), cv2.imread(str(photo)))
    photo.unlink()
    summary = run(dataset, dst)
    assert (sum(row.new for row in summary.rows), open_cache(dst, "tire").manifest.usual.photos) == (1, "PNG")
    photo = min((dataset / "tire/train/good/rgb").iterdir())
    cv2.imwrite(str(photo.with_suffix(".jpg")), cv2.imread(str(photo)))
    photo.unlink()
    run(dataset, dst)
    assert open_cache(dst, "tire").manifest.usual.photos == ""


def test_a_part_partly_out_of_view_or_hardly_measured_is_told(dataset: Path, tmp_path: Path) -> None:
    train, test = dataset / "tire/train/good", dataset / "tire/test/good"
    cloud, photo = tifffile.imread(train / "xyz/001.tiff"), cv2.imread(str(train / "rgb/001.png"))
    name = min((test / "xyz").iterdir()).stem
    moved = np.roll(cloud, 40, axis=1)
    moved[:, :40] = 0
    tifffile.imwrite(test / f"xyz/{name}.tiff", moved, photometric="rgb")
    cv2.imwrite(str(test / f"rgb/{name}.png"), np.roll(photo, 40, axis=1))
    cloud = tifffile.imread(train / "xyz/002.tiff")
    cloud[np.random.default_rng(0).random(cloud.shape[:2]) < 0.7] = 0
    tifffile.imwrite(train / "xyz/002.tiff", cloud, photometric="rgb")
    summary = run(dataset, tmp_path / "out")
    assert summary.failures == []
    hardly, cut = sorted(summary.notes, key=lambda note: "border" in note)
    assert re.fullmatch(rf"{train}/xyz/002\.tiff: [67]\d% of the part has no points; check why .*", hardly)
    assert cut.startswith(f"{test}/xyz/{name}.tiff: the part reaches the image's border, unlike most others; check")


@pytest.mark.parametrize(("pixels", "told"), [(0, 0), (2, 1)])
def test_a_photo_that_does_not_lie_on_its_points_is_told(
    dataset: Path, tmp_path: Path, part: Callable[..., Part], write_part: Callable[..., None], pixels: int, told: int
) -> None:
    for index in range(4, 10):
        write_part(dataset / "tire/train/good", f"{index:03d}", part("ring", seed=20 + index))
    path = dataset / "tire/test/good"
    name = min((path / "rgb").iterdir()).name
    photo = cv2.imread(str(path / "rgb" / name))
    cv2.imwrite(str(path / "rgb" / name), np.roll(photo, pixels, axis=1))
    notes = run(dataset, tmp_path / "out").notes
    assert len(notes) == told, notes
    for note in notes:
        assert re.match(
            rf"{path}/xyz/{Path(name).stem}\.tiff: the photo lies (1\.[6-9]|2\.[0-4]) pixels from where training photos lie",
            note,
        ), note


def test_a_capture_in_which_hardly_anything_stands_is_told(dataset: Path, tmp_path: Path) -> None:
    path = dataset / "tire/train/good/xyz/002.tiff"
    cloud = tifffile.imread(path)
    middle = np.zeros(cloud.shape[:2], bool)
    middle[44:52, 56:64] = True
    flat = cloud[4, 4, 2] * 0.99  # a crumb on an empty table that is measured only near the image's border
    cloud[middle] = np.stack((cloud[..., 0], cloud[..., 1], np.full_like(cloud[..., 2], flat)), axis=2)[middle]
    border = np.ones(cloud.shape[:2], bool)
    border[8:-8, 8:-8] = False
    cloud[~border & ~middle] = 0
    tifffile.imwrite(path, cloud, photometric="rgb")
    summary = run(dataset, tmp_path / "out")
    assert summary.failures == []
    (note,) = summary.notes
    assert note.startswith(f"{path}: what was found is only ") and "check that the part is there" in note


def test_no_cache_is_made_among_the_captures_of_a_table(tmp_path: Path) -> None:
    for name, part in captures.parts().items():
        if name.startswith("train"):
            captures.save_image(tmp_path / "v" / f"{name}.png", part.capture.rgb)
            captures.save_tiff(tmp_path / "v" / f"{name}.tiff", part.capture.xyz)
    files = sorted(path.relative_to(tmp_path).with_suffix("") for path in tmp_path.rglob("*.png"))
    (tmp_path / "v.csv").write_text("xyz,rgb\n" + "".join(f"{path}.tiff,{path}.png\n" for path in files))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="which das3d never changes; choose another folder"):
        build(find_entries(tmp_path / "v.csv"), tmp_path, PreprocessSettings(size=32), workers=1)
    assert sorted(tmp_path.rglob("*")) == before
    assert (
        build(find_entries(tmp_path / "v.csv"), tmp_path / "out", PreprocessSettings(size=32), workers=1).failures == []
    )


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("manifest.json", '{"mine": 1}'),
        ("manifest.json", "[1]"),
        ("manifest.json", "5"),
        ("train/good/rgb/000.png", "mine"),
    ],
)
def test_a_folder_of_others_is_neither_mixed_with_nor_written_over(
    dataset: Path, tmp_path: Path, file: str, text: str
) -> None:
    mine = tmp_path / "out/tire" / file
    mine.parent.mkdir(parents=True)
    mine.write_text(text)
    with pytest.raises(UsageError, match=rf"out/tire: holds {file}, which das3d did not write; choose another folder"):
        run(dataset, tmp_path / "out")
    assert contents(tmp_path / "out") == {f"tire/{file}": text.encode()}


@pytest.mark.parametrize("text", ["", '{"mine": 1}\n{"mine": 2}\n', '{"mine": 1}'])
def test_a_data_set_may_have_manifests_of_its_own(dataset: Path, text: str) -> None:
    (dataset / "tire/manifest.json").write_text(text)
    building.check_source(dataset)


def test_a_cache_is_no_data_set(dst: Path) -> None:
    with pytest.raises(UsageError, match="is a cache that das3d wrote, not a data set"):
        building.check_source(dst)


def test_a_damaged_manifest_is_no_reason_to_refuse(dataset: Path, dst: Path) -> None:
    for damage in ("", "{"):
        (dst / "tire/manifest.json").write_text(damage)
        assert run(dataset, dst).failures == []


def test_where_nothing_can_be_preprocessed_there_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "set/tire/train/good").mkdir(parents=True)
    summary = run(tmp_path / "set", tmp_path / "out")
    assert len(summary.failures) == 1 and contents(tmp_path / "out") == {}


def cut(folder: Path, name: str, places: Any) -> None:
    """Reduce a capture's files to these pixels."""
    for kind in ("rgb", "gt"):
        image = cv2.imread(str(folder / kind / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(folder / kind / f"{name}.png"), image[places])
    cloud = tifffile.imread(folder / f"xyz/{name}.tiff")
    tifffile.imwrite(folder / f"xyz/{name}.tiff", cloud[places], photometric="rgb")


def test_a_capture_of_another_resolution_is_a_failure(dataset: Path, dst: Path) -> None:
    """Subsampled, it would show the part at half its size; cropping does not change the scale and is fine."""
    cut(dataset / "tire/test/bump", "000", np.s_[::2, ::2])
    cut(dataset / "tire/test/stain", "000", np.s_[:, 4:-3])
    cut(dataset / "tire/train/good", "001", np.s_[::2, ::2])
    test, train = run(dataset, dst).failures
    assert test.path == dataset / "tire/test/bump/xyz/000.tiff"
    assert train.path == dataset / "tire/train/good/xyz/001.tiff"
    assert re.match(r"a pixel shows 1.99 mm of the part, but 0.996 to 0.996 mm in the captures ", test.reason)


def test_ground_truth_of_another_size_is_a_failure(dataset: Path, dst: Path, part: Callable[..., Any]) -> None:
    path = dataset / "tire/test/bump/gt/000.png"
    cv2.imwrite(str(path), part().ground_truth[:50].astype(np.uint8))
    (failure,) = run(dataset, dst).failures
    assert failure.path == path
    assert "is 120 x 50 pixels" in failure.reason


@pytest.mark.parametrize(
    ("name", "level", "complaint"),
    [
        ("test/bump/gt/000.png", 0, "marks nothing, but the part is labelled bump; mark the defect, or label it good"),
        (
            "test/good/gt/000.png",
            1,
            "marks a defect, but the part is labelled good; label it with its defect, or remove",
        ),
        (
            "train/good/gt/001.png",
            1,
            "marks a defect, but the part is labelled good; label it with its defect, or remove",
        ),
    ],
)
def test_a_mask_that_contradicts_the_label_is_a_failure(
    dataset: Path, dst: Path, name: str, level: int, complaint: str
) -> None:
    path = dataset / "tire" / name
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[: HEIGHT // 2] = level
    assert cv2.imwrite(str(path), mask)
    (failure,) = run(dataset, dst).failures
    assert failure.path == path
    assert failure.reason.startswith(complaint)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_nowhere_is_named_itself(dataset: Path, dst: Path) -> None:
    path = dataset / "tire/train/good/rgb/000.png"
    path.unlink()
    path.symlink_to("gone.png")
    (failure,) = run(dataset, dst).failures
    assert (failure.path, failure.reason) == (path, "cannot be read: no such file or directory")


def test_no_train_captures_no_common_range(dataset: Path, tmp_path: Path) -> None:
    shutil.rmtree(dataset / "tire/train")
    for _ in range(2):  # the second run must not reuse a measurement that failed
        summary = run(dataset, tmp_path / "out")
        assert summary.rows == []
        assert "no train/good capture" in summary.failures[0].reason
    assert counts(run(dataset, tmp_path / "out", PreprocessSettings(size=48, scaling="capture", frame="image"))) == (
        5,
        0,
    )


def test_captures_in_another_unit_are_looked_at_anew_without_good_ones_to_train_on(
    dataset: Path, tmp_path: Path
) -> None:
    shutil.rmtree(dataset / "tire/train")
    settings = PreprocessSettings(size=48, scaling="capture", frame="image")
    assert counts(run(dataset, tmp_path / "out", settings)) == (5, 0)
    for path in (dataset / "tire").rglob("xyz/*.tiff"):
        tifffile.imwrite(path, 1000 * tifffile.imread(path), photometric="rgb")
    assert counts(run(dataset, tmp_path / "out", settings)) == (5, 0)


def test_a_whole_category_that_cannot_be_used_is_told_by_its_first_capture(dataset: Path, tmp_path: Path) -> None:
    for path in (dataset / "tire/train/good/xyz").iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    summary = run(dataset, tmp_path / "out")
    assert (summary.rows, [failure.path for failure in summary.failures]) == ([], [dataset])
    assert summary.failures[0].reason.startswith(
        "tire: none of the 4 train/good captures, read in m, can be used to measure the size of the parts; the first:"
        f" {dataset}/tire/train/good/xyz/000.tiff: damaged or unsupported TIFF"
    )


def test_where_no_capture_shows_a_table_another_unit_is_proposed(dataset: Path, tmp_path: Path) -> None:
    for path in (dataset / "tire/train/good/xyz").iterdir():
        xyz = tifffile.imread(path)
        captures.save_tiff(
            path, np.where(xyz[..., 2:] > 0, np.random.default_rng(0).uniform(0.5, 1, xyz.shape), 0).astype(np.float32)
        )
    summary = run(dataset, tmp_path / "out")
    reason = summary.failures[0].reason
    assert "no table found: " in reason and reason.endswith(
        "If the unit is another one, name it with --set preprocess.units"
    )


def test_stale_samples_go_and_foreign_files_stay(dataset: Path, dst: Path) -> None:
    for kind, suffix in (("rgb", "png"), ("xyz", "tiff"), ("gt", "png")):
        (dataset / f"tire/test/stain/{kind}/000.{suffix}").unlink()
    foreign = dst / "tire/test/stain/mine.npz"
    np.savez(foreign, a=np.zeros(3))
    note = dst / "tire/notes.txt"
    note.write_text("mine")
    assert counts(run(dataset, dst)) == (0, 8)
    assert foreign.exists()
    assert note.exists()
    assert not (dst / "tire/test/stain/000.npz").exists()


def test_one_preprocess_in_a_cache_at_a_time(shared_dataset: Path, dst: Path) -> None:
    half_written = dst / "tire/.0123.das3d-tmp"
    half_written.touch()
    told = pytest.raises(UsageError, match=f"^{dst}/tire: another process preprocesses into it; end that one first$")
    with held(dst / "tire", "preprocesses into"), told:
        run(shared_dataset, dst)
    assert half_written.exists()
    run(shared_dataset, dst)
    assert not half_written.exists()


def test_source_is_never_written_to(dataset: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    for root, target in ((dataset, dataset), (dataset, dataset / "out"), (dataset / "tire", dataset)):
        with pytest.raises(UsageError, match="which das3d never changes; choose another folder"):
            run(root, target)
    run(dataset, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


@pytest.mark.parametrize("place", ["out", "out/tire"])
def test_unwritable_target_is_one_error(shared_dataset: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("a file in the way")
    with pytest.raises(DataError, match=r"cannot be written: .*choose another folder"):
        run(shared_dataset, tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_first(tmp_path: Path, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import time
from pathlib import Path
from das3d_cli.data.workers import completed, process_pool
def work(index):
    import os
    Path({str(tmp_path)!r}, f"{{index}}.pid").write_text(str(os.getpid()))
    time.sleep(0.2)
if __name__ == "__main__":
    with process_pool(2, jobs=1000) as pool:
        for _ in completed(pool, work, range(1000)): pass
""")
    child = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "3.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = {int(path.read_text()) for path in tmp_path.glob("[01].pid")}
    assert workers
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    _, stderr = child.communicate(timeout=20)
    assert stderr.count(b"Traceback") <= 1  # the parent's own
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").exists() else True
