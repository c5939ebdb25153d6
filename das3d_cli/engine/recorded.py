"""Work on a GPU that is launched as a whole: hundreds of kernels that are shorter than their launches."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from das3d_cli.device import short_of_memory

_EAGERLY = 3  # calls before the recording: libraries choose their kernels and optimisers make their state

# A recording waits for all of a GPU first, which breaks off one that another thread is at.
_one_at_a_time = threading.Lock()

Result = TypeVar("Result")
_Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Recorded(Generic[Result]):
    """A function of tensors on one GPU; from the fourth call with inputs of some shape on, one CUDA graph.

    All shapes share the memory of their work, for one runs after another. What cannot be recorded runs as it is, and says so.

    Args:
        work: takes tensors and returns some, waits for nothing, enters autocast by itself, and depends, besides on its
            inputs, only on tensors that stay where they are. What it changes of them it changes in every call.
    """

    def __init__(self, work: Callable[..., Result]) -> None:
        self._work = work
        self._calls: dict[_Shapes, int] = {}
        self._recordings: dict[_Shapes, _Recording[Result]] = {}
        self._stream: Any = None  # on which it runs before it is recorded, and is recorded
        self._pool: Any = None  # of memory
        self._able = True

    def __call__(self, *inputs: Tensor) -> Result:
        """What the work gives; of a recording, copies.

        Raises:
            RuntimeError: memory is too small for a recording; one that broke off holds some for as long as the process lasts, and
                no other is tried.
        """
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        with torch.cuda.device(inputs[0].device):
            self._stream = self._stream or new_stream(first=True)
            if self._able and self._calls[shapes] > _EAGERLY and shapes not in self._recordings:
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
            cause = error.__context__ or error  # its end raises over what broke it off
        # A recording that broke off leaves its stream set, and memory taken.
        torch.cuda.set_stream(here)
        self._able = False
        if short_of_memory(cause):
            raise cause
        torch.cuda.empty_cache()
        told = str(cause).partition("\n")[0]
        warnings.warn(f"not launched as a CUDA graph, and slower for it: {told}", stacklevel=3)


@dataclass(frozen=True)
class _Recording(Generic[Result]):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Result

    @classmethod
    def of(cls, work: Callable[..., Result], inputs: tuple[Tensor, ...], stream: Any, pool: Any) -> _Recording[Result]:
        """Nothing is computed yet. Other threads, as that which pins a step's samples, may go on meanwhile.

        What another recording works with may be overwritten by this one, and this one's by it, but no inputs, which lie outside the
        pool, and no results, of which copies are taken at once.
        """
        graph, own = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in inputs)
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            result = work(*own)
        return cls(graph, own, result)

    def replay(self, inputs: tuple[Tensor, ...]) -> Result:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        copies: Result = tree_map_only(Tensor, Tensor.clone, self.result)
        return copies


def new_stream(*, first: bool) -> torch.cuda.Stream:
    """On the current GPU; where several streams have work that waits, it goes first or last."""
    return torch.cuda.Stream(priority=-1 if first else 0)  # type: ignore[no-untyped-call]


def _beside(stream: torch.cuda.Stream, work: Callable[..., Result], inputs: tuple[Tensor, ...]) -> Result:
    """Run it on the stream, after what went before here and before what comes."""
    here = torch.cuda.current_stream()
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        result = work(*inputs)
    here.wait_stream(stream)
    return result
