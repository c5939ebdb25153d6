"""Samples made a step ahead belong to their step, in any order of steps; for real CUDA streams see test_gpu."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from das3d_cli.engine import ahead


class Sample(NamedTuple):
    image: Tensor
    nothing: None


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the CPU, with stand-ins for streams and without recording."""
    stand_in = SimpleNamespace(wait_stream=id)
    monkeypatch.setattr(ahead, "Recorded", lambda work: work)
    monkeypatch.setattr(ahead, "new_stream", lambda *, first: stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stand_in)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("steps", [range(5), (3, 4, 5), (0, 1, 5, 6, 2, 2, 3)], ids=["all", "resumed", "to and fro"])
def test_every_step_learns_from_its_own_samples(steps):
    made: list[int] = []
    places: set[int] = set()

    def make(number: Tensor) -> list[Sample]:
        made.append(int(number))
        return [Sample(torch.full((2,), float(number)), None)]

    def learn(samples: list[Sample]) -> Tensor:
        places.add(samples[0].image.data_ptr())
        return 10 * samples[0].image.sum()

    work = ahead.Ahead(make, learn, lambda step: (torch.tensor(step),))
    assert [float(work(step)) for step in steps] == [20.0 * step for step in steps]
    assert len(places) == 1  # the fixed address that a recording reads
    jumps = sum(now != before + 1 for before, now in zip((-9, *steps), steps, strict=False))
    assert len(made) == len(steps) + jumps  # one set per step, and one more after each jump
