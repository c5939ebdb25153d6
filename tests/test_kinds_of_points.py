"""Point files other than TIFFs in metres: every value is checked, and a bad file gives one line that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from captures import save_camera, save_depth, save_image, save_pcd, save_ply, save_tiff

from das3d_cli.data.capture import Camera
from das3d_cli.data.common import find_unit
from das3d_cli.data.depth import find_camera, read_limits
from das3d_cli.data.layouts import Entry
from das3d_cli.data.readers import as_rgb, guess_unit, read_capture, read_rgb, read_xyz
from das3d_cli.errors import DataError
from das3d_cli.settings import PreprocessSettings

XYZ = np.random.default_rng(0).uniform(0.2, 0.9, (6, 8, 3)).astype(np.float32)
XYZ[2, 3] = np.nan
DEPTH = XYZ[..., 2]
RGB = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
CAMERA = Camera(10.0, 20.0, 3.0, 1.0)


def refusal(read: Callable[[], Any], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read()
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


class TestClouds:
    @pytest.mark.parametrize("form", ["binary", "ascii", "binary_compressed"])
    def test_pcd_comes_through_bit_by_bit(self, tmp_path: Path, form: str) -> None:
        assert np.array_equal(read_xyz(save_pcd(tmp_path / "a.PCD", XYZ, form)), XYZ, equal_nan=True)

    @pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
    @pytest.mark.parametrize("size", ["obj_info", "camera"])
    def test_ply_comes_through_bit_by_bit(self, tmp_path: Path, form: str, size: str) -> None:
        assert np.array_equal(read_xyz(save_ply(tmp_path / "a.ply", XYZ, form, size)), XYZ, equal_nan=True)

    def test_a_ply_that_does_not_tell_its_size_takes_that_of_its_image(self, tmp_path: Path) -> None:
        path = save_ply(tmp_path / "a.ply", XYZ, size="nowhere")
        assert np.array_equal(read_xyz(path, size=lambda: (6, 8)), XYZ, equal_nan=True)
        rgb = save_image(tmp_path / "a.png", RGB)
        assert np.array_equal(np.asarray(read_capture(rgb, path).xyz), XYZ, equal_nan=True)
        for size, told in (
            (None, "columns; export"),
            (lambda: (6, 7), "columns, and the image beside it has 7 x 6 pixels; export"),
        ):
            assert f"48 points that are not in rows and {told}" in refusal(
                lambda size=size: read_xyz(path, size=size), path
            )

    @pytest.mark.parametrize("form", ["binary", "ascii", "binary_compressed"])
    def test_no_pcd_that_was_cut_gets_through(
        self, tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        whole = save_pcd(tmp_path / "a.pcd", XYZ, form).read_bytes()
        self._cut(tmp_path / "b.pcd", whole, {*range(1, len(whole) - 14, 23), len(whole) - 14})
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("form", ["binary", "ascii", "binary_compressed"])
    @pytest.mark.parametrize(
        ("is_", "says"),
        [
            (b"HEIGHT 5", b"HEIGHT 6"), (b"HEIGHT 5", b"HEIGHT 30000"), (b"COUNT 1 1 1 1", b"COUNT 1 1 1 2"),
            (b"COUNT 1 1 1 1", b"COUNT 1 1 1 999999999"),
        ],
    )  # fmt: skip
    def test_no_pcd_that_holds_less_than_it_says_gets_through(
        self, tmp_path: Path, form: str, is_: bytes, says: bytes
    ) -> None:
        path = save_pcd(tmp_path / "a.pcd", XYZ[:5], form)
        whole = path.read_bytes()
        assert whole.count(is_) == 1
        rows = int(says.split()[1]) if says.startswith(b"HEIGHT") else 5
        path.write_bytes(whole.replace(is_, says).replace(b"POINTS 40", b"POINTS %d" % (8 * rows)))
        refusal(lambda: read_xyz(path), path)

    @pytest.mark.parametrize("form", ["binary_little_endian", "ascii"])
    def test_no_ply_that_was_cut_gets_through(
        self, tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        whole = save_ply(tmp_path / "a.ply", XYZ, form).read_bytes()
        self._cut(tmp_path / "b.ply", whole, {*range(1, len(whole) - 8, 23), len(whole) - 8})
        assert capfd.readouterr() == ("", "")

    @staticmethod
    def _cut(path: Path, whole: bytes, lengths: set[int]) -> None:
        for length in lengths:
            path.write_bytes(whole[:length])
            refusal(lambda: read_xyz(path), path)

    @pytest.mark.parametrize(
        ("name", "text", "complaint"),
        [
            ("a.pcd", "hello", "no DATA line"),
            ("a.pcd", "FIELDS x y\nSIZE 4 4\nTYPE F F\nWIDTH 1\nHEIGHT 1\nDATA ascii\n0 0\n", "'z' is not in list"),
            ("a.pcd", "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nHEIGHT 1\nDATA ascii\n1 1 1\n2 2 2\n", "not in rows and columns"),
            ("a.pcd", "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nHEIGHT 1\nDATA ascii\n1 1 1\n", "unsupported PCD"),
            ("a.ply", "solid", "no PLY header"),
            ("a.ply", "ply\nelement vertex 1\nproperty float x\nend_header\n1\n", "no format line"),
            ("a.pcd", "FIELDS x y z\nSIZE 3 4 4\nTYPE F F F\nWIDTH 1\nHEIGHT 1\nDATA binary\n123412341234", "unsupported PCD"),
            ("a.ply", "ply\nformat ascii 1.0\nelement face 1\nproperty float x\nend_header\n1\n", "come first"),
            ("a.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n1\n", "unsupported PLY"),
        ],
    )  # fmt: skip
    def test_unusable(self, tmp_path: Path, name: str, text: str, complaint: str) -> None:
        path = tmp_path / name
        path.write_text(text)
        assert complaint in refusal(lambda: read_xyz(path), path)


class TestDepthImages:
    def test_pinhole(self, tmp_path: Path) -> None:
        xyz = read_xyz(save_tiff(tmp_path / "a.tiff", DEPTH), CAMERA)
        rows, columns = np.indices(DEPTH.shape)
        assert xyz[..., 0] == pytest.approx((columns - 3) / 10 * DEPTH, abs=1e-6, nan_ok=True)
        assert xyz[..., 1] == pytest.approx((rows - 1) / 20 * DEPTH, abs=1e-6, nan_ok=True)
        assert np.array_equal(xyz[..., 2], DEPTH, equal_nan=True)

    def test_the_principal_point_is_the_middle_unless_given(self, tmp_path: Path) -> None:
        path = save_tiff(tmp_path / "a.tiff", DEPTH)
        assert np.array_equal(read_xyz(path, Camera(10, 10)), read_xyz(path, Camera(10, 10, 4, 3)), equal_nan=True)

    @pytest.mark.parametrize(
        ("scale", "unit", "stored_m", "share"),
        [(None, "mm", 1e-3, 1.0), (2e-4, "mm", 2e-4, 1.0), (None, "um", 1e-6, 0.05)],
    )
    def test_16_bits_are_in_the_unit_or_scale_that_is_given(
        self, tmp_path: Path, scale: float | None, unit: str, stored_m: float, share: float
    ) -> None:
        path = save_depth(tmp_path / "a.png", XYZ * np.float32(share), stored_m)
        z = read_xyz(path, Camera(10, 10, scale=scale), unit=unit)[..., 2]
        assert z == pytest.approx(np.rint(DEPTH * share / stored_m) * stored_m, rel=1e-4, nan_ok=True)

    def test_eyecandies(self, tmp_path: Path) -> None:
        stored = np.array([[0, 65535], [13107, 1]] * 20, np.uint16)
        save_image(tmp_path / "00_depth.png", stored)
        limits = tmp_path / "00_info_depth.yaml"
        limits.write_text("normalization:\n  max: 3.5\n  min: 1.0\n")
        xyz = read_xyz(tmp_path / "00_depth.png", Camera(711.11, 711.11), limits)
        z = np.tile([[1.0, 3.5], [1.5, 1 + 2.5 / 65535]], (20, 1))
        assert xyz[..., 2] == pytest.approx(z, rel=1e-6)
        assert xyz[..., 0] == pytest.approx((np.indices(z.shape)[1] - 1) / 711.11 * z, abs=1e-7)
        assert xyz[..., 1] == pytest.approx((np.indices(z.shape)[0] - 20) / 711.11 * z, abs=1e-7)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("normalization:\n  max: 3.5\n  min: 1.0\n", (1.0, 3.5)),
            ("normalization: {min: 1.5e-1, max: 3}\n", (0.15, 3.0)),
            ("other: 7\nnormalization:\n    min: 0.0\n    max: 2.25 # metres\n", (0.0, 2.25)),
            ("normalization:\n  max: 3.5\n", None), ("", None), ("normalization: {min: 3, max: 1}", None),
            ("min: one\nmax: two\n", None),
        ],
    )  # fmt: skip
    def test_limits(self, tmp_path: Path, text: str, found: tuple[float, float] | None) -> None:
        path = tmp_path / "info_depth.yaml"
        path.write_text(text)
        if found:
            assert read_limits(path) == found
        else:
            refusal(lambda: read_limits(path), path)

    @pytest.mark.parametrize(
        "image", [RGB, RGB[..., 0], RGB.astype(np.uint16)], ids=["colours", "8-bit", "16-bit colours"]
    )
    def test_no_depth_image(self, tmp_path: Path, image: Any) -> None:
        path = save_image(tmp_path / "a.png", image)
        assert "a depth image is H x W of uint16, float32 or float64" in refusal(lambda: read_xyz(path, CAMERA), path)

    def test_one_channel_is_a_depth_image(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tiff"
        tifffile.imwrite(path, DEPTH[..., None])
        assert np.array_equal(read_xyz(path, CAMERA)[..., 2], DEPTH, equal_nan=True)

    def test_a_camera_beside_point_clouds_does_no_harm(self, tmp_path: Path) -> None:
        for path in (save_tiff(tmp_path / "a.tiff", XYZ), save_pcd(tmp_path / "a.pcd", XYZ)):
            assert np.array_equal(read_xyz(path, CAMERA), XYZ, equal_nan=True)

    @pytest.mark.parametrize(
        ("text", "camera"),
        [
            ('{"fx": 600, "fy": 601.5, "cx": 320, "cy": 240}', Camera(600, 601.5, 320, 240)),
            ('{"fx": 600}', Camera(600, 600)), ('{"fx": 600, "scale": 0.0001}', Camera(600, 600, scale=1e-4)),
            ('{"fy": 600}', "fx, the focal length in pixels, is missing"), ('{"fx": 0}', "positive"), ("[1]", "not an object of names"),
            ('{"fx": "wide"}', "must be numbers"), ("fx = 600", "not valid JSON"), ('{"fx": 600, "ppx": 3}', "ppx"),
            ('{"fx": NaN}', "positive"), (b"\xff", "not valid JSON"), ("[" * 100_000, "not valid JSON"),
            ('{"fx": 1' + "0" * 400 + "}", "must be numbers"), ('{"fx": true}', "must be numbers"),
        ],
    )  # fmt: skip
    def test_camera_file(self, tmp_path: Path, text: str | bytes, camera: Camera | str) -> None:
        (tmp_path / "camera.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        if isinstance(camera, Camera):
            assert find_camera(tmp_path / "nowhere", tmp_path) == camera
        else:
            told = refusal(lambda: find_camera(tmp_path), tmp_path / "camera.json")
            assert camera in told and '{"fx": 615.0' in told

    def test_the_nearer_camera_file_counts(self, tmp_path: Path) -> None:
        save_camera(tmp_path, fx=1.0)
        save_camera(tmp_path / "valve", fx=2.0)
        assert find_camera(tmp_path / "valve", tmp_path) == Camera(2, 2)
        assert find_camera(tmp_path / "nut", tmp_path) == Camera(1, 1)
        assert json.loads((tmp_path / "camera.json").read_text()) == {"fx": 1.0}


class TestUnits:
    @pytest.mark.parametrize(("unit", "metres"), [("m", 1.0), ("cm", 1e-2), ("mm", 1e-3), ("um", 1e-6)])
    def test_given(self, tmp_path: Path, unit: str, metres: float) -> None:
        path = save_tiff(tmp_path / "a.tiff", XYZ / np.float32(metres))
        assert read_xyz(path, unit=unit) == pytest.approx(XYZ, rel=1e-5, nan_ok=True)

    @pytest.mark.parametrize(
        ("factor", "unit"), [(1, "m"), (5, "m"), (0.1, "m"), (15, "mm"), (1e3, "mm"), (1e4, "mm"), (1e6, "um")]
    )
    def test_recognised(self, tmp_path: Path, factor: float, unit: str) -> None:
        assert guess_unit(None, save_tiff(tmp_path / "a.tiff", XYZ * np.float32(factor))) == (unit, False)

    def test_recognised_where_heights_are_measured_from_a_table(self, tmp_path: Path) -> None:
        profile = XYZ * np.float32([200, 200, 3])  # millimetres from a laser profiler: z is small
        assert guess_unit(None, save_tiff(tmp_path / "a.tiff", profile)) == ("mm", False)

    def test_16_bits_are_millimetres_by_custom(self, tmp_path: Path) -> None:
        path = save_depth(tmp_path / "a.png", XYZ, 1e-1)
        assert guess_unit(None, path, CAMERA) == ("mm", True)
        assert guess_unit(None, path, Camera(10, 10, scale=1e-4)) == ("m", True)

    @pytest.mark.parametrize("order", ["ab", "ba"])
    @pytest.mark.parametrize(("factor", "unit"), [(1, "m"), (1e3, "mm")])
    def test_depth_images_among_clouds_say_nothing_of_these(
        self, tmp_path: Path, order: str, factor: float, unit: str
    ) -> None:
        save_depth(tmp_path / f"{order[0]}.png", XYZ, 1e-3)
        save_tiff(tmp_path / f"{order[1]}.tiff", XYZ * np.float32(factor))
        entries = [
            Entry("v", "train", "good", path.stem, None, path, None, CAMERA if path.suffix == ".png" else None)
            for path in sorted(tmp_path.iterdir())
        ]
        assert find_unit(entries, PreprocessSettings()) == unit
        assert find_unit([entry for entry in entries if entry.camera], PreprocessSettings()) == "mm"

    @pytest.mark.parametrize(("factor", "unit", "likely"), [(1000, "m", "millimetres"), (1, "mm", "metres")])
    def test_what_cannot_be_is_refused(self, tmp_path: Path, factor: float, unit: str, likely: str) -> None:
        path = save_tiff(tmp_path / "a.tiff", XYZ * np.float32(factor))
        told = refusal(lambda: read_xyz(path, unit=unit), path)
        assert f"looks like {likely}" in told and "preprocess.units" in told


class TestImages:
    def test_jpeg(self, tmp_path: Path) -> None:
        smooth = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)
        read = read_rgb(save_image(tmp_path / "a.jpg", smooth))
        assert np.abs(read.astype(float) - smooth).mean() < 4

    def test_no_jpeg_that_was_cut_gets_through(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        whole = save_image(tmp_path / "a.jpg", RGB).read_bytes()
        path = tmp_path / "cut.jpg"
        for length in (1, 2, 10, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:length])
            refusal(lambda: read_rgb(path), path)
        assert capfd.readouterr() == ("", "")

    def test_grey_has_three_equal_channels(self, tmp_path: Path) -> None:
        path, equal = save_image(tmp_path / "a.png", RGB[..., 0]), np.repeat(RGB[..., :1], 3, axis=2)
        alone, beside = read_capture(path, None), read_capture(path, save_tiff(tmp_path / "a.tiff", XYZ))
        assert alone.xyz is None and alone.shape == (6, 8)
        assert np.array_equal(np.asarray(alone.rgb), equal) and np.array_equal(np.asarray(beside.rgb), equal)
        assert np.array_equal(as_rgb(RGB[..., 0], "rgb"), equal)
