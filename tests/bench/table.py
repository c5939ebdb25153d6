"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .clock import Row, Section, median


def markdown(head: str, sections: Iterable[Section]) -> str:
    """All sections, one table each."""
    parts = [f"# Results of the speed benchmark\n\n{head}"]
    for title, text, rows in sections:
        parts.append(f"## {title}\n\n{text}" if text else f"## {title}")
        if rows:
            lines = ["| | median | smallest to largest | | |", "|---|---:|---:|---|---|", *map(_line, rows)]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    cells = [row.what, number(median(row.values)), _spread(row.values), row.unit, _compared(row)]
    return f"| {' | '.join(cells)} |"


def _compared(row: Row) -> str:
    if not row.ratios:
        return ""
    ratio, spread = number(median(row.ratios)), _spread(row.ratios)
    within = f" ({spread})" if spread else ""
    if row.beside == "growth":
        return f"{ratio} times the one before{within}"
    return f"{row.beside} takes {ratio} times as long{within}"


def _spread(values: Sequence[float]) -> str:
    return f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else ""


def number(value: float) -> str:
    """Three digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
