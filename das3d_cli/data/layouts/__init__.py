"""From a data set's files to entries: which files make up one part, and what is known about it.

One module per layout of folders, each with `recognise`, which says what identifies a category's folder, `read`, which
reads one, and `unlabelled`, which reads a folder of parts to judge by the same rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from das3d_cli.data.capture import MEAN, OVERALL, Foreground
from das3d_cli.data.layouts import eyecandies, flat, mvtec3d, realiad, table
from das3d_cli.data.layouts.entries import (
    SPLITS,
    DataSet,
    Entry,
    Failure,
    Found,
    Unlabelled,
    check_name,
    listing,
    unread,
)
from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import reason

__all__ = ["LAYOUTS", "SPLITS", "DataSet", "Entry", "Failure", "find_entries", "pick_categories"]


class Layout(NamedTuple):
    """A layout: its name, the files expected, and functions to recognise and read a category's folder or unlabelled parts."""

    name: str
    expected: str
    recognise: Callable[[Path], str | None]
    read: Callable[[str, Path, Sequence[str]], Iterable[Found]]
    unlabelled: Callable[[Path, Sequence[str]], Unlabelled | None]
    foreground: Foreground = "table"
    light: str = ""  # the usual light, for data with an image per light


# The first that recognises a folder reads it, so the more specific come first.
LAYOUTS = (
    Layout("eyecandies", eyecandies.EXPECTED, eyecandies.recognise, eyecandies.read, eyecandies.unlabelled, "border", eyecandies.USUAL),
    Layout("realiad", realiad.EXPECTED, realiad.recognise, realiad.read, realiad.unlabelled, light=realiad.USUAL),
    Layout("flat", flat.EXPECTED, flat.recognise, flat.read, flat.unlabelled),
    Layout("mvtec3d", mvtec3d.EXPECTED, mvtec3d.recognise, mvtec3d.read, mvtec3d.unlabelled),
)  # fmt: skip

TABLE = Layout("table", table.EXPECTED, lambda _: None, lambda *_: (), lambda *_: None)


def find_entries(
    source: Path, categories: Sequence[str] = (), *, layout: str = "auto", lights: Sequence[str] = ()
) -> DataSet:
    """Pair the files of a data set by name.

    Args:
        source: a folder of categories, one category's own folder, or a CSV table.
        categories: those wanted; all when empty.
        layout: name of one of `LAYOUTS` or of `TABLE`; "auto" recognises it.
        lights: for data with several images per part, those to use; the usual one when empty.

    Raises:
        DataError: `source` is missing, empty or not a data set, or a name in it is invalid or reserved.
        UsageError: an unknown category or light, or lights for data without.
    """
    try:
        if source.is_file() and source.suffix.lower() == ".csv" and layout in ("auto", TABLE.name):
            recognised, why, root = TABLE, source.name, source.parent
            _light_note(recognised, lights)
            found = _rows(source, categories)
        else:
            recognised, folders, why, found = _recognise(source, _layouts(layout), categories)
            found += _light_note(recognised, lights)
            chosen, root = pick_categories(categories, list(folders), source), source
            found += [item for name in sorted(chosen) for item in recognised.read(name, folders[name], lights)]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {reason(error)}") from None
    found = list(_without_doubles(found))
    entries = [item for item in found if isinstance(item, Entry)]
    problems = [item for item in found if isinstance(item, Failure)]
    _check_names([*entries, *problems], source)
    notes = list(dict.fromkeys(item for item in found if isinstance(item, str)))
    if not entries and not problems:
        raise DataError("; ".join([f"{source}: holds no captures; expected {recognised.expected}", *notes]))
    return DataSet(source, root, entries, problems, recognised.name, why, recognised.foreground, notes)


