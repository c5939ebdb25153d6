"""Which files `das3d predict --parts` groups into one part, and where it puts the heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from das3d_cli.commands.heatmaps import planned, to_come
from das3d_cli.data.capture import Camera
from das3d_cli.data.parts import PartFiles, find_parts, not_read, parts_to_come
from das3d_cli.errors import DataError, UsageError
from das3d_cli.modality import Modality
from das3d_cli.report.draw import blank
from das3d_cli.report.own_png import write_png


def pairs(where: Path, needs: Modality, lights: Sequence[str] = ()) -> list[tuple[Path | None, Path | None]]:
    return [(part.xyz, part.rgb) for part in find_parts(where, needs, lights)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(("xyz", "rgb"), [("", ""), ("xyz/", "rgb/")])
def test_files_of_one_name_are_one_part(tmp_path: Path, xyz: str, rgb: str):
    touch(
        tmp_path, f"{xyz}b.tiff", f"{rgb}b.png", f"{rgb}a.PNG", f"{xyz}a.tif", f"{xyz}.hidden.tiff", f"{rgb}notes.txt"
    )
    assert pairs(tmp_path, "both") == [
        (tmp_path / f"{xyz}a.tif", tmp_path / f"{rgb}a.PNG"), (tmp_path / f"{xyz}b.tiff", tmp_path / f"{rgb}b.png"),
    ]  # fmt: skip


def test_in_folders_of_their_own_images_may_have_any_name(tmp_path: Path):
    touch(tmp_path, "rgb/gas_mask.png", "xyz/gas_mask.tiff", "rgb/left_depth.png", "xyz/left_depth.tiff")
    images = [tmp_path / "rgb/gas_mask.png", tmp_path / "rgb/left_depth.png"]
    assert [rgb for _, rgb in pairs(tmp_path, "rgb")] == images


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        ("test/crack/xyz/003.tiff", "crack", "003"), ("today/depth/17_depth.png", "today", "17"), ("today/17.tiff", "today", "17"),
        ("part.tiff", "", "part"), ("xyz/part.tiff", "", "part"),
    ],
)  # fmt: skip
def test_a_part_is_told_by_its_folder_and_its_name(path: str, folder: str, name: str):
    part = PartFiles(Path(path), None)
    assert (part.folder, part.name) == (folder, name)


def test_a_file_alone_is_a_part_that_lacks_the_other(tmp_path: Path):
    touch(tmp_path, "xyz/1.tiff", "rgb/2.png")
    assert pairs(tmp_path, "both") == [
        (tmp_path / "xyz/1.tiff", tmp_path / "rgb/1.png"), (tmp_path / "xyz/2.tiff", tmp_path / "rgb/2.png"),
    ]  # fmt: skip


def test_a_list_keeps_its_order_and_counts_from_its_folder(tmp_path: Path):
    (tmp_path / "list.csv").write_text(
        'rgb,note,xyz\nb.png,"one, two",b.tiff\n/a/a.png,,/a/a.tiff\n', encoding="utf-8-sig"
    )
    for text in (
        "RGB;Note;XYZ\r\nb.png;one, two;b.tiff\r\n/a/a.png;;/a/a.tiff\r\n",
        "rgb\tdepth\nb.png\tb.tiff\n/a/a.png\t/a/a.tiff\n",
    ):
        (tmp_path / "other.csv").write_text(text)
        assert pairs(tmp_path / "other.csv", "both") == pairs(tmp_path / "list.csv", "both")
    assert pairs(tmp_path / "list.csv", "both") == [
        (tmp_path / "b.tiff", tmp_path / "b.png"), (Path("/a/a.tiff"), Path("/a/a.png")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "columns xyz and rgb"),
        ("xyz,image\n1.tiff,1.png\n", "columns xyz and rgb"),
        ("xyz,rgb\n1.tiff,1.png,2.png\n", "row 2: has more cells than columns"),
        ("xyz,rgb\n", "lists no parts; write a row for each"),
        (
            "category,xyz,rgb\ncookie,1.tiff,1.png\n",
            "lists only parts of cookie, but the run is for tire; name another",
        ),
        ('xyz,rgb\n"1.tiff,1.png\n', "is not CSV text: .*; look for a missing quotation mark"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, content: str, message: str):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        find_parts(tmp_path / "list.csv", "both", category="tire")
    assert str(tmp_path / "list.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "row", "problem"),
    [
        ("xyz,rgb", "2.tiff", "names no rgb file"),
        ("xyz,rgb", ",1.png", "names no xyz file"),
        ("depth,rgb", ",1.png", "names no depth file"),
        ("xyz,rgb,depth", ",1.png", "names no xyz or depth file"),
        ("xyz,rgb,depth", "1.tiff,1.png,2.png", "names xyz and depth files; keep one"),
        ("depth,rgb,fx", "1.png,1.png,wide", "fx, fy, cx, cy and scale must be numbers"),
        ("depth,rgb,cx", "1.png,1.png,320", "fx, the focal length in pixels, is missing"),
        ("xyz,rgb", "2.tiff,a/../0.png", "the same file as row 2; every part needs its own files and name"),
        ("xyz,rgb,name", "2.tiff,2.png,a", "the same name as row 2; every part needs its own files and name"),
        (
            "xyz,rgb",
            "1.tiff\0,1.png",
            "holds a NUL character, which no path may contain; save the table again as UTF-8 text",
        ),
        ("xyz,rgb,name", "1.tiff,1.png,a/b", "a/b: not a valid file name; leave out slashes"),
    ],
)
def test_a_row_that_cannot_be_used_costs_no_other(tmp_path: Path, columns: str, row: str, problem: str):
    (tmp_path / "list.csv").write_text(f"{columns}\n0.tiff,0.png{',a' if 'name' in columns else ''}\n\n{row}\n")
    good, bad = find_parts(tmp_path / "list.csv", "both")
    assert (good.paths, good.problem) == ([tmp_path / "0.tiff", tmp_path / "0.png"], "")
    assert bad.problem == f"{tmp_path / 'list.csv'}: row 4: {problem}"
    told = dict(zip(columns.split(","), row.split(","), strict=False))
    assert set(bad.paths) <= {tmp_path / told.get(kind, "") for kind in ("xyz", "depth", "rgb")}
    assert planned([good, bad], tmp_path / "list.csv", tmp_path / "maps")[bad] is None


def test_a_row_that_cannot_be_used_is_told_by_what_it_gives(tmp_path: Path):
    (tmp_path / "list.csv").write_text("name,xyz,rgb\na,1.tiff,1.png\nb,1.tiff,2.png\nc,3.tiff,\n")
    _, doubled, half = find_parts(tmp_path / "list.csv", "both")
    assert (doubled.name, doubled.paths) == ("b", [tmp_path / "1.tiff", tmp_path / "2.png"])
    assert (half.name, half.paths) == ("c", [tmp_path / "3.tiff"])
    assert "row 3" in doubled.problem and "row 4" in half.problem


def test_the_first_line_of_a_list_tells_what_parts_cells(tmp_path: Path):
    (tmp_path / "list.csv").write_text("xyz,rgb\na;b;c;d.tiff,a;b;c;d.png\n")
    assert pairs(tmp_path / "list.csv", "both") == [(tmp_path / "a;b;c;d.tiff", tmp_path / "a;b;c;d.png")]


@pytest.mark.parametrize("between", ["\n", "\r\n", "\x0b", "\x85", "\u2028"])
def test_a_name_in_quotation_marks_is_that_of_the_file_whatever_it_holds(tmp_path: Path, between: str):
    with open(tmp_path / "list.csv", "w", encoding="utf-8", newline="") as file:
        file.write(f'xyz,name\r\n"a{between}b.tiff",first\r\nc.tiff,second\r\n')
    first, second = find_parts(tmp_path / "list.csv", "depth")
    assert (first.paths, first.name) == ([tmp_path / f"a{between}b.tiff"], "first")
    assert (second.paths, second.name) == ([tmp_path / "c.tiff"], "second")


def test_a_mask_without_its_part_may_be_a_photo_called_so_and_is_refused(tmp_path: Path):
    touch(tmp_path, "1.tiff", "1.png", "1_mask.png", "2_mask.png", "gas_mask.tiff", "gas_mask.jpg")
    one, two, gas = find_parts(tmp_path, "both")
    assert (one.paths, one.problem) == ([tmp_path / "1.tiff", tmp_path / "1.png"], "")
    assert two.paths == [tmp_path / "2.tiff", tmp_path / "2.png"]
    assert gas.paths == [tmp_path / "gas_mask.tiff", tmp_path / "gas_mask.jpg"]
    assert gas.problem == f"{tmp_path}/gas_mask.tiff: a mask must be a PNG; convert it"
    assert [rgb for _, rgb in pairs(tmp_path, "rgb")] == [
        tmp_path / name for name in ("1.png", "2.png", "gas_mask.jpg")
    ]


def test_a_list_may_give_names(tmp_path: Path):
    (tmp_path / "list.csv").write_text("rgb,name\na/1.png,first\nb/1.png,\n")
    assert [part.name for part in find_parts(tmp_path / "list.csv", "rgb")] == ["first", "1"]


def test_a_list_tells_each_depth_images_own_camera(tmp_path: Path):
    (tmp_path / "list.csv").write_text("depth;fx;scale\n1.png;615;0.001\n2.png;;\n")
    one, two = find_parts(tmp_path / "list.csv", "depth")
    assert (one.xyz, one.find_camera()) == (tmp_path / "1.png", Camera(615, 615, scale=0.001))
    assert two.find_camera() is None


def test_a_camera_beside_a_list_is_that_of_its_other_parts(tmp_path: Path):
    touch(tmp_path, "far/camera.json")
    (tmp_path / "camera.json").write_text('{"fx": 1341}')
    (tmp_path / "list.csv").write_text("xyz,rgb,fx\nfar/1.png,1.png,\nfar/2.png,2.png,600\n")
    parts = find_parts(tmp_path / "list.csv", "both")
    assert [part.find_camera() for part in parts] == [Camera(1341, 1341), Camera(600, 600)]


def test_the_camera_of_a_part_beyond_a_link_is_not_that_beside_the_link(tmp_path: Path):
    touch(tmp_path, "real/sub/1_depth.png", "real/2_depth.png")
    (tmp_path / "link").symlink_to(tmp_path / "real/sub")
    (tmp_path / "camera.json").write_text('{"fx": 1}')
    (tmp_path / "real/camera.json").write_text('{"fx": 2}')
    assert PartFiles(tmp_path / "link/../2_depth.png", None).find_camera() == Camera(2, 2)
    assert PartFiles(tmp_path / "link/1_depth.png", None).find_camera() == Camera(1, 1)


@pytest.mark.parametrize("place", ["valve/test/hole/depth", "valve/test/hole", "valve/test", "valve", ""])
def test_the_nearest_camera_about_a_part_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It is found wherever `preprocess` finds it, for one part and for many."""
    touch(tmp_path, "valve/test/hole/depth/1.png", "valve/test/hole/rgb/1.png")
    (tmp_path / "camera.json").write_text('{"fx": 1}')
    (tmp_path / place / "camera.json").write_text('{"fx": 615}')
    monkeypatch.chdir(tmp_path / "valve/test/hole/rgb")
    (part,) = find_parts(tmp_path / "valve/test/hole", "both")
    for each in (part, PartFiles(Path("../depth/1.png"), Path("1.png"))):
        assert each.find_camera() == Camera(615, 615)


