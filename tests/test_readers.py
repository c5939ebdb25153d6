"""Readers return stored values unchanged, and report every bad file in one line that names it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from das3d_cli.data.capture import Camera, RawCapture
from das3d_cli.data.decode import _strict_tifffile
from das3d_cli.data.readers import (
    as_points,
    as_rgb,
    guess_unit,
    kind_of_photo,
    read_capture,
    read_ground_truth,
    read_rgb,
    read_xyz,
)
from das3d_cli.errors import DataError

XYZ = np.random.default_rng(0).uniform(0.2, 0.9, (24, 32, 3)).astype(np.float32)
HEIGHTS = np.stack([*np.meshgrid(np.arange(32) / 1000, np.arange(24) / 1000), np.full((24, 32), 0.01)], 2).astype(
    np.float32
)
RGB = np.random.default_rng(1).integers(0, 256, (24, 32, 3)).astype(np.uint8)


def save_png(path: Path, image: Any) -> Path:
    ok, data = cv2.imencode(".png", image)
    assert ok
    path.write_bytes(data.tobytes())
    return path


def save_tiff(path: Path, values: Any, **options: Any) -> Path:
    tifffile.imwrite(path, values, **{"photometric": "minisblack", **options})
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def with_values(points: Any = XYZ, **changes: float) -> Any:
    xyz = points.copy()
    for axis, value in changes.items():
        xyz[3, 4, "xyz".index(axis)] = value
    return xyz


# tifffile writes "minisblack" as one page per row, and "rgb" as a single page, as most programs do
FORMS: list[dict[str, Any]] = [
    {},
    {"photometric": "rgb"},
    {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 5},
    {"compression": "zlib", "rowsperstrip": 5},
]


@pytest.mark.parametrize("options", [*FORMS, {"bigtiff": True}, {"byteorder": ">"}])
def test_points_come_through_bit_by_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    xyz = read_xyz(save_tiff(tmp_path / "größe 1.tiff", XYZ, **options))
    assert xyz.dtype == np.float32
    assert np.array_equal(xyz, XYZ)


def test_missing_points_are_nan_in_all_three(tmp_path: Path) -> None:
    stored = XYZ.copy()
    stored[0, 0] = 0
    stored[1, 1, 2] = np.nan
    stored[2, 2, :2] = 0  # a point on the optical axis is not missing
    xyz = read_xyz(save_tiff(tmp_path / "a.tiff", stored))
    expected = np.zeros((24, 32), bool)
    expected[0, 0] = expected[1, 1] = True
    assert np.array_equal(np.isnan(xyz), np.repeat(expected[..., None], 3, axis=2))
    assert np.array_equal(xyz[~expected], stored[~expected])


def test_a_camera_sees_no_point_beside_itself(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:24, :32].astype(np.float32)
    seen = np.stack([(columns - 16) * 0.4 / 600, (rows - 12) * 0.4 / 600, np.full_like(rows, 0.4)], axis=2)
    seen[5:8, 3:9, 2] = 0  # some scanners keep x and y where z is missing
    heights = np.stack([columns / 1000, rows / 1000, np.zeros_like(rows)], axis=2)
    heights[5:8, 3:9, 2] = 0.01  # a table at z = 0 and a part on it
    for name, xyz, missing in (("seen", seen, seen[..., 2] == 0), ("heights", heights, (rows == 0) & (columns == 0))):
        points = read_xyz(save_tiff(tmp_path / f"{name}.tiff", xyz))
        assert np.array_equal(np.isnan(points), np.repeat(missing[..., None], 3, axis=2)), name


@pytest.mark.parametrize("mark", [-np.finfo(np.float32).max, -1e10, -9.999, -1e-4, 0.0])
def test_nor_one_behind_itself_where_nothing_was_measured(
    tmp_path: Path, capture: Callable[..., RawCapture], mark: float
) -> None:
    part = capture("ring", seed=2)
    for all_three in (False, True):
        stored = part.xyz.copy()
        stored[40:50, 30:60, 0 if all_three else 2 :] = mark
        upside_down = stored * np.float32([1, 1, -1])
        for name, xyz, own in (("a", stored, part.xyz), ("b", upside_down, part.xyz * np.float32([1, 1, -1]))):
            expected = own.copy()
            expected[40:50, 30:60] = np.nan
            points = read_xyz(save_tiff(tmp_path / f"{name}.tiff", np.where(np.isnan(xyz), 0, xyz)))
            assert np.array_equal(points, expected, equal_nan=True)


def test_heights_may_lie_on_either_side_of_the_table(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:24, :32].astype(np.float32)
    waves = 0.001 * np.sin(rows)
    steps = np.where((rows - 12) ** 2 + (columns - 16) ** 2 < 40, np.float32(0.01), np.float32(-0.01))
    for z in (waves, steps, -steps, steps + 0.01, 0.01 - steps):
        heights = np.stack([columns / 1000, rows / 1000, z], axis=2)
        read = read_xyz(save_tiff(tmp_path / "a.tiff", heights))
        assert not np.isnan(read[z != 0]).any()


def test_what_is_no_unit_of_anything_costs_no_warning(tmp_path: Path) -> None:
    stored = np.where(np.arange(24)[:, None, None] > 2, np.finfo(np.float32).max, XYZ)
    assert guess_unit(None, save_tiff(tmp_path / "a.tiff", stored.astype(np.float32))) == ("um", False)


@pytest.mark.parametrize("code", [-0.0999, -9.999, 0.5, -9999.0])
def test_one_far_height_of_many_points_is_a_code_for_missing_ones(tmp_path: Path, code: float) -> None:
    heights = HEIGHTS + np.random.default_rng(2).normal(0, [[[0, 0, 1e-5]]], HEIGHTS.shape).astype(np.float32)
    heights[5:9, 7:20, 2] = code
    found = read_xyz(save_tiff(tmp_path / "a.tiff", heights))
    missing = np.isnan(found).all(axis=2)
    assert np.count_nonzero(missing) == 4 * 13 and missing[5:9, 7:20].all()
    assert np.array_equal(found[~missing], heights[~missing])


def test_codes_are_found_beside_other_ones_and_beside_points_that_are_missing_already(tmp_path: Path) -> None:
    heights = HEIGHTS + np.random.default_rng(2).normal(0, [[[0, 0, 1e-5]]], HEIGHTS.shape).astype(np.float32)
    heights[5:9, 7:20], heights[12:14, 3:6, 2], heights[20, 20, 0] = (
        -99.9999,
        99.0,
        np.nan,
    )  # x and y may be the code, too
    missing = np.isnan(read_xyz(save_tiff(tmp_path / "a.tiff", heights))).all(axis=2)
    assert np.count_nonzero(missing) == 4 * 13 + 2 * 3 + 1 and missing[5:9, 7:20].all() and missing[12:14, 3:6].all()


@pytest.mark.parametrize("height", [0.0, 0.02])
def test_a_level_table_under_a_part_is_no_code(tmp_path: Path, height: float) -> None:
    heights = HEIGHTS.copy()  # 32 mm wide
    heights[8:16, 8:20, 2] += height + np.linspace(0, 1e-3, 12, dtype=np.float32)
    assert np.array_equal(read_xyz(save_tiff(tmp_path / "a.tiff", heights)), heights)


def test_points_do_not_depend_on_how_an_array_lies_in_memory() -> None:
    assert as_points(np.asfortranarray(XYZ), "xyz").flags.c_contiguous


def test_a_pipe_of_the_shell_is_read(tmp_path: Path) -> None:
    command = "import pathlib, das3d_cli.data.readers as r; print(r.read_xyz(pathlib.Path('/dev/stdin')).shape)"
    stored = save_tiff(tmp_path / "a.tiff", XYZ).read_bytes()
    done = subprocess.run([sys.executable, "-c", command], input=stored, capture_output=True, check=True)
    assert done.stdout == b"(24, 32, 3)\n"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: is a pipe or a device; store the point cloud in a file"):
        read_xyz(tmp_path / "a.tiff")


def test_a_device_without_an_end_is_not_read() -> None:
    with pytest.raises(DataError, match="/dev/zero: is a pipe or a device; store the colour image in a file"):
        read_rgb(Path("/dev/zero"))


def test_a_depth_image_of_whole_numbers_among_clouds_in_metres_is_in_millimetres(tmp_path: Path) -> None:
    depth = save_png(tmp_path / "a.png", np.full((24, 32), 400, np.uint16))
    assert np.nanmax(read_xyz(depth, Camera(600, 600), unit="m")[..., 2]) == pytest.approx(0.4)


def test_advice_on_units_is_for_who_reads_it(tmp_path: Path) -> None:
    for given in ("m", "mm"):
        depth = save_png(tmp_path / "a.png", np.full((24, 32), 400, np.uint16))
        assert "400 m looks like millimetres; correct the scale (metres per step)" in refusal(
            lambda path, unit=given: read_xyz(path, Camera(600, 600, scale=1.0), unit=unit), depth
        )
    with pytest.raises(DataError, match=r"looks like millimetres; convert it to metres$"):
        as_points(XYZ * 1000, "xyz")


def test_colours_come_in_the_order_red_green_blue(tmp_path: Path) -> None:
    rgb = read_rgb(save_png(tmp_path / "größe 1.PNG", RGB[..., ::-1]))
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert np.array_equal(rgb, RGB)


def test_capture_holds_both(tmp_path: Path, capture: Callable[..., RawCapture]) -> None:
    part = capture("ring", seed=2)
    rgb = save_png(tmp_path / "a.png", part.rgb[..., ::-1])
    read = read_capture(rgb, save_tiff(tmp_path / "a.tiff", np.nan_to_num(part.xyz)))
    assert np.array_equal(read.rgb, part.rgb)
    assert np.array_equal(read.xyz, part.xyz, equal_nan=True)


@pytest.mark.parametrize(
    "stored",
    [
        lambda mask: mask.astype(np.uint8),
        lambda mask: mask.astype(np.uint16) * 300,
        lambda mask: np.stack([mask * 0, mask * 0, mask * 255], axis=2).astype(np.uint8),
        lambda mask: np.stack([mask * 9, mask * 0, mask * 0, mask * 0 + 255], axis=2).astype(np.uint8),
    ],
    ids=["grey", "16-bit", "red", "opaque alpha"],
)
def test_ground_truth_is_whatever_is_above_zero(tmp_path: Path, stored: Callable[[Any], Any]) -> None:
    mask = RGB[..., 0] > 200
    truth = read_ground_truth(save_png(tmp_path / "a.png", stored(mask)))
    assert truth.dtype == np.bool_
    assert np.array_equal(truth, mask)


def test_what_is_transparent_is_not_marked(tmp_path: Path) -> None:
    mask = RGB[..., 0] > 200
    sheet = np.full((*mask.shape, 4), 255, np.uint8)  # red on a white sheet that is transparent
    sheet[mask] = (0, 0, 255, 255)
    sheet[~mask, 3] = 0
    assert np.array_equal(read_ground_truth(save_png(tmp_path / "a.png", sheet)), mask)


def test_a_mask_that_marks_nearly_all_is_refused(tmp_path: Path) -> None:
    inverted = np.full(RGB.shape[:2], 255, np.uint8)
    inverted[3:6, 3:6] = 0
    assert "of the image; invert it, as black means good and any other colour a defect" in refusal(
        read_ground_truth, save_png(tmp_path / "a.png", inverted)
    )


def test_a_photo_without_points_is_turned_upright_and_one_with_points_is_not(tmp_path: Path) -> None:
    smooth = cv2.resize(np.arange(12, dtype=np.float32).reshape(3, 4), (32, 24)) * 20
    stored = cv2.imencode(".jpg", np.repeat(smooth[..., None], 3, axis=2).astype(np.uint8))[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"  # orientation 3: half a turn
    turned = tmp_path / "a.jpg"
    turned.write_bytes(stored[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + stored[2:])
    as_it_lies = read_rgb(turned)
    upright = read_capture(turned, None).rgb
    assert np.array_equal(upright, as_it_lies[::-1, ::-1]) and not np.array_equal(upright, as_it_lies)
    beside = read_capture(turned, save_tiff(tmp_path / "a.tiff", XYZ)).rgb
    assert np.array_equal(beside, as_it_lies)


def test_what_16_bit_cameras_write_for_nothing_is_missing(tmp_path: Path) -> None:
    stored = np.full((24, 32), 400, np.uint16)
    stored[3, 4], stored[5, 6] = 0, 65535
    xyz = read_xyz(save_png(tmp_path / "a.png", stored), Camera(500.0, 500.0))
    assert np.argwhere(np.isnan(xyz[..., 2])).tolist() == [[3, 4], [5, 6]]


def test_a_jpeg_is_no_ground_truth_whatever_it_is_called(tmp_path: Path) -> None:
    mask = np.where(RGB[..., 0] > 200, 255, 0).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".jpg", mask)[1].tobytes())
    assert "is a JPEG" in refusal(read_ground_truth, tmp_path / "a.png")


def test_the_kind_of_a_photo_is_that_of_its_content(tmp_path: Path) -> None:
    png = tmp_path / "a.jpg"
    png.write_bytes(cv2.imencode(".png", RGB)[1].tobytes())
    jpeg = tmp_path / "b.png"
    jpeg.write_bytes(cv2.imencode(".jpg", RGB)[1].tobytes())
    assert (kind_of_photo(png), kind_of_photo(jpeg)) == ("PNG", "JPEG")
    (tmp_path / "points.png").write_bytes(b"II*\0")
    assert kind_of_photo(tmp_path / "points.png") == "PNG"  # its content is neither, so its name decides
    assert kind_of_photo(tmp_path / "absent.tiff") == kind_of_photo(tmp_path) == ""
    (tmp_path / "empty.png").touch()
    assert kind_of_photo(tmp_path / "empty.png") == "PNG"
    assert (kind_of_photo(tmp_path / "absent.png"), kind_of_photo(tmp_path / "absent.jpeg")) == ("PNG", "JPEG")


BAD_XYZ = {
    "2-D": (XYZ[..., 0], "H x W x 3"),
    "channels first": (XYZ.transpose(2, 0, 1).copy(), "is 3 x 24 x 32"),
    "four channels": (np.concatenate([XYZ, XYZ[..., :1]], axis=2), "H x W x 3"),
    "integer": ((XYZ * 1000).astype(np.uint16), "holds uint16"),
    "infinite": (with_values(z=np.inf), "infinite"),
    "infinite beside nan": (with_values(x=np.nan, y=-np.inf), "infinite"),
    "beyond float32": (XYZ.astype(np.float64) * 1e300, "infinite"),
    "a value for no point": (
        with_values(z=np.finfo(np.float32).max),
        "holds a point 3.4e+38 m away; mark missing points",
    ),
    "a large value for no point": (with_values(z=1e10), "holds a point 1e+10 m away; mark missing points as"),
    "a value for no point nearly everywhere": (
        np.where(np.arange(24)[:, None, None] > 2, np.float32(1e10), XYZ),
        "holds a point 1e+10 m away",
    ),
    "micrometres": (XYZ * 1e6, "looks like micrometres"),
    "millimetres and a value for no point": (with_values(z=65.535) * 1000, "looks like millimetres"),
    "zeros": (XYZ * 0, "every point is missing"),
    "all nan": (XYZ * np.nan, "every point is missing"),
    "millimetres": (XYZ * 1000, "millimetres"),
    "millimetres downwards": (-XYZ * 1000, "millimetres"),
}


@pytest.mark.parametrize("name", BAD_XYZ)
def test_unusable_point_cloud(tmp_path: Path, name: str) -> None:
    values, complaint = BAD_XYZ[name]
    assert complaint in refusal(read_xyz, save_tiff(tmp_path / "a.tiff", values))


BAD_RGB = {
    "16-bit": (RGB.astype(np.uint16) * 257, "holds uint16 values"),
    "alpha": (np.concatenate([RGB, RGB[..., :1]], axis=2), "alpha"),
}


def test_an_image_without_pixels() -> None:
    with pytest.raises(DataError, match="rgb: is 0 x 0 x 3 and holds no pixels"):
        as_rgb(np.zeros((0, 0, 3), np.uint8), "rgb")


@pytest.mark.parametrize("name", BAD_RGB)
def test_unusable_colour_image(tmp_path: Path, name: str) -> None:
    image, complaint = BAD_RGB[name]
    assert complaint in refusal(read_rgb, save_png(tmp_path / "a.png", image))


def test_what_a_masked_array_masks_is_missing() -> None:
    masked = np.ma.masked_less(XYZ, 0.25)
    assert np.array_equal(np.isnan(as_points(masked, "xyz")).all(axis=2), masked.mask.any(axis=2))


def test_a_depth_image_without_a_camera_asks_for_it(tmp_path: Path) -> None:
    depth = save_png(tmp_path / "a.png", (XYZ[..., 2] * 1000).astype(np.uint16))
    assert "describe its camera in camera.json" in refusal(read_xyz, depth)


def test_swapped_files(tmp_path: Path) -> None:
    png, tiff = save_png(tmp_path / "a.png", RGB), save_tiff(tmp_path / "a.tiff", XYZ)
    assert "swapped" in refusal(read_xyz, png)
    assert "swapped" in refusal(read_rgb, tiff)
    with pytest.raises(DataError, match="swapped"):
        read_capture(tiff, png)


def test_sizes_that_differ(tmp_path: Path) -> None:
    png, tiff = save_png(tmp_path / "a.png", RGB[:20]), save_tiff(tmp_path / "a.tiff", XYZ)
    with pytest.raises(DataError, match=r"a\.png: is 32 x 20 pixels, but its point cloud is 32 x 24"):
        read_capture(png, tiff)


@pytest.mark.parametrize("reader", [read_xyz, read_rgb, read_ground_truth])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"), (b"", "is empty"), (b"hello", "is not a"), ("folder", "cannot be read"),
        (b"II*\0\x08\0\0\0", "is a TIFF"),
    ],
)  # fmt: skip
def test_no_readable_file(tmp_path: Path, reader: Callable[[Path], Any], content: Any, complaint: str) -> None:
    path = tmp_path / "a.png"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert complaint in refusal(reader, path)


@pytest.mark.parametrize("options", FORMS)
def test_truncated_point_cloud_is_refused_or_whole(
    tmp_path: Path, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = save_tiff(tmp_path / "a.tiff", XYZ, **options).read_bytes()
    path = tmp_path / "cut.tiff"
    for length in {*range(1, 400, 7), *range(400, len(whole), len(whole) // 60), len(whole) - 1}:
        path.write_bytes(whole[:length])
        try:
            xyz = read_xyz(path)
        except DataError:
            continue
        assert np.array_equal(xyz, XYZ)  # only the end marker of the last page was cut off
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("reader", [read_rgb, read_ground_truth])
def test_no_damaged_image_gets_through(
    tmp_path: Path, reader: Callable[[Path], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = save_png(tmp_path / "a.png", RGB).read_bytes()
    path = tmp_path / "cut.png"
    for place in {*range(1, 60), *range(60, len(whole), len(whole) // 40), len(whole) - 1}:
        path.write_bytes(whole[:place])
        refusal(reader, path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refusal(reader, path)
    assert capfd.readouterr() == ("", "")


def test_odd_colour_profile_is_read_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = save_png(tmp_path / "a.png", RGB[..., ::-1]).read_bytes()
    profile = chunk(b"iCCP", b"broken\0\0" + zlib.compress(b"no profile at all"))
    (tmp_path / "a.png").write_bytes(whole[:33] + profile + whole[33:])
    assert np.array_equal(read_rgb(tmp_path / "a.png"), RGB)
    assert capfd.readouterr() == ("", "")


def refusal(reader: Callable[[Path], Any], path: Path) -> str:
    """Return the error message, which must be one line that begins with the path."""
    with pytest.raises(DataError) as caught:
        reader(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_one_thread_that_has_read_does_not_make_another_lenient() -> None:
    log = logging.getLogger("tifffile")
    for _ in range(3):
        with _strict_tifffile():
            other = threading.Thread(target=read_and_leave)
            other.start()
            other.join()
            with pytest.raises(ValueError, match="damaged"):
                log.error("damaged")
    assert len(log.filters) == 1  # filters must not come and go while another thread iterates over them


def read_and_leave() -> None:
    with _strict_tifffile():
        pass
