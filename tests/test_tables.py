"""Tables of figures: their content, and that each format can be read back."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from das3d_cli import console
from das3d_cli.benchmark import Speed
from das3d_cli.data import summary
from das3d_cli.errors import DataError, UsageError
from das3d_cli.evaluation import Outcome
from das3d_cli.metrics import FIGURES, Metrics
from das3d_cli.report import paper
from das3d_cli.report.formats import (
    FigureTable,
    Row,
    check_targets,
    comma_separated,
    latex,
    markdown,
    terminal,
    write_tables,
)
from das3d_cli.report.preprocessed import preprocess_table
from das3d_cli.report.published import categories_of, published, recognise
from das3d_cli.report.tables import comparison_table, differing_settings, run_tables
from das3d_cli.settings import Settings
from das3d_cli.sources import flatten

NASTY = [
    "cable_gland",
    "50 % & more",
    "a|b",
    r"back\slash",
    "#1 {x} ~ ^",
    "[red]hole[/red]",
    "<b>*bold*</b>",
    'say "a, b"',
]
VALUES = [0.98765, math.nan, 1.0]
TABLE = FigureTable(
    "of 100 %",
    ("name", "kind"),
    {"I_AUROC": 3, "ms": 1, "parts": 0},
    [Row((name, "x"), VALUES, frozenset({0})) for name in NASTY[:-1]] + [Row((NASTY[-1], "y"), VALUES, ends=True)],
    "a note",
)


def metrics(value: float, samples: int = 9) -> Metrics:
    return Metrics(*[value] * len(FIGURES), samples)


def outcome(category="tire", modality="both", value=0.9, run="runs/x-001", **settings) -> Outcome:
    made = {"all": metrics(value), "hole": metrics(math.nan, 3)}
    return Outcome(
        run, category, modality, dict(flatten(Settings().model_dump(mode="json"))) | {"model.modality": modality} | settings,
        0.5, made, {name: dict.fromkeys(FIGURES, (value - 0.1, value + 0.1)) for name in made}, {"hole": ["003"]}, [], [],
        1, [], [], frozenset("a"),
    )  # fmt: skip


def text_of(table, width=200):
    page = Console(file=io.StringIO(), width=width, color_system=None)
    page.print(terminal(table))
    return page.file.getvalue()


def rows_of(table):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text_of(table).splitlines() if "│" in line]


class TestFormats:
    def test_terminal_shows_decimals_dashes_and_names_as_they_are(self):
        assert rows_of(TABLE) == [[name, kind, "0.988", "-", "1"] for name, kind in zip(NASTY, "xxxxxxxy", strict=True)]
        assert "a note" in text_of(TABLE)

    def test_no_figure_and_no_title_is_cut_on_a_narrow_terminal(self, monkeypatch):
        page = Console(file=io.StringIO(), width=20, color_system=None, soft_wrap=True)
        monkeypatch.setattr(console, "stdout", page)
        console.show(terminal(TABLE))
        shown = page.file.getvalue()
        assert "…" not in shown
        assert shown.count("0.988") == len(NASTY) and "I_AUROC" in shown

    def test_no_name_of_the_preprocessed_is_cut_on_a_narrow_terminal(self, monkeypatch):
        page = Console(file=io.StringIO(), width=20, color_system=None, soft_wrap=True)
        monkeypatch.setattr(console, "stdout", page)
        made = summary.Summary([summary.Row("GummyBear", "validation", "bumps+colors", 1, 1, 0, 0.0, 1.0, 2.0)])
        console.show(preprocess_table(made))
        shown = page.file.getvalue()
        assert "…" not in shown and "bumps+colors" in shown and "tilt mean" in shown

    def test_images_alone_are_not_said_to_miss_points(self, monkeypatch):
        page = Console(file=io.StringIO(), width=100, color_system=None)
        monkeypatch.setattr(console, "stdout", page)
        nan = float("nan")
        console.show(preprocess_table(summary.Summary([summary.Row("nut", "train", "good", 3, 3, 0, 1.0, nan, nan)])))
        assert "%" not in page.file.getvalue()

    def test_csv_gives_back_names_and_figures(self):
        found = list(csv.DictReader(io.StringIO(comma_separated([TABLE]))))
        assert [row["name"] for row in found] == NASTY
        assert {(row["table"], row["I_AUROC"], row["ms"], row["parts"]) for row in found} == {
            ("of 100 %", "0.98765", "", "1")
        }

    def test_a_category_may_be_called_as_a_text_is(self):
        table = FigureTable(
            "t", ("modality", "figure"), {"table": 1, "figure": 1}, [Row(("RGB", "AUROC"), [0.5, 0.75])]
        )
        assert list(csv.reader(io.StringIO(comma_separated([table])))) == [
            ["table", "modality", "figure", "table", "figure"], ["t", "RGB", "AUROC", "0.5", "0.75"],
        ]  # fmt: skip
        assert [column.justify for column in terminal(table).columns] == ["left", "left", "right", "right"]

    def test_csv_of_several_tables_has_one_header(self):
        other = FigureTable("other", ("name",), {"seconds": 1}, [Row(("z",), [0.25])])
        found = list(csv.DictReader(io.StringIO(comma_separated([TABLE, other]))))
        assert found[-1]["seconds"] == "0.25" and found[-1]["I_AUROC"] == "" and found[0]["seconds"] == ""

    def test_latex_gives_back_names_and_leaves_no_sign_unescaped(self):
        text = latex([TABLE])
        signs = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
                 r"\textgreater{}": ">", r"\textbar{}": "|", "{[}": "[", "{]}": "]"} | {f"\\{s}": s for s in "&%$#_{}"}  # fmt: skip
        escaped = re.compile("|".join(re.escape(sign) for sign in sorted(signs, key=len, reverse=True)))
        lines = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
        names = []
        for line in lines:
            assert line.endswith(r" \\")
            name, _, *cells = line.removesuffix(r" \\").split(" & ")
            assert cells[1:] == ["--", "1"]
            assert not re.search(r"[&%$#_{}~^\\<>|]", escaped.sub("", name)), name
            names.append(escaped.sub(lambda match: signs[match[0]], name))
        assert names == NASTY
        assert text.count(r"\textbf{0.988}") == len(NASTY) - 1
        assert r"\caption{of 100 \%. a note}" in text
        assert text.count("{") == text.count("}")

    def test_markdown_has_as_many_cells_in_every_line_and_bold_figures(self):
        text = markdown([TABLE])
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(NASTY)
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}
        assert text.count("**0.988**") == len(NASTY) - 1
        assert re.sub(r"\\(.)", r"\1", lines[4].split(" | ")[0]) == "| a|b"

    def test_what_rows_share_with_the_row_above_stands_once_but_in_csv_everywhere(self):
        rows = [Row(("a", "1"), [1.0]), Row(("a", "1"), [2.0], ends=True), Row(("a", "2"), [3.0])]
        table = FigureTable("t", ("x", "y"), {"n": 0}, rows)
        assert rows_of(table) == [["a", "1", "1"], ["", "1", "2"], ["a", "2", "3"]]
        assert [row["x"] for row in csv.DictReader(io.StringIO(comma_separated([table])))] == ["a", "a", "a"]

    @pytest.mark.parametrize("target", ["x.md", "x.csv", "x.tex"])
    def test_a_name_that_is_no_valid_text_costs_no_table(self, tmp_path, target):
        name = os.fsdecode(b"caf\xe9")
        write_tables([tmp_path / target], [FigureTable("t", ("x",), {"n": 0}, [Row((name,), [1.0])])], {})
        assert "caf?" in (tmp_path / target).read_text(encoding="utf-8")

    def test_json_holds_the_record(self, tmp_path):
        assert write_tables([tmp_path / "x.json"], [TABLE], {"figures": VALUES}) == []
        assert json.loads((tmp_path / "x.json").read_text()) == {"figures": [0.98765, None, 1.0]}

    @pytest.mark.parametrize(
        ("name", "error", "part"),
        [("x.doc", UsageError, ".tex"), ("x", UsageError, ".md"), ("no/x.md", DataError, "folder")],
    )
    def test_targets_that_cannot_be_are_told_before_the_work(self, tmp_path, name, error, part):
        with pytest.raises(error, match=part):
            check_targets([tmp_path / "fine.csv", tmp_path / name])


class TestOneRun:
    def test_all_parts_and_every_defect_type_have_a_row_and_bounds(self):
        figures, overlaps = run_tables(outcome())
        assert rows_of(figures)[:4] == [
            ["all", "9", "", *["0.900"] * 6],
            ["", "", "from", *["0.800"] * 6],
            ["", "", "to", *["1.000"] * 6],
            ["hole", "3", "", *["-"] * 6],
        ]
        assert list(overlaps.numbers) == [
            f"{kind}@{limit}" for kind in ("exact", "reference") for limit in (0.3, 0.1, 0.05, 0.01)
        ]


class TestSideBySide:
    def test_runs_are_told_by_the_settings_in_which_they_differ(self):
        runs = [outcome(), outcome(value=0.8, run="runs/x-002", **{"synthesis.skew_filter": False, "preset": "cpu"})]
        assert differing_settings(runs) == [{"synthesis.skew_filter": True}, {"synthesis.skew_filter": False}]
        rows = rows_of(comparison_table(runs))
        assert rows[0][:6] == ["runs/x-001", "tire", "synthesis.skew_filter=true", "0.900", "0.800", "1.000"]
        assert rows[1][2:6] == ["synthesis.skew_filter=false", "0.800", "0.700", "0.900"]
        assert len(rows) == 2

    def test_runs_that_differ_in_their_seed_alone_are_summed_up(self):
        plain = [outcome(value=value, run=f"runs/x-{seed}", seed=seed) for seed, value in enumerate((0.5, 0.6, 0.7))]
        other = outcome(value=0.9, run="runs/x-3", seed=0, **{"synthesis.skew_filter": False})
        again = outcome(value=0.8, run="runs/x-4", **{"synthesis.skew_filter": False})
        rows = rows_of(comparison_table([*plain, other, again, outcome("cookie", seed=1)]))
        assert [row[0] for row in rows[6:]] == ["mean of 3 seeds", "standard deviation"]
        assert rows[6][1:6] == ["tire", "synthesis.skew_filter=true", "0.600", "-", "-"]
        assert [rows[7][3], rows[7][6], rows[7][9]] == ["0.100"] * 3
        assert "no mean" not in comparison_table(plain).note

    @pytest.mark.parametrize(
        ("last", "why"),
        [
            (outcome(run="runs/x-5", seed=2), "no mean for tire: a seed occurs twice"),
            (replace(outcome(run="runs/x-5", seed=3), seen=frozenset("b")), "no mean for tire: the runs were trained on different"),
        ],
    )  # fmt: skip
    def test_what_is_not_summed_up_is_told(self, last: Outcome, why: str):
        table = comparison_table([*(outcome(run=f"runs/x-{seed}", seed=seed) for seed in range(3)), last])
        assert len(table.rows) == 4
        assert f"; {why}" in table.note


MVTEC = ["bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire"]


class TestPublished:
    def test_every_table_is_whole(self):
        for _, table in itertools.groupby(published(), key=lambda p: p.table):
            values = list(table)
            columns = {(p.method, p.modality, p.metric): [] for p in values}
            for p in values:
                columns[p.method, p.modality, p.metric].append(p.category)
            expected = [*categories_of(values[0].dataset), "mean"] if values[0].table in "1234" else ["mean"]
            assert all(found == expected for found in columns.values())

    def test_printed_means_are_the_means_of_the_printed_figures_but_for_three(self):
        rows = {}
        for p in published():
            if p.table in "1234":
                rows.setdefault((p.table, p.modality, p.method), {})[p.category] = p.value
        off = {key for key, values in rows.items() if abs(values.pop("mean") - sum(values.values()) / 10) > 0.00101}
        assert off == {("4", "depth", "DAS3D"), ("4", "both", "M3DM"), ("1", "depth", "ShapeGuided")}

    @pytest.mark.parametrize(
        ("categories", "dataset"),
        [(MVTEC, "MVTec 3D-AD"), (["tire"], "MVTec 3D-AD"), (["Lollipop", "Confetto"], "Eyecandies"),
         (["tire", "valve"], None), (["tire", "Lollipop"], None), ([], None)],
    )  # fmt: skip
    def test_data_sets_are_known_by_their_categories(self, categories, dataset):
        assert recognise(categories) == dataset


def block(table, name):
    """The rows of one modality, by method: the figures, and which of them are bold."""
    return {row.labels[1]: (row.figures, row.bold) for row in table.rows if row.labels[0] == name}


class TestPaper:
    def test_ours_stands_among_the_published_rows_and_the_best_is_bold(self):
        outcomes = [outcome(name, value=0.99) for name in MVTEC] + [outcome("tire", "rgb", 0.5)]
        first, second = paper.paper_tables(outcomes, paper.expected_categories(MVTEC))
        assert first.title == "Table 1: I-AUROC, MVTec 3D-AD" and "reference" in second.title
        assert list(first.numbers) == [*MVTEC, "mean"]
        both = block(first, "RGB+3D")
        assert list(both) == ["BTF", "AST", "EasyNet", "M3DM", "ShapeGuided", "3DSR", "DAS3D", "ours"]
        assert both["ours"][0] == pytest.approx([0.99] * 11)
        winners = [next(name for name, (_, bold) in both.items() if place in bold) for place in range(11)]
        assert winners == [
            "DAS3D",
            "EasyNet",
            "DAS3D",
            "DAS3D",
            "3DSR",
            "DAS3D",
            "ShapeGuided",
            "ours",
            "AST",
            "3DSR",
            "ours",
        ]
        assert {6} <= both["ours"][1] & both["ShapeGuided"][1], "equal as printed: both are bold"

    def test_a_modality_that_lacks_categories_has_no_mean(self):
        outcomes = [outcome(name) for name in MVTEC] + [outcome("tire", "rgb", 0.5)]
        table = paper.paper_tables(outcomes, MVTEC)[0]
        figures, bold = block(table, "RGB only")["ours"]
        assert figures[9] == 0.5 and all(math.isnan(f) for f in figures[:9] + figures[10:])
        assert 10 not in bold
        assert "ours" not in block(table, "3D only")
        found = {row["modality"]: row["mean"]["image_auroc"] for row in paper.records(outcomes, MVTEC)}
        assert math.isnan(found["rgb"]) and found["both"] == pytest.approx(0.9)

    def test_another_data_set_stands_alone(self):
        outcomes = [outcome("valve", value=0.5), outcome("gear", value=1.0)]
        expected = paper.expected_categories(["valve", "gear"])
        tables = paper.paper_tables(outcomes, expected)
        assert [rows_of(table) for table in tables] == [[["RGB+3D", "ours", "1.000", "0.500", "0.750"]]] * 2
        assert tables[0].title == "I-AUROC" and "published" not in tables[0].note

    def test_categories_of_several_data_sets_are_told_to_have_no_published_rows(self):
        for names in (["valve", "tire"], ["Lollipop", "tire", "bagel"]):
            table = paper.paper_tables([outcome(name) for name in names], paper.expected_categories(names))[0]
            assert table.title == "I-AUROC" and "name those of MVTec 3D-AD with --category" in table.note

    def test_pixels_that_are_not_the_whole_images_are_told(self):
        assert "preprocess.frame" in paper.paper_tables([outcome()], MVTEC)[1].note
        assert "preprocess.frame" not in paper.paper_tables([outcome(**{"preprocess.frame": "image"})], MVTEC)[1].note

    def test_overview_has_a_column_per_category_and_a_row_per_figure_and_modality(self):
        outcomes = [outcome("gear", value=0.5), outcome("valve", value=1.0), outcome("valve", "depth", 0.25)]
        rows = rows_of(paper.overview(outcomes, ["gear", "valve"]))
        assert rows[0] == ["3D only", "I-AUROC", "-", "0.250", "-"]
        assert rows[len(FIGURES)] == ["RGB+3D", "I-AUROC", "0.500", "1.000", "0.750"]
        assert len(rows) == 2 * len(FIGURES)

    def test_overview_says_why_there_is_no_mean(self):
        outcomes = [outcome("gear"), outcome("valve"), outcome("valve", "depth")]
        assert "no mean for 3D only, as there is no run of gear" in paper.overview(outcomes, ["gear", "valve"]).note
        assert "no mean" not in paper.overview(outcomes[:2], ["gear", "valve"]).note
        assert "RGB+3D, as there is no run of bagel, cable_gland" in paper.overview([outcome()], MVTEC).note


class TestOurs:
    """Runs with several seeds, or from several folders, in a data set's tables."""

    @staticmethod
    def seeds(category: str, values: dict[int, float], method: str = "ours") -> list[Outcome]:
        made = [
            outcome(category, value=value, run=f"runs/{category}-{seed}", seed=seed) for seed, value in values.items()
        ]
        return [replace(one, method=method) for one in made]

    def test_seeds_are_averaged_within_categories_and_means_within_seeds(self):
        outcomes = self.seeds("gear", {0: 0.5, 1: 0.7}) + self.seeds("valve", {1: 0.9, 0: 0.5})
        for table in paper.paper_tables(outcomes, ["gear", "valve"]):
            mean, deviation = table.rows
            assert (
                mean.labels == ("RGB+3D", "ours, mean of 2 seeds") and deviation.labels[1] == "ours, standard deviation"
            )
            assert mean.figures == pytest.approx([0.6, 0.7, 0.65])
            # The last is the deviation of the seeds' means over the categories, 0.5 and 0.8, not a mean of deviations.
            assert deviation.figures == pytest.approx(
                [statistics.stdev(v) for v in ((0.5, 0.7), (0.5, 0.9), (0.5, 0.8))]
            )
        assert "preset auto, 10000 steps, seed 0, 1" in paper.overview(outcomes, ["gear", "valve"]).note
        (row,) = paper.records(outcomes, ["gear", "valve"])
        assert row["seeds"] == 2 and row["standard_deviation"]["image_auroc"] == pytest.approx(
            statistics.stdev([0.5, 0.8])
        )

    def test_seeds_that_categories_do_not_share_have_no_deviation_of_their_mean(self):
        outcomes = self.seeds("gear", {0: 0.5, 1: 0.7}) + self.seeds("valve", {0: 0.9})
        mean, deviation = paper.paper_tables(outcomes, ["gear", "valve"])[0].rows
        assert mean.figures == pytest.approx([0.6, 0.9, 0.75])
        assert "valve: 1 of 2 seeds" in paper.overview(outcomes, ["gear", "valve"]).note
        assert deviation.figures[0] == pytest.approx(statistics.stdev([0.5, 0.7])) and all(
            map(math.isnan, deviation.figures[1:])
        )

    def test_a_standard_deviation_is_no_best_figure(self):
        outcomes = [one for name in MVTEC for one in self.seeds(name, {0: 0.2, 1: 1.8})]  # the deviation exceeds 1
        rows = block(paper.paper_tables(outcomes, MVTEC)[0], "RGB+3D")
        assert len(rows["ours, mean of 2 seeds"][1]) > 5 and not rows["ours, standard deviation"][1]

    def test_folders_have_a_row_each(self):
        outcomes = self.seeds("gear", {0: 0.5}, "neither") + self.seeds("gear", {0: 0.7}, "both")
        assert [row[1:] for row in rows_of(paper.paper_tables(outcomes, ["gear"])[0])] == [
            ["neither", "0.500", "0.500"], ["both", "0.700", "0.700"],
        ]  # fmt: skip
        overview = paper.overview(outcomes, ["gear"])
        assert list(overview.texts) == ["modality", "method", "figure"]
        assert [row.labels[1] for row in overview.rows] == ["neither"] * len(FIGURES) + ["both"] * len(FIGURES)

    def test_lost_and_known_test_parts_are_told_in_every_table(self):
        bad = replace(outcome("gear"), unused=["test/hole/rgb/003.png"], known=["good/001"], verdicts=[{}] * 7)
        tables = [paper.overview([bad], ["gear"]), *paper.paper_tables([bad], ["gear"])]
        for table in tables:
            assert (
                "gear: captures that could not be preprocessed and are not counted: 1 (test/hole/rgb/003.png)"
                in table.note
            )
            assert "gear: test parts that were used to train the run" in table.note
        assert "test parts: gear 7" in tables[0].note

    def test_runs_that_were_not_trained_alike_are_told(self):
        outcomes = [outcome("gear"), outcome("valve", **{"synthesis.dropout": 0.1, "seed": 3})]
        note = paper.overview(outcomes, ["gear", "valve"]).note
        assert "seed 0, 3, with different synthesis.dropout" in note


