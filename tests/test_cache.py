"""Cache: samples are read back exactly as written or not at all, and foreign files are refused."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from das3d_cli.data import cache
from das3d_cli.data.cache import begin_split, in_portions, load_split, open_cache, read_sample, write_sample
from das3d_cli.data.capture import Form, Geometry, Sample
from das3d_cli.data.oddity import Usual
from das3d_cli.errors import DataError, UsageError
from das3d_cli.settings import PreprocessSettings

SIZE = 32


def make_sample(seed: int = 0, *, annotated: bool = True, types: tuple[str, ...] = ()) -> Sample:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, SIZE, SIZE)) < 0.5
    geometry = Geometry((0.1, -0.2, -0.97, 0.4), 7.3, 0.371, 0.4, 480, 640, 640, 80, 0, 0.1 / 3, (0.02, -0.1 / 3))
    return Sample(
        rgb=rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8),
        depth=rng.random((SIZE, SIZE)).astype(np.float32),
        foreground=masks[0], valid=masks[1], geometry=geometry, ground_truth=masks[2] if annotated else None,
        by_type={name: masks[2] & (rng.random((SIZE, SIZE)) < 0.5) for name in types},
    )  # fmt: skip


def make_cache(root: Path, seeds: dict[str, list[int]]) -> Path:
    """A cache of category "tire" with one sample per seed; those of odd seeds have no ground truth."""
    records = []
    for split, numbers in seeds.items():
        for seed in numbers:
            path, key = f"{split}/good/{seed:03d}.npz", f"key {seed}"
            sample = make_sample(seed, annotated=seed % 2 == 0)
            write_sample(root / "tire" / path, sample, key)
            records.append(cache.Record(path=path, split=split, label="good", name=f"{seed:03d}", key=key,
                                        geometry=sample.geometry))  # fmt: skip
    cache.write_manifest(root / "tire", cache.Manifest(
        version=cache.VERSION, das3d="0", category="tire", settings=PreprocessSettings(size=SIZE),
        depth_range_m=(0.3, 0.4), window_m=None, form=Form(plane_distance_m=0.005), usual=Usual(),
        extent_key="", samples=records, failures=[],
    ))  # fmt: skip
    return root


def assert_equal(first: Sample, second: Sample) -> None:
    assert first.geometry == second.geometry
    for name in ("rgb", "depth", "foreground", "valid", "ground_truth"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
    assert list(first.by_type) == list(second.by_type)
    assert all(np.array_equal(mask, second.by_type[name]) for name, mask in first.by_type.items())


@pytest.mark.parametrize("made", [{}, {"annotated": False}, {"types": ("stain", "bump")}])
def test_sample_comes_back_value_by_value(tmp_path: Path, made: dict[str, Any]) -> None:
    path = tmp_path / "ö" / "000.1.npz"
    write_sample(path, make_sample(**made), "key")
    assert_equal(read_sample(path), make_sample(**made))
    assert list(path.parent.iterdir()) == [path]


def test_equal_samples_are_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path / "a.npz", make_sample(), "key")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_sample(tmp_path / "b.npz", make_sample(), "key")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "000.npz"
    write_sample(path, make_sample(0), "key")

    def fill_up(target: Path, data: bytes) -> int:
        with target.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(DataError, match=r"000\.npz: cannot be written: no space left on device; "):
        write_sample(path, make_sample(1), "key")
    assert list(tmp_path.iterdir()) == [path]
    assert_equal(read_sample(path), make_sample(0))


def test_interrupt_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "000.npz"
    write_sample(path, make_sample(0), "key")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_sample(path, make_sample(1), "key")
    assert list(tmp_path.iterdir()) == [path]
    assert_equal(read_sample(path), make_sample(0))


def test_unwritable_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written: (not a directory|file exists)"):
        write_sample(tmp_path / "file" / "000.npz", make_sample(), "key")


@pytest.mark.parametrize("types", [(), ("bump", "stain")])
def test_no_damaged_sample_is_taken_for_a_whole_one(tmp_path: Path, types: tuple[str, ...]) -> None:
    path = tmp_path / "000.npz"
    write_sample(path, make_sample(types=types), "key")
    whole = path.read_bytes()
    # The last array's directory entry: damage here must not make its mask go missing unnoticed.
    names = range(whole.rindex(b"PK\1\2"), len(whole), 3)
    for place in (*range(0, len(whole), len(whole) // 97), *names):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]):
            path.write_bytes(content)
            try:
                sample = read_sample(path)
            except DataError:
                continue
            assert_equal(sample, make_sample(types=types))  # the bit had no meaning, as in an archive member's date


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_no_number_of_elements_is_read_from_no_bytes():
    np.lib.format.write_array_header_1_0(
        start := io.BytesIO(), {"descr": "|V0", "fortran_order": False, "shape": (2**40,)}
    )
    with pytest.raises(ValueError, match="no bytes"):
        cache._header(start.getvalue())


def test_foreign_files_are_refused_and_run_no_code(tmp_path: Path) -> None:
    path, trap = tmp_path / "000.npz", tmp_path / "sprung"
    objects = np.array([Trap(trap)], dtype=object)
    whole = {name: getattr(make_sample(), name) for name in ("rgb", "depth", "foreground", "valid")}
    stamp = json.dumps({"version": cache.VERSION, "key": "", "geometry": vars(make_sample().geometry)})
    of_types = json.dumps({**json.loads(stamp), "types": ["bump"]})
    np.save(npy := io.BytesIO(), whole["depth"])
    contents: list[Callable[[], Any]] = [
        lambda: path.write_bytes(pickle.dumps(Trap(trap))),
        lambda: np.savez(path, **whole),
        lambda: np.savez(path, stamp=stamp, **{**whole, "depth": objects}),
        lambda: np.savez(path, stamp=objects, **whole),
        lambda: np.savez_compressed(path, stamp=stamp, **whole),  # a megabyte could unpack to a gigabyte
        lambda: np.savez(path, stamp=stamp, **{**whole, "depth": whole["depth"].astype(np.float64)}),
        lambda: np.savez(path, stamp=stamp, **{**whole, "rgb": whole["rgb"][:5]}),
        lambda: np.savez(path, stamp=stamp, **whole, extra=whole["valid"]),
        lambda: np.savez(path, stamp=of_types, **whole),
        lambda: np.savez(path, stamp=of_types, **whole, **{"ground_truth/bump": whole["depth"]}),
        lambda: path.write_bytes(npy.getvalue()),
    ]
    for write in contents:
        write()
        with pytest.raises(DataError, match=r"000\.npz: damaged, or not a sample .* run das3d preprocess again"):
            read_sample(path)
    assert not trap.exists()
    np.savez(path, stamp=stamp, **whole)
    assert_equal(read_sample(path), make_sample(annotated=False))


def test_other_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(cache, "VERSION", 0)
        root = make_cache(tmp_path, {"train": [0]})
    for attempt in (lambda: open_cache(root, "tire"), lambda: read_sample(root / "tire/train/good/000.npz")):
        with pytest.raises(DataError, match=r"written by another version of das3d; run das3d preprocess again"):
            attempt()


def test_split_is_stacked_in_the_manifests_order(tmp_path: Path) -> None:
    opened = open_cache(make_cache(tmp_path, {"test": [3, 0, 2], "train": [1]}), "tire")
    split = load_split(opened, "test")
    assert split.names == ["003", "000", "002"]
    assert split.labels == ["good"] * 3
    assert split.depth.shape == (3, SIZE, SIZE)
    for index, seed in enumerate((3, 0, 2)):
        sample = make_sample(seed)
        for name in ("rgb", "depth", "foreground", "valid"):
            assert np.array_equal(getattr(split, name)[index], getattr(sample, name))
    assert not split.ground_truth[0].any()  # not annotated
    assert np.array_equal(split.ground_truth[1], np.asarray(make_sample(0).ground_truth))
    assert [record.name for record in opened.samples("train")] == ["001"]


def test_portions_of_a_split_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    opened = open_cache(make_cache(tmp_path, {"test": [3, 0, 2, 5]}), "tire")
    (tmp_path / "tire/test/good/005.npz").unlink()
    split, reading = begin_split(opened, "test")
    portions = in_portions(split.inputs, 3, reading)
    _, depth, _, parallax = next(portions)
    assert np.array_equal(depth, np.stack([make_sample(seed).depth for seed in (3, 0, 2)]))
    assert np.array_equal(parallax, split.parallax[:3])
    with pytest.raises(DataError, match=r"005\.npz: this sample is missing; run"):
        next(portions)


def test_cache_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no cache; run das3d preprocess first"):
        open_cache(tmp_path / "out", "tire")
    root = make_cache(tmp_path, {"train": [0]})
    assert cache.categories(root) == ["tire"]
    with pytest.raises(UsageError, match=r"category tyre: not in .*, which holds tire; did you mean tire\?"):
        open_cache(root, "tyre")
    with pytest.raises(DataError, match="holds no validation samples"):
        load_split(open_cache(root, "tire"), "validation")


def test_split_with_a_sample_gone_or_exchanged(tmp_path: Path) -> None:
    opened = open_cache(make_cache(tmp_path, {"train": [0, 1]}), "tire")
    path = tmp_path / "tire/train/good/001.npz"
    write_sample(path, make_sample(1), "key of other settings")
    with pytest.raises(DataError, match=r"001\.npz: is not the sample that manifest\.json lists; run"):
        load_split(opened, "train")
    write_sample(path, replace(make_sample(1), rgb=np.zeros((8, 8, 3), np.uint8)), "key 1")
    with pytest.raises(DataError, match=r"001\.npz: damaged"):
        load_split(opened, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"001\.npz: this sample is missing; run"):
        load_split(opened, "train")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": %d}' % cache.VERSION, b"\xff", b"1"])
def test_damaged_manifest(tmp_path: Path, content: bytes) -> None:
    root = make_cache(tmp_path, {"train": [0]})
    (root / "tire" / cache.MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json: damaged, .*; run das3d preprocess again"):
        open_cache(root, "tire")
