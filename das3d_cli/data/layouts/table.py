"""A table of captures: a CSV file with one row per part, wherever its files lie.

Columns: rgb, and xyz or depth (at least one of the three); split, label, category, name and gt as needed; fx, fy, cx,
cy and scale of a depth image, unless a camera.json beside the table holds them. Paths are relative to the table.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from das3d_cli.data.capture import GOOD, Camera
from das3d_cli.data.depth import EXAMPLE, as_camera, find_camera
from das3d_cli.data.layouts.entries import SPLIT_NAMES, Entry, Failure, Found, check_name
from das3d_cli.errors import DataError
from das3d_cli.files import real, reason

EXPECTED = "a CSV file with a column rgb, xyz or depth"
_FILES = ("rgb", "xyz", "depth", "gt")
_INTRINSICS = ("fx", "fy", "cx", "cy", "scale")
_COLUMNS = ("category", "split", "label", "name", *_FILES, *_INTRINSICS)

Row = dict[str, str]


def read_table(path: Path) -> Iterator[Found]:
    """The parts that a table lists.

    Raises:
        DataError: it is not CSV text, or has no column for captures.
    """
    columns, rows = read_rows(path)
    if not {"rgb", "xyz", "depth"} & set(columns):
        raise DataError(f"{path}: needs a column rgb, xyz or depth with the captures' files; the other columns that"
                        f" das3d reads are {', '.join(name for name in _COLUMNS if name not in _FILES[:3])}")  # fmt: skip
    if unused := [name for name in columns if name not in _COLUMNS and name]:
        yield f"{path}: columns that are not used: {', '.join(unused)}"
    without = any(row.get("depth") and not row.get("fx") for _, row in rows)
    camera = find_camera(path.parent) if without else None
    wanted: dict[str, set[str]] = {}
    for _, row in rows:
        wanted.setdefault(_category(row, path), set()).update(kind for kind in ("rgb", "xyz", "depth") if row.get(kind))
    taken: dict[object, int] = {}
    for number, row in rows:
        category = _category(row, path)
        try:
            entry = _entry(row, category, path.parent, wanted[category], camera)
            for key in filter(None, (entry.xyz, entry.rgb, (category, entry.split, entry.label, entry.name))):
                claim(taken, key, number)
        except ValueError as error:
            yield Failure(category, path, f"row {number}: {error}")
        else:
            yield entry


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """Read a CSV file: its columns' names in lower case, and its non-empty rows by these names.

    Rows are numbered as in a spreadsheet: row 1 holds the names.

    Raises:
        DataError: it is not CSV text, has two columns of the same name, or a row with more cells than columns.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # bytes: line breaks in a quoted name stay as they are
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not CSV text in UTF-8; save it again in this form") from None
    delimiter = _delimiter(re.split(r"[\r\n]", text, maxsplit=1)[0])
    try:
        table = list(_cells(io.StringIO(text, newline=""), delimiter))
    except ValueError as error:
        raise DataError(f"{path}: is not CSV text: {error}") from None
    columns, rows = _columns(table[0] if table else [], str(path)), []
    for number, line in enumerate(table[1:], 2):
        try:
            row = _row(columns, line, delimiter)
        except ValueError as error:
            raise DataError(f"{path}: row {number}: {error}") from None
        if any(line):
            rows.append((number, row))
    return columns, rows


def rows_to_come(lines: Iterator[str], name: str) -> tuple[list[str], Iterator[tuple[int, Row | ValueError]]]:
    """As `read_rows`, for a text called `name` that is still being written: yields rows as soon as they are there.

    Each line is a row. An error takes the place of its row, and a row of empty cells counts, as its writer waits for an
    answer. Empty lines are skipped, unless there is only one column.

    Raises:
        DataError: the first line is not a row of names, or has two columns of the same name.
    """
    first = next(lines, "")
    delimiter = _delimiter(first)

    def cells(line: str) -> list[str]:
        return next(_cells(iter([line]), delimiter), [])

    try:
        columns = _columns(cells(first), name)
    except ValueError as error:
        raise DataError(f"{name}: is not CSV text: {error}") from None

    def rows() -> Iterator[tuple[int, Row | ValueError]]:
        for number, line in enumerate(lines, 2):
            if len(columns) > 1 and not line.strip("\r\n"):  # with one column, an empty line is an empty path
                continue
            try:
                yield number, _row(columns, cells(line), delimiter)
            except ValueError as error:
                yield number, error

    return columns, rows()


