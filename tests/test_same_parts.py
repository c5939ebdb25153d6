"""`das3d preprocess` and `das3d predict --parts` combine the same files into the same parts."""

from __future__ import annotations

from pathlib import Path

import captures
import pytest

from das3d_cli.data.layouts import find_entries
from das3d_cli.data.parts import find_parts, not_read
from das3d_cli.modality import Modality

# The detector's needs, the files, the parts made of them (name, points, photo) and the names of refused parts.
Case = tuple[Modality, list[str], list[tuple[str, str, str]], list[str]]

CASES: dict[str, Case] = {
    "pairs": ("both", ["1.tiff", "1.png", "2.tif", "2.png"], [("1", "1.tiff", "1.png"), ("2", "2.tif", "2.png")], []),
    "upper case": ("both", ["A.TIFF", "A.PNG", "b.PLY", "b.JPG"], [("A", "A.TIFF", "A.PNG"), ("b", "b.PLY", "b.JPG")], []),
    "case tells names apart": ("both", ["a.tiff", "A.png"], [], ["A", "a"]),
    "spaces": ("both", ["part one.pcd", "part one.jpeg"], [("part one", "part one.pcd", "part one.jpeg")], []),
    "dots": ("both", ["1.5 mm.ply", "1.5 mm.png"], [("1.5 mm", "1.5 mm.ply", "1.5 mm.png")], []),
    "letters however composed": ("both", ["\xe4.tiff", "a\u0308.png"], [("\xe4", "\xe4.tiff", "a\u0308.png")], []),
    "photos": ("rgb", ["1.png", "2.jpg", "3.JPEG"], [("1", "", "1.png"), ("2", "", "2.jpg"), ("3", "", "3.JPEG")], []),
    "clouds": ("depth", ["1.ply", "2.pcd", "3.tif"], [("1", "1.ply", ""), ("2", "2.pcd", ""), ("3", "3.tif", "")], []),
    "a partner is missing": ("both", ["1.tiff", "1.png", "2.tiff", "3.jpg"], [("1", "1.tiff", "1.png")], ["2", "3"]),
    "depth images": ("both", ["1_depth.png", "1.png", "2_depth.TIF", "2.jpg", "3.png"],
                     [("1", "1_depth.png", "1.png"), ("2", "2_depth.TIF", "2.jpg")], ["3"]),
    "depth images alone": ("depth", ["1_depth.png", "2_depth.tiff"], [("1", "1_depth.png", ""), ("2", "2_depth.tiff", "")], []),
    "a depth image beside its cloud": ("both", ["1.ply", "1_depth.png", "1.png"], [("1", "1.ply", "1.png")], []),
    "a depth image among clouds": ("both", ["a.png", "a.tiff", "b.png", "b_depth.png"], [("a", "a.tiff", "a.png")], ["b"]),
    "a depth image alone among clouds": ("both", ["a.png", "a.tiff", "b_depth.tif"], [("a", "a.tiff", "a.png")], ["b"]),
    "a depth image among clouds alone": ("depth", ["a.tiff", "b_depth.png"], [("a", "a.tiff", "")], ["b"]),
    "a photo called depth": ("both", ["a.tiff", "a_depth.jpg"], [("a", "a.tiff", "a_depth.jpg")], []),
    "a cloud called depth": ("both", ["a_depth.ply", "a.png"], [("a", "a_depth.ply", "a.png")], []),
    "two photos, one called depth": ("both", ["a.tiff", "a.jpg", "a_depth.jpg"], [], ["a"]),
    "a depth image is no photo": ("both", ["1_depth.png", "1.png", "a_depth.png", "a_depth_depth.png"],
                                  [("1", "1_depth.png", "1.png")], ["a", "a_depth"]),
    "a depth image without its photo": ("rgb", ["a.png", "a_depth.png", "b_depth.png"], [("a", "", "a.png")], ["b"]),
    "two clouds": ("both", ["a.tif", "a.tiff", "a.png", "b.ply", "b.png"], [("b", "b.ply", "b.png")], ["a"]),
    "two photos": ("both", ["a.tiff", "a.jpg", "a.png"], [], ["a"]),
    "masks": ("both", ["a.tiff", "a.png", "a_mask.png", "b.tiff", "b.jpg", "b_mask.PNG"],
              [("a", "a.tiff", "a.png"), ("b", "b.tiff", "b.jpg")], []),
    "a mask without its photo": ("both", ["a.tiff", "a.png", "b_mask.png"], [("a", "a.tiff", "a.png")], ["b"]),
    "a mask without its photo among photos": ("rgb", ["a.jpg", "b_mask.png"], [("a", "", "a.jpg")], ["b"]),
    "files called masks that can be none": ("both", ["gas.tiff", "gas.png", "gas_mask.tiff", "gas_mask.jpg"],
                                            [("gas", "gas.tiff", "gas.png")], ["gas_mask"]),
    "a mask is no photo": ("both", ["1.tiff", "1.png", "gas_mask.tiff", "gas_mask.png"], [("1", "1.tiff", "1.png")], ["gas", "gas_mask"]),
    "a mask is no photo of a depth image": ("both", ["1_depth.png", "1.png", "gas_mask_depth.png", "gas_mask.png"],
                                            [("1", "1_depth.png", "1.png")], ["gas", "gas_mask"]),
    "folders": ("both", ["xyz/1.tiff", "rgb/1.png", "gt/1.png", "xyz/2.PCD", "rgb/2.JPG", "ground_truth/2.png"],
                [("1", "xyz/1.tiff", "rgb/1.png"), ("2", "xyz/2.PCD", "rgb/2.JPG")], []),
    "folders, names that mark nothing": (
        "both", ["xyz/a_depth.tiff", "rgb/a_depth.png", "xyz/a.tiff", "rgb/a.png", "xyz/gas_mask.ply", "rgb/gas_mask.png"],
        [("a", "xyz/a.tiff", "rgb/a.png"), ("a_depth", "xyz/a_depth.tiff", "rgb/a_depth.png"),
         ("gas_mask", "xyz/gas_mask.ply", "rgb/gas_mask.png")], []),
    "folders, names that do not pair": ("both", ["xyz/a_depth.tiff", "rgb/a.png"], [], ["a", "a_depth"]),
    "folders, letters however composed": ("both", ["xyz/a\u0308.tiff", "rgb/\xe4.png"], [("\xe4", "xyz/a\u0308.tiff", "rgb/\xe4.png")], []),
    "folders, a partner is missing": ("both", ["xyz/1.tiff", "rgb/2.png"], [], ["1", "2"]),
    "folders, two files": ("both", ["xyz/1.tiff", "xyz/1.ply", "rgb/1.png"], [], ["1"]),
    "folder of photos": ("rgb", ["rgb/1_mask.png", "rgb/2_depth.png"],
                         [("1_mask", "", "rgb/1_mask.png"), ("2_depth", "", "rgb/2_depth.png")], []),
    "folder of clouds": ("depth", ["xyz/1 a.ply", "xyz/2_depth.tif"],
                         [("1 a", "xyz/1 a.ply", ""), ("2_depth", "xyz/2_depth.tif", "")], []),
    "folder of clouds, an image in it": ("depth", ["xyz/1.ply", "xyz/2_depth.png"], [("1", "xyz/1.ply", "")], ["2_depth"]),
    "folder of photos, a cloud in it": ("both", ["xyz/1.tiff", "rgb/1.png", "rgb/2.tiff"], [("1", "xyz/1.tiff", "rgb/1.png")], ["2"]),
    "folders, depth images": ("both", ["depth/1.png", "rgb/1.png", "depth/2.TIF", "rgb/2.jpg", "rgb/3.png"],
                              [("1", "depth/1.png", "rgb/1.png"), ("2", "depth/2.TIF", "rgb/2.jpg")], ["3"]),
    "folders, depth images called so": ("both", ["depth/1_depth.png", "rgb/1_depth.png", "depth/2_depth.png", "rgb/2.png"],
                                        [("1_depth", "depth/1_depth.png", "rgb/1_depth.png")], ["2", "2_depth"]),
    "folders, a cloud among depth images": ("both", ["depth/1.png", "rgb/1.png", "depth/2.ply"],
                                            [("1", "depth/1.png", "rgb/1.png")], ["2"]),
    "folders, depth images beside clouds": ("both", ["xyz/1.tiff", "depth/1.png", "rgb/1.png", "depth/2.png", "rgb/2.png"],
                                            [("1", "xyz/1.tiff", "rgb/1.png")], ["2"]),
    "folders, a depth image alone beside clouds": ("depth", ["xyz/1.tiff", "depth/2.png"], [("1", "xyz/1.tiff", "")], ["2"]),
}  # fmt: skip


@pytest.mark.parametrize(("needs", "names", "judged", "refused"), CASES.values(), ids=CASES)
def test_parts_to_judge_are_those_that_training_would_read(
    tmp_path: Path, needs: Modality, names: list[str], judged: list[tuple[str, str, str]], refused: list[str]
) -> None:
    folder = tmp_path / "valve/train/good"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    captures.save_camera(tmp_path, fx=500)

    parts = find_parts(folder, needs)
    whole = [part for part in parts if not part.problem and all(path.is_file() for path in part.paths)]
    files = {
        (name, folder / points if points else None, folder / photo if photo else None) for name, points, photo in judged
    }
    assert {(part.name, part.xyz, part.rgb) for part in whole} == files
    assert sorted(part.name for part in parts if part not in whole) == refused
    assert list(not_read(folder, needs, parts=parts)) == []

    layout = find_entries(tmp_path / "valve")
    read = {
        (entry.name, None if needs == "rgb" else entry.xyz, None if needs == "depth" else entry.rgb)
        for entry in layout.entries
    }
    assert read == files
    assert not refused or layout.problems or layout.notes
