"""A GPU's training steps, each with the next one's samples made beside it."""

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
    """Learns from a step's samples while those of the step after it are made on another stream; one CUDA graph.

    Synthesis and network are hundreds of kernels each that fill a part of the GPU: side by side they take little longer than
    the network alone, least where synthesis waits for it. What is learnt is the same as one after the other.

    Args:
        make: of a step's inputs the samples, in tensors; as `Recorded` asks for.
        learn: from them; as `Recorded` asks for.
        inputs: what `make` takes for a step, on the GPU.
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
        self._samples: Samples | None = None  # that stay where they are, for the recording to find
        self._step: int | None = None  # whose samples they are

    def __call__(self, step: int) -> Result:
        """What learning from the step's samples gives."""
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
