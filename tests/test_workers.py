"""Work done ahead in threads gives the same results as one by one; commands load open3d without its viewers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from das3d_cli.data.workers import completed, in_order, process_pool


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


def uses_viewers(_: object) -> bool:
    """Whether open3d, which must work either way, has loaded its viewers in this process."""
    import open3d as o3d

    corner = o3d.utility.Vector3dVector([(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)])
    plane, on = o3d.geometry.PointCloud(corner).segment_plane(0.01, 3, 10)
    assert abs(plane[2]) == pytest.approx(1) and len(on) == 4
    return "dash" in sys.modules


def test_a_command_and_its_workers_leave_open3ds_viewers_out():
    with process_pool(2, jobs=2) as pool:
        assert list(completed(pool, uses_viewers, range(2))) == [False, False]
    script = "import sys; from das3d_cli.cli import main; sys.argv[1:] = ['--version']\ntry: main()\nexcept SystemExit: pass\n" \
             "from tests.test_workers import uses_viewers; print(uses_viewers(0))"  # fmt: skip
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_program_that_uses_das3d_has_open3ds_viewers():
    script = "import das3d_cli.detector, das3d_cli.data.plane, open3d; print(open3d.visualization.draw_geometries)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "draw_geometries" in done.stdout
