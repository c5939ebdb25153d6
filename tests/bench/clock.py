"""Times that can be compared on a busy machine, because what is compared takes turns."""

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
        what: what is measured.
        values: one per round, in `unit`.
        ratios: one per round: how many times as long `beside` took; if `beside` is "growth", how many times as long as the
            row before this row took.
    """

    what: str
    values: Sequence[float]
    unit: str
    beside: str = ""
    ratios: Sequence[float] = ()


class Section(NamedTuple):
    """A table with its title and an explanation."""

    title: str
    text: str
    rows: Sequence[Row]


Works = dict[str, Callable[[], object]]


def take_turns(
    works: Works, rounds: int, device: torch.device | None = None, *, often: int = 1
) -> dict[str, list[float]]:
    """Seconds per call of every work in every round, called `often` times in a row; an extra first round is not counted."""
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
    """Wait until the device has done its queued work."""
    if device and device.type == "cuda":
        torch.cuda.synchronize(device)


def times(found: dict[str, list[float]], *, against: str = "") -> list[Row]:
    """A row in milliseconds for each work, compared with the one called `against` if that is among them."""
    rows = []
    for name, seconds in found.items():
        compared = against in found and name != against
        ratios = [other / own for own, other in zip(seconds, found[against], strict=True)] if compared else []
        rows.append(Row(name, [1e3 * s for s in seconds], "ms", against if compared else "", ratios))
    return rows


def rate(what: str, count: int, seconds: Sequence[float], beside: str = "", other: Sequence[float] = ()) -> Row:
    """A row in images per second from the seconds for `count` images; `other`: the seconds of `beside` for as many."""
    ratios = [b / a for a, b in zip(seconds, other, strict=True)] if other else []
    return Row(what, [count / s for s in seconds], "images/s", beside, ratios)


def growth(found: dict[str, list[float]]) -> list[Row]:
    """Rows in milliseconds of works of growing size, each also as a multiple of the one before."""
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
    """Peak main memory of a work beyond what was held before it, in its own process, 2^20 bytes; nan off Linux.

    `ready(*arguments)` does the set-up in that process and returns the work.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, ready, arguments).result()


def _peak(ready: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> float:
    work, about = ready(*arguments), Path("/proc/self/status")
    if not about.is_file():
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which a new process inherits from its parent
    held = _kilobytes(about, "VmRSS")
    work()
    return (_kilobytes(about, "VmHWM") - held) / 1024


def _kilobytes(about: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in about.read_text().splitlines() if line.startswith(key))
