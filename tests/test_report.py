"""Pictures show defects where they lie, tables show every figure, and files are written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from das3d_cli.data.capture import RawCapture
from das3d_cli.data.layouts import Failure
from das3d_cli.data.summary import Row, Summary
from das3d_cli.errors import DataError, UsageError
from das3d_cli.report.draw import BOLD, OUTSIDE, PAPER, blank, letter, letter_width
from das3d_cli.report.heatmap import blend, overlay, placement
from das3d_cli.report.own_png import check_replaceable, write_png
from das3d_cli.report.pictures import (
    DEFECT,
    Brightening,
    depth_picture,
    mask_picture,
    picture_of,
    shaded_relief,
    signed_picture,
    ternary_picture,
)
from das3d_cli.report.preprocessed import preprocess_table
from das3d_cli.report.sheet import Tile, contact_sheet


@pytest.fixture
def disc():
    """A flat round part of 64 x 64 pixels and its foreground."""
    y, x = np.mgrid[-32:32, -32:32]
    foreground = np.hypot(x, y) < 26
    return np.where(foreground, 0.5, 1.0).astype(np.float32), foreground


def some_rgb(height, width):
    smooth = cv2.resize(np.random.default_rng(0).integers(40, 200, (6, 6, 3), np.uint8), (width, height))
    return np.asarray(smooth)


def picture_in(image, height, width):
    place = placement(height, width)
    return image[place.top : place.top + place.scale * height, place.left : place.left + place.scale * width]


SIZES = [(168, 200), (480, 640), (800, 800), (700, 90), (30, 900), (1, 1), (2100, 1500)]


class TestHeatMap:
    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_a_calm_part_is_shown_as_it_was_taken(self, height, width):
        rgb = some_rgb(height, width)
        image = overlay(rgb, np.zeros((height, width)), threshold=0.5, outline=0.5, score=0.0, anomalous=False)
        shown = picture_in(image, height, width)
        scale = placement(height, width).scale
        assert shown.shape == (scale * height, scale * width, 3)
        blocks = shown.reshape(height, scale, width, scale, 3).mean(axis=(1, 3))
        assert np.abs(blocks - rgb).max() <= 2

    @pytest.mark.parametrize(("height", "width"), [(168, 200), (480, 640)])
    def test_a_hot_pixel_glows_where_it_lies(self, height, width):
        rgb, anomaly_map = np.full((height, width, 3), 90, np.uint8), np.zeros((height, width), np.float32)
        row, column = 40, 130
        anomaly_map[row - 2 : row + 3, column - 2 : column + 3] = 1.0
        shown = picture_in(
            overlay(rgb, anomaly_map, threshold=0.5, outline=0.5, score=1.0, anomalous=True), height, width
        ).astype(int)
        rows, columns = np.nonzero(np.abs(shown - 90).max(axis=-1) > 20)
        scale = placement(height, width).scale
        assert rows.mean() / scale == pytest.approx(row + 0.5, abs=0.6)
        assert columns.mean() / scale == pytest.approx(column + 0.5, abs=0.6)
        assert np.ptp(rows) < 16 * scale

    def test_the_outline_runs_round_what_reaches_the_threshold(self):
        anomaly_map = np.zeros((100, 100), np.float32)
        anomaly_map[20:40, 20:40], anomaly_map[60:80, 60:80] = 0.6, 0.5
        black = np.zeros((100, 100, 3), np.uint8)
        white = blend(black, anomaly_map, threshold=0.55, outline=0.55, anomalous=True).min(axis=-1) > 100
        assert white[19, 25:35].all()
        assert white[25:35, 40].all()
        assert not white[20:40, 20:40].any()
        assert not white[50:].any()

    def test_the_outline_goes_as_far_as_it_is_asked_to(self):
        anomaly_map = np.zeros((100, 100), np.float32)
        anomaly_map[20:40, 20:40], anomaly_map[28:32, 28:32], anomaly_map[60:80, 60:80] = 0.3, 0.9, 0.5
        white = (
            blend(np.zeros((100, 100, 3), np.uint8), anomaly_map, threshold=0.8, outline=0.2, anomalous=True).min(
                axis=-1
            )
            > 100
        )
        assert white[19, 25:35].all()
        assert not white[27, 25:35].any()
        assert not white[50:].any()

    @pytest.mark.parametrize("scale", [1, 2, 3])
    def test_what_led_to_the_verdict_is_outlined_even_if_resizing_lowers_it(self, scale):
        anomaly_map = np.zeros((100, 100), np.float32)
        anomaly_map[30, 30] = 0.9

        def outlined(anomalous):
            black = np.zeros((100, 100, 3), np.uint8)
            drawn = blend(black, anomaly_map, threshold=0.9, outline=0.9, anomalous=anomalous, scale=scale)
            return (drawn.min(axis=-1) > 200).any()

        assert outlined(True)
        anomaly_map[30, 30] = 0.89
        assert not outlined(False)

    def test_brightness_grows_with_the_map_on_a_black_part(self):
        anomaly_map = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))
        shown = blend(np.zeros((8, 64, 3), np.uint8), anomaly_map, threshold=2.0, outline=2.0, anomalous=False)[
            4
        ].astype(float)
        assert (np.diff(shown @ [0.299, 0.587, 0.114]) > -1).all()
        assert (shown[:16] == 0).all()

    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_the_lettering_fits_and_is_readable(self, height, width):
        def render(**kwargs):
            return overlay(np.zeros((height, width, 3), np.uint8), np.zeros((height, width)), **kwargs)

        image = render(
            threshold=0.25, outline=0.25, score=0.9, anomalous=True, defect_mm=12.3, title="tire / hole / 003"
        )
        place = placement(height, width)
        assert place.size >= 13
        assert place.size >= max(image.shape[:2]) / 80
        border = np.concatenate([image[:4].reshape(-1, 3), image[:, -4:].reshape(-1, 3), image[:, :4].reshape(-1, 3)])
        assert (border == PAPER).all(), "something was cut off"
        header = image[: place.top]
        assert ((header != PAPER).any(axis=-1)).sum() > 300
        normal = render(threshold=0.25, outline=0.25, score=0.1, anomalous=False)
        assert (normal[: place.top, :200] != header[:, :200]).any()

    @pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5, -0.1, 1e-9])
    def test_thresholds_at_and_past_the_ends_serve(self, threshold):
        anomaly_map = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
        image = overlay(
            some_rgb(20, 20), anomaly_map, threshold=threshold, outline=threshold, score=0.5, anomalous=True
        )
        assert image.dtype == np.uint8

    def test_the_legend_marks_the_threshold_at_its_height(self):
        rgb, calm = np.zeros((480, 480, 3), np.uint8), np.zeros((480, 480))
        place = placement(480, 480)
        low, high = (overlay(rgb, calm, threshold=t, outline=t, score=0, anomalous=False) for t in (0.4, 0.6))
        beside = slice(place.left + 480, None)
        rows = np.nonzero((low[:, beside] != high[:, beside]).any(axis=(1, 2)))[0] - place.top
        # Labels and colours differ only between the ends of the bar.
        assert rows.min() > 0
        assert rows.max() < 480
        bar = low[place.top : place.top + 480, place.left + 480 + place.size + 2].astype(int)
        marked = np.nonzero(bar.sum(axis=1) == sum(PAPER))[0]
        assert abs(marked.mean() - 0.6 * 479) <= 1


def lettered(text="threshold 0.5"):
    """The text in two weights, on a picture whose width is the sum of their measured widths."""
    picture = blank(40, letter_width(text, 16, BOLD) + letter_width(text, 16))
    letter(picture, text, 0, 18, 16, weight=BOLD)
    letter(picture, text, 0, 36, 16)
    return picture


class TestLettering:
    def test_threads_draw_what_one_alone_draws(self):
        alone = lettered().tobytes()
        with ThreadPoolExecutor(4) as pool:
            assert {made.tobytes() for made in pool.map(lambda _: lettered(), range(1000))} == {alone}

    def test_what_is_no_valid_text_is_drawn_as_question_marks(self):
        np.testing.assert_array_equal(lettered(os.fsdecode(b"caf\xe9 \xff")), lettered("caf? ?"))


class TestPictures:
    def test_near_is_brighter_than_far(self, disc):
        _, foreground = disc
        ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
        row = depth_picture(ramp, foreground)[32, 8:56].astype(float) @ [0.299, 0.587, 0.114]
        assert (np.diff(row) < 1).all()
        assert row[0] - row[-1] > 100

    def test_given_limits_make_depths_comparable(self, disc):
        depth, foreground = disc
        dented = depth + 0.2 * (np.hypot(*np.mgrid[-32:32, -32:32]) < 6)
        before, after = (depth_picture(d, foreground, (0.4, 0.8)) for d in (depth, dented))
        changed = (before != after).any(axis=-1)
        np.testing.assert_array_equal(changed & foreground, dented != depth)

    def test_relief_is_lit_from_the_upper_left(self, disc):
        _, foreground = disc
        y, x = np.mgrid[-32:32, -32:32] / 64
        bump = (0.5 - 0.3 * np.exp(-(x**2 + y**2) / 0.02)).astype(np.float32)
        relief = shaded_relief(bump, foreground).mean(axis=-1)
        assert relief[27, 27] > relief[32, 32] > relief[37, 37]
        dent = shaded_relief(1 - bump, foreground).mean(axis=-1)
        assert dent[27, 27] < dent[37, 37]

    @pytest.mark.parametrize(("surface", "up"), [(0.4, -1.0), (0.1, 1.0), (-0.4, 1.0)])
    def test_points_alone_are_lit_the_same_whichever_way_z_grows(self, surface, up):
        """A camera that looks along z, a height map, a camera that looks along -z; `up` is z of the table's normal."""
        y, x = np.mgrid[-32:32, -32:32] / 64
        z = surface + up * 0.02 * np.exp(-(x**2 + y**2) / 0.02)
        points = RawCapture(None, np.stack([x, y, z], axis=-1).astype(np.float32))
        relief = picture_of(points, (0.0, 0.0, up, -up * surface)).mean(axis=-1)
        assert relief[27, 27] > relief[32, 32] > relief[37, 37]

    def test_the_step_to_the_background_leaves_no_rim(self, disc):
        relief = shaded_relief(*disc)
        assert len(np.unique(relief[disc[1]], axis=0)) == 1

    def test_signs_have_the_colours_of_the_paper(self, disc):
        _, foreground = disc
        mask = np.zeros((64, 64), np.int8)
        mask[30, 30], mask[40, 40] = -1, 1
        picture = ternary_picture(mask, foreground).astype(int)
        assert picture[30, 30, 2] > picture[30, 30, 0] + 80
        assert picture[40, 40, 0] > picture[40, 40, 2] + 80
        assert (picture[35, 35] == 255).all()

    def test_signed_changes_are_symmetric_about_white(self, disc):
        _, foreground = disc
        change = np.zeros((64, 64), np.float32)
        change[20:24, 30], change[40:44, 30] = [-1, -0.5, -0.25, 0], [1, 0.5, 0.25, 0]
        picture = signed_picture(change, foreground).astype(int)
        luminance = picture @ [0.299, 0.587, 0.114]
        assert (np.diff(luminance[20:24, 30]) > 0).all()
        assert (np.diff(luminance[40:44, 30]) > 0).all()
        doubled = signed_picture(change, foreground, limit=2.0)
        np.testing.assert_array_equal(doubled[20, 30], picture[21, 30])

    def test_masks_cover_just_their_pixels(self, disc):
        _, foreground = disc
        mask = np.zeros((64, 64), bool)
        mask[28:36, 20:30] = True
        np.testing.assert_array_equal((mask_picture(mask, foreground) == DEFECT).all(axis=-1), mask)

    def test_outside_the_part_is_neutral_and_an_empty_part_no_error(self, disc):
        depth, foreground = disc
        nothing = np.zeros_like(foreground)
        for part in (foreground, nothing):
            for picture in (
                depth_picture(depth, part),
                shaded_relief(depth, part),
                mask_picture(nothing, part),
                ternary_picture(np.zeros((64, 64)), part),
                signed_picture(np.zeros((64, 64)), part),
            ):
                assert picture.shape == (64, 64, 3)
                assert picture.dtype == np.uint8
                assert (picture[~part] == OUTSIDE).all()


