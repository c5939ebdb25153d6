"""Work on a GPU that is launched as a whole: hundreds of kernels that are shorter than their launches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_EAGERLY = 3  # calls before the recording: libraries choose their kernels and optimisers make their state

Result = TypeVar("Result")
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Recorded(Generic[Result]):
    """A function of tensors on one GPU; from the fourth call with inputs of some shape on, one CUDA graph.

    Args:
        work: takes and returns tensors alone, waits for nothing, and depends, besides on its inputs, only on tensors that
            stay where they are. What it changes of them it changes in every call, as without this class.
    """

    def __init__(self, work: Callable[..., Result]) -> None:
        self._work = work
        self._calls: dict[Shapes, int] = {}
        self._recordings: dict[Shapes, _Recording[Result]] = {}
        self._able = True

    def __call__(self, *inputs: Tensor) -> Result:
        """What the work gives; of a recording, copies."""
        if not self._able:
            return self._work(*inputs)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if self._calls[shapes] <= _EAGERLY:
            return _beside(self._work, *inputs)
        if shapes not in self._recordings:
            try:
                self._recordings[shapes] = _Recording.of(self._work, inputs)
            except RuntimeError as error:
                self._able = False
                warnings.warn(f"not recorded as a CUDA graph, and slower for it: {error}", stacklevel=2)
                return self._work(*inputs)
        return self._recordings[shapes].replay(inputs)


@dataclass(frozen=True)
class _Recording(Generic[Result]):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Result

    @classmethod
    def of(cls, work: Callable[..., Result], inputs: tuple[Tensor, ...]) -> _Recording[Result]:
        """Nothing is computed yet. Other threads, as that which pins a step's samples, may go on meanwhile."""
        graph, own = torch.cuda.CUDAGraph(), tuple(tensor.clone() for tensor in inputs)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = work(*own)
        return cls(graph, own, result)

    def replay(self, inputs: tuple[Tensor, ...]) -> Result:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        copies: Result = tree_map_only(Tensor, Tensor.clone, self.result)
        return copies


def _beside(work: Callable[..., Result], *inputs: Tensor) -> Result:
    """Run it on a stream of its own, as it is recorded on one: what it keeps then belongs to no other."""
    stream, here = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        result = work(*inputs)
    here.wait_stream(stream)
    return result
