"""Users' data in every supported form, from the raw folder to the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import captures
import cv2
import numpy as np
import pytest
from captures import (
    CAMERA,
    parts,
    save_camera,
    save_depth,
    save_image,
    save_mask,
    save_pcd,
    save_ply,
    save_tiff,
    write_eyecandies,
)
from conftest import Part, render, write

from das3d_cli.data.build import build
from das3d_cli.data.cache import Split, load_split, open_cache, read_sample
from das3d_cli.data.capture import Camera, Form
from das3d_cli.data.layouts import DataSet, find_entries
from das3d_cli.errors import UsageError
from das3d_cli.settings import PreprocessSettings

SIZE = 48


@pytest.fixture(scope="module")
def all_parts() -> dict[str, Part]:
    return parts()


@pytest.fixture(scope="module")
def reference(all_parts: dict[str, Part], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """The samples of these parts in the MVTec 3D-AD layout."""
    root = tmp_path_factory.mktemp("reference")
    for place, part in all_parts.items():
        write(root / "mvtec3d/ring" / Path(place).parent, Path(place).name, part)
    return cached(find_entries(root / "mvtec3d"), root / "out")


def cached(data: DataSet, dst: Path, category: str = "", **settings: object) -> dict[str, Split]:
    """Build the cache, which must work without failures; return its train and test splits."""
    summary = build(data, dst, PreprocessSettings(size=SIZE, **settings), workers=1)  # type: ignore[arg-type]
    assert [str(failure) for failure in summary.failures] == []
    opened = open_cache(dst, category or next(iter(summary.forms)))
    return {split: load_split(opened, split) for split in ("train", "test")}


def assert_alike(found: Split, expected: Split, depth: float = 2e-3, colour: float = 0.0) -> None:
    """Check that both splits hold the same samples, up to the rounding of file formats."""
    assert sorted(found.labels) == expected.labels
    order = np.argsort(found.labels, kind="stable")
    found = Split(*(getattr(found, field.name)[order] for field in fields(Split)[:6]), expected.labels, expected.names)
    assert (found.foreground ^ expected.foreground).mean() < 0.003
    both = found.foreground & expected.foreground
    assert np.abs(found.depth - expected.depth)[both].mean() < depth
    assert np.abs(found.rgb.astype(float) - expected.rgb)[both].mean() <= colour
    assert (found.ground_truth ^ expected.ground_truth).mean() < 0.003
    np.testing.assert_allclose(found.parallax, expected.parallax, rtol=0.1, atol=2e-3)


def forms(dst: Path, category: str) -> Form:
    return open_cache(dst, category).manifest.form


class TestFromRawFolderToCache:
    def test_real_iad(self, reference: dict[str, Split], tmp_path: Path) -> None:
        data = find_entries(captures.realiad(tmp_path / "raw"))
        assert data.name == "realiad"
        found = cached(data, tmp_path / "out")
        for split in ("train", "test"):
            assert_alike(found[split], reference[split], colour=4)  # JPEG artefacts

    def test_folder_3d(self, reference: dict[str, Split], tmp_path: Path) -> None:
        data = find_entries(captures.adam(tmp_path / "raw"))
        assert data.name == "mvtec3d"
        found = cached(data, tmp_path / "out")
        for split in ("train", "test"):
            assert_alike(found[split], reference[split], depth=1e-6)

    def test_own_pairs_in_millimetres(self, reference: dict[str, Split], tmp_path: Path) -> None:
        data = find_entries(captures.pairs(tmp_path / "valve"))
        assert data.name == "flat"
        found = cached(data, tmp_path / "out")
        assert_alike(found["train"], reference["train"], depth=1e-5)
        assert found["test"].labels == ["bump"]
        assert replace(forms(tmp_path / "out", "valve"), pitch_m=None) == Form(
            "both", "table", "mm", plane_distance_m=0.005
        )

    def test_table_of_depth_images(self, reference: dict[str, Split], tmp_path: Path) -> None:
        data = find_entries(captures.depth_table(tmp_path / "raw"))
        assert (data.name, data.notes) == (
            "table", [f"{tmp_path}/raw/valve.csv: columns that are not used: operator"],
        )  # fmt: skip
        found = cached(data, tmp_path / "raw/out")  # a cache beside the table is allowed
        for split in ("train", "test"):
            assert_alike(found[split], reference[split])
        assert forms(tmp_path / "raw/out", "valve").camera == replace(CAMERA, scale=1e-5)

    @pytest.mark.parametrize("kind", ["pcd", "ply", "depth mm", "depth float", "depth folder"])
    def test_other_files_of_points(
        self, all_parts: dict[str, Part], reference: dict[str, Split], tmp_path: Path, kind: str
    ) -> None:
        for place, part in all_parts.items():
            stem, xyz = tmp_path / "valve" / place, part.capture.xyz
            if kind == "depth folder":
                save_image(stem.parent / f"rgb/{stem.name}.png", part.capture.rgb)
                save_mask(stem.parent / f"gt/{stem.name}.png", part.ground_truth)
                save_depth(stem.parent / f"depth/{stem.name}.png", xyz)
                continue
            save_image(stem.with_suffix(".png"), part.capture.rgb)
            if stem.parent.name != "good":
                save_mask(stem.with_name(f"{stem.name}_mask.png"), part.ground_truth)
            if kind == "pcd":
                save_pcd(stem.with_suffix(".pcd"), xyz)
            elif kind == "ply":
                save_ply(stem.with_suffix(".ply"), xyz, size="nowhere")
            elif kind == "depth mm":
                save_depth(stem.with_name(f"{stem.name}_depth.png"), xyz, 1e-3)
            else:
                save_tiff(stem.with_name(f"{stem.name}_depth.tiff"), np.nan_to_num(xyz[..., 2]) * 1000)
        if "depth" in kind:
            scale = {"scale": 1e-4} if kind == "depth folder" else {}
            save_camera(tmp_path / ("valve" if kind == "depth mm" else ""), fx=CAMERA.fx, **scale)
        found = cached(find_entries(tmp_path / "valve"), tmp_path / "out")
        rounding = 0.03 if kind == "depth mm" else 3e-3  # in whole millimetres, on a part 20 mm high
        for split in ("train", "test"):
            assert_alike(found[split], reference[split], depth=rounding)

    def test_eyecandies(self, all_parts: dict[str, Part], tmp_path: Path) -> None:
        data = find_entries(captures.eyecandies(tmp_path / "raw"))
        assert data.foreground == "border"
        found = cached(data, tmp_path / "out")
        assert found["test"].labels == ["good", "bumps+colors"]
        manifest = open_cache(tmp_path / "out", "GummyBear").manifest
        assert replace(manifest.form, pitch_m=None) == Form(
            "both", "border", "m", Camera(711.11, 711.11), plane_distance_m=0.005
        )
        assert Counter((one.split, one.label) for one in manifest.samples) == {
            ("train", "good"): 3, ("validation", "good"): 1, ("test", "bumps+colors"): 1, ("test", "good"): 1,
        }  # fmt: skip
        truth = found["test"].ground_truth[1]
        assert truth.any() and not (truth & ~found["test"].foreground[1]).any()
        assert not found["test"].ground_truth[0].any()
        for record, part in zip(manifest.samples[:3], list(all_parts.values())[:3], strict=True):
            sample = read_sample(tmp_path / "out/GummyBear" / record.path)
            area = part.foreground.sum() * (SIZE / record.geometry.side) ** 2
            assert sample.foreground.sum() == pytest.approx(area, rel=0.06)
            assert sample.valid.sum() == sample.foreground.sum()

    def test_each_type_of_a_part_has_its_own_truth(self, tmp_path: Path) -> None:
        folder = captures.eyecandies(tmp_path / "raw") / "GummyBear/test_public/data"
        write_eyecandies(folder, "11", render("ring", seed=5, defect="stain"), ("dents",))
        marked = cv2.imread(str(folder / "10_mask.png"), cv2.IMREAD_GRAYSCALE)
        marked[50:58, 40:48] = 255  # in no type's mask
        save_image(folder / "10_mask.png", marked)
        found = cached(find_entries(tmp_path / "raw"), tmp_path / "out")["test"]
        assert found.types == [(), ("bumps", "colors"), ("dents",)]
        assert found.kinds == {"bumps": [1], "colors": [1], "dents": [2], "good": [0]}
        lone = {}
        for kind in ("bumps", "colors", ""):  # the same part, as if it had a single type
            mask = folder / f"10_{kind}_mask.png" if kind else folder / "10_mask.png"
            data = find_entries(tmp_path / "raw")
            entries = [replace(e, ground_truth=mask, by_type=()) if e.name == "10" else e for e in data.entries]
            again = cached(replace(data, entries=entries), tmp_path / "again")["test"]
            assert again.types == [(), ("bumps+colors",), ("dents",)] and again.by_type == {}
            lone[kind] = again.ground_truth[1]
            assert lone[kind].any()
        assert list(found.by_type) == [1]
        for kind, mask in found.by_type[1].items():
            assert np.array_equal(mask, lone[kind]), kind
        assert not (lone["bumps"] & lone["colors"]).any()
        assert np.array_equal(found.ground_truth[1], lone[""] | lone["bumps"] | lone["colors"])
        assert (found.ground_truth[1] & ~lone["bumps"] & ~lone["colors"]).sum() > 5

    def test_a_cache_that_knew_no_types_is_mended_and_a_changed_mask_noticed(self, tmp_path: Path) -> None:
        folder = captures.eyecandies(tmp_path / "raw") / "GummyBear/test_public/data"
        write_eyecandies(folder, "11", render("ring", seed=5, defect="stain"), ("dents",))
        data, dst, settings = find_entries(tmp_path / "raw"), tmp_path / "out", PreprocessSettings(size=SIZE)
        build(replace(data, entries=[replace(e, by_type=()) for e in data.entries]), dst, settings, workers=1)
        before = {path: path.read_bytes() for path in dst.rglob("*.npz")}

        def new() -> dict[str, int]:
            rows = build(find_entries(tmp_path / "raw"), dst, settings, workers=1).rows
            assert load_split(open_cache(dst, "GummyBear"), "test").types == [(), ("bumps", "colors"), ("dents",)]
            return {row.label: row.new for row in rows if row.new}

        assert new() == {"bumps+colors": 1}
        assert [p.name for p in dst.rglob("*.npz") if p.read_bytes() != before[p]] == ["10.npz"]
        assert new() == {}
        (folder / "10_colors_mask.png").touch()
        assert new() == {"bumps+colors": 1}

    def test_a_types_mask_of_another_size_is_named(self, tmp_path: Path) -> None:
        folder = captures.eyecandies(tmp_path / "raw") / "GummyBear/test_public/data"
        save_mask(folder / "10_colors_mask.png", np.indices((50, 120))[0] < 25)
        (failure,) = build(
            find_entries(tmp_path / "raw"), tmp_path / "out", PreprocessSettings(size=SIZE), workers=1
        ).failures
        assert failure.path == folder / "10_colors_mask.png" and "is 120 x 50 pixels" in failure.reason

    def test_five_lights_are_five_train_samples_of_one_shape(self, tmp_path: Path) -> None:
        data = find_entries(captures.eyecandies(tmp_path / "raw"), lights=["0", "1", "2", "3", "5"])
        found = cached(data, tmp_path / "out")
        assert len(found["train"].labels) == 15
        assert len(found["test"].labels) == 2
        assert found["train"].names[:2] == ["000_image_0", "000_image_1"]
        first, second = found["train"].rgb[:2]
        inside = found["train"].foreground[0]
        assert (second.astype(int) - first)[inside].mean() == pytest.approx(10, abs=0.1)
        assert np.array_equal(found["train"].depth[0], found["train"].depth[1])

    @pytest.mark.parametrize("make", ["mvtec", "mvtec3d"])
    def test_images_alone(self, all_parts: dict[str, Part], tmp_path: Path, make: str) -> None:
        if make == "mvtec":
            captures.mvtec(tmp_path / "raw")
        else:
            for place, part in all_parts.items():
                stem = tmp_path / "raw/hazelnut" / place
                save_image(stem.parent / f"rgb/{stem.name}.png", part.capture.rgb)
                save_mask(stem.parent / f"gt/{stem.name}.png", part.ground_truth)
        data = find_entries(tmp_path / "raw")
        assert data.name == ("flat" if make == "mvtec" else "mvtec3d")
        found = cached(data, tmp_path / "out")
        manifest = open_cache(tmp_path / "out", "hazelnut").manifest
        assert (manifest.form, manifest.depth_range_m, manifest.window_m) == (
            Form("rgb", "whole", plane_distance_m=0.005),
            None,
            None,
        )
        train, record = found["train"], manifest.samples[0]
        top = SIZE * record.geometry.pad_top // 120
        seen = slice(top + 1, SIZE - top - 1)
        assert train.foreground[:, seen].all() and not train.foreground[:, 0].any()
        assert (train.depth == 0.5).all() and not train.valid.any()
        square = np.pad(all_parts["train/good/000"].capture.rgb, ((12, 12), (0, 0), (0, 0))).astype(np.float32)
        expected = cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        assert np.abs(train.rgb[0][seen] - expected[seen]).max() <= 0.5
        assert (record.geometry.plane, record.geometry.tilt_deg, record.geometry.missing_fraction) == (None, None, 1.0)

    def test_points_alone(self, all_parts: dict[str, Part], tmp_path: Path) -> None:
        for place, part in all_parts.items():
            for name in ("valve", "grey"):
                stem = tmp_path / name / place
                save_tiff(stem.parent / f"xyz/{stem.name}.tiff", part.capture.xyz)
                save_mask(stem.parent / f"gt/{stem.name}.png", part.ground_truth)
            save_image(stem.parent / f"rgb/{stem.name}.png", np.full_like(part.capture.rgb, 128))
        alone = cached(find_entries(tmp_path / "valve"), tmp_path / "out")
        beside = cached(find_entries(tmp_path / "grey"), tmp_path / "out")
        assert forms(tmp_path / "out", "valve").modalities == "depth"
        for split in ("train", "test"):
            assert np.array_equal(alone[split].depth, beside[split].depth)
            assert np.array_equal(alone[split].rgb, beside[split].rgb)
            assert set(np.unique(alone[split].rgb[alone[split].foreground])) == {128}

    def test_a_foreground_that_needs_points_is_refused_without_them(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"settings\.preprocess\.foreground: table needs point clouds"):
            cached(find_entries(captures.mvtec(tmp_path / "raw")), tmp_path / "out", foreground="table")

    def test_a_category_without_a_capture_that_can_be_used_costs_no_other(
        self, all_parts: dict[str, Part], tmp_path: Path
    ) -> None:
        for place, part in list(all_parts.items())[:3]:
            stem = tmp_path / "raw/valve" / place
            save_tiff(stem.parent / f"xyz/{stem.name}.tiff", part.capture.xyz)
            save_image(stem.parent / f"rgb/{stem.name}.png", part.capture.rgb)
        (tmp_path / "raw/bad/train/good/xyz").mkdir(parents=True)
        (tmp_path / "raw/bad/train/good/rgb").mkdir()
        (tmp_path / "raw/bad/train/good/rgb/1.png").touch()
        (tmp_path / "raw/bad/train/good/xyz/2.tiff").touch()
        settings = PreprocessSettings(size=SIZE, foreground="table")
        summary = build(find_entries(tmp_path / "raw"), tmp_path / "out", settings, workers=1)
        assert {row.category for row in summary.rows} == {"valve"}
        assert {failure.category for failure in summary.failures} == {"bad"}


class TestAgain:
    """A sample is kept until the way its files are read changes."""

    def test_another_camera_makes_the_samples_anew(self, all_parts: dict[str, Part], tmp_path: Path) -> None:
        for place, part in list(all_parts.items())[:3]:
            save_tiff(tmp_path / f"valve/{place}_depth.tiff", np.nan_to_num(part.capture.xyz[..., 2]))
        settings, counts = PreprocessSettings(size=SIZE), []
        for focal in (CAMERA.fx, CAMERA.fx, 1.1 * CAMERA.fx):
            save_camera(tmp_path / "valve", fx=focal)
            summary = build(find_entries(tmp_path / "valve"), tmp_path / "out", settings, workers=1)
            counts.append(sum(row.new for row in summary.rows))
        assert counts == [3, 0, 3]

    def test_a_table_with_another_scale_has_another_range(self, all_parts: dict[str, Part], tmp_path: Path) -> None:
        for number, part in enumerate(list(all_parts.values())[:4]):
            save_depth(tmp_path / f"raw/{number}_depth.png", part.capture.xyz)
        files, ranges = sorted((tmp_path / "raw").iterdir()), {}
        for scale in ("0.0001", "0.00011"):
            rows = [f"{file},good,train,{CAMERA.fx * (1 + place % 2 / 50)},{scale}" for place, file in enumerate(files)]
            (tmp_path / "valve.csv").write_text("depth,label,split,fx,scale\n" + "\n".join(rows) + "\n")
            build(find_entries(tmp_path / "valve.csv"), tmp_path / "out", PreprocessSettings(size=SIZE), workers=1)
            ranges[scale] = np.array(open_cache(tmp_path / "out", "valve").manifest.depth_range_m)
        assert ranges["0.00011"] == pytest.approx(1.1 * ranges["0.0001"], rel=0.02)

    def test_a_capture_in_another_unit_than_the_others_is_told(self, tmp_path: Path) -> None:
        captures.pairs(tmp_path / "valve")
        odd = tmp_path / "valve/bump/test000.tiff"
        save_tiff(odd, all_millimetres := captures.parts()["test/bump/000"].capture.xyz)
        assert np.nanmax(all_millimetres) < 1
        summary = build(find_entries(tmp_path / "valve"), tmp_path / "out", PreprocessSettings(size=SIZE), workers=1)
        assert [failure.path for failure in summary.failures] == [odd]
        assert "looks like metres" in summary.failures[0].reason
