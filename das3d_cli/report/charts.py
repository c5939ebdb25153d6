"""Charts as inline SVG: the scores around the threshold, and the curves behind AUROC and AUPRO.

Their colours are set in page.css, so that they follow the page's light, dark and print styles.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.etree.ElementTree import Element

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from das3d_cli.report.markup import tag

_WIDTH, _HEIGHT = 320, 272  # about a phone's width, so that text keeps its size there
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 300, 46, 226  # the plot area
_BIN = 0.04  # width of a bar, in score units
_TOLERANCE = 0.1  # largest deviation of a thinned curve from the original, in drawing units


def score_histogram(good: ArrayLike, defective: ArrayLike, threshold: float) -> Element:
    """Histogram of scores, with good parts upwards and defective parts downwards from one axis.

    The threshold is an edge between bars: exactly the rejected parts lie right of it.

    Args:
        good, defective: (N,) and (M,), scores from 0 to 1; either may be empty.
        threshold: the lowest score that is rejected.
    """
    up, down = _bins(good, threshold), _bins(defective, threshold)
    highest, lowest = max(up.values(), default=0), max(down.values(), default=0)
    unit = (_BOTTOM - _TOP) / max(highest + lowest, 1)
    axis = _TOP + highest * unit
    end = max(1.0, threshold)

    def x(score: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(max(score / end, 0.0), 1.0)

    bars = []
    for bins, kind in ((up, "good"), (down, "defective")):
        for number, parts in sorted(bins.items()):
            left, right = x(threshold + number * _BIN), x(threshold + (number + 1) * _BIN)
            top = axis - parts * unit if kind == "good" else axis
            bars.append(_box(left + 0.5, top, max(right - left - 1, 1), parts * unit, kind))
    step = _step(max(highest, lowest))
    heights = [*range(0, highest + 1, step), *range(-step, -lowest - 1, -step)]
    line, (anchor, shift) = x(threshold), _beside(x(threshold))
    return _figure(
        "Scores of good and defective parts",
        f"Counts of parts by score, from 0 on the left to {end:.3g} on the right. Threshold {threshold:.3f}."
        f" {_sides(good, threshold, 'Good')} {_sides(defective, threshold, 'Defective')}",
        *(_row(axis - height * unit, str(abs(height))) for height in heights),
        *(_column(x(score), f"{score:g}") for score in (0, 0.25, 0.5, 0.75, 1)),
        *bars,
        _line(_LEFT, axis, _RIGHT, axis, "axis"),
        _line(line, _TOP - 14, line, _BOTTOM, "threshold"),
        _text(4, _TOP - 12, "parts", "start"),
        _text(line + shift, _TOP - 6, f"threshold {threshold:.3f}", anchor, "strong"),
        _box(4, 3, 10, 10, "good"),
        _text(19, 12, "good parts, upwards", "start"),
        _box(162, 3, 10, 10, "defective"),
        _text(177, 12, "defective, downwards", "start"),
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, "score"),
    )


def rising_curve(
    x: ArrayLike,
    y: ArrayLike,
    *,
    title: str,
    description: str,
    x_title: str,
    y_title: str,
    area_title: str,
    limit: float = 1.0,
    place: tuple[float, float],
    place_title: str,
) -> Element:
    """A curve and the area below it; both axes are shares, labelled in percent.

    Args:
        x, y: (K,), 0 to 1, both non-decreasing.
        area_title: legend of the area.
        limit: x where the area ends; below 1 it is marked, and the x axis extends a third beyond it, at most to 1.
        place: (x, y) of a point to mark; left out if it is beyond the end of the x axis.
        place_title: label of that point.
    """
    rates, heights = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    end = min(1.0, limit * 4 / 3)
    curve, area = (_path(rates, heights, until, end) for until in (end, limit))
    return _figure(
        title,
        description,
        *(_row(_up(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)),
        *(_column(_across(share), f"{share * end:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)),
        tag("path", d=f"{area}V{_BOTTOM}H{_LEFT}Z", class_="area"),
        *(_limit_mark(_across(limit / end), f"area up to {limit:.0%}") if limit < end else ()),
        tag("path", d=curve, class_="curve"),
        _line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis"),
        *(_place_mark(_across(place[0] / end), _up(place[1]), place_title) if place[0] <= end else ()),
        _box(4, 3, 10, 10, "area"),
        _text(19, 12, area_title, "start"),
        _text(4, _TOP - 12, y_title, "start"),
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, x_title),
    )


def _path(rates: NDArray[np.float64], heights: NDArray[np.float64], until: float, end: float) -> str:
    """SVG path of the curve up to x = `until`, including a vertical step there, on an axis up to `end`."""
    inside = rates <= until
    across = _across(np.append(rates[inside], until) / end)
    corners = thinned(np.stack([across, _up(np.append(heights[inside], np.interp(until, rates, heights)))], axis=1))
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners.tolist())


def _limit_mark(x: float, title: str) -> tuple[Element, ...]:
    return _line(x, _TOP, x, _BOTTOM, "limit"), _text(x - 6, _BOTTOM - 10, title, "end")


def _place_mark(x: float, y: float, title: str) -> tuple[Element, ...]:
    """A ring with its label below it, or above it near the axis."""
    anchor, shift = _beside(x)
    ring = tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=5, class_="place")
    return ring, _text(x + shift, y + 18 if y < _BOTTOM - 45 else y - 22, title, anchor, "strong")


def thinned(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Reduce a polyline, (K, 2), to the corners that keep it within `_TOLERANCE` of its course, (L, 2)."""
    kept = cv2.approxPolyDP(points.astype(np.float32)[:, None], _TOLERANCE, closed=False)
    return np.asarray(kept, dtype=np.float32)[:, 0]