def test_depth_images_in_a_folder_of_their_own(tmp_path: Path):
    touch(tmp_path, "depth/1.png", "rgb/1.png", "rgb/2.jpg")
    assert pairs(tmp_path, "both") == [
        (tmp_path / "depth/1.png", tmp_path / "rgb/1.png"), (tmp_path / "depth/2.png", tmp_path / "rgb/2.jpg"),
    ]  # fmt: skip
    (tmp_path / "xyz").mkdir()
    assert pairs(tmp_path, "both")[0] == (tmp_path / "xyz/1.tiff", tmp_path / "rgb/1.png")


class TestEyecandies:
    def test_each_part_is_judged_under_the_light_of_the_training(self, tmp_path: Path):
        items = ("depth.png", "info_depth.yaml", "normals.png", "mask.png", *(f"image_{n}.png" for n in range(6)))
        touch(tmp_path, *(f"{part}_{item}" for part in ("000", "001") for item in items))
        for lights, light in (((), 4), (("0", "3"), 0)):
            assert pairs(tmp_path, "both", lights) == [
                (tmp_path / f"{part}_depth.png", tmp_path / f"{part}_image_{light}.png") for part in ("000", "001")
            ]
        assert pairs(tmp_path, "depth") == [(tmp_path / f"{part}_depth.png", None) for part in ("000", "001")]
        assert find_parts(tmp_path, "both")[0].name == "000"

    def test_what_is_missing_makes_a_part_all_the_same(self, tmp_path: Path):
        touch(tmp_path, "000_depth.png", "000_info_depth.yaml", "001_image_4.png")
        assert pairs(tmp_path, "both") == [
            (tmp_path / "000_depth.png", tmp_path / "000_image_4.png"),
            (tmp_path / "001_depth.png", tmp_path / "001_image_4.png"),
        ]  # fmt: skip

    def test_a_part_under_other_lights_alone_lacks_its_image(self, tmp_path: Path):
        touch(tmp_path, "000_image_4.png", "000_info_depth.yaml", "001_image_0.png", "001_image_1.png")
        assert pairs(tmp_path, "rgb") == [(None, tmp_path / f"{part}_image_4.png") for part in ("000", "001")]


