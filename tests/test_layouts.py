"""Layouts: files are paired by name, and every file without a partner is reported."""

from __future__ import annotations

from pathlib import Path

import captures
import pytest

from das3d_cli.data.capture import Camera
from das3d_cli.data.layouts import LAYOUTS, Entry, Failure, find_entries
from das3d_cli.errors import DataError, UsageError
from das3d_cli.settings import FIELDS


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def problems(root: Path) -> set[tuple[str, str]]:
    return {(item.path.relative_to(root).as_posix(), item.reason) for item in find_entries(root).problems}


def test_finds_every_capture_in_a_fixed_order(shared_dataset: Path) -> None:
    layout = find_entries(shared_dataset)
    found = [(entry.category, entry.split, entry.label, entry.name) for entry in layout.entries]
    per_category = (
        [("train", "good", f"00{i}") for i in range(4)] + [("validation", "good", f"00{i}") for i in range(2)]
        + [("test", label, "000") for label in ("bump", "good", "stain")]
    )  # fmt: skip
    assert found == [(category, *rest) for category in ("cookie", "tire") for rest in per_category]
    assert layout.problems == []
    for entry in layout.entries:
        folder = shared_dataset / entry.category / entry.split / entry.label
        assert entry.rgb == folder / "rgb" / f"{entry.name}.png"
        assert entry.xyz == folder / "xyz" / f"{entry.name}.tiff"
        assert entry.ground_truth == folder / "gt" / f"{entry.name}.png"


def test_one_category_by_name_or_by_its_own_folder(shared_dataset: Path) -> None:
    by_name = find_entries(shared_dataset, ["tire", "tire"]).entries
    by_folder = find_entries(shared_dataset / "tire").entries
    assert by_name == by_folder
    assert {entry.category for entry in by_name} == {"tire"}
    assert find_entries(shared_dataset / "tire", ["tire"]).entries == by_name
    assert find_entries(shared_dataset, ["tire"]).why == "tire/train/"


def test_pairs_by_name_whatever_the_order(tmp_path: Path) -> None:
    good = "tire/train/good"
    touch(tmp_path, f"{good}/rgb/2.png", f"{good}/rgb/10.PNG", f"{good}/xyz/10.tif", f"{good}/xyz/2.TIFF")
    entries = find_entries(tmp_path).entries
    assert [(entry.rgb.name, entry.xyz.name) for entry in entries] == [
        ("10.PNG", "10.tif"),
        ("2.png", "2.TIFF"),
    ]


def test_unmatched_files_are_told_and_the_rest_is_used(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "tire/train/good/rgb/000.png", "tire/train/good/xyz/000.tiff",
        "tire/train/good/rgb/001.png",
        "tire/train/good/xyz/002.tiff",
        "tire/train/good/rgb/003.png", "tire/train/good/xyz/003.tiff", "tire/train/good/xyz/003.tif",
        "tire/train/good/rgb/004.bmp", "tire/train/good/xyz/004.tiff",
        "tire/train/loose.png",
        "tire/test/good/rgb/000.png", "tire/test/good/xyz/000.tiff",
        "tire/test/hole/rgb/000.png", "tire/test/hole/xyz/000.tiff",
        "tire/test/hole/gt/001.png",
    )  # fmt: skip
    assert [(entry.split, entry.label, entry.name) for entry in find_entries(tmp_path).entries] == [
        ("train", "good", "000"), ("test", "good", "000"),
    ]  # fmt: skip
    told = problems(tmp_path)
    assert {path for path, _ in told} == {
        "tire/train/good/rgb/001.png", "tire/train/good/xyz/002.tiff", "tire/train/good/xyz/003.tiff",
        "tire/train/good/rgb/004.bmp", "tire/train/good/xyz/004.tiff", "tire/train/loose.png",
        "tire/test/hole/rgb/000.png", "tire/test/hole/gt/001.png",
    }  # fmt: skip
    assert ("tire/train/good/rgb/001.png", "its partner xyz/001.tiff is missing") in told
    assert ("tire/test/hole/rgb/000.png", "its partner gt/000.png is missing") in told