def _delimiter(first_line: str) -> str:
    return max(",;\t", key=first_line.count)


def _cells(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of each row. Raises ValueError: a row is malformed."""
    try:
        for line in csv.reader(lines, delimiter=delimiter, strict=True):
            yield [cell.strip() for cell in line]
    except csv.Error as error:
        raise ValueError(f"{error}; look for a missing quotation mark") from None


def _columns(first: list[str], name: str) -> list[str]:
    """The columns' names in lower case. Raises DataError: two are the same."""
    columns = [cell.lower() for cell in first]
    if doubled := next((column for column in columns if column and columns.count(column) > 1), None):
        raise DataError(f"{name}: has two columns called {doubled}; keep one of them")
    return columns


def _row(columns: list[str], cells: list[str], delimiter: str) -> Row:
    """Raises ValueError: there are more cells than columns."""
    if any(cells[len(columns) :]):
        raise ValueError(f"has more cells than columns; put quotation marks around a path that contains {delimiter!r}")
    return dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))


def claim(taken: dict[object, int], key: object, number: int) -> None:
    """Record which row has a name, or a file, however its path is written. Raises ValueError: another row has it."""
    said, mark = ("file", real(key)) if isinstance(key, Path) else ("name", key)
    if taken.setdefault(mark, number) != number:
        raise ValueError(f"the same {said} as row {taken[mark]}; every part needs its own files and name")


def row_camera(row: Row, folder: Path) -> Camera | None:
    """The camera that a row describes; None if it gives no values.

    If the focal length is missing, the row's values override those of the folder's camera.json.

    Raises:
        ValueError: the values do not describe a camera.
        DataError: the camera.json is damaged.
    """
    given: dict[str, Any] = {name: row[name] for name in _INTRINSICS if row.get(name)}
    if given and "fx" not in given and (beside := find_camera(folder)):
        given = asdict(beside) | given
    return as_camera(given) if given else None


def named_file(folder: Path, cell: str) -> Path:
    """The file that a cell names, relative to `folder`. Raises ValueError: no file can have that name."""
    if "\0" in cell:
        raise ValueError("holds a NUL character, which no path may contain; save the table again as UTF-8 text")
    return folder / cell


def _category(row: Row, path: Path) -> str:
    return row.get("category") or path.stem


def _entry(row: Row, category: str, folder: Path, wanted: set[str], camera: Camera | None) -> Entry:
    """The part of one row. Raises ValueError: the row cannot be used."""
    label = row.get("label") or GOOD
    label = GOOD if label.lower() == GOOD else label
    split = SPLIT_NAMES.get((row.get("split") or ("train" if label == GOOD else "test")).lower())
    if split is None:
        raise ValueError(f"split {row['split']}: use train, validation or test")
    if row.get("xyz") and row.get("depth"):
        raise ValueError("holds both xyz and depth; keep one of the two")
    points = wanted & {"xyz", "depth"}
    if ("rgb" in wanted and not row.get("rgb")) or (points and not row.get("xyz") and not row.get("depth")):
        lacking = "rgb" if "rgb" in wanted and not row.get("rgb") else " or ".join(sorted(points))
        raise ValueError(f"lacks {lacking}, which other rows of {category} have")
    if label != GOOD and not row.get("gt"):
        raise ValueError(f"gt, the mask of the defect, is missing, but the label is {label}")
    files = {kind: named_file(folder, row[kind]) for kind in _FILES if row.get(kind)}
    for kind, path in files.items():
        if not path.is_file():
            raise ValueError(f"{kind} {path}: no such file")
    if "depth" in files:
        camera = row_camera(row, folder) or camera
        if camera is None:
            raise ValueError(f"a depth image needs a camera; add a column fx, or a camera.json such as {EXAMPLE}")
    name = row.get("name") or files.get("rgb", files.get("xyz", files.get("depth", folder))).stem
    for text in (label, name):
        check_name(text)
    return Entry(category, split, label, name, files.get("rgb"), files.get("xyz") or files.get("depth"),
                 files.get("gt"), camera if "depth" in files else None)  # fmt: skip
