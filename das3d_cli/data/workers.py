"""Work distributed over processes or threads, or done in this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

import cv2

from das3d_cli.data.lean import without_viewers
from das3d_cli.errors import DataError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextlib.contextmanager
def process_pool(workers: int, *, jobs: int) -> Iterator[Executor | None]:
    """Yield `workers` processes (0: one per core; no more than `jobs`), or None to work in this process.

    They start with the first job and use one thread each. An error in the block, or the end of this process for any
    reason, ends them at once.

    Raises:
        DataError: a worker died.
    """
    count = min(workers or cores(), jobs)
    if count <= 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by a worker's libraries as they load
    context = multiprocessing.get_context("spawn")
    lifeline, end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _start, (lifeline,))
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool:
        raise DataError("a worker process died, perhaps because memory ran out; try fewer --workers") from None
    finally:
        end.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def completed(pool: Executor | None, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """Yield the results as they come, in any order."""
    if pool is None:
        yield from map(work, jobs)
        return
    with deaf_to_interrupts():
        futures = [pool.submit(work, job) for job in jobs]
    for future in as_completed(futures):
        yield future.result()


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """Yield the results in the jobs' order, computed by one thread per core, only far enough ahead to keep them busy.

    For work in libraries that release Python's lock, where copying arrays between processes would cost more.
    """
    count = cores()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """The number of cores that this process may use, as limited by taskset or a cluster's scheduler."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Make processes started in the block ignore Ctrl-C, which reaches every process: only the main one acts on it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    without_viewers()
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """End this worker when the main process closes its end of the pipe, or ends for any reason."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)