def test_junk_is_passed_over(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "readme.txt", ".hidden/x", "calibration/camera.json",
        "tire/license.txt", "tire/calibration/camera.json", "tire/train/.DS_Store",
        "tire/train/good/rgb/Thumbs.db", "tire/train/good/rgb/._000.png", "tire/train/good/notes.md",
        "tire/train/good/rgb/000.png", "tire/train/good/xyz/000.tiff",
    )  # fmt: skip
    layout = find_entries(tmp_path)
    assert [entry.name for entry in layout.entries] == ["000"]
    assert layout.problems == []


@pytest.mark.parametrize(
    ("files", "place", "complaint"),
    [
        ([], "nowhere", "no such folder"),
        (["a.txt"], "a.txt", "is a file"),
        ([], ".", "is empty"),
        (["photos/000.png"], ".", "is not a data set; expected <category>/{train"),
        (
            ["000.png", "000.tiff"],
            ".",
            "is not a data set; expected <category>/{train,validation,test}/<label>/{rgb,xyz,gt}/, or for your own",
        ),
        (
            ["tire/test_private/data/000_info_depth.yaml", "tire/test_private/data/x/y"],
            ".",
            "holds no captures; expected <Category>/{train,val,test_public}/data/<index>_{image_0.png,...}; light image_4",
        ),
        (["tire/train/.keep"], ".", "holds no captures"),
    ],
)
def test_no_data_set(tmp_path: Path, files: list[str], place: str, complaint: str) -> None:
    root = touch(tmp_path, *files) / place
    with pytest.raises(DataError) as caught:
        find_entries(root)
    assert str(caught.value).startswith(f"{root}: {complaint}")


@pytest.mark.parametrize(
    ("category", "label", "told"),
    [("all", "hole", "a category cannot be called all"), ("M8,5", "hole", "a category cannot be called M8,5"),
     ("mean", "hole", "a category cannot be called mean"),
     ("tire", "all", "tire: a kind of defect cannot be called all")],
)  # fmt: skip
def test_names_that_mean_something_else(tmp_path: Path, category: str, label: str, told: str) -> None:
    at = f"{category}/test/{label}"
    touch(tmp_path, f"{category}/train/good/rgb/0.png", f"{category}/train/good/xyz/0.tiff", f"{at}/rgb/0.png", f"{at}/xyz/0.tiff",
          f"{at}/gt/0.png")  # fmt: skip
    with pytest.raises(DataError, match=f"{told}.*; rename it"):
        find_entries(tmp_path)


@pytest.mark.parametrize(
    ("category", "told"),
    [("../../nut", "not a valid file name; leave out slashes"), ("/nut", "not a valid"), ("..", "not a valid"),
     ("nut/train", "not a valid"), ("n" * 201, "too long for a file name; shorten it"),
     ("all", "a category cannot be called all; rename it")],
)  # fmt: skip
@pytest.mark.parametrize("file", ["a.png", "lost.png"])
def test_a_table_cannot_send_a_category_elsewhere(tmp_path: Path, category: str, told: str, file: str) -> None:
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text(f"category,rgb\n{category},{file}\nnut,b.png\n")
    with pytest.raises(DataError, match=f"^{tmp_path}/t.csv: .*{told}"):
        find_entries(tmp_path / "t.csv")


def test_a_folder_too_high_up_is_told_the_right_one(tmp_path: Path) -> None:
    touch(tmp_path, "papers/a.pdf", "unpacked/tire/train/good/rgb/1.png")
    with pytest.raises(DataError, match=rf"is not a data set; .*; did you mean {tmp_path}/unpacked\?$"):
        find_entries(tmp_path)


def test_unknown_category_lists_those_there(shared_dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"category tyre: not in .*, which holds cookie, tire; did you mean tire\?"):
        find_entries(shared_dataset, ["cookie", "tyre"])


def test_failure_is_one_line() -> None:
    assert str(Failure("tire", Path("a/000.png"), "is empty")) == "a/000.png: is empty"


def test_every_layout_can_be_asked_for() -> None:
    names = {"auto", "table", *(kind.name for kind in LAYOUTS)}
    assert set(FIELDS["preprocess.layout"].annotation.__args__) == names


def one(path: Path, name: str, why: str) -> dict[tuple[str, str, str], Entry]:
    """Check the layout found and that there are no problems; return the entries by split, label and name."""
    layout = find_entries(path)
    assert (layout.name, layout.why, layout.problems) == (name, why, [])
    return {(entry.split, entry.label, entry.name): entry for entry in layout.entries}


