"""Several trainings side by side: each in a process of its own, on a device of its own."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import torch

from das3d_cli.data.workers import deaf_to_interrupts
from das3d_cli.engine.interrupt import end_with_parent
from das3d_cli.errors import Das3dError, DataError, unforeseen

Result = TypeVar("Result")
Work = Callable[[str, torch.device], Result]


def one_after_another(
    work: Work[Result], names: Sequence[str], device: torch.device
) -> Iterator[tuple[str, Result | Das3dError]]:
    """Yield each name with the result of its work, or with the error that ended it, which does not stop the others."""
    for name in names:
        yield name, _outcome(work, name, device)
        gc.collect()  # frees what one training held, reference cycles too, before the next one
        with contextlib.suppress(RuntimeError):  # the GPU has failed: the next work on it reports that itself
            torch.cuda.empty_cache()


def side_by_side(
    work: Work[Result], names: Sequence[str], devices: Sequence[torch.device]
) -> Iterator[tuple[str, Result | Das3dError]]:
    """Like `one_after_another`, with one process per device at a time; yields in the order in which they end.

    `work` must be importable from another process. Ctrl-C is passed on to all running processes, which handle it.
    """
    context = multiprocessing.get_context("spawn")
    waiting, free = deque(names), deque(devices)
    running: dict[Connection, tuple[SpawnProcess, str, torch.device]] = {}
    try:
        while waiting or running:
            while waiting and free:
                name, device = waiting.popleft(), free.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_report, args=(theirs, work, name, device, os.getpid()))
                with deaf_to_interrupts():
                    process.start()
                    running[ours] = process, name, device  # before an interrupt can arrive, so that it is passed on
                theirs.close()
            ended = wait(list(running))
            for ours in [connection for connection in running if connection in ended]:
                process, name, device = running.pop(ours)
                free.append(device)
                yield name, _received(ours, process)
    finally:
        for process, _, _ in running.values():
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGINT)
        for process, _, _ in running.values():
            process.join()


def _received(ours: Connection, process: SpawnProcess) -> Any:
    try:
        return ours.recv()
    except EOFError:
        process.join()
        return DataError(f"its process ended with code {process.exitcode}, perhaps because memory ran out")
    finally:
        process.join()


def _report(theirs: Connection, work: Work[Result], name: str, device: torch.device, parent: int) -> None:
    """Do the work, in its own process, and send back the outcome."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C then comes from the first process alone, and only once
    end_with_parent(parent)
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.send(_outcome(work, name, device))
    except KeyboardInterrupt:
        sys.exit(130)


def _outcome(work: Work[Result], name: str, device: torch.device) -> Result | Das3dError:
    try:
        return work(name, device)
    except Das3dError as error:
        return type(error)(str(error))  # without the traceback, whose frames keep data alive
    except Exception as error:  # noqa: BLE001  (an unforeseen error in one must not end the others)
        return DataError(f"internal error: {unforeseen(error)}")
