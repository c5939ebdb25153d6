"""Tables of figures, and their output to a terminal or as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import check_folder, encodable, on_a_line, real, write_json, write_whole
from das3d_cli.runs import ENVIRONMENT, SETTINGS, SUMMARY

DASH = "-"  # for a figure that is undefined
_FIRST = "table"  # first column of our CSV files, by which they are recognised


class Row(NamedTuple):
    """One row: labels, figures (nan becomes a dash), indices of the bold figures, and whether a block ends here."""

    labels: Sequence[str]
    figures: Sequence[float]
    bold: frozenset[int] = frozenset()
    ends: bool = False


@dataclass(frozen=True)
class FigureTable:
    """A title, rows of labels and figures under column titles, and a note.

    Attributes:
        texts: titles of the label columns.
        numbers: titles of the figure columns, each with its number of decimals.
    """

    title: str
    texts: Sequence[str]
    numbers: Mapping[str, int]
    rows: Sequence[Row]
    note: str = ""

    def cells(self, row: Row) -> list[str]:
        """The figures of a row as text."""
        return [
            DASH if math.isnan(figure) else f"{figure:.{decimals}f}"
            for figure, decimals in zip(row.figures, self.numbers.values(), strict=True)
        ]

    def shown(self) -> Iterator[Row]:
        """The rows for display: leading labels that repeat those of the row above are blank."""
        above: Sequence[str] = ()
        for row in self.rows:
            same = 0
            while same < min(len(above), len(row.labels) - 1) and above[same] == row.labels[same]:
                same += 1
            yield row._replace(labels=[""] * same + list(row.labels[same:]))
            above = () if row.ends else row.labels


def terminal(table: FigureTable) -> Table:
    """The table as a rich table for a terminal."""
    drawn = Table(
        title=Text(on_a_line(table.title)),
        title_justify="left",
        caption=Text(on_a_line(table.note)),
        caption_justify="left",
    )
    lines = [[*row.labels, *table.cells(row)] for row in table.rows]
    for place, (name, *cells) in enumerate(zip([*table.texts, *table.numbers], *lines, strict=True)):
        if place >= len(table.texts):
            drawn.add_column(Text(name), justify="right", no_wrap=True, min_width=max(map(len, (name, *cells))))
        else:
            drawn.add_column(Text(name), min_width=max(len(word) for text in (name, *cells) for word in text.split()))
    for row in table.shown():
        cells = [Text(cell, style="bold" if place in row.bold else "") for place, cell in enumerate(table.cells(row))]
        drawn.add_row(*(Text(on_a_line(label)) for label in row.labels), *cells, end_section=row.ends)
    return drawn


def markdown(tables: Sequence[FigureTable]) -> str:
    """As Markdown tables, each under its title."""
    parts = []
    for table in tables:
        head = [*map(_markdown_text, [*table.texts, *table.numbers])]
        rule = ["---"] * len(table.texts) + ["---:"] * len(table.numbers)
        lines = [head, rule]
        for row in table.shown():
            cells = [f"**{c}**" if place in row.bold else c for place, c in enumerate(table.cells(row))]
            lines.append([*map(_markdown_text, row.labels), *cells])
        grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts += [f"**{_markdown_text(table.title)}**", grid, *([_markdown_text(table.note)] if table.note else [])]
    return "\n\n".join(parts) + "\n"


def comma_separated(tables: Sequence[FigureTable]) -> str:
    """As one CSV: the first column is the table's title; figures have up to six decimals, undefined ones are empty."""
    texts = list(dict.fromkeys(name for table in tables for name in table.texts))
    # Kept apart from `texts`, because a category may have the same name as one of them.
    numbers = list(dict.fromkeys(name for table in tables for name in table.numbers))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_FIRST, *texts, *numbers])
    for table in tables:
        for row in table.rows:
            figures = ["" if math.isnan(figure) else f"{round(figure, 6):.10g}" for figure in row.figures]
            labels = dict(zip(table.texts, row.labels, strict=True))
            values = dict(zip(table.numbers, figures, strict=True))
            writer.writerow(
                [table.title, *(labels.get(name, "") for name in texts), *(values.get(name, "") for name in numbers)]
            )
    return text.getvalue()


def latex(tables: Sequence[FigureTable]) -> str:
    """As LaTeX tables, for \\usepackage{booktabs}."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(map(_latex_table, tables))


def _latex_table(table: FigureTable) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(f'{table.title}. {table.note}' if table.note else table.title)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.texts)}{'r' * len(table.numbers)}}}",
        r"\toprule",
        line([*map(_latex_text, [*table.texts, *table.numbers])]),
        r"\midrule",
    ]
    for place, row in enumerate(table.shown(), 1):
        cells = [rf"\textbf{{{c}}}" if p in row.bold else c for p, c in enumerate(table.cells(row))]
        lines.append(line([*map(_latex_text, row.labels), *("--" if cell == DASH else cell for cell in cells)]))
        if row.ends and place < len(table.rows):
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
          ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}  # fmt: skip


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _markdown_text(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|~#&" else sign for sign in " ".join(text.split()))


_WRITERS = {".md": markdown, ".csv": comma_separated, ".tex": latex}


def check_targets(paths: Sequence[Path], made: Path | None = None) -> None:
    """Check that each file can be written, has a known suffix and replaces neither a foreign CSV nor das3d's own files.

    Args:
        made: a folder that will exist by the time of writing.

    Raises:
        UsageError: unknown suffix, a file named twice, an existing CSV that holds no tables, or a reserved file name.
        DataError: the file cannot be written there.
    """
    from das3d_cli.data.cache import MANIFEST
    from das3d_cli.data.depth import CAMERA_FILE

    for place, path in enumerate(paths):
        if path.suffix not in (*_WRITERS, ".json"):
            raise UsageError(f"--out {path}: the name must end in {', '.join(_WRITERS)} or .json")
        if made is None or real(path.parent) != real(made):
            check_folder(path)
        if real(path) in map(real, paths[:place]):
            raise UsageError(f"--out {path}: is named twice; give it once")
        if path.suffix == ".csv" and _holds_else(path):
            raise UsageError(f"--out {path}: would replace a file that holds no das3d tables; choose another name")
        if path.name in (MANIFEST, CAMERA_FILE, SETTINGS, ENVIRONMENT, SUMMARY):
            raise UsageError(f"--out {path}: das3d uses this file name for other things; choose another one")


def _holds_else(path: Path) -> bool:
    if not path.is_file():
        return False
    start = f"{_FIRST},".encode()
    with path.open("rb") as file:
        return file.read(len(start)) not in (b"", start)


def write_tables(paths: Sequence[Path], tables: Sequence[FigureTable], record: Any) -> list[DataError]:
    """Write the tables in the format of each file's suffix; a .json file gets `record` instead.

    Returns:
        The errors of files that could not be written; all others are written.
    """
    failed = []
    for path in paths:
        try:
            if path.suffix == ".json":
                write_json(path, record, for_others=True)
            else:
                write_whole(path, encodable(_WRITERS[path.suffix](tables)).encode())
        except DataError as error:
            failed.append(error)
    return failed