class TestEyecandies:
    def test_entries(self, tmp_path: Path) -> None:
        found = one(captures.eyecandies(tmp_path), "eyecandies", "GummyBear/train/data/000_info_depth.yaml")
        assert list(found) == [
            ("train", "good", "000"), ("train", "good", "001"), ("train", "good", "002"), ("validation", "good", "00"),
            ("test", "good", "00"), ("test", "bumps+colors", "10"),
        ]  # fmt: skip
        folder = tmp_path / "GummyBear/test_public/data"
        assert found["test", "bumps+colors", "10"] == Entry(
            "GummyBear", "test", "bumps+colors", "10", folder / "10_image_4.png", folder / "10_depth.png",
            folder / "10_mask.png", Camera(711.11, 711.11), folder / "10_info_depth.yaml",
            (("bumps", folder / "10_bumps_mask.png"), ("colors", folder / "10_colors_mask.png")),
        )  # fmt: skip
        assert found["train", "good", "000"].ground_truth is None

    def test_a_part_of_one_type_needs_mask_png_alone(self, tmp_path: Path) -> None:
        folder = captures.eyecandies(tmp_path) / "GummyBear/test_public/data"
        (folder / "10_bumps_mask.png").write_bytes((folder / "00_mask.png").read_bytes())
        entry = find_entries(tmp_path).entries[-1]
        assert (entry.label, entry.ground_truth, entry.by_type) == ("colors", folder / "10_mask.png", ())

    def test_what_has_no_ground_truth_is_no_good_part(self, tmp_path: Path) -> None:
        layout = find_entries(captures.eyecandies(tmp_path))
        assert not any("test_private" in str(entry.rgb) for entry in layout.entries)
        place = tmp_path / "GummyBear/test_private/data"
        assert layout.notes == [
            "light image_4; choose with --set preprocess.lights",
            f"GummyBear/test_private has no ground truth and is left out; judge its parts with das3d predict --parts {place}",
        ]

    def test_lights(self, tmp_path: Path) -> None:
        captures.eyecandies(tmp_path)
        entries = find_entries(tmp_path, lights=["5", "image_0"]).entries
        assert [entry.name for entry in entries if entry.split == "train"][:3] == [
            "000_image_5", "000_image_0", "001_image_5",
        ]  # fmt: skip
        assert [entry.part for entry in entries if entry.split == "train"][:3] == ["000", "000", "001"]
        assert {entry.rgb.name[3:] for entry in entries if entry.rgb and entry.split == "test"} == {"image_5.png"}
        assert find_entries(tmp_path, lights=["5", "0"]).notes[0] == (
            "light 5, 0, in validation and test only 5; choose with --set preprocess.lights"
        )
        assert find_entries(tmp_path, lights=["5", "image_5"]).entries == find_entries(tmp_path, lights=["5"]).entries
        with pytest.raises(UsageError, match=r"lights: image_6: Eyecandies has only the lights 0 to 5"):
            find_entries(tmp_path, lights=["6"])

    @pytest.mark.parametrize(
        ("gone", "told"),
        [
            ("train/data/001_depth.png", "its partner 001_depth.png is missing"),
            ("train/data/001_info_depth.yaml", "its partner 001_info_depth.yaml is missing"),
            ("val/data/00_image_4.png", "its partner 00_image_4.png is missing"),
            ("test_public/data/00_mask.png", "its partner 00_mask.png is missing"),
            ("test_public/data/10_dents_mask.png", "its partner 10_dents_mask.png is missing"),
        ],
    )
    def test_what_is_missing_is_named(self, tmp_path: Path, gone: str, told: str) -> None:
        whole = find_entries(captures.eyecandies(tmp_path))
        (tmp_path / "GummyBear" / gone).unlink()
        layout = find_entries(tmp_path)
        assert [failure.reason for failure in layout.problems] == [told]
        assert len(layout.entries) == len(whole.entries) - 1

    def test_extra_files_and_masks_that_disagree_are_named(self, tmp_path: Path) -> None:
        root = captures.eyecandies(tmp_path / "scan: 2024")
        folder = root / "GummyBear/test_public/data"
        touch(folder, "10_image_4.jpg", "notes.csv", "more/10_depth.png")
        for kind in ("bumps", "colors"):
            (folder / f"10_{kind}_mask.png").write_bytes((folder / "00_mask.png").read_bytes())
        (folder / "00_mask.png").write_bytes(b"no image")
        told = {str(item.path.relative_to(folder)): item.reason for item in find_entries(root).problems}
        assert told.keys() == {"10_image_4.jpg", "notes.csv", "more", "10_mask.png", "00_mask.png"}
        assert told["10_mask.png"].startswith("marks a defect, but no 10_<type>_mask.png does")
        assert told["00_mask.png"].startswith("is not a PNG file")

    def test_what_lies_beside_the_data_is_told(self, tmp_path: Path) -> None:
        touch(captures.eyecandies(tmp_path) / "GummyBear/train", "001_depth.png", "old/001_depth.png")
        assert "GummyBear/train: not read: 001_depth.png, old/" in find_entries(tmp_path).notes

    def test_data_without_lights(self, shared_dataset: Path) -> None:
        with pytest.raises(UsageError, match=r"preprocess\.lights: 4: mvtec3d data have only one image per part"):
            find_entries(shared_dataset, lights=["4"])


