"""Overlap each training step on a GPU with the synthesis of the next step's samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from das3d_cli.engine.recorded import Recorded, new_stream

Samples = TypeVar("Samples")
Result = TypeVar("Result")


class Ahead(Generic[Samples, Result]):
    """Trains on one step's samples while the next step's are made on another stream, both in one CUDA graph.

    Synthesis and network each launch hundreds of kernels that fill only part of the GPU: side by side they take little
    longer than the network alone, least of all if synthesis has the lower priority. What is learnt stays the same.

    Args:
        make: makes a step's samples, in tensors, from its inputs; must meet the conditions of `Recorded`.
        learn: trains on those samples; same conditions.
        inputs: gives the arguments of `make` for a step, on the GPU.
    """

    def __init__(
        self,
        make: Callable[..., Samples],
        learn: Callable[[Samples], Result],
        inputs: Callable[[int], tuple[Tensor, ...]],
    ) -> None:
        self._make, self._learn, self._inputs = make, learn, inputs
        self._launch = Recorded(self._both)
        self._stream: Any = None
        self._samples: Samples | None = None  # tensors at fixed addresses, which the recording reads
        self._step: int | None = None  # the step that they are for

    def __call__(self, step: int) -> Result:
        """Train on the step's samples; return what `learn` returns."""
        if self._step != step:
            self._keep(self._make(*self._inputs(step)))
        result = self._launch(*self._inputs(step + 1))
        self._step = step + 1
        return result

    def _both(self, *inputs: Tensor) -> Result:
        assert self._samples is not None
        here, self._stream = torch.cuda.current_stream(), self._stream or new_stream(first=False)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            following = self._make(*inputs)
        result = self._learn(self._samples)
        here.wait_stream(self._stream)
        self._keep(following)
        return result

    def _keep(self, samples: Samples) -> None:
        if self._samples is None:
            self._samples = tree_map_only(Tensor, Tensor.clone, samples)
            return
        for own, made in zip(tree_leaves(self._samples), tree_leaves(samples), strict=True):
            if isinstance(own, Tensor):
                own.copy_(made)
