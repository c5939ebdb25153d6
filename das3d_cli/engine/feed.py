"""Bring the good parts of each training step to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from das3d_cli.batch import Batch, Parts
from das3d_cli.device import send


class Feed:
    """Picks a step's parts on the device if they are kept there; else fetches them from main memory, one step ahead.

    Args:
        parts: all good parts to train on, on the device or in main memory.
        device: where the batches go.
        indices: gives the indices of a step's samples in `parts`, int64, (B,), in main memory.
    """

    def __init__(self, parts: Parts, device: torch.device, indices: Callable[[int], Tensor]) -> None:
        self._parts, self._device, self._indices = parts, device, indices
        self._resident = parts.depth.device == device
        # Pinned memory belongs to the thread's current GPU, which in a new thread is the first one.
        first = (torch.cuda.set_device, (device,)) if device.type == "cuda" else (None, ())
        self._thread = ThreadPoolExecutor(1, "das3d-feed", *first)
        self._ahead: dict[int, Future[Parts]] = {}

    def batch(self, step: int) -> Batch:
        """The samples of a step, on the device; returns without waiting for the copy."""
        if self._resident:
            return self._parts.pick(send(self._indices(step), self._device))
        fetched = (self._ahead.pop(step, None) or self._thread.submit(self._fetch, step)).result()
        self._ahead = {step + 1: self._thread.submit(self._fetch, step + 1)}
        return fetched.to(self._device).unpacked()

    def _fetch(self, step: int) -> Parts:
        taken = self._parts.take(self._indices(step))
        return Parts(*(tensor.pin_memory() for tensor in taken)) if self._device.type == "cuda" else taken


def placed(parts: Sequence[Parts], device: torch.device, room: float) -> list[Parts]:
    """Move all parts to the device if together they fit into `room` bytes; else leave them where they are."""
    if sum(some.size_bytes for some in parts) > room:
        return list(parts)
    return [some.to(device) for some in parts]


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> NDArray[np.int64]:
    """Indices of one step's samples, (batch_size,): each sample once per epoch, in an order set by (seed, epoch)."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {p: np.random.default_rng((seed, p)).permutation(count) for p in set((places // count).tolist())}
    return np.array([orders[place // count][place % count] for place in places.tolist()], dtype=np.int64)