class TestRealIad:
    def test_entries(self, tmp_path: Path) -> None:
        found = one(captures.realiad(tmp_path), "realiad", "fuse_holder/train/GOOD/rgb/S000/cam_L01_RGB.jpg")
        assert set(found) == {
            *(("train", "good", f"S00{i}") for i in range(3)),
            ("test", "good", "S000"),
            ("test", "bump", "S000"),
        }
        folder = tmp_path / "fuse_holder/test/bump"
        assert found["test", "bump", "S000"] == Entry(
            "fuse_holder", "test", "bump", "S000", folder / "rgb/S000/cam_L05_RGB.jpg", folder / "xyz/S000.tiff",
            folder / "gt/rgb/S000.png",
        )  # fmt: skip

    def test_lights_and_parts_named_by_the_images_themselves(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"fuse/train/GOOD/rgb/{part}_RGB_L0{light}.jpg" for part in ("a_1", "a_2") for light in (1, 5)),
              "fuse/train/GOOD/xyz/a_1.tiff", "fuse/train/GOOD/xyz/a_2.tiff")  # fmt: skip
        assert [entry.name for entry in find_entries(tmp_path).entries] == ["a_1", "a_2"]
        entries = find_entries(tmp_path, lights=["L05", "l01"]).entries
        assert [(entry.name, entry.part, entry.rgb and entry.rgb.name) for entry in entries] == [
            ("a_1_L05", "a_1", "a_1_RGB_L05.jpg"), ("a_2_L05", "a_2", "a_2_RGB_L05.jpg"),
            ("a_1_L01", "a_1", "a_1_RGB_L01.jpg"), ("a_2_L01", "a_2", "a_2_RGB_L01.jpg"),
        ]  # fmt: skip

    def test_what_lies_beside_the_labels_is_told(self, tmp_path: Path) -> None:
        touch(captures.realiad(tmp_path) / "fuse_holder/test", "S000.tiff")
        assert "fuse_holder/test: not read: S000.tiff" in find_entries(tmp_path).notes

    def test_nothing_is_paired_by_its_place_in_the_list(self, tmp_path: Path) -> None:
        good, bad = "fuse/train/GOOD", "fuse/test/pit"
        touch(tmp_path, f"{good}/rgb/a/x_L05_RGB.jpg", f"{good}/rgb/b/y_L05_RGB.jpg", f"{good}/xyz/b.tiff",
              f"{good}/xyz/c.tiff", f"{good}/rgb/b/dark.jpg", f"{good}/rgb/d/1_L05_RGB.jpg",
              f"{good}/rgb/d/2_L05_RGB.jpg", f"{good}/xyz/d.tiff", f"{bad}/rgb/a/x_L05.jpg", f"{bad}/xyz/a.tiff",
              f"{bad}/gt/rgb/b.png")  # fmt: skip
        assert [(entry.label, entry.name) for entry in find_entries(tmp_path).entries] == [("good", "b")]
        assert problems(tmp_path) == {
            (f"{good}/rgb/a/x_L05_RGB.jpg", "its partner xyz/a.tiff is missing"),
            (f"{good}/xyz/c.tiff", "its partner rgb/c (L05) is missing"),
            (f"{good}/rgb/b/dark.jpg", "not an image with a light in its name, such as L05; rename or remove it"),
            (f"{good}/rgb/d/2_L05_RGB.jpg", "1_L05_RGB.jpg is there as well; keep one of the two"),
            (f"{bad}/rgb/a/x_L05.jpg", "its partner gt/rgb/a.png is missing"),
            (f"{bad}/gt/rgb/b.png", "its partner rgb/b (L05) is missing"),
        }


