"""Trainings side by side: the failure of one leaves the others alone, and Ctrl-C reaches all."""

from __future__ import annotations

import functools
import gc
import os
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from das3d_cli.engine.spread import one_after_another, side_by_side
from das3d_cli.errors import DataError, UsageError

DEVICES = [torch.device("cpu"), torch.device("meta")]


def work(name: str, device: torch.device) -> str:
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "strange":
        raise ValueError("what is this?")
    if name == "broken":
        raise UsageError("settings.x: wrong")
    return f"{name} on {device}"


def test_one_after_another():
    found = dict(one_after_another(work, ["broken", "strange", "fine"], DEVICES[0]))
    assert found["fine"] == "fine on cpu"
    assert isinstance(found["broken"], UsageError) and str(found["broken"]) == "settings.x: wrong"
    assert isinstance(found["strange"], DataError)
    assert str(found["strange"]) == "internal error: ValueError: what is this?"


class Held:
    """A reference cycle, like the state of a training."""

    def __init__(self) -> None:
        self.itself = self


def test_nothing_of_a_failed_one_is_held_during_the_next():
    seen: list[weakref.ref[Held]] = []

    def hold(name: str, device: torch.device) -> str:
        left = sum(reference() is not None for reference in seen)
        held = Held()
        seen.append(weakref.ref(held))
        if name == "fails":
            try:
                raise MemoryError
            except MemoryError:
                raise DataError("out of memory") from None
        return f"{left} left"

    found = []
    gc.disable()
    try:
        for name, outcome in one_after_another(hold, ["fails", "first", "second"], DEVICES[0]):
            found.append((name, str(outcome)))
    finally:
        gc.enable()
    assert found == [("fails", "out of memory"), ("first", "0 left"), ("second", "0 left")]


def test_side_by_side():
    found = dict(side_by_side(work, ["killed", "broken", "fine"], DEVICES))
    assert found["fine"] in {f"fine on {device}" for device in DEVICES}  # the device of whichever ended first
    assert str(found["broken"]) == "settings.x: wrong" and isinstance(found["broken"], UsageError)
    assert isinstance(found["killed"], DataError) and "code -9" in str(found["killed"])


def wait_for_interrupt(folder: Path, name: str, device: torch.device) -> None:
    try:
        (folder / f"{name} began").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"{name} has a checkpoint").touch()
        raise


def test_interrupt(tmp_path: Path):
    def press() -> None:
        while len(list(tmp_path.glob("* began"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(side_by_side(functools.partial(wait_for_interrupt, tmp_path), ["a", "b", "c"], DEVICES))
    thread.join()
    assert {path.name for path in tmp_path.glob("*checkpoint")} == {"a has a checkpoint", "b has a checkpoint"}
    assert not (tmp_path / "c began").exists()
