"""Work done ahead in threads comes back as if it were done one by one."""

from __future__ import annotations

import threading

import pytest

from das3d_cli.data.workers import in_order


def test_results_keep_their_order_and_only_some_are_worked_ahead():
    begun: list[int] = []
    second = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            second.wait(1)  # the first job ends after the second has
        if number == 1:
            second.set()
        return number * number

    found = in_order(work, range(100_000))
    assert [next(found) for _ in range(5)] == [0, 1, 4, 9, 16]
    found.close()
    assert len(begun) < 50_000


def test_an_error_is_raised_in_its_place():
    found = in_order(lambda number: 1 // (3 - number), range(9))
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_no_jobs_no_results():
    assert list(in_order(str, [])) == []
