"""How work ends early: Ctrl-C waits for a good moment, SIGTERM leaves nothing half written, a killed parent takes its processes along."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into an answer to "interrupted?": between two statements of a step it would leave half of one.

    Outside the main thread, where Python allows no signal handlers, Ctrl-C stays as it is.
    """
    seen = False

    def note(number: int, frame: object) -> None:
        nonlocal seen
        seen = True
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)


def end_on_sigterm() -> None:
    """Let SIGTERM, by which services are stopped, end this process as an error does, so that nothing stays half written."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def end_with_parent(parent: int | None = None) -> None:
    """End this process soon after its parent: orphans would train on, and write, unseen.

    Args:
        parent: its number, for a process that may be an orphan by now; otherwise what it is at the moment.
    """
    threading.Thread(target=_end_with, args=(parent or os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