def test_a_part_of_real_iad_under_other_lights_alone_lacks_its_image(tmp_path: Path):
    touch(tmp_path, "rgb/a/cam_L05_RGB.jpg", "rgb/b/cam_L02_RGB.jpg", "rgb/b/cam_L03_RGB.jpg")
    assert pairs(tmp_path, "rgb") == [
        (None, tmp_path / "rgb/a/cam_L05_RGB.jpg"),
        (None, tmp_path / "rgb/b (L05)"),
    ]


def test_a_label_of_real_iad(tmp_path: Path):
    touch(tmp_path, *(f"rgb/{part}/cam_{light}_RGB.jpg" for part in "ab" for light in ("L01", "L05")), "xyz/a.tiff")
    assert pairs(tmp_path, "both", ["l01"]) == [
        (tmp_path / "xyz/a.tiff", tmp_path / "rgb/a/cam_L01_RGB.jpg"),
        (tmp_path / "xyz/b.tiff", tmp_path / "rgb/b/cam_L01_RGB.jpg"),
    ]


def test_a_part_of_real_iad_is_paired_whatever_its_name_holds(tmp_path: Path):
    touch(tmp_path, "rgb/0001-03/cam_L05_RGB.jpg", "xyz/0001-03.tiff")
    assert pairs(tmp_path, "both") == [(tmp_path / "xyz/0001-03.tiff", tmp_path / "rgb/0001-03/cam_L05_RGB.jpg")]