def test_time_and_memory_stand_beside_those_of_table_5():
    table = paper.benchmark_table([Speed(1, 12.34, 10.0, 20.0, 81.0, 250.4)], "runs/x", "a GPU", cuda=True)
    rows = rows_of(table)
    assert rows[0] == ["3DSR", "-", "49.0", "-", "-", "-", "3210", "0.978", "0.972"]
    assert [row[0] for row in rows] == ["3DSR", "M3DM", "ShapeGuided", "DAS3D", "ours"]
    assert rows[-1][1:] == ["1", "12.3", "10.0", "20.0", "81.0", "250", "-", "-"]
    assert "allocated on the GPU" in table.note and "a GPU" in table.note


def test_a_whole_file_or_none(tmp_path: Path):
    (tmp_path / "x.md").mkdir()
    (failed,) = write_tables([tmp_path / "x.md", tmp_path / "y.md"], [TABLE], {})
    assert isinstance(failed, DataError) and "x.md: cannot be written" in str(failed)
    assert (tmp_path / "y.md").is_file()  # written despite the other failure
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.md", "y.md"]


def test_an_earlier_table_is_replaced_and_a_list_is_not(tmp_path: Path):
    assert write_tables([tmp_path / "x.csv"], [TABLE], {}) == []
    check_targets([tmp_path / "x.csv"])
    (tmp_path / "parts.csv").write_text("xyz,rgb\n1.tiff,1.png\n")
    with pytest.raises(UsageError, match=r"parts.csv: would replace a file that holds no das3d tables"):
        check_targets([tmp_path / "parts.csv"])
    with pytest.raises(UsageError, match=r"summary.json: das3d uses this file name for other things"):
        check_targets([tmp_path / "summary.json"])
