"""Chains of small operations that a GPU is given as one kernel each, if torch can compile them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from das3d_cli.fused import fused, fusing


def halved(x: Tensor) -> Tensor:
    return x / 2


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
        work = fused(halved)
        with fusing():
            with pytest.warns(UserWarning, match="halved is not compiled, and slower for it: no C compiler$"):
                assert work(torch.tensor(4.0)) == 2
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert work(torch.tensor(4.0)) == 2

    def test_a_lack_of_memory_is_nothing_that_running_it_as_it_is_would_mend(self, monkeypatch: pytest.MonkeyPatch):
        def short(_: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch, "compile", lambda function: short)
        with fusing(), pytest.raises(torch.OutOfMemoryError):
            fused(halved)(torch.tensor(4.0))
