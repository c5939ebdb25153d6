"""Work launched as one CUDA graph gives the same results as without; the graph is faked here, see test_gpu."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from das3d_cli.engine import recorded
from das3d_cli.engine.recorded import Recorded


class Result(NamedTuple):
    total: Tensor
    nothing: None


def work(a: Tensor, b: Tensor) -> Result:
    return Result(a.sum() + b, None)


class Graph:
    """Fake graph: a replay repeats the work, from the same input tensors into the same outputs."""

    def __init__(self, inputs: tuple[Tensor, ...], result: Result) -> None:
        self.inputs, self.result = inputs, result

    def replay(self) -> None:
        self.result.total.copy_(work(*self.inputs).total)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Tensor, ...]]]:
    """The inputs of all recordings made."""
    made: list[tuple[Tensor, ...]] = []
    pools: set[object] = set()

    def of(work, inputs, stream, pool):
        made.append(own := tuple(tensor.clone() for tensor in inputs))
        pools.add(pool)
        result = work(*own)
        return recorded._Recording(Graph(own, result), own, result)

    monkeypatch.setattr(recorded, "_beside", lambda stream, work, inputs: work(*inputs))
    monkeypatch.setattr(recorded, "new_stream", lambda *, first: object())
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    for name, gives in (
        ("current_stream", object),
        ("set_stream", id),
        ("empty_cache", object),
        ("graph_pool_handle", object),
    ):
        monkeypatch.setattr(torch.cuda, name, gives)
    monkeypatch.setattr(recorded._Recording, "of", of)
    yield made
    assert len(pools) <= 1  # recordings for all shapes share memory


def test_every_call_gives_its_own_inputs_result(recordings: list[tuple[Tensor, ...]]):
    launched = Recorded(work)
    inputs = [(torch.full((3,), float(n)), torch.tensor(float(n))) for n in range(7)]
    results = [launched(*pair) for pair in inputs]
    assert [float(result.total) for result in results] == [4.0 * n for n in range(7)]  # copies: none is overwritten
    assert all(result.nothing is None for result in results)
    assert len(recordings) == 1


def test_another_shape_is_recorded_by_itself(recordings: list[tuple[Tensor, ...]]):
    launched = Recorded(work)
    for _ in range(5):
        for count in (2, 3):
            assert float(launched(torch.ones(count), torch.tensor(0.0)).total) == count
    assert [len(own[0]) for own in recordings] == [2, 3]


def test_what_cannot_be_recorded_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, recordings: list[tuple[Tensor, ...]]):
    def of(work, inputs, stream, pool):
        raise RuntimeError("operation not permitted\nwhen the stream is capturing")

    monkeypatch.setattr(recorded._Recording, "of", of)
    launched = Recorded(work)
    with pytest.warns(UserWarning, match="not launched as a CUDA graph.*slower: operation not permitted$") as told:
        results = [float(launched(torch.ones(2), torch.tensor(float(n))).total) for n in range(6)]
    assert results == [2.0 + n for n in range(6)] and len(told) == 1


def test_too_little_memory_for_a_recording_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, recordings: list[tuple[Tensor, ...]]
):
    def of(work, inputs, stream, pool):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(recorded._Recording, "of", of)
    launched = Recorded(work)
    for n in range(3):
        assert float(launched(torch.ones(2), torch.tensor(float(n))).total) == 2.0 + n
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        launched(torch.ones(2), torch.tensor(0.0))


def test_an_interrupt_during_a_recording_is_not_taken_for_its_failure(
    monkeypatch: pytest.MonkeyPatch, recordings: list[tuple[Tensor, ...]]
):
    def of(work, inputs, stream, pool):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("capture has unjoined work")

    monkeypatch.setattr(recorded._Recording, "of", of)
    launched = Recorded(work)
    for n in range(3):
        launched(torch.ones(2), torch.tensor(float(n)))
    with pytest.raises(KeyboardInterrupt):
        launched(torch.ones(2), torch.tensor(0.0))


def test_after_a_failed_recording_no_earlier_one_is_replayed(
    monkeypatch: pytest.MonkeyPatch, recordings: list[tuple[Tensor, ...]]
):
    launched = Recorded(work)
    for _ in range(5):
        launched(torch.ones(2), torch.tensor(0.0))
    assert len(recordings) == 1

    def of(work, inputs, stream, pool):
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(recorded._Recording, "of", of)
    monkeypatch.setattr(Graph, "replay", lambda self: pytest.fail("replayed"))
    for _ in range(3):
        launched(torch.ones(3), torch.tensor(0.0))
    with pytest.warns(UserWarning, match="not launched as a CUDA graph"):
        launched(torch.ones(3), torch.tensor(0.0))
    assert float(launched(torch.ones(2), torch.tensor(1.0)).total) == 3.0
