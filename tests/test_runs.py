"""Which runs `evaluate` and `predict` use, and which can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from das3d_cli.errors import DataError, UsageError
from das3d_cli.files import held
from das3d_cli.runs import by_category, newest_finished, unfinished, using


def make(base: Path, name: str, when: str, category: str = "tire", modality: str = "both") -> Path:
    run = base / name
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"finished": when, "category": category}))
    (run / "settings.json").write_text(json.dumps({"model": {"modality": modality}}))
    return run


def test_the_runs_of_each_category_and_modality_in_the_order_they_finished(tmp_path: Path):
    older = make(tmp_path, "tire-009", "2026-01-01T00:00:00")
    newest = make(tmp_path, "tire-001", "2026-01-03T00:00:00")
    rgb = make(tmp_path, "tire-002", "2026-01-02T00:00:00", modality="rgb")
    cookie = make(tmp_path, "cookie-001", "2026-01-02T00:00:00", "cookie")
    (tmp_path / "tire-010").mkdir()  # not finished
    assert newest_finished(tmp_path) == newest
    assert by_category(tmp_path) == {"tire": {"both": [older, newest], "rgb": [rgb]}, "cookie": {"both": [cookie]}}


@pytest.mark.parametrize("name", ["a-link", "z-link"])
def test_a_link_is_no_second_run(tmp_path: Path, name: str):
    run = make(tmp_path, "tire-001", "2026-01-01T00:00:00")
    (tmp_path / name).symlink_to(run)
    assert by_category(tmp_path) == {"tire": {"both": [run]}}


def test_no_finished_run_is_told(tmp_path: Path):
    for find in (newest_finished, by_category):
        with pytest.raises(UsageError, match="no finished run"):
            find(tmp_path)


@pytest.mark.parametrize("find", [newest_finished, by_category])
@pytest.mark.parametrize(
    "content", ["{", "[]", '{"finished": "2026-02-01T00:00:00"}', '{"finished": 3, "category": "tire"}']
)
def test_a_run_whose_summary_is_damaged_is_told(tmp_path: Path, find: Callable[[Path], object], content: str):
    make(tmp_path, "tire-001", "2026-01-01T00:00:00")
    (make(tmp_path, "tire-002", "2026-02-01T00:00:00") / "summary.json").write_text(content)
    with pytest.raises(DataError, match=r"tire-002.summary\.json: damaged.*--run"):
        find(tmp_path)


def test_a_run_whose_settings_are_lost_is_told(tmp_path: Path):
    (make(tmp_path, "tire-001", "2026-01-01T00:00:00") / "settings.json").write_text('{"model": {}}')
    with pytest.raises(DataError, match=r"tire-001.settings\.json.*--run"):
        by_category(tmp_path)


def test_what_is_to_be_resumed(tmp_path: Path):
    done = make(tmp_path, "tire-001", "2026-01-01T00:00:00")
    with pytest.raises(UsageError, match="all runs here are finished"):
        unfinished(tmp_path)
    left = [make(tmp_path, name, "2026-01-01T00:00:00") for name in ("cookie-001", "tire-002")]
    for run in left:
        (run / "summary.json").unlink()
    (tmp_path / "no-run").mkdir()
    assert unfinished(tmp_path) == left
    assert [unfinished(path) for path in (left[0], done, tmp_path / "no-run")] == [
        [left[0]],
        [done],
        [tmp_path / "no-run"],
    ]


def test_a_run_whose_training_has_not_ended_is_told(tmp_path: Path):
    ended = make(tmp_path, "tire-001", "2026-01-01T00:00:00")
    for path in (ended, ended / "checkpoints/best.pt"):
        assert using(path, "tire", 5, 9) == f"using {path} (tire)"
    (ended / "summary.json").unlink()
    assert using(ended, "tire", 5, 9) == f"using {ended} (tire), unfinished: its best state so far, from step 5 of 9"


def test_one_training_in_a_run_at_a_time(tmp_path: Path):
    told = pytest.raises(UsageError, match=r"another process trains in it; end that one first$")
    with held(tmp_path, "trains in"), told, held(tmp_path, "trains in"):
        pass
    with held(tmp_path, "trains in"):
        pass