class TestBrightness:
    def test_dark_parts_are_brought_to_light_by_one_factor_whatever_lies_around_them(self, disc):
        part = np.stack([disc[1]] * 2)
        images = np.full((2, 64, 64, 3), 255, np.uint8)
        images[0, disc[1]], images[1, disc[1]] = (100, 20, 10), (50, 10, 5)
        light = Brightening.of(images, part)
        assert light.factor == 2.3
        np.testing.assert_array_equal(light.shown(images[0])[32, 32], (230, 46, 23))
        np.testing.assert_array_equal(light.shown(images[1])[32, 32], (115, 23, 12))
        assert (light.shown(images[0])[0, 0] == 255).all()
        assert "2.3 times" in light.notes[0]

    @pytest.mark.parametrize("lightness", [230, 250, 255])
    def test_bright_parts_stay_as_they_were_taken(self, disc, lightness):
        image = np.full((1, 64, 64, 3), lightness, np.uint8)
        light = Brightening.of(image, disc[1][None])
        assert light.factor == 1
        assert light.notes == []
        np.testing.assert_array_equal(light.shown(image), image)

    def test_a_single_glint_does_not_keep_a_part_dark(self, disc):
        image = np.full((1, 64, 64, 3), 100, np.uint8)
        image[0, 30:33, 30:33] = 255
        assert Brightening.of(image, disc[1][None]).factor == 2.3

    @pytest.mark.parametrize(("lightness", "factor"), [(0, 1), (1, 3)])
    def test_nothing_is_made_of_noise_or_of_no_photo(self, disc, lightness, factor):
        image = np.full((1, 64, 64, 3), lightness, np.uint8)
        assert Brightening.of(image, disc[1][None]).factor == factor
        assert Brightening.of(image, np.zeros((1, 64, 64), bool)).factor == 1


