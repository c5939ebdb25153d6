"""Random numbers that depend on the item, not on the device, the worker or the place in a batch.

`ItemRandom` is a counter-based generator: SplitMix64 (Steele, Lea and Flood 2014) evaluated at any position, for a
whole batch at once. Item i's numbers depend on (seed, step, index of item i) alone, and integer arithmetic makes
them the same on every device.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_FORK = 0xD1342543DE82EF95 - (1 << 64)  # a multiplier by Steele and Vigna; forks and draws step by different numbers
_AHEAD = 64  # numbers of each item that are computed at once: most draws take one or two


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch shifts int64 arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _unit(keys: Tensor, offsets: Tensor) -> Tensor:
    """float32, in [0, 1)."""
    return _shift(_mix(keys + offsets), 40).to(torch.float32) * 2.0**-24


@functools.cache  # never evicted: a recorded CUDA graph reads the tensor where it lay
def _offsets(start: int, stop: int, step: int, device: torch.device) -> Tensor:
    """What is added to a key for positions start to stop - 1 of its stream, or for these forks."""
    with torch.inference_mode(False):
        return torch.arange(start + 1, stop + 1, device=device) * step


def _wrapped(x: int) -> int:
    """Wrapped to a signed 64-bit integer."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


class ItemRandom:
    """A stream of random numbers for each of B items.

    Args:
        keys: int64, (B,): one key per item; equal keys give equal streams.
        ahead: float32, (B, 64), the first numbers of the streams, where they are known.
    """

    def __init__(self, keys: Tensor, ahead: Tensor | None = None) -> None:
        self._keys = keys
        self._drawn = 0
        self._ahead = ahead

    @classmethod
    def of(cls, seed: int, step: int | Tensor, indices: Tensor) -> ItemRandom:
        """Streams for the items `indices` (int64, (B,)) at one step of one seed; a step may be an int64 scalar."""
        return cls(torch.full_like(indices, seed)).fork(step).fork(indices)

    def fork(self, label: int | Tensor) -> ItemRandom:
        """Separate streams, told apart by `label` (one for all, or int64, (B,)); this one is not advanced."""
        step = (label + 1) * _FORK if isinstance(label, Tensor) else _wrapped((label + 1) * _FORK)
        return ItemRandom(_mix(self._keys + step))

    def forks(self, count: int) -> ItemRandom:
        """The forks 0 to count - 1, concatenated: count * B streams."""
        return ItemRandom(_mix((self._keys + _offsets(0, count, _FORK, self.device)[:, None]).flatten()))

    def split(self, count: int) -> list[ItemRandom]:
        """The forks 0 to count - 1, one by one."""
        together = self.forks(count)
        keys, ahead = together._keys.chunk(count), together._units(0, _AHEAD).chunk(count)
        return [ItemRandom(*pair) for pair in zip(keys, ahead, strict=True)]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def device(self) -> torch.device:
        return self._keys.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32, (B, *shape), uniform in [low, high). Do not write to it: it may be the stream's own memory."""
        start, self._drawn = self._drawn, self._drawn + math.prod(shape)
        if self._drawn > _AHEAD:
            unit = self._units(start, self._drawn)
        else:
            self._ahead = self._units(0, _AHEAD) if self._ahead is None else self._ahead
            unit = self._ahead[:, start : self._drawn]
        scaled = unit if (low, high) == (0, 1) else low + (high - low) * unit
        return scaled.view(-1, *shape)

    def _units(self, start: int, stop: int) -> Tensor:
        """The numbers at these positions of every stream: float32, (B, stop - start), in [0, 1)."""
        return _unit(self._keys[:, None], _offsets(start, stop, _GOLDEN, self.device))

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """float32, (B, *shape), with a uniform logarithm in [log low, log high)."""
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def integers(self, *shape: int, high: int) -> Tensor:
        """int64, (B, *shape), uniform in {0, ..., high - 1}; high is far below 2^24."""
        return (self.uniform(*shape) * high).long().clamp_(max=high - 1)

    def bernoulli(self, *shape: int, probability: float) -> Tensor:
        """bool, (B, *shape), True with the given probability."""
        return self.uniform(*shape) < probability
