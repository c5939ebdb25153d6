"""The report page: every part and figure of the evaluation is there, readable anywhere; nothing loads from outside."""

from __future__ import annotations

import base64
import errno
import html
import itertools
import json
import math
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from das3d_cli.configure import resolve
from das3d_cli.data.cache import Split
from das3d_cli.data.capture import Form
from das3d_cli.detector import Detector
from das3d_cli.errors import DataError, UsageError
from das3d_cli.evaluation import Evaluation, Outcome
from das3d_cli.metrics import evaluate
from das3d_cli.model import Das3d
from das3d_cli.report import gallery
from das3d_cli.report.charts import _BIN, _BOTTOM, _LEFT, _RIGHT, _TOP, rising_curve, score_histogram, thinned
from das3d_cli.report.markup import percent
from das3d_cli.report.page import write_page
from das3d_cli.report.tables import run_tables
from das3d_cli.scoring import Scored

THRESHOLD = 0.5
NASTY = "cut <b>&\"'</b>", 'x"><img src=x onerror=alert(1)>' + 60 * "0"
PARTS = [
    ("good", "000", 0.1), ("good", "001", 0.7), ("good", "002", 0.9), ("good", "003", 0.2),
    ("hole", "000", 0.3), ("hole", "001", 0.05), ("hole", "002", 0.8), (*NASTY, THRESHOLD),
]  # fmt: skip
WORST_FIRST = ["hole 001", "hole 000", "good 002", "good 001", " ".join(NASTY), "hole 002", "good 003", "good 000"]
VOID = {"meta", "img", "link", "br", "hr"}


@pytest.fixture(scope="module")
def detector() -> Detector:
    settings = resolve(
        {"model.size": 32, "model.reconstruction_width": 4, "model.discriminator_width": 4}, environment={}
    )
    content = {
        "category": "tire", "step": 1, "threshold": THRESHOLD, "depth_range_m": None, "window_m": None,
        "seen": [], "usual": {},
        "form": asdict(Form(plane_distance_m=0.005)),
        "network": Das3d(**settings.model.model_dump()).state_dict(),
    }  # fmt: skip
    return Detector(content, settings, torch.device("cpu"))


def evaluation_of(detector: Detector, parts: list[tuple[str, str, float]], size: int = 32) -> Evaluation:
    """Round grainy parts; each heat map peaks at the part's score, where defective parts have their defect."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    count, labels, scores = len(parts), [label for label, _, _ in parts], np.array([score for _, _, score in parts])
    foreground = np.repeat((np.hypot(x, y) < 0.8)[None], count, axis=0)
    spot = np.hypot(x - 0.3, y) < 0.2
    rgb = np.clip(110 + 60 * x[..., None] + random.normal(0, 6, (count, size, size, 3)), 0, 255)
    truth = np.stack([spot & (label != "good") for label in labels])
    maps = (np.exp(-((x - 0.3) ** 2 + y**2) / 0.02) * scores[:, None, None]).astype(np.float32)
    maps *= (scores / maps.max(axis=(1, 2)))[:, None, None]
    split = Split(
        rgb=np.where(foreground[..., None], rgb, 0).astype(np.uint8),
        depth=np.where(foreground, 0.3 + 0.2 * (x**2 + y**2), 0.8).astype(np.float32),
        foreground=foreground,
        valid=foreground,
        ground_truth=truth,
        parallax=np.zeros((count, 2), np.float32),
        labels=labels,
        names=[name for _, name, _ in parts],
    )
    metrics = evaluate(labels, scores, maps, split.ground_truth)
    return Evaluation(detector, split, Scored(maps, scores), metrics)


@pytest.fixture(scope="module")
def evaluation(detector: Detector) -> Evaluation:
    return evaluation_of(detector, PARTS)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, evaluation, "runs/tire-001")
    return path


class Tree(HTMLParser):
    """A page as a list of its elements, (tag, attributes, text); fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self._open.append((tag, self.elements[-1][2]))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag

    def handle_data(self, data: str) -> None:
        for _, texts in self._open:
            texts.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attributes, "".join(texts)) for name, attributes, texts in self.elements if name == tag]

    def texts(self, tag: str, kind: str | None = None) -> list[str]:
        return [text for attributes, text in self.all(tag) if kind in (None, attributes.get("class"))]


