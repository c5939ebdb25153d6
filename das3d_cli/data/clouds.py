"""Organised point clouds in PCD and PLY files: as many points as pixels, row by row.

Only compressed PCD files are left to open3d, as it fills the missing end of a truncated file with arbitrary memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from das3d_cli.errors import DataError

SizeSource = Callable[[], tuple[int, ...]] | None  # finds the height and width of the image beside a point cloud

PCD_SUFFIXES, PLY_SUFFIXES = (".pcd",), (".ply",)
_PCD_TYPES = {"F": "f", "I": "i", "U": "u"}
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "<"}


def read_cloud(path: Path, data: bytes, size: SizeSource = None) -> NDArray[np.float64]:
    """The points of a PCD or PLY file.

    Args:
        path: the file, named in errors; its suffix tells the format.
        data: the file's contents.
        size: finds height and width of the image beside it; called only for a file that does not say how long a row is.

    Returns:
        float64, (H, W, 3), as stored.

    Raises:
        DataError: damaged, truncated, without x, y and z, or not organised.
    """
    decode = _decode_pcd if path.suffix.lower() in PCD_SUFFIXES else _decode_ply
    try:
        points, (height, width) = decode(path, data)
    except (ValueError, TypeError, KeyError, IndexError, UnicodeDecodeError) as error:
        kind = path.suffix.lstrip(".").upper()
        raise DataError(f"{path}: damaged, truncated or unsupported {kind}; export it again ({error})") from None
    shape = size() if height <= 1 and size else ()
    if shape and shape[0] * shape[1] == len(points):
        height, width = shape
    if height <= 1 or height * width != len(points):
        beside = f", and the image beside it has {shape[1]} x {shape[0]} pixels" if shape else ""
        raise DataError(
            f"{path}: holds {len(points)} points that are not in rows and columns{beside}; export an organised cloud,"
            " with width and height, and with missing points as NaN or (0, 0, 0)"
        )
    return points.reshape(height, width, 3)


def _decode_pcd(path: Path, data: bytes) -> tuple[NDArray[np.float64], tuple[int, int]]:
    end = re.search(rb"^DATA[ \t]+(\w+)[^\n]*\n", data, re.MULTILINE)
    if not end:
        raise ValueError("no DATA line")
    lines = [line.split() for line in data[: end.start()].decode("ascii").splitlines()]
    header = {words[0]: words[1:] for words in lines if words and not words[0].startswith("#")}
    names, counts = header["FIELDS"], [int(n) for n in header.get("COUNT", ["1"] * len(header["FIELDS"]))]
    kinds = [f"<{_PCD_TYPES[kind]}{size}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
    height, width = int(header["HEIGHT"][0]), int(header["WIDTH"][0])
    body, how = data[end.end() :], end[1].decode()
    if how == "binary_compressed":
        row = sum(n * int(size) for n, size in zip(counts, header["SIZE"], strict=True))
        return _decompressed(path, body, height * width, row), (height, width)
    if sum(counts) > len(body):  # checked before that many columns are listed
        raise ValueError("cut short")
    # a field of several values takes several columns; all padding may be called "_"
    columns = [(name if n == 1 else f"{name}{i}", kind) for name, kind, n in zip(names, kinds, counts, strict=True)
               for i in range(n)]  # fmt: skip
    return _table(body, columns, height * width, ascii_=how == "ascii"), (height, width)


def _decompressed(path: Path, body: bytes, count: int, row: int) -> NDArray[np.float64]:
    """Decode `count` points of `row` bytes each, if none is missing: open3d would fill it with arbitrary memory."""
    import open3d as o3d

    packed, whole = (int.from_bytes(body[start : start + 4], "little") for start in (0, 4))
    if len(body) < 8 + packed or whole != count * row:
        raise ValueError("cut short")
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        cloud = o3d.io.read_point_cloud(str(path), remove_nan_points=False, remove_infinite_points=False)
    points = np.asarray(cloud.points)
    if len(points) != count:
        raise ValueError("cannot be decompressed")
    return points


def _decode_ply(path: Path, data: bytes) -> tuple[NDArray[np.float64], tuple[int, int]]:
    end = re.search(rb"^end_header[ \t\r]*\n", data, re.MULTILINE)
    if not data.startswith(b"ply") or not end:
        raise ValueError("no PLY header")
    lines = [line.split() for line in data[: end.start()].decode("ascii", "replace").splitlines() if line.split()]
    formats = [words[1] for words in lines if words[0] == "format"]
    elements = [i for i, words in enumerate(lines) if words[0] == "element"]
    if not formats:
        raise ValueError("no format line")
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("the vertices must come first")
    stop = elements[1] if len(elements) > 1 else len(lines)
    how = formats[0]
    columns = [(words[2], _PLY_ORDERS[how] + _PLY_TYPES[words[1]])
               for words in lines[elements[0] : stop] if words[0] == "property"]  # fmt: skip
    count, body = int(lines[elements[0]][2]), data[end.end() :]
    return _table(body, columns, count, ascii_=how == "ascii"), _ply_size(lines, body, _PLY_ORDERS[how], how)


def _ply_size(lines: list[list[str]], body: bytes, order: str, how: str) -> tuple[int, int]:
    """Height and width as scanners write them into the header, or PCL after the points; (1, 0) if neither does."""
    noted = {words[1]: words[2] for words in lines if words[0] in ("obj_info", "comment") and len(words) == 3}
    for rows, columns in (("num_rows", "num_cols"), ("height", "width")):
        if rows in noted and columns in noted:
            return int(noted[rows]), int(noted[columns])
    if ["property", "int", "viewporty"] in lines:  # PCL's camera: ..., viewportx, viewporty, k1, k2
        if how == "ascii":
            width, height = body.split()[-4:-2]
            return int(height), int(width)
        sizes = np.frombuffer(body[-16:-8], f"{order}i4")
        return int(sizes[1]), int(sizes[0])
    return 1, 0


def _table(body: bytes, columns: Sequence[tuple[str, str]], count: int, *, ascii_: bool) -> NDArray[np.float64]:
    """x, y and z of `count` rows, (count, 3)."""
    places = [[name for name, _ in columns].index(axis) for axis in "xyz"]
    if ascii_:
        rows = body.decode("ascii").splitlines()[:count]
        if len(rows) < count or (rows and len(rows[-1].split()) < len(columns)):
            raise ValueError("cut short")
        return np.loadtxt(rows, usecols=places, ndmin=2, dtype=np.float64)
    dtype = np.dtype([(f"column{i}", kind) for i, (_, kind) in enumerate(columns)])
    if len(body) < count * dtype.itemsize:
        raise ValueError("cut short")
    table: NDArray[Any] = np.frombuffer(body, dtype, count)
    return np.stack([table[f"column{i}"].astype(np.float64) for i in places], axis=1)