def tile(colour, height=260, width=320):
    return np.full((height, width, 3), colour, np.uint8)


def colour_box(sheet, colour):
    rows, columns = np.nonzero((sheet == colour).all(axis=-1))
    assert len(rows), f"{colour} is not in the sheet"
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "covered by something"
    return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


class TestContactSheet:
    colours = (((9, 0, 0), (0, 9, 0), (0, 0, 9)), ((9, 9, 0), (0, 9, 9), (9, 0, 9)))

    def test_tiles_stand_in_a_grid_and_nothing_covers_them(self):
        rows = [[Tile(tile(colour)) for colour in row] for row in self.colours]
        sheet = contact_sheet(rows, ["one", "two", "three"], ["a", "b"], "Title", ["a note " * 60])
        boxes = np.array([[colour_box(sheet, colour) for colour in row] for row in self.colours])
        assert (boxes[..., 2:] == (260, 320)).all()
        assert (np.diff(boxes[..., 0], axis=0) > 260).all()
        assert (np.diff(boxes[..., 0], axis=1) == 0).all()
        assert (np.diff(boxes[..., 1], axis=1) > 320).all()
        assert (np.diff(boxes[..., 1], axis=0) == 0).all()

    def test_long_labels_make_room_instead_of_running_into_tiles(self):
        rows = [[Tile(tile(colour), "caption") for colour in row] for row in self.colours]
        words = "a rather long label of several words"
        sheet = contact_sheet(rows, [words] * 3, [words] * 2, words * 5, [words * 5])
        for row in self.colours:
            for colour in row:
                colour_box(sheet, colour)
        assert (sheet[:, -3:] == PAPER).all()

    def test_captions_stay_below_their_own_tile(self):
        caption = "a caption that is a good deal wider than its own tile"
        sheet = contact_sheet([[Tile(tile((9, 0, 0)), caption), Tile(tile((0, 9, 0)))]])
        (top, left, height, width), neighbour = colour_box(sheet, (9, 0, 0)), colour_box(sheet, (0, 9, 0))
        inked = (sheet[top + height :] != PAPER).any(axis=-1)
        assert letter_width(caption, 20) > width
        assert inked[:, left : left + width].sum() > 50
        assert not inked[:, left + width : neighbour[1] + neighbour[3]].any()
        assert not inked[-3:].any()

    @pytest.mark.parametrize("where", ["column_titles", "row_titles", "title", "notes"])
    def test_every_label_is_written(self, where):
        rows = [[Tile(tile((9, 0, 0)))]]
        labelled = contact_sheet(rows, **{where: "Label" if where == "title" else ["Label"]})
        inked = (labelled != PAPER).any(axis=-1) & (labelled != (9, 0, 0)).any(axis=-1)
        assert inked.sum() > 50

    def test_labels_do_not_run_into_each_other(self):
        rows = [[Tile(tile((9, 0, 0)))]]
        words = "a rather long label of several words"
        labels = {"column_titles": [words], "row_titles": [words], "title": words, "notes": [words]}

        def ink(**kwargs):
            sheet = contact_sheet(rows, **kwargs)
            return int(((sheet != PAPER).any(axis=-1) & (sheet != (9, 0, 0)).any(axis=-1)).sum())

        assert ink(**labels) == sum(ink(**{where: label}) for where, label in labels.items())

    def test_tiny_and_unequal_tiles_and_ragged_rows(self):
        rows = [
            [Tile(tile((9, 0, 0), 20, 30)), Tile(tile((0, 9, 0), 10, 10))],
            [Tile(tile((0, 0, 9), 16, 16))],
        ]
        sheet = contact_sheet(rows)
        assert colour_box(sheet, (9, 0, 0))[2:] == (180, 270)
        assert colour_box(sheet, (0, 9, 0))[2:] == (90, 90)
        assert colour_box(sheet, (0, 0, 9))[2:] == (144, 144)