def _across(share: float | NDArray[np.float64]) -> Any:
    return _LEFT + share * (_RIGHT - _LEFT)


def _up(share: float | NDArray[np.float64]) -> Any:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _bins(scores: ArrayLike, threshold: float) -> dict[int, int]:
    """Bar number -> count of scores; bar 0 begins at the threshold, and bars below it have negative numbers."""
    numbers = np.floor((np.asarray(scores, dtype=np.float64) - threshold) / _BIN).astype(int)
    return Counter(numbers.tolist())


def _step(largest: int) -> int:
    """The distance between ticks that gives about four: 1, 2 or 5 times a power of ten."""
    steps = (factor * magnitude for magnitude in (1, 10, 100, 1000, 10_000) for factor in (1, 2, 5))
    return next((step for step in steps if 4 * step >= largest), largest)


def _sides(scores: ArrayLike, threshold: float, kind: str) -> str:
    values = np.asarray(scores)
    return (
        f"{kind} parts: {int((values < threshold).sum())} below it, {int((values >= threshold).sum())} at or above it."
    )


def _beside(x: float) -> tuple[str, int]:
    """Text anchor and x offset of the label of a mark at x: to its right in the left half, else to its left."""
    return ("start", 6) if x < (_LEFT + _RIGHT) / 2 else ("end", -6)


def _figure(title: str, description: str, *content: Element) -> Element:
    return tag(
        "svg", tag("title", title), tag("desc", description), *content,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{title}. {description}",
    )  # fmt: skip


def _row(y: float, label: str) -> Element:
    """A horizontal line of the grid."""
    return tag("g", _line(_LEFT, y, _RIGHT, y, "grid"), _text(_LEFT - 6, y + 4, label, "end"))


def _column(x: float, label: str) -> Element:
    return tag("g", _line(x, _BOTTOM, x, _BOTTOM + 4, "axis"), _text(x, _BOTTOM + 18, label))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _box(x: float, y: float, width: float, height: float, kind: str) -> Element:
    return tag("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}", class_=kind)


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str | None = None) -> Element:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)
