"""Chains of small operations, which a GPU is given as one kernel each, where torch can compile them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_compiling = contextvars.ContextVar("compiling", default=False)
_able = True  # until something could not be compiled


@contextlib.contextmanager
def fusing(wanted: bool = True) -> Iterator[None]:
    """Let `fused` functions be compiled in here: for work whose tensors have the same shapes again and again."""
    before = _compiling.set(wanted)
    try:
        yield
    finally:
        _compiling.reset(before)


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors that branches on none of their values, compiled on its first call within `fusing`.

    Within another it is part of that. Where something cannot be compiled, for want of a C compiler perhaps, this and all else
    runs as it is, and says so once.
    """
    compiled: Callable[P, R] | None = None

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        global _able
        nonlocal compiled
        if torch.compiler.is_compiling() or not (_able and _compiling.get()):
            return function(*args, **kwargs)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch's compiler has to say of itself
                compiled = compiled or torch.compile(function)  # not before: it imports a second's worth
                return compiled(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (a compiler may break anywhere)
            _able = False
            told = str(error).partition("\n")[0]
            warnings.warn(f"not compiled, and slower for it: {function.__name__}: {told}", stacklevel=2)
            return function(*args, **kwargs)

    return run