@pytest.fixture(scope="module")
def tree(page: Path) -> Tree:
    return Tree(page.read_text(encoding="utf-8"))


class TestContent:
    def test_every_part_is_there_and_the_worst_mistakes_come_first(self, tree: Tree):
        assert tree.texts("h4") == WORST_FIRST
        assert tree.texts("h3")[-4:] == ["Missed 2", "Rejected 2", "Found 2", "Passed 2"]

    def test_cards_tell_score_and_verdict(self, tree: Tree):
        cards = tree.texts("article", "card")
        scores = {f"{label} {name}": score for label, name, score in PARTS}
        verdicts = ["missed"] * 2 + ["rejected"] * 2 + ["found"] * 2 + ["passed"] * 2
        for card, name, verdict in zip(cards, WORST_FIRST, verdicts, strict=True):
            assert card.startswith(name) and f" {verdict}score {scores[name]:.3f}" in card
            assert ("no place reaches" in card) == (verdict in ("missed", "passed"))
            told = re.search(r"Ground truth: a defect of ([\d.]+)%, (\d+)% of it outlined", card)
            assert bool(told) == (not name.startswith("good"))
            if told:
                assert float(told[1]) == pytest.approx(100 * (0.2 / 0.8) ** 2, rel=0.2)
                assert (int(told[2]) > 0) == (verdict == "found")

    def test_the_headline_counts(self, tree: Tree):
        assert tree.texts("h1") == ["2 of 4 defective parts found, 2 of 4 good parts rejected"]
        tiles = [text for attributes, text in tree.all("a") if attributes["href"] != "#method"]
        assert tiles == [
            "2defective parts✓ found",
            "2defective parts✕ missed",
            "2good parts✓ passed",
            "2good parts✕ rejected",
        ]

    def test_verdicts_by_kind(self, page: Path):
        rows = table_rows(page, "verdicts")
        assert rows == [
            ["Kind of part", "Parts", "Rejected", "Passed"],
            [NASTY[0], "1", "1", "0"],
            ["hole", "3", "1", "✕ 2"],
            ["good", "4", "✕ 2", "2"],
        ]

    def test_figures_are_those_of_the_evaluation(self, page: Path, evaluation: Evaluation):
        _, *rows = table_rows(page, "dense")
        names = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro_30")
        assert rows == [
            [kind, *(f"{getattr(metrics, name):.3f}" for name in names)] for kind, metrics in evaluation.metrics.items()
        ]
        explained = re.findall(r"<dd><strong>([\d.]+)</strong>", page.read_text(encoding="utf-8"))
        assert explained == rows[0][1:]

    def test_every_figure_is_there_with_its_interval(self, tree: Tree, evaluation: Evaluation):
        cells = Counter(tree.texts("td"))
        for kind, metrics in evaluation.metrics.items():
            for figure, (low, high) in evaluation.intervals[kind].items():
                value = f"{getattr(metrics, figure):.3f}"
                cells[value if math.isnan(low) else f"{value}{low:.3f}–{high:.3f}"] -= 1
        assert min(cells.values()) >= 0
        assert any("–" in cell for cell in cells)

    def test_says_how_far_the_counts_reach(self, tree: Tree):
        said = " ".join(tree.texts("p"))
        assert "finds 7% to 93% of such defective parts and rejects 7% to 93% of such good parts" in said

    def test_says_how_it_was_measured(self, tree: Tree, detector: Detector):
        text = " ".join(tree.texts("section"))
        for fact in ("runs/tire-001", "das3d", "0.500", "95% of good parts", "8: 4 good, 4 defective of 2 kinds"):
            assert fact in text
        shown = {line for line in tree.texts("th") if line.startswith("train.")}
        assert shown == {f"train.{name}" for name in type(detector.settings.train).model_fields}

    @pytest.mark.parametrize(("labels", "said"), [
        (["good", "good"], "1 of 2 good parts rejected"), (["hole", "hole"], "1 of 2 defective parts found"),
    ])  # fmt: skip
    def test_one_class_alone_has_no_curves_and_no_figures(self, detector: Detector, tmp_path: Path, labels, said):
        alone = evaluation_of(detector, [(label, str(i), 0.2 + 0.5 * i) for i, label in enumerate(labels)])
        assert math.isnan(alone.metrics["all"].image_auroc)
        write_page(tmp_path / "report.html", alone, "run")
        tree = Tree((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert tree.texts("h1") == [said]
        assert f"{'rejects' if labels[0] == 'good' else 'finds'} 1% to 99% of such" in " ".join(tree.texts("p"))
        assert len(tree.all("svg")) == 1 + (labels[0] == "hole")
        assert "-" in tree.texts("td")


class TestSeveralKindsOnAPart:
    @pytest.fixture
    def several(self, detector: Detector) -> Evaluation:
        parts = [("good", "0", 0.1), ("good", "1", 0.7), ("hole", "2", 0.3), ("dent+hole", "3", 0.2),
                 ("dent+hole", "4", 0.8), ("x+y", "5", 0.9)]  # fmt: skip
        made = evaluation_of(detector, parts)
        left = np.arange(32) < 20
        by_type = {i: {"dent": truth & left, "hole": truth & ~left}
                   for i, truth in enumerate(made.split.ground_truth) if parts[i][0] == "dent+hole"}  # fmt: skip
        split, scored = replace(made.split, by_type=by_type), made.scored
        metrics = evaluate(split.labels, scored.scores, scored.maps, split.ground_truth, by_type)
        return Evaluation(detector, split, scored, metrics)

    def test_it_counts_in_the_row_of_each_and_is_shown_once(self, several: Evaluation, tmp_path: Path):
        write_page(tmp_path / "page.html", several, "run")
        assert table_rows(tmp_path / "page.html", "verdicts")[1:] == [
            ["dent", "2", "1", "✕ 1"], ["hole", "3", "1", "✕ 2"], ["x+y", "1", "1", "0"], ["good", "2", "✕ 1", "1"],
        ]  # fmt: skip
        assert [row[0] for row in table_rows(tmp_path / "page.html", "dense")] == ["Kind", "all", "dent", "hole", "x+y"]
        tree = Tree((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert tree.texts("h1") == ["2 of 4 defective parts found, 1 of 2 good parts rejected"]
        assert tree.texts("h4") == ["dent+hole 3", "hole 2", "good 1", "dent+hole 4", "x+y 5", "good 0"]
        text = " ".join(tree.texts("section"))
        assert "4 defective of 3 kinds" in text and "counts in the row of each" in text and "are left out" in text

    def test_missed_parts_are_listed_by_type_and_counted_once(self, several: Evaluation):
        outcome = Outcome.of(Path("run"), several)
        assert outcome.missed == {"dent": ["3"], "hole": ["2", "3"], "x+y": []}
        assert outcome.missed_parts == 2
        assert set(outcome.intervals) == {"all", *outcome.missed}
        assert all("several types" in table.note for table in run_tables(outcome))

    def test_without_such_parts_nothing_is_said_of_them(self, several: Evaluation, page: Path):
        assert "several kinds" not in page.read_text(encoding="utf-8")
        plain = replace(several, split=replace(several.split, by_type={}))
        assert [verdict["types"] for verdict in plain.verdicts()][2:4] == [["hole"], ["dent+hole"]]

    def test_the_overview_shows_the_highest_scores_of_each_kind_once(self, several: Evaluation, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch):  # fmt: skip
        shown: list[list[int]] = []
        monkeypatch.setattr(gallery, "_sheet", lambda _, indices, *__: shown.append(indices))
        monkeypatch.setattr(gallery, "write_png", lambda *_: None)
        gallery.write_gallery(tmp_path, several, lambda: None)
        assert shown[-1] == [4, 3, 1, 0, 2, 5]
        assert len(shown) == 7


class TestGallery:
    def test_takes_no_place_but_that_of_an_earlier_one(self, detector: Detector, tmp_path: Path):
        evaluation = evaluation_of(detector, PARTS[:-1])
        parts = [(label, name) for label, name, _ in PARTS[:-1]]
        gallery.check_gallery(tmp_path / "shown", parts)
        gallery.write_gallery(tmp_path / "shown", evaluation, lambda: None)
        gallery.check_gallery(tmp_path / "shown", parts)

    def test_parts_of_an_earlier_one_go_and_all_else_stays(self, detector: Detector, tmp_path: Path):
        gallery.write_gallery(tmp_path, evaluation_of(detector, PARTS[:-1]), lambda: None)
        label, name, _ = PARTS[0]
        own, lone = tmp_path / label / "own.npy", tmp_path / label / "lone.png"
        own.touch(), own.with_suffix(".png").touch()
        shutil.copy(tmp_path / label / f"{name}.png", tmp_path / label / "raw.png")  # a heat map beside its points
        np.save(tmp_path / label / "raw.npy", np.full((32, 32, 3), 0.5, np.float32))
        shutil.copy(tmp_path / label / f"{name}.png", lone)  # a heat map without a raw map
        gallery.write_gallery(tmp_path, evaluation_of(detector, PARTS[1:-1]), lambda: None)
        left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
        shown = {f"{label}/{name}{kind}" for label, name, _ in PARTS[1:-1] for kind in (".png", ".npy")}
        assert left == {
            "overview.png",
            *shown,
            *(f"{label}/{other}" for other in ("own.npy", "own.png", "lone.png", "raw.npy", "raw.png")),
        }

    @pytest.mark.parametrize("taken", ["hole/001.png", "hole/001.npy", "overview.png", "evaluation.json"])
    def test_spares_what_lies_there(self, tmp_path: Path, taken: str):
        (tmp_path / "hole").mkdir()
        (tmp_path / taken).touch()
        with pytest.raises(UsageError, match=f"^--pictures {tmp_path}: would replace {tmp_path}/{taken}, "):
            gallery.check_gallery(tmp_path, [("good", "000"), ("hole", "001")])


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.004, "under 1%"), (0.006, "1%"), (0.994, "99%"), (0.996, "over 99%"), (1, "100%")],
)
def test_all_and_none_are_said_of_nothing_less(share: float, text: str):
    assert percent(share) == text


def table_rows(page: Path, kind: str) -> list[list[str]]:
    text = page.read_text(encoding="utf-8")
    found = re.search(rf'<table class="{kind}">.*?</table>', text)
    assert found
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", found[0])
    ]


