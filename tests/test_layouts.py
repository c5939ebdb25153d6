"""Layouts: files are paired by name, and every file that finds no partner is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from das3d_cli.data.layouts import Failure, find_entries
from das3d_cli.errors import DataError, UsageError


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
        "tire/train/good/rgb/004.jpg", "tire/train/good/xyz/004.tiff",
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
        "tire/train/good/rgb/004.jpg", "tire/train/good/xyz/004.tiff", "tire/train/loose.png",
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
        (["tire/train/.keep"], ".", "holds no captures"),
    ],
)
def test_no_data_set(tmp_path: Path, files: list[str], place: str, complaint: str) -> None:
    root = touch(tmp_path, *files) / place
    with pytest.raises(DataError) as caught:
        find_entries(root)
    assert str(caught.value).startswith(f"{root}: {complaint}")


def test_unknown_category_lists_those_there(shared_dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"category tyre: not in .*, which holds cookie, tire; did you mean tire\?"):
        find_entries(shared_dataset, ["cookie", "tyre"])


def test_failure_is_one_line() -> None:
    assert str(Failure("tire", Path("a/000.png"), "is empty")) == "a/000.png: is empty"
