"""Times that can be compared on a busy machine: everything that stands side by side takes turns."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        what: is measured.
        values: of the rounds, in `unit`.
        ratios: of the rounds: how many times as much `beside` took.
    """

    what: str
    values: Sequence[float]
    unit: str
    beside: str = ""
    ratios: Sequence[float] = ()


class Section(NamedTuple):
    """A table with its title and what there is to know about it."""

    title: str
    text: str
    rows: Sequence[Row]


Works = dict[str, Callable[[], object]]


def take_turns(
    works: Works, rounds: int, device: torch.device | None = None, *, often: int = 1
) -> dict[str, list[float]]:
    """Seconds of every work in every round, done `often` times in a row; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for counted in range(-1, rounds):
        for name, work in works.items():
            wait(device)
            start = time.perf_counter()
            for _ in range(often):
                work()
            wait(device)
            if counted >= 0:
                seconds[name].append((time.perf_counter() - start) / often)
    return seconds


def wait(device: torch.device | None) -> None:
    """For the device to have done what it was given."""
    if device and device.type == "cuda":
        torch.cuda.synchronize(device)


def times(found: dict[str, list[float]], *, against: str = "") -> list[Row]:
    """A row in milliseconds for each work, set beside the one called `against`, if that is among them."""
    rows = []
    for name, seconds in found.items():
        compared = against in found and name != against
        ratios = [other / own for own, other in zip(seconds, found[against], strict=True)] if compared else []
        rows.append(Row(name, [1e3 * s for s in seconds], "ms", against if compared else "", ratios))
    return rows


def rate(what: str, count: int, seconds: Sequence[float], beside: str = "", other: Sequence[float] = ()) -> Row:
    """Images per second, `count` of them having taken these seconds; `other`: seconds that `beside` took for as many."""
    ratios = [b / a for a, b in zip(seconds, other, strict=True)] if other else []
    return Row(what, [count / s for s in seconds], "images/s", beside, ratios)


def growth(found: dict[str, list[float]]) -> list[Row]:
    """Rows in milliseconds of works that grow, each told in multiples of the one before."""
    rows: list[Row] = []
    before: list[float] = []
    for name, seconds in found.items():
        ratios = [own / other for own, other in zip(seconds, before, strict=True)] if before else []
        rows.append(Row(name, [1e3 * s for s in seconds], "ms", "growth" if before else "", ratios))
        before = seconds
    return rows


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def peak_megabytes(ready: Callable[..., Callable[[], object]], *arguments: object) -> float:
    """Most main memory that a work needs, in a process of its own, beyond what was held before it; nan off Linux.

    `ready(*arguments)` makes ready there and returns the work.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, ready, arguments).result()


def _peak(ready: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> float:
    work, about = ready(*arguments), Path("/proc/self/status")
    if not about.is_file():
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, which a new process has from its parent
    held = _kilobytes(about, "VmRSS")
    work()
    return (_kilobytes(about, "VmHWM") - held) / 1024


def _kilobytes(about: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in about.read_text().splitlines() if line.startswith(key))