def raise_disk_full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestWritePng:
    def test_comes_back_as_written(self, tmp_path):
        picture = some_rgb(30, 40)
        write_png(tmp_path / "picture.png", picture)
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / "picture.png"))[..., ::-1], picture)
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

    @pytest.mark.parametrize("method", ["write_bytes", "replace"])
    def test_a_full_disk_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, method):
        target = tmp_path / "picture.png"
        target.write_bytes(b"old")
        monkeypatch.setattr(*((Path, method) if method == "write_bytes" else (os, method)), raise_disk_full)
        with pytest.raises(DataError, match=r"picture\.png: cannot be written.*no space left"):
            write_png(target, some_rgb(8, 8))
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
        assert target.read_bytes() == b"old"

    @pytest.mark.parametrize("name", ["absent/picture.png", "file/picture.png", "folder"])
    def test_targets_that_cannot_be_written_are_one_line(self, tmp_path, name):
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(DataError, match="cannot be written") as error:
            write_png(tmp_path / name, some_rgb(8, 8))
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)
        assert sorted([path.name for path in tmp_path.iterdir()]) == ["file", "folder"]


class TestReplacing:
    def test_a_picture_of_das3d_gives_way_and_so_does_what_was_written_with_it(self, tmp_path):
        picture, beside = tmp_path / "a.png", tmp_path / "a.npy"
        check_replaceable("--out", picture, beside)
        write_png(picture, some_rgb(8, 8))
        beside.touch()
        check_replaceable("--out", picture, beside)

    @pytest.mark.parametrize("lies_there", ["a.png", "a.npy"])
    @pytest.mark.parametrize("content", [b"", b"anything", cv2.imencode(".png", some_rgb(8, 8))[1].tobytes()])
    def test_whatever_else_lies_there_is_kept(self, tmp_path, lies_there, content):
        (tmp_path / lies_there).write_bytes(content)
        with pytest.raises(UsageError, match=rf"^--out here: would replace .*/{lies_there}, .*; choose another place$"):
            check_replaceable("--out here", tmp_path / "a.png", tmp_path / "a.npy")

    def test_a_folder_and_a_pipe_are_kept(self, tmp_path):
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        for name in ("folder", "pipe"):
            with pytest.raises(UsageError, match=name):
                check_replaceable("--out", tmp_path / name)


def text_of(table):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(table)
    return [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines() if "│" in line
    ]


class TestTables:
    def test_preprocessing_tells_shares_and_angles(self):
        rows = [
            Row("tire", "test", "hole", 7, 3, 4, 0.1234, 4.25, 9.0),
            Row("foam", "test", "good", 2, 0, 2, 0.0, 1.0, 1.5),
        ]
        failures = [Failure("foam", Path("a.tiff"), "damaged"), Failure("rope", Path("b.tiff"), "damaged")]
        assert text_of(preprocess_table(Summary(rows, failures))) == [
            ["foam", "test", "good", "2", "0", "0.0%", "1.0°", "1.5°"],
            ["foam", "", "failed", "1", "", "", "", ""],
            ["rope", "", "failed", "1", "", "", "", ""],
            ["tire", "test", "hole", "7", "3", "12.3%", "4.2°", "9.0°"],
        ]