def test_own_names_that_hold_a_light_are_own_names(tmp_path: Path):
    names = ("L1_good_0", "L1_good_1", "L2_good_0")
    touch(tmp_path, *(f"rgb/{name}.png" for name in names), *(f"xyz/{name}.tiff" for name in names))
    assert pairs(tmp_path, "both") == [(tmp_path / f"xyz/{name}.tiff", tmp_path / f"rgb/{name}.png") for name in names]


@pytest.mark.parametrize("layout", ["auto", "realiad"])
def test_one_light_of_real_iad_is_enough(tmp_path: Path, layout: str):
    touch(tmp_path, "rgb/0001_L02_RGB.png", "xyz/0001.tiff")
    (part,) = find_parts(tmp_path, "both", ["L02"], layout=layout)
    assert part.rgb == tmp_path / "rgb/0001_L02_RGB.png"
    assert len(find_parts(tmp_path, "both", layout="mvtec3d")) == 2  # the two files do not belong together


def test_two_files_of_one_name(tmp_path: Path):
    touch(tmp_path, "1.tif", "1.tiff", "1.png", "2.tiff", "2.png")
    problems = [part.problem for part in find_parts(tmp_path, "both")]
    assert problems == [f"{tmp_path}/1.tiff: 1.tif is there as well; keep one of the two", ""]


@pytest.mark.parametrize("needs", ["both", "rgb", "depth"])
def test_exchanged_folders_are_told_as_such(tmp_path: Path, needs: Modality):
    touch(tmp_path, "rgb/1.tiff", "rgb/2.tiff", "xyz/1.png", "xyz/2.png")
    with pytest.raises(DataError, match="rgb/ holds point clouds and xyz/ images; exchange their names"):
        find_parts(tmp_path, needs)