class TestFlat:
    def test_mvtec_ad(self, tmp_path: Path) -> None:
        found = one(captures.mvtec(tmp_path), "flat", "hazelnut/train/good/000.png")
        assert set(found) == {
            *(("train", "good", f"00{i}") for i in range(3)),
            ("test", "good", "000"),
            ("test", "bump", "000"),
        }
        entry = found["test", "bump", "000"]
        assert (entry.rgb, entry.xyz) == (tmp_path / "hazelnut/test/bump/000.png", None)
        assert entry.ground_truth == tmp_path / "hazelnut/ground_truth/bump/000_mask.png"

    def test_good_and_nothing_more(self, tmp_path: Path) -> None:
        touch(tmp_path, "valve/good/a.png", "valve/good/a.tiff", "valve/good/b.jpeg", "valve/good/b.PLY")
        found = one(tmp_path / "valve", "flat", "valve/good/a.png")
        folder = tmp_path / "valve/good"
        assert list(found.values()) == [
            Entry("valve", "train", "good", "a", folder / "a.png", folder / "a.tiff", None),
            Entry("valve", "train", "good", "b", folder / "b.jpeg", folder / "b.PLY", None),
        ]
        assert [entry.category for entry in find_entries(tmp_path).entries] == ["valve", "valve"]

    def test_depth_images_with_their_camera(self, tmp_path: Path) -> None:
        touch(tmp_path, "valve/Good/a.png", "valve/Good/a_depth.png", "valve/dent/b.png", "valve/dent/b_depth.tif",
              "valve/dent/b_mask.png")  # fmt: skip
        with pytest.raises(
            DataError, match=r'valve: depth images need a camera; write .*/valve/camera\.json, for .*"fx"'
        ):
            find_entries(tmp_path)
        captures.save_camera(tmp_path, fx=500)
        found = find_entries(tmp_path).entries
        assert [(entry.split, entry.label, entry.name, entry.camera) for entry in found] == [
            ("train", "good", "a", Camera(500, 500)), ("test", "dent", "b", Camera(500, 500)),
        ]  # fmt: skip
        assert found[1].xyz == tmp_path / "valve/dent/b_depth.tif"

    def test_a_camera_file_that_is_none_matters_to_depth_images_alone(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/good/a.png", "v/good/a.tiff", "2d/good/a.png", "camera.json", "t.csv")
        (tmp_path / "t.csv").write_text("rgb,depth,fx\nv/good/a.png,v/good/a.tiff,600\n")
        layout = find_entries(tmp_path)
        assert [entry.camera for entry in layout.entries] == [None, None]
        (note,) = layout.notes
        assert note.startswith(f"not used: {tmp_path}/camera.json: not valid JSON")
        assert [entry.camera for entry in find_entries(tmp_path / "t.csv").entries] == [Camera(600, 600)]
        (tmp_path / "v/good/a.tiff").rename(tmp_path / "v/good/a_depth.png")
        with pytest.raises(DataError, match="not valid JSON"):
            find_entries(tmp_path)

    def test_a_plus_in_a_name_joins_nothing(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/good/a.png", "v/bump+stain/b.png", "v/bump+stain/b_mask.png")
        entry = find_entries(tmp_path).entries[0]
        assert (entry.label, entry.by_type) == ("bump+stain", ())

    def test_masks_alone_lack_their_photos(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/train/good/a_mask.png", "v/test/dent/b_mask.png")
        assert problems(tmp_path) == {
            ("v/train/good/a_mask.png", "its partner a.png is missing"),
            ("v/test/dent/b_mask.png", "its partner b.png is missing"),
        }

    def test_whatever_fits_nothing_is_named(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/good/a.png", "v/good/a.tiff", "v/good/b.png", "v/good/c.tiff", "v/good/d.png", "v/good/d.jpg",
              "v/good/d.tiff", "v/good/e.bmp", "v/good/f_mask.png", "v/good/old/g.png", "v/dent/h.png", "v/dent/h.pcd",
              "v/good/k.ply", "v/good/k.tif", "v/good/a_mask.jpg",
              "v/ground_truth/scratch/i_mask.png")  # fmt: skip
        layout = find_entries(tmp_path)
        assert [entry.name for entry in layout.entries] == ["a"]
        assert layout.notes == [
            "v: all good parts are used for training; to keep some for the test, use train/good/ and test/good/"
        ]
        assert problems(tmp_path) == {
            ("v/good/b.png", "its partner b.tiff is missing"), ("v/good/c.tiff", "its partner c.png is missing"),
            ("v/good/d.png", "d.jpg is there as well; keep one of the two"),
            ("v/good/k.tif", "k.ply is there as well; keep one of the two; photos must be PNG or JPEG"),
            ("v/good/e.bmp", "neither an image nor a point cloud; convert or remove it"),
            ("v/good/f_mask.png", "its partner f.png is missing"), ("v/good/a_mask.jpg", "a mask must be a PNG; convert it"),
            ("v/good/old", "a folder among the captures; move it elsewhere"),
            ("v/dent/h.png", "its partner h_mask.png is missing"),
            ("v/ground_truth/scratch", "holds masks of a label that has no images; add the images or remove the masks"),
        }  # fmt: skip

    def test_marks_may_be_in_capitals(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/train/good/a.png", "v/test/cut/b.PNG", "v/test/cut/b_MASK.PNG")
        found = find_entries(tmp_path)
        assert {(entry.name, entry.label) for entry in found.entries} == {("a", "good"), ("b", "cut")}
        assert len(found.entries) == 2 and found.problems == []

    def test_what_is_not_read_is_told(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/good/a.png", "v/good/a.tiff", "v/good/a_depth.png", "v/b.png", "v/camera.json")
        (tmp_path / "v/camera.json").write_text('{"fx": 500}')
        assert find_entries(tmp_path).notes == [
            "v: depth images are not read, because there are point clouds", "v: not read: b.png",
        ]  # fmt: skip

    def test_what_lies_beside_the_labels_is_told(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/train/a.png", "v/train/b.png", "v/test/good/c.png", "v/test/camera.json")
        assert find_entries(tmp_path).notes == ["v/train: not read: a.png, b.png", "v/test: not read: camera.json"]

    def test_a_camera_above_a_folder_that_is_called_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "v/good/a_depth.png")
        captures.save_camera(tmp_path, fx=500)
        monkeypatch.chdir(tmp_path / "v")
        assert [entry.camera for entry in find_entries(Path()).entries] == [Camera(500, 500)]

    def test_a_name_that_a_layout_does_not_fit(self, tmp_path: Path) -> None:
        touch(tmp_path, "valve/good/a.png")
        with pytest.raises(
            DataError, match=r"is not a data set; expected <category>/\{train,validation,test\}/<label>/"
        ):
            find_entries(tmp_path, layout="mvtec3d")


class TestMvtec3d:
    def test_exchanged_folders_are_one_problem(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"v/train/good/{file}" for file in ("rgb/0.tiff", "rgb/1.tiff", "xyz/0.png", "xyz/1.png")))
        touch(tmp_path, *(f"v/test/good/{file}" for file in ("rgb/0.png", "rgb/1.tiff", "xyz/0.tiff", "xyz/1.png")))
        found = problems(tmp_path)
        assert ("v/train/good", "rgb/ holds point clouds and xyz/ images; exchange their names") in found
        assert {path for path, _ in found} == {"v/train/good", "v/test/good/rgb/1.tiff", "v/test/good/xyz/1.png"}

    def test_a_stray_image_does_not_make_it_another_layout(self, dataset: Path) -> None:
        (dataset / "tire/train/good/preview.png").touch()
        layout = find_entries(dataset)
        assert layout.name == "mvtec3d" and len(layout.entries) == 18

    def test_other_names_for_splits_images_and_letters(self, tmp_path: Path) -> None:
        touch(tmp_path, "tire/train/good/rgb/1.JPG", "tire/train/good/xyz/1.tiff",
              "tire/val/good/rgb/a\u0308.png", "tire/val/good/xyz/\xe4.tiff")  # fmt: skip
        found = one(tmp_path, "mvtec3d", "tire/train/")
        assert list(found) == [("train", "good", "1"), ("validation", "good", "\xe4")]

    def test_two_parts_of_one_name_are_never_taken_for_one(self, tmp_path: Path) -> None:
        for place in ("train/good", "train/GOOD", "validation/good", "val/good"):
            touch(tmp_path, f"tire/{place}/rgb/1.png", f"tire/{place}/xyz/1.tiff")
        layout = find_entries(tmp_path)
        assert [entry.split for entry in layout.entries] == ["train", "validation"]
        assert [(failure.path, failure.reason) for failure in layout.problems] == [
            (
                tmp_path / f"tire/{second}/xyz/1.tiff",
                f"{tmp_path}/tire/{first}/xyz/1.tiff has the same name; rename one of the two",
            )
            for first, second in (("train/GOOD", "train/good"), ("validation/good", "val/good"))
        ]

    def test_what_is_not_read_is_told(self, tmp_path: Path) -> None:
        good = "tire/train/good"
        touch(tmp_path, f"{good}/rgb/1.png", f"{good}/xyz/1.tiff", f"{good}/rgb/more/2.png", f"{good}/depth/1.png",
              f"{good}/preview.png", "tire/tests/good/rgb/1.png", "tire/1.png", "papers/a.pdf", "valve/good/1.png")  # fmt: skip
        layout = find_entries(tmp_path, layout="mvtec3d")
        assert layout.notes == [
            f"{tmp_path}: not read, because these are not mvtec3d data: papers/, valve/",
            "tire: not read: 1.png, tests/", "tire/<split>/<label>: not read: depth/, preview.png",
        ]  # fmt: skip
        assert [(failure.path.name, failure.reason) for failure in layout.problems] == [
            ("more", "a folder among the captures; move it elsewhere")
        ]

    def test_folder_3d_names_its_masks_otherwise(self, tmp_path: Path) -> None:
        found = one(captures.adam(tmp_path), "mvtec3d", "gripper_open/train/")
        folder = tmp_path / "gripper_open/test/bump"
        assert found["test", "bump", "000_C"].ground_truth == folder / "ground_truth/000_C.png"
        (folder / "gt").mkdir()
        (folder / "gt/000_C.png").touch()
        assert problems(tmp_path) == {
            ("gripper_open/test/bump/ground_truth/000_C.png", "000_C.png is there as well; keep one of the two")
        }

    @pytest.mark.parametrize(("kept", "lost"), [("rgb", "xyz"), ("xyz", "rgb")])
    def test_one_modality_where_no_label_has_the_other(self, tmp_path: Path, kept: str, lost: str) -> None:
        suffix = {"rgb": "png", "xyz": "tiff"}[kept]
        touch(tmp_path, *(f"tire/{place}/{kept}/000.{suffix}" for place in ("train/good", "test/good", "test/cut")),
              "tire/test/cut/gt/000.png")  # fmt: skip
        entries = find_entries(tmp_path).entries
        assert [getattr(entry, lost) for entry in entries] == [None] * 3
        assert all(getattr(entry, kept) for entry in entries)
        (tmp_path / "tire/test/good" / lost).mkdir()  # empty, but a sign that the other labels are incomplete
        assert find_entries(tmp_path).entries == []


class TestTable:
    ROWS = "rgb,xyz,label,gt\na.png,a.tiff,,\nb.png,b.tiff,good,\nc.png,c.tiff,dent,c_gt.png\n"

    def table(self, root: Path, text: str) -> Path:
        touch(root, *(f"{name}{suffix}" for name in "abc" for suffix in (".png", ".tiff", "_gt.png", "_depth.png")))
        (root / "valve.csv").write_text(text)
        return root / "valve.csv"

    def test_entries(self, tmp_path: Path) -> None:
        found = one(self.table(tmp_path, self.ROWS), "table", "valve.csv")
        assert list(found.values()) == [
            Entry("valve", "train", "good", "a", tmp_path / "a.png", tmp_path / "a.tiff", None),
            Entry("valve", "train", "good", "b", tmp_path / "b.png", tmp_path / "b.tiff", None),
            Entry("valve", "test", "dent", "c", tmp_path / "c.png", tmp_path / "c.tiff", tmp_path / "c_gt.png"),
        ]
        assert find_entries(tmp_path / "valve.csv").source == tmp_path / "valve.csv"

    def test_every_column(self, tmp_path: Path) -> None:
        path = self.table(
            tmp_path,
            "Category;Split;Label;Name;RGB;Depth;GT;fx;fy;cx;cy;scale\n"
            f"nut;val;GOOD;n1;a.png;{tmp_path}/a_depth.png;;600;610;320;240;0.001\n\n"
            "nut;test;dent;n2;b.png;b_depth.png;b_gt.png;600;;;;\nbolt;;;;c.png;;;;;;;\n",
        )
        first, second, third = find_entries(path).entries
        assert first == Entry("nut", "validation", "good", "n1", tmp_path / "a.png", tmp_path / "a_depth.png", None,
                              Camera(600, 610, 320, 240, 0.001))  # fmt: skip
        assert (second.camera, second.ground_truth) == (Camera(600, 600), tmp_path / "b_gt.png")
        assert (third.category, third.name, third.xyz) == ("bolt", "c", None)
        assert [entry.name for entry in find_entries(path, ["bolt"]).entries] == ["c"]

    def test_the_scale_of_a_row_beside_the_camera_of_all(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, "depth,scale\na_depth.png,0.0001\nb_depth.png,\n")
        captures.save_camera(tmp_path, fx=500, cx=80, scale=0.001)
        cameras = [entry.camera for entry in find_entries(path).entries]
        assert cameras == [Camera(500, 500, 80, scale=0.0001), Camera(500, 500, 80, scale=0.001)]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (
                "",
                "needs a column rgb, xyz or depth with the captures' files; the other columns that das3d reads are category, split",
            ),
            ("image,cloud\na.png,a.tiff\n", "needs a column rgb, xyz or depth"),
            ("rgb,rgb\na.png,b.png\n", "has two columns called rgb"),
            ("rgb\n", "holds no captures"),
        ],
    )
    def test_no_table(self, tmp_path: Path, text: str, complaint: str) -> None:
        path = self.table(tmp_path, text)
        with pytest.raises(DataError) as caught:
            find_entries(path)
        assert str(caught.value).startswith(f"{path}: {complaint}")

    def test_no_text(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, "")
        path.write_bytes(b"rgb\n\xff\xfe.png\n")
        with pytest.raises(DataError, match=r"is not CSV text in UTF-8"):
            find_entries(path)

    @pytest.mark.parametrize(
        ("rows", "complaint"),
        [
            ("rgb,xyz\na.png,a.tiff\nb.png,\n", "row 3: lacks xyz, which other rows of valve have"),
            ("rgb,xyz\na.png,a.tiff\n,b.tiff\n", "row 3: lacks rgb, which other rows of valve have"),
            ("rgb\na.png\nz.png\n", "row 3: rgb {root}/z.png: no such file"),
            ("rgb,label\na.png,\nb.png,dent\n", "row 3: gt, the mask of the defect, is missing, but the label is dent"),
            ("rgb,split\na.png,\nb.png,holdout\n", "row 3: split holdout: use train, validation or test"),
            ("rgb\na.png\na.png\n", "row 3: the same file as row 2; every part needs its own files and name"),
            ("rgb,name\na.png,1\nb.png,1\n", "row 3: the same name as row 2; every part needs its own files and name"),
            ("xyz,depth\na.tiff,\nb.tiff,b_depth.png\n", "row 3: holds both xyz and depth; keep one of the two"),
            ("rgb,depth,fx\na.png,a_depth.png,600\nb.png,b_depth.png,\n", "row 3: a depth image needs a camera; add a column fx, or"),
            ("rgb,depth,fx\na.png,a_depth.png,600\nb.png,b_depth.png,-1\n", "row 3: fx, fy and scale must be positive numbers"),
            ("rgb,depth,fx,cx\na.png,a_depth.png,600,\nb.png,b_depth.png,,320\n", "row 3: fx, the focal length in pixels, is missing"),
            ("rgb,name\na.png,1\nb.png,../up\n", "row 3: ../up: not a valid file name; leave out slashes"),
            ("rgb,name\na.png,1\nb.png,2\0\n", "row 3: 2: not a valid file name"),
            ("rgb,name\na.png,1\nb.png," + 201 * "b" + "\n", "row 3: bbbbbbbbbbbbbbbbbbbb...: too long for a file name; shorten it"),
        ],
    )  # fmt: skip
    def test_a_bad_row_is_named_and_the_rest_is_used(self, tmp_path: Path, rows: str, complaint: str) -> None:
        layout = find_entries(self.table(tmp_path, rows))
        assert len(layout.entries) == 1
        assert [failure.path for failure in layout.problems] == [tmp_path / "valve.csv"]
        assert layout.problems[0].reason.startswith(complaint.format(root=tmp_path))
