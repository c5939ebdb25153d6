"""Chains of small operations that a GPU is given as one kernel each, if torch can compile them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from das3d_cli.batch import Batch
from das3d_cli.fused import fused, fusing
from das3d_cli.settings import SynthesisSettings
from das3d_cli.synthesis.augment import augment_often
from das3d_cli.synthesis.light import relight
from das3d_cli.synthesis.pose import turn
from das3d_cli.synthesis.random import ItemRandom


def halved(x: Tensor) -> Tensor:
    return x / 2


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process where all could be compiled so far."""
    monkeypatch.setattr("das3d_cli.fused._able", True)


class TestFused:
    def test_compiled_where_it_is_wanted_and_nowhere_else(self, monkeypatch: pytest.MonkeyPatch):
        calls = []

        def compiler(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            calls.append(function)
            return lambda x: function(x) + 1

        monkeypatch.setattr(torch, "compile", compiler)
        work = fused(halved)
        assert work(torch.tensor(4.0)) == 2
        with fusing():
            assert [float(work(torch.tensor(4.0))) for _ in range(2)] == [3, 3]
            with fusing(False):
                assert work(torch.tensor(4.0)) == 2
        assert work(torch.tensor(4.0)) == 2
        assert calls == [halved]  # once

    @pytest.mark.parametrize("breaks_on", ["compiling", "running"])
    def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(
        self, monkeypatch: pytest.MonkeyPatch, breaks_on: str
    ):
        def broken(*_: object) -> Callable[[Tensor], Tensor]:
            raise RuntimeError("no C compiler\nand much more")

        monkeypatch.setattr(torch, "compile", broken if breaks_on == "compiling" else lambda function: broken)
        work, another = fused(halved), fused(halved)
        with fusing():
            with pytest.warns(UserWarning, match="not compiled, and slower for it: halved: no C compiler$"):
                assert work(torch.tensor(4.0)) == 2
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert work(torch.tensor(4.0)) == another(torch.tensor(4.0)) == 2

    def test_a_lack_of_memory_is_nothing_that_running_it_as_it_is_would_mend(self, monkeypatch: pytest.MonkeyPatch):
        def short(_: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch, "compile", lambda function: short)
        with fusing(), pytest.raises(torch.OutOfMemoryError):
            fused(halved)(torch.tensor(4.0))


def test_each_function_of_the_synthesis_is_whole_to_a_compiler(monkeypatch: pytest.MonkeyPatch):
    """One that it could take only in pieces would be several kernels."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    generator = torch.Generator().manual_seed(0)
    part = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    part[:, :, 4:-4, 4:-4] = True
    given = Batch(torch.rand(2, 3, 32, 32, generator=generator), torch.rand(2, 1, 32, 32, generator=generator), part,
                  torch.zeros(2, 2))  # fmt: skip
    textures = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)

    def made() -> list[Tensor]:
        random = ItemRandom.of(0, torch.tensor(3), torch.arange(2))
        once = turn(given, random.fork(0), rotate=False, flip=True)
        batch = turn(once, random.fork(1), rotate=True, flip=True)
        batch = batch._replace(rgb=relight(batch.rgb, random.fork(2), 0.3))
        arguments = SynthesisSettings().augmentation()
        return [*batch, *augment_often(*batch.images, textures, random, defects=2, normal_share=0.2, **arguments)]

    plain = made()
    with fusing(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "not compiled"
        whole = made()
    assert all(torch.equal(a, b) for a, b in zip(plain, whole, strict=True))
