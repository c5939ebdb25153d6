"""End early: Ctrl-C waits for a good moment, SIGTERM leaves nothing half written, children end with their parent."""

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
    """Yield a function that tells whether Ctrl-C was pressed.

    The first Ctrl-C does nothing else: an interrupt would leave a step half done. Outside the main thread, where Python
    allows no signal handlers, Ctrl-C is left alone.
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
    """Let SIGTERM, which stops services, end this process like an error, so that nothing is left half written."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def end_with_parent(parent: int | None = None) -> None:
    """End this process soon after its parent ends: an orphan would go on training and writing unseen.

    Args:
        parent: process ID, for a process that may be an orphan already; by default that of the current parent.
    """
    threading.Thread(target=_end_with, args=(parent or os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