def test_a_folder_without_parts(tmp_path: Path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(DataError, match=r"holds no parts; expected .* rgb/$"):
        find_parts(tmp_path, "both")


def test_a_folder_of_folders_of_parts_names_one_of_these(tmp_path: Path):
    touch(tmp_path, "a/b.png", "a/c.txt", "good/xyz/1.tiff", "good/rgb/1.png", "hole/xyz/1.tiff", "hole/rgb/1.png")
    with pytest.raises(
        DataError, match=f"holds no parts; .*; {tmp_path}/good does, so name it or another folder like it$"
    ):
        find_parts(tmp_path, "both")


def test_what_the_detector_does_not_look_at_is_passed_over(tmp_path: Path):
    touch(tmp_path, "1.tiff", "1.png", "2_depth.png", "2.jpg", "2_mask.png")
    one, two = find_parts(tmp_path, "depth")
    assert (one.paths, one.name) == ([tmp_path / "1.tiff"], "1")
    assert (two.paths, two.name) == ([tmp_path / "2_depth.png"], "2")
    assert pairs(tmp_path, "rgb") == [(None, tmp_path / "1.png"), (None, tmp_path / "2.jpg")]
    (tmp_path / "list.csv").write_text("rgb\n1.png\n")
    assert pairs(tmp_path / "list.csv", "rgb") == [(None, tmp_path / "1.png")]


def test_what_no_part_can_consist_of_is_told(tmp_path: Path):
    touch(tmp_path, "1.tiff", "1.png", "2.bmp", "camera.json", "3_mask.png")
    assert list(not_read(tmp_path, "both")) == [
        f"{tmp_path}: not judged, because they are neither images nor point clouds: 2.bmp"
    ]
    assert list(not_read(tmp_path, "rgb")) == [f"{tmp_path}: not judged, because they are not images: 1.tiff, 2.bmp"]
    touch(tmp_path / "kinds", "rgb/1.png", "rgb/4.webp", "1.png", "camera.json")
    assert list(not_read(tmp_path / "kinds", "rgb")) == [
        f"{tmp_path}/kinds: not judged, because they are outside the folders of parts: 1.png",
        f"{tmp_path}/kinds: not judged, because they are not images: 4.webp",
    ]
    touch(tmp_path / "clean", "1.tiff", "1.png")
    assert list(not_read(tmp_path / "clean", "both")) == []


@pytest.mark.parametrize(
    "names",
    [
        ("1.tiff", "1.png", "monday/2.tiff"), ("rgb/1.png", "xyz/1.tiff", "gt/1.png", "monday/2.tiff"),
        ("rgb/1.png", "xyz/1.tiff", "ground_truth/1.png", "monday/2.tiff"),
    ],
)  # fmt: skip
def test_folders_in_a_folder_of_parts_are_told(tmp_path: Path, names: tuple[str, ...]):
    touch(tmp_path, *names)
    parts = find_parts(tmp_path, "both")
    told = f"{tmp_path}: files in these folders are not judged: monday/"
    assert len(parts) == 1 and list(not_read(tmp_path, "both", parts=parts)) == [told]


def test_parts_beside_folders_of_parts_are_refused_rather_than_left_out(tmp_path: Path):
    touch(tmp_path, "000.tiff", "000.png", "xyz/001.tiff", "rgb/001.png")
    with pytest.raises(DataError, match=r"holds parts itself, such as 000, and also in rgb/"):
        find_parts(tmp_path, "both")


def test_where_there_are_point_clouds_no_depth_image_is_judged(tmp_path: Path):
    touch(tmp_path, "1.png", "1.ply", "1_depth.png", "2.png", "2_depth.png")
    assert pairs(tmp_path, "both") == [
        (tmp_path / "1.ply", tmp_path / "1.png"), (tmp_path / "2_depth.png", tmp_path / "2.png"),
    ]  # fmt: skip
    assert [part.problem for part in find_parts(tmp_path, "both")] == [
        "", f"{tmp_path}/2_depth.png: depth images are not read, because there are point clouds",
    ]  # fmt: skip


def test_what_a_row_that_cannot_be_used_names_is_free_for_others(tmp_path: Path):
    (tmp_path / "list.csv").write_text("xyz,rgb,name\n1.tiff,,n\n1.tiff,1.png,n\n")
    bad, good = find_parts(tmp_path / "list.csv", "both")
    assert "row 2: names no rgb file" in bad.problem and not good.problem


def test_a_list_may_name_a_cloud_here_and_a_depth_image_there(tmp_path: Path):
    (tmp_path / "list.csv").write_text("rgb,xyz,depth\n1.png,1.tiff,\n2.png,,2_depth.png\n")
    assert pairs(tmp_path / "list.csv", "both") == [
        (tmp_path / "1.tiff", tmp_path / "1.png"), (tmp_path / "2_depth.png", tmp_path / "2.png"),
    ]  # fmt: skip


def test_rows_of_another_category_are_left_out_and_told(tmp_path: Path):
    (tmp_path / "list.csv").write_text("rgb,category\n1.png,tire\n2.png,cookie\n3.png,\n")
    assert [part.name for part in find_parts(tmp_path / "list.csv", "rgb", category="tire")] == ["1", "3"]
    assert list(not_read(tmp_path / "list.csv", "rgb", "tire")) == [
        f"{tmp_path}/list.csv: not judged, because the run is for tire: parts of cookie"
    ]
    assert list(not_read(tmp_path / "list.csv", "rgb")) == []


class TestToCome:
    def test_a_part_is_there_with_its_line(self):
        written: list[str] = []

        def lines() -> Iterator[str]:
            for line in ("xyz;rgb\r\n", "1.tiff;1.png\r\n", "\r\n", "2.tiff;2.png"):
                written.append(line)
                yield line

        parts = parts_to_come(lines(), "both")
        assert next(parts).paths == [Path("1.tiff"), Path("1.png")] and len(written) == 2
        assert next(parts).paths == [Path("2.tiff"), Path("2.png")] and len(written) == 4
        assert list(parts) == []

    def test_it_is_what_a_file_would_tell_but_for_where_paths_and_cameras_are_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "camera.json").write_text('{"fx": 500.0, "cx": 9.0}')
        text = "depth,rgb,name,fx,cx\n1.png,a.png,one,600,\n2.png,b.png,,,20\n3.png,c.png,,wide,\n"
        (tmp_path / "list.csv").write_text(text)
        of_file = find_parts(Path("list.csv"), "both")
        of_lines = list(parts_to_come(iter(text.splitlines(keepends=True)), "both"))
        problem = "row 4: fx, fy, cx, cy and scale must be numbers"
        assert [part.problem.partition(": ")[2] for part in of_file] == ["", "", problem]
        assert [part.problem for part in of_lines] == ["", "", f"standard input: {problem}"]
        assert [part._replace(beside=None, problem="") for part in of_file] == [
            part._replace(problem="") for part in of_lines
        ]
        assert [part.camera and (part.camera.fx, part.camera.cx) for part in of_lines] == [(600, None), (500, 20), None]

    def test_a_camera_that_cannot_be_read_costs_no_other_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "camera.json").write_text("{")
        text = "depth,cx\n1.png,20\n2.png,\n"
        (tmp_path / "list.csv").write_text(text)
        for where, parts in (
            ("list.csv", find_parts(Path("list.csv"), "depth")),
            ("standard input", parts_to_come(iter(text.splitlines()), "depth")),
        ):
            bad, good = parts
            assert bad.problem.startswith(f"{where}: row 2: camera.json: not valid JSON") and not good.problem

    @pytest.mark.parametrize(("columns", "line"), [("rgb", "\n"), ("xyz\trgb", "\t\n"), ("xyz,rgb", " , \r\n")])
    def test_a_row_of_empty_cells_has_its_answer(self, columns: str, line: str):
        (part,) = parts_to_come(iter([f"{columns}\n", line]), "rgb" if columns == "rgb" else "both")
        assert part.problem.startswith("standard input: row 2: names no ")

    def test_files_and_names_may_come_again(self):
        parts = parts_to_come(iter(["rgb,name\n", *["1.png,a\n"] * 3]), "rgb")
        assert [(part.rgb, part.name, part.problem) for part in parts] == [(Path("1.png"), "a", "")] * 3

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ("1.tiff", "names no rgb file"),
            (",,,", "names no xyz file"),
            ("1.tiff,1.png,a/b", "a/b: not a valid file name; leave out slashes"),
            (
                "1.tiff,1.png,a,tire,b",
                "has more cells than columns; put quotation marks around a path that contains ','",
            ),
            ('"1.tiff,1.png', "unexpected end of data; look for a missing quotation mark"),
            ("1.tiff,1.png,,cookie", "is of cookie, but the run is for tire; name another --run"),
        ],
    )
    def test_a_row_that_cannot_be_used_has_its_answer_and_costs_no_other(self, row: str, problem: str):
        lines = ["xyz,rgb,name,category\n", "0.tiff,0.png\n", f"{row}\n", "2.tiff,2.png,,tire\n"]
        good, bad, last = parts_to_come(iter(lines), "both", "tire")
        assert bad.problem.startswith(f"standard input: row 3: {problem}")
        assert not good.problem and last.paths == [Path("2.tiff"), Path("2.png")]

    @pytest.mark.parametrize(
        ("first", "message"),
        [
            ("", "the first line must name the columns xyz and rgb"),
            ("xyz\n", "the first line must name the columns xyz and rgb"),
            ("rgb,RGB,xyz\n", "two columns called rgb"),
            ('"xyz,rgb\n', "not CSV text"),
        ],
    )
    def test_the_first_line_names_the_columns(self, first: str, message: str):
        with pytest.raises(DataError, match=f"^standard input: .*{message}"):
            next(parts_to_come(iter([first] if first else []), "both"))


