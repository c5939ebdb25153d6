"""GPU work launched as a whole, as a CUDA graph: hundreds of kernels, each shorter than its launch."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from das3d_cli.device import short_of_memory

EAGER_CALLS = 3  # calls before the recording, in which libraries choose kernels and optimisers create their state

# A recording first synchronises with the whole GPU, which would abort another thread's recording.
_one_at_a_time = threading.Lock()

Result = TypeVar("Result")
_Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Recorded(Generic[Result]):
    """A function of tensors on one GPU; from the fourth call with inputs of the same shapes on, one CUDA graph.

    Recordings for different shapes share memory, as only one runs at a time. What cannot be recorded runs as it is,
    with a warning.

    Args:
        work: takes and returns tensors, never waits for the GPU, and enters autocast itself. Besides its inputs it
            depends only on tensors that stay at their addresses; if it changes any of these, it does so in every call.
    """

    def __init__(self, work: Callable[..., Result]) -> None:
        self._work = work
        self._calls: dict[_Shapes, int] = {}
        self._recordings: dict[_Shapes, _Recording[Result]] = {}
        self._stream: Any = None  # for the calls before the recording, and the recording
        self._pool: Any = None  # memory that all recordings share
        self._able = True

    def __call__(self, *inputs: Tensor) -> Result:
        """Run the work; the results of a recording are returned as copies.

        Raises:
            RuntimeError: memory is too small for a recording. The failed one holds some memory until the process ends,
                and no other is tried.
        """
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        with torch.cuda.device(inputs[0].device):
            self._stream = self._stream or new_stream(first=True)
            if self._able and self._calls[shapes] > EAGER_CALLS and shapes not in self._recordings:
                self._record(shapes, inputs)
            if shapes in self._recordings:
                return self._recordings[shapes].replay(inputs)
            return _beside(self._stream, self._work, inputs) if self._able else self._work(*inputs)

    def _record(self, shapes: _Shapes, inputs: tuple[Tensor, ...]) -> None:
        here = torch.cuda.current_stream()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            with _one_at_a_time:
                self._recordings[shapes] = _Recording.of(self._work, inputs, self._stream, self._pool)
            return
        except RuntimeError as error:
            cause = error.__context__ or error  # leaving the capture raises another error over the original
        # A failed recording leaves its stream current and memory taken.
        torch.cuda.set_stream(here)
        self._able = False
        self._recordings.clear()  # freeing the failed graph may free a workspace that they share with it
        if not isinstance(cause, RuntimeError) or short_of_memory(cause):
            raise cause
        torch.cuda.empty_cache()
        told = str(cause).partition("\n")[0]
        warnings.warn(f"not launched as a CUDA graph, and therefore slower: {told}", stacklevel=3)


@dataclass(frozen=True)
class _Recording(Generic[Result]):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Result

    @classmethod
    def of(cls, work: Callable[..., Result], inputs: tuple[Tensor, ...], stream: Any, pool: Any) -> _Recording[Result]:
        """Record the work, without computing it yet. Other threads, such as the one that pins samples, need not stop.

        Recordings may overwrite each other's intermediate values, but not inputs, which lie outside the pool, and not
        results before they are copied, which happens at once.
        """
        graph, own = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in inputs)
        with (
            _no_garbage_collected(),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            result = work(*own)
        return cls(graph, own, result)

    def replay(self, inputs: tuple[Tensor, ...]) -> Result:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        copies: Result = tree_map_only(Tensor, Tensor.clone, self.result)
        return copies


@contextlib.contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Collect garbage before and not during the block: a graph that is freed during a capture breaks it off."""
    gc.collect()
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


def new_stream(*, first: bool) -> torch.cuda.Stream:
    """A stream on the current GPU whose waiting work goes before (`first`) or after that of other streams."""
    return torch.cuda.Stream(priority=-1 if first else 0)  # type: ignore[no-untyped-call]


def _beside(stream: torch.cuda.Stream, work: Callable[..., Result], inputs: tuple[Tensor, ...]) -> Result:
    """Run the work on the stream, after all earlier and before all later work of the current stream."""
    here = torch.cuda.current_stream()
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        result = work(*inputs)
    here.wait_stream(stream)
    return result