class TestMarkup:
    def test_every_picture_is_in_the_page_and_described(self, tree: Tree):
        images = [attributes for attributes, _ in tree.all("img")]
        assert len(images) == 4 * len(PARTS) + 1
        for attributes in images:
            kind, data = attributes["src"].split(",", 1)
            assert kind == "data:image/webp;base64" and len(attributes["alt"]) > 10
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape[:2] == (int(attributes["height"]), int(attributes["width"]))
        assert len({attributes["alt"] for attributes in images}) == len(images)

    def test_pictures_show_what_they_say(self, tree: Tree):
        def picture(alt: str):
            (source,) = (a["src"] for a, _ in tree.all("img") if a["alt"].startswith(alt))
            return cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)

        photo, hot = picture("Photo of part hole 002"), picture("Heat map of part hole 002")
        rows, columns = np.nonzero(np.abs(photo.astype(int) - hot).max(axis=2) > 60)
        assert [columns.mean() / 256, rows.mean() / 256] == pytest.approx([0.65, 0.5], abs=0.03)
        for name, area in (("hole 002", math.pi * 0.1**2), ("good 001", 0)):
            truth = picture(f"Ground truth of part {name}").astype(int)
            assert (truth[..., 2] - truth[..., 0] > 80).mean() == pytest.approx(area, rel=0.15)
        near, far = (picture("Depth of part hole 002")[128, column].mean() for column in (128, 40))
        assert near > far + 20

    def test_nothing_leads_outside(self, page: Path, tree: Tree):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe|<object", text)
        for _, attributes, _ in tree.elements:
            assert all(
                attributes.get(key, "#")[:5] in ("#", "data:") or attributes[key][0] == "#" for key in ("src", "href")
            )
            assert not [key for key in attributes if key.startswith("on")]
        (policy,) = (a["content"] for a, _ in tree.all("meta") if "http-equiv" in a)
        assert policy.startswith("default-src 'none'")

    def test_names_are_text_whatever_they_hold(self, tree: Tree):
        assert " ".join(NASTY) in tree.texts("h4")
        assert not tree.all("b")
        assert NASTY[0] in tree.texts("th")

    def test_a_name_that_is_no_text_costs_no_report(self, detector: Detector, tmp_path: Path):
        write_page(tmp_path / "report.html", evaluation_of(detector, [("good", os.fsdecode(b"\xff"), 0.1)]), "run")
        assert Tree((tmp_path / "report.html").read_text(encoding="utf-8")).texts("h4") == ["good ?"]

    def test_headings_make_an_outline(self, tree: Tree):
        levels = [int(name[1]) for name, _, _ in tree.elements if re.fullmatch(r"h[1-6]", name)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert max(np.diff(levels)) == 1

    def test_helps_those_who_listen(self, tree: Tree):
        (root,) = tree.all("html")
        assert root[0]["lang"] == "en" and len(tree.all("main")) == 1
        charts = [attributes for attributes, _ in tree.all("svg")]
        assert len(charts) == len(tree.all("desc")) == 3
        for attributes in charts:
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 30
        assert "Good parts: 2 below it, 2 at or above it. Defective parts: 2 below it, 2 at" in charts[0]["aria-label"]
        assert "The threshold in use finds 50% of the defective parts and rejects 50% of the" in charts[1]["aria-label"]
        assert re.search(r"The threshold in use outlines \d+% of a defect", charts[2]["aria-label"])
        assert all(attributes.get("scope") in ("row", "col") for attributes, _ in tree.all("th"))

    def test_every_table_is_named_and_what_is_folded_opens_from_the_keyboard(self, tree: Tree):
        names = [name for name, _, _ in tree.elements if name in ("h2", "h3", "summary", "caption", "table")]
        before = [
            names[i + 1] if names[i + 1 : i + 2] == ["caption"] else names[i - 1]
            for i, name in enumerate(names)
            if name == "table"
        ]
        assert len(before) == len(tree.all("table")) and set(before) <= {"h2", "h3", "summary", "caption"}
        folded = [after for (name, _, _), (after, _, _) in itertools.pairwise(tree.elements) if name == "details"]
        assert folded == ["summary", "summary"]
        assert not [attributes for _, attributes, _ in tree.elements if "tabindex" in attributes]

    def test_wrong_verdicts_are_told_without_colour(self, tree: Tree):
        wrong = [text for _, attributes, texts in tree.elements
                 if "wrong" in attributes.get("class", "").split() for text in ["".join(texts)]]  # fmt: skip
        assert wrong and all(text.startswith("✕ ") for text in wrong)

    def test_links_lead_somewhere(self, tree: Tree):
        ids = Counter(attributes["id"] for _, attributes, _ in tree.elements if "id" in attributes)
        assert max(ids.values()) == 1
        assert {attributes["href"][1:] for attributes, _ in tree.all("a")} <= set(ids)

    @pytest.mark.parametrize("light", [True, False], ids=["light", "dark"])
    def test_letters_stand_out_from_their_ground(self, tree: Tree, light: bool):
        style = tree.texts("style")[0]
        colours = dict(re.findall(r"--(\w+):\s*([^;]+);", style[: style.index("@media")]))
        if not light:
            dark = style[style.index("prefers-color-scheme: dark") : style.index("* { box-sizing")]
            colours |= dict(re.findall(r"--(\w+):\s*([^;]+);", dark))
        for ink, ground in [("ink", "paper"), ("ink", "card"), ("quiet", "paper"), ("quiet", "card"), ("right", "card"),
                            ("wrong", "paper"), ("wrong", "card"), ("paper", "wrong")]:  # fmt: skip
            a, b = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (ink, ground)


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour, as WCAG defines it."""
    digits = colour.lstrip("#")
    if colour.startswith("#"):
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        channels = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    else:
        channels = np.array([int(value) for value in re.findall(r"\d+", colour)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


class TestFile:
    def test_equal_evaluations_give_equal_bytes(self, evaluation: Evaluation, page: Path, tmp_path: Path):
        write_page(tmp_path / "again.html", evaluation, "runs/tire-001")
        assert (tmp_path / "again.html").read_bytes() == page.read_bytes()

    def test_sixty_parts_stay_small(self, detector: Detector, tmp_path: Path):
        parts = [("hole" if i % 2 else "good", f"{i:03d}", (i + 1) / 11) for i in range(10)]
        write_page(tmp_path / "report.html", evaluation_of(detector, parts, size=256), "run")
        assert 6 * (tmp_path / "report.html").stat().st_size < 5_000_000

    @pytest.mark.parametrize("name", ["absent/report.html", "file/report.html", "folder"])
    def test_targets_that_cannot_be_written_are_one_line(self, evaluation: Evaluation, tmp_path: Path, name: str):
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(DataError, match="cannot be written") as error:
            write_page(tmp_path / name, evaluation, "run")
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]

    def test_a_full_disk_leaves_the_old_report(self, evaluation: Evaluation, tmp_path: Path, monkeypatch):
        def raise_disk_full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        (tmp_path / "report.html").write_bytes(b"old")
        monkeypatch.setattr(Path, "write_bytes", raise_disk_full)
        with pytest.raises(DataError, match="no space left"):
            write_page(tmp_path / "report.html", evaluation, "run")
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("report.html", b"old")]


def boxes(chart, kind: str) -> list[dict[str, float]]:
    """The chart's bars of this kind, without the box in the legend."""
    found = [box for box in chart.iter("rect") if box.get("class") == kind and float(box.get("y")) > _TOP - 20]
    return [{key: float(box.get(key)) for key in ("x", "y", "width", "height")} for box in found]


class TestCharts:
    @pytest.mark.parametrize("threshold", [0.5, 0.013, 0.987, 0.0, 1.0, 1.1])
    def test_bars_right_of_the_threshold_hold_just_what_is_rejected(self, threshold: float):
        random = np.random.default_rng(0)
        good, defective = random.beta(2, 5, 40), np.append(random.beta(5, 2, 30), [min(threshold, 1.0)] * 3)
        chart = score_histogram(good, defective, threshold)
        (line,) = (float(line.get("x1")) for line in chart.iter("line") if line.get("class") == "threshold")
        bars = {kind: boxes(chart, kind) for kind in ("good", "defective")}
        total = sum(bar["height"] for found in bars.values() for bar in found)
        part = total / (len(good) + len(defective))
        for kind, scores in (("good", good), ("defective", defective)):
            right = sum(bar["height"] for bar in bars[kind] if bar["x"] > line)
            assert right / part == pytest.approx((scores >= threshold).sum(), abs=0.3), kind
            assert all(bar["y"] >= _TOP - 0.1 and bar["y"] + bar["height"] <= _BOTTOM + 0.1 for bar in bars[kind])
            assert all(bar["width"] <= (_RIGHT - _LEFT) * _BIN for bar in bars[kind])

    @pytest.mark.parametrize(("good", "defective"), [([], [0.4]), ([0.4], []), ([0.4] * 5000, [1.0])])
    def test_any_number_of_parts_can_be_drawn(self, good, defective):
        chart = score_histogram(good, defective, 0.5)
        assert [len(boxes(chart, kind)) for kind in ("good", "defective")] == [bool(good), bool(defective)]
        assert (
            2
            <= sum(1 for text in chart.iter("text") if (text.text or "").isdigit() and text.get("text-anchor") == "end")
            <= 8
        )

    def test_thinning_keeps_the_shape(self):
        random = np.random.default_rng(0)
        points = np.sort(random.random((300_000, 2)) ** (3, 0.3), axis=0) * (260, 180)
        kept = thinned(points)
        assert len(kept) < 500
        ends = kept.astype(float)
        some, start, step = points[::150, None], ends[:-1], np.diff(ends, axis=0)
        along = np.clip(((some - start) * step).sum(axis=2) / (step**2).sum(axis=1), 0, 1)
        distance = np.linalg.norm(some - start - along[..., None] * step, axis=2).min(axis=1)
        assert distance.max() < 0.15
        np.testing.assert_allclose(kept[[0, -1]], points[[0, -1]], atol=1e-3)

    @pytest.mark.parametrize(("limit", "end"), [(1.0, 1.0), (0.3, 0.4)])
    def test_the_curve_runs_through_its_points_and_the_area_ends_at_the_limit(self, limit: float, end: float):
        random = np.random.default_rng(1)
        x, y = np.sort(random.random((2, 50)), axis=1)
        x, y = np.concatenate([[0], x, [1]]), np.concatenate([[0], y, [1]])
        place = (0.2, float(np.interp(0.2, x, y)))
        chart = drawn_curve(x, y, limit=limit, place=place)
        for kind, until in (("curve", end), ("area", limit)):
            rates, corners = corners_of(chart, kind, end)
            assert rates[[0, -1]] == pytest.approx([0, until], abs=1e-3)
            inside = np.linspace(0, until, 200)
            heights = np.interp(inside, rates, corners)
            assert np.abs(heights - np.interp(inside, x, y)).max() < 0.01
        (ring,) = chart.iter("circle")
        assert (float(ring.get("cx")) - _LEFT) / (_RIGHT - _LEFT) * end == pytest.approx(place[0], abs=1e-3)
        assert (_BOTTOM - float(ring.get("cy"))) / (_BOTTOM - _TOP) == pytest.approx(place[1], abs=1e-3)
        limits = [float(line.get("x1")) for line in chart.iter("line") if line.get("class") == "limit"]
        assert limits == ([] if limit == 1 else [pytest.approx(_LEFT + 0.75 * (_RIGHT - _LEFT), abs=0.1)])

    @pytest.mark.parametrize(("limit", "end"), [(1.0, 1.0), (0.3, 0.4)])
    @pytest.mark.parametrize("step", [0.0, 0.2, 0.3, 0.35, 1.0])
    def test_steps_stay_upright_wherever_they_are(self, step: float, limit: float, end: float):
        x, y = [0, 0, step, step, 1], [0, 0.4, 0.5, 0.9, 1]
        chart = drawn_curve(x, y, limit=limit, place=(0.0, 0.0))
        for kind, until in (("curve", end), ("area", limit)):
            rates, heights = corners_of(chart, kind, end)
            between = (np.arange(10_000) + 0.5) / 10_000 * until
            assert np.trapezoid(heights, rates) == pytest.approx(until * np.interp(between, x, y).mean(), abs=1e-3)
            assert heights[-1] == pytest.approx(np.interp(until, x, y), abs=1e-3)

    @pytest.mark.parametrize("place", [(0.0, 0.0), (0.0, 1.0), (0.39, 1.0), (0.39, 0.0), (0.02, 0.15)])
    def test_the_letters_at_a_place_stay_in_the_frame(self, place: tuple[float, float]):
        chart = drawn_curve([0, 1], [0, 1], limit=0.3, place=place)
        (text,) = (text for text in chart.iter("text") if text.text == "here")
        assert _TOP < float(text.get("y")) < _BOTTOM
        left = float(text.get("x")) - (60 if text.get("text-anchor") == "end" else 0)
        assert _LEFT <= left <= _RIGHT - 60

    def test_a_place_beyond_the_axis_is_left_out(self):
        chart = drawn_curve([0, 1], [0, 1], limit=0.3, place=(0.41, 0.41))
        assert not list(chart.iter("circle")) and "here" not in [text.text for text in chart.iter("text")]


def drawn_curve(x, y, **arguments):
    titles = dict.fromkeys(("title", "description", "x_title", "y_title", "area_title"), "-")
    return rising_curve(x, y, **titles, place_title="here", **arguments)


def corners_of(chart, kind, end):
    """Rates and heights at the corners of the curve, or of its area, on an axis up to `end`."""
    (path,) = (path.get("d").split("V")[0] for path in chart.iter("path") if path.get("class") == kind)
    corners = np.array([point.split() for point in path[1:].split("L")], dtype=float)
    return (corners[:, 0] - _LEFT) / (_RIGHT - _LEFT) * end, (_BOTTOM - corners[:, 1]) / (_BOTTOM - _TOP)


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no chromium or google-chrome here to open the page in")


@pytest.fixture
def outside() -> Iterator[tuple[str, list[str]]]:
    """A server that stands in for every host: its address, and what it was asked for so far."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Host"] != "clients2.google.com":  # the browser's clock comes from there
                asked.append(f"{self.headers['Host']}{self.path}")
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def look(browser: str, text: str, width: int, folder: Path, *arguments: str) -> str:
    """Open the page in a frame of this width and measure it; a browser window cannot be as narrow as a phone."""
    (folder / "frame.html").write_text(
        f'<body style="margin:0"><iframe style="border:0" width="{width}" height="1000" srcdoc="{html.escape(text)}"></iframe>'
        "<pre id=found></pre><script>onload = () => {"
        "const frame = document.querySelector('iframe'), page = frame.contentDocument;"
        "const inside = [...page.querySelectorAll('body *')].filter(e => !e.closest('svg'));"
        "document.querySelector('#found').textContent = JSON.stringify({"
        "width: page.documentElement.scrollWidth,"
        "beyond: inside.filter(e => e.getBoundingClientRect().right > frame.width).map(e => e.outerHTML.slice(0, 80)),"
        "folded: [...page.querySelectorAll('table')].filter(e => !e.checkVisibility()).length,"
        "unseen: [...page.images].filter(e => !e.naturalWidth).length})}</script>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}",
         f"--window-size={width},1000", *arguments, (folder / "frame.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def measured(browser: str, text: str, width: int, folder: Path, address: str) -> dict[str, Any]:
    shown = look(browser, text, width, folder, "--dump-dom", f"--host-resolver-rules=MAP * {address}")
    found = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert found
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [360, 1280])
class TestBrowser:
    def test_fits_the_screen_and_asks_for_nothing(
        self, browser: str, page: Path, outside: tuple[str, list[str]], tmp_path: Path, width: int
    ):
        text = page.read_text(encoding="utf-8").replace("<details>", "<details open>")
        found = measured(browser, text, width, tmp_path, outside[0])
        assert found == {"width": width, "beyond": [], "folded": 0, "unseen": 0}
        assert outside[1] == []

    def test_the_measurement_notices_what_it_looks_for(
        self, browser: str, outside: tuple[str, list[str]], tmp_path: Path, width: int
    ):
        text = f'<div style="width:{width + 9}px">wide</div><img src="http://das3d.example/absent.png">'
        found = measured(browser, text, width, tmp_path, outside[0])
        assert found["width"] == width + 17 and len(found["beyond"]) == 1 and found["unseen"] == 1
        assert outside[1] == ["das3d.example/absent.png"]

    def test_is_drawn(self, browser: str, page: Path, tmp_path: Path, width: int):
        target = tmp_path / "screen.png"
        look(browser, page.read_text(encoding="utf-8"), width, tmp_path, f"--screenshot={target}")
        screen = cv2.imread(str(target))
        assert screen.shape == (1000, width, 3)
        ground = np.abs(screen.astype(int) - screen[2, 2]).max(axis=2) > 40
        for band in np.array_split(ground[:800], 4):
            assert 0.005 < band.mean() < 0.6


def test_paper_shows_what_the_screen_folds_away(
    browser: str, page: Path, outside: tuple[str, list[str]], tmp_path: Path
):
    text, width = page.read_text(encoding="utf-8"), 700  # A4 within its margins
    assert measured(browser, text, width, tmp_path, outside[0])["folded"] == 4
    printed = measured(browser, text.replace("@media print", "@media screen"), width, tmp_path, outside[0])
    assert printed == {"width": width, "beyond": [], "folded": 0, "unseen": 0}