class TestPictures:
    def test_one_to_come_takes_the_place_of_its_own_files_last_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        place = to_come(tmp_path / "maps")
        touch(tmp_path, "a/1.tiff", "b/1.tiff")
        monkeypatch.chdir(tmp_path)
        first, other, gone = (PartFiles(Path(f"{folder}/1.tiff"), None) for folder in "abc")
        assert place(gone) == tmp_path / "maps/1.png"  # its file does not exist, so it does not claim the name
        for _ in range(2):
            assert place(first) == tmp_path / "maps/1.png"
            write_png(tmp_path / "maps/1.png", blank(8, 8))
        with pytest.raises(
            DataError, match=r"^b/1.tiff: no heat map, because a/1.tiff is called 1 too; rename one of them"
        ):
            place(other)
        (tmp_path / "maps/2.png").write_bytes(b"a photo")
        with pytest.raises(DataError, match=r"^2.tiff: its heat map: would replace .*2.png, which das3d did not write"):
            place(PartFiles(Path("2.tiff"), None))

    def test_none_stays_under_the_name_of_one_to_come_that_cannot_be_used(self, tmp_path: Path):
        touch(tmp_path, "a.tiff", "b.tiff")
        place = to_come(tmp_path / "maps")
        for name in "ab":
            write_png(tmp_path / f"maps/{name}.png", blank(8, 8))
        assert place(PartFiles(tmp_path / "b.tiff", None)) == tmp_path / "maps/b.png"
        for name in ("a", "b", ""):
            assert place(PartFiles(None, None, given=name, problem="names no file")) is None
        assert [path.name for path in (tmp_path / "maps").iterdir()] == ["b.png"]  # this one is another part's

    def test_one_to_come_does_not_lie_among_the_parts(self, tmp_path: Path):
        touch(tmp_path, "a/1.tiff")
        with pytest.raises(DataError, match="no heat map in the folder of the part's own files"):
            to_come(tmp_path / "a")(PartFiles(tmp_path / "a/1.tiff", None, given="x"))

    def test_a_name_too_long_for_a_file_costs_no_other_part_its_own(self, tmp_path: Path):
        (tmp_path / "maps").mkdir()
        long, short = (PartFiles(Path(f"{name}.tiff"), None) for name in ("x" * 300, "1"))
        maps = planned([long, short], tmp_path, tmp_path / "maps")
        assert maps[short] == tmp_path / "maps/1.png" == to_come(tmp_path / "maps")(short)
        assert maps[long] == to_come(tmp_path / "maps")(long)  # reading the part reports the problem

    def test_each_part_has_its_own(self, tmp_path: Path):
        touch(tmp_path, "in/1_depth.tiff", "in/2_depth.png")
        parts = find_parts(tmp_path / "in", "depth")
        for _ in range(2):
            made = planned(parts, tmp_path / "in", tmp_path / "new/maps")
            assert list(made.values()) == [tmp_path / "new/maps/1.png", tmp_path / "new/maps/2.png"]
            for picture in made.values():
                write_png(picture, blank(8, 8))
        assert planned(parts[:1], None, tmp_path / "1.png") == {parts[0]: tmp_path / "1.png"}
        assert planned(parts, tmp_path / "in", None) == dict.fromkeys(parts)

    def test_a_row_of_a_list_forgets_no_other_rows(self, tmp_path: Path):
        (tmp_path / "list.csv").write_text("xyz,name\n1.tiff,a\n2.tiff,a\nx\0y.tiff,b\n" + "3" * 300 + ".tiff,c\n,d\n")
        (tmp_path / "maps").mkdir()
        for name in "ad":
            write_png(tmp_path / f"maps/{name}.png", blank(8, 8))
        parts = find_parts(tmp_path / "list.csv", "depth")
        for folder in (None, tmp_path / "maps"):
            made = planned(parts, tmp_path / "list.csv", folder)
            assert [bool(part.problem) for part in parts] == [False, True, True, False, True]
        assert list(made.values()) == [tmp_path / "maps/a.png", None, None, tmp_path / "maps/c.png", None]
        assert [path.name for path in (tmp_path / "maps").iterdir()] == ["a.png"]

    def test_none_of_an_earlier_call_is_left_of_a_part_whose_files_cannot_be_told(self, tmp_path: Path):
        touch(tmp_path, "in/1.tiff", "in/2.tiff")
        for picture in planned(find_parts(tmp_path / "in", "depth"), tmp_path / "in", tmp_path / "maps").values():
            write_png(picture, blank(8, 8))
        touch(tmp_path, "in/1.tif")
        planned(find_parts(tmp_path / "in", "depth"), tmp_path / "in", tmp_path / "maps")
        assert [path.name for path in (tmp_path / "maps").iterdir()] == ["2.png"]

    @pytest.mark.parametrize("folder", ["in", "in/rgb", "in/xyz", "in/depth"])
    @pytest.mark.parametrize("inside", ["", "xyz/"])
    def test_none_may_lie_where_it_would_be_taken_for_a_photo(self, tmp_path: Path, folder: str, inside: str):
        touch(tmp_path, f"in/{inside}1.tiff")
        with pytest.raises(UsageError, match=f"^--heatmap {tmp_path / folder}: das3d looks for parts in this folder"):
            planned(find_parts(tmp_path / "in", "depth"), tmp_path / "in", tmp_path / folder)
        assert [path.name for path in tmp_path.rglob("*.*")] == ["1.tiff"]

    def test_none_may_lie_among_files_that_a_list_names(self, tmp_path: Path):
        touch(tmp_path, "far/1.tiff")
        (tmp_path / "list.csv").write_text("xyz\nfar/1.tiff\n")
        with pytest.raises(UsageError, match="far: das3d looks for parts in this folder"):
            planned(find_parts(tmp_path / "list.csv", "depth"), tmp_path / "list.csv", tmp_path / "far")

    def test_none_replaces_a_photo_that_the_detector_does_not_look_at(self, tmp_path: Path):
        touch(tmp_path, "in/xyz/1.tiff", "photos/1.png")
        parts = find_parts(tmp_path / "in", "depth")
        with pytest.raises(UsageError, match=f"^--heatmap {tmp_path}/photos: would replace {tmp_path}/photos/1.png"):
            planned(parts, tmp_path / "in", tmp_path / "photos")

    def test_one_that_is_named_replaces_what_it_names_but_not_the_part(self, tmp_path: Path):
        touch(tmp_path, "1.tiff", "old.png")
        parts = [PartFiles(tmp_path / "1.tiff", None)]
        assert planned(parts, None, tmp_path / "old.png") == {parts[0]: tmp_path / "old.png"}
        with pytest.raises(UsageError, match="is one of the part's own files"):
            planned(parts, None, tmp_path / "1.tiff")
        (tmp_path / "photo.png").write_bytes(b"a photo")
        with pytest.raises(UsageError, match=r"would replace .*/photo\.png, which das3d did not write"):
            planned(parts, None, tmp_path / "photo.png")
        with pytest.raises(UsageError, match="is a folder; name a file"):
            planned(parts, None, tmp_path)