def pick_categories(wanted: Sequence[str], available: Sequence[str], where: Path) -> list[str]:
    """Return the wanted categories without duplicates, or all available ones if none is named.

    Raises:
        UsageError: one is not available; lists those that are.
    """
    for category in wanted:
        if category not in available:
            close = difflib.get_close_matches(category, available, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            there = ", ".join(sorted(available))
            raise UsageError(f"category {category}: not in {where}, which holds {there}{hint}")
    return list(dict.fromkeys(wanted or available))


def _rows(source: Path, categories: Sequence[str]) -> list[Found]:
    """The table's parts of these categories, and its notes."""
    found = list(table.read_table(source))
    there = {item.category for item in found if not isinstance(item, str)}
    wanted = pick_categories(categories, sorted(there), source)
    return [item for item in found if isinstance(item, str) or item.category in wanted]


def _check_names(found: Iterable[Entry | Failure], source: Path) -> None:
    """Check that categories' names can be folder names and option values, that none is the name of all categories or of
    their mean, and that no defect type has the name of all types."""
    for item in found:
        category = item.category
        try:
            check_name(category)
        except ValueError as error:
            raise DataError(f"{source}: category {error}") from None
        if category in (OVERALL, MEAN) or "," in category:
            raise DataError(f"{source}: a category cannot be called {category}; rename it")
        if isinstance(item, Entry) and item.label == OVERALL:
            raise DataError(
                f"{source}: {category}: a kind of defect cannot be called {OVERALL}, which stands for all kinds; rename it"
            )


def _without_doubles(found: Iterable[Found]) -> Iterator[Found]:
    """Keep the first of the entries with one name, which the cache could not tell apart; the others become failures."""
    taken: dict[tuple[str, str, str, str], Entry] = {}
    for item in found:
        if isinstance(item, Entry):
            first = taken.setdefault((item.category, item.split, item.label, item.name), item)
            if first is not item:
                yield Failure(
                    item.category, item.files[0], f"{first.files[0]} has the same name; rename one of the two"
                )
                continue
        yield item


def _light_note(layout: Layout, lights: Sequence[str]) -> list[str]:
    """A note on which light is used, for data with several."""
    if lights and not layout.light:
        raise UsageError(
            f"settings.preprocess.lights: {','.join(lights)}: {layout.name} data have only one image per part; leave this setting out"
        )
    used = ", ".join(lights) or layout.light
    several = f", in validation and test only {lights[0]}" if len(lights) > 1 else ""
    return [f"light {used}{several}; choose with --set preprocess.lights"] if layout.light else []


def _layouts(name: str) -> tuple[Layout, ...]:
    if name == "auto":
        return LAYOUTS
    return tuple(layout for layout in (*LAYOUTS, TABLE) if layout.name == name)


def _recognise(
    root: Path, layouts: tuple[Layout, ...], wanted: Sequence[str]
) -> tuple[Layout, dict[str, Path], str, list[Found]]:
    """The first layout that recognises the folder or folders in it, the categories' folders, what identifies one of
    them (a wanted one if there is any), and a note on the folders that it does not recognise."""
    if not root.exists():
        raise DataError(f"{root}: no such folder; give the folder that holds the data set")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; give the folder that holds the data set")
    children = [child for child in listing(root) if child.is_dir()]
    for layout in layouts:
        if why := layout.recognise(root):
            return layout, {root.resolve().name: root}, f"{root.resolve().name}/{why}", []
        known = {child: why for child in children if (why := layout.recognise(child))}
        if known:
            first = min(known, key=lambda child: (child.name not in wanted, child))
            others = unread(
                f"{root}: not read, because these are not {layout.name} data", children, [child.name for child in known]
            )
            return layout, {child.name: child for child in known}, f"{first.name}/{known[first]}", [*others]
    state = "not a data set" if listing(root) else "empty"
    inner = (child for child in children for layout in layouts for deeper in listing(child) if layout.recognise(deeper))
    hint = next((f"; did you mean {child}?" for child in inner), "")
    own = f", or for your own parts {flat.EXPECTED}" if len(layouts) > 1 else ""
    raise DataError(f"{root}: is {state}; expected {layouts[-1].expected}{own}{hint}")
