"""Turn depth images into points: the camera that took them, and Eyecandies' own encoding of depth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Camera
from das3d_cli.data.decode import read_bytes
from das3d_cli.errors import DataError
from das3d_cli.files import reason

CAMERA_FILE = "camera.json"
EXAMPLE = '{"fx": 615.0, "fy": 615.0, "cx": 320.0, "cy": 240.0}'
LIMITS = "info_depth.yaml"


def back_project(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """The points that a pinhole camera saw.

    Args:
        depth: (H, W), distance along the optical axis, NaN where missing; any unit.
        camera: its intrinsics in pixels; pixel (0, 0) has the coordinates (0, 0).

    Returns:
        float32, (H, W, 3), in the unit of `depth`.
    """
    height, width = depth.shape
    cx = width / 2 if camera.cx is None else camera.cx
    cy = height / 2 if camera.cy is None else camera.cy
    x = ((np.arange(width) - cx) / camera.fx).astype(np.float32)
    y = ((np.arange(height) - cy) / camera.fy).astype(np.float32)
    return np.stack([x * depth, y[:, None] * depth, depth], axis=2)


def read_limits(path: Path) -> tuple[float, float]:
    """The depths in metres that Eyecandies stored as 0 and 65535, from an info_depth.yaml.

    Raises:
        DataError: the file is missing or does not hold them.
    """
    text = read_bytes(path, "file of depth limits").decode("utf-8", "replace")
    found = dict(re.findall(r"\b(min|max)\s*:\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)", text))
    try:
        near, far = float(found["min"]), float(found["max"])
    except (KeyError, ValueError):
        near, far = 0.0, 0.0
    if not near < far:
        raise DataError(f"{path}: lacks min and max of the normalization; copy it again")
    return near, far


def limits_beside(depth: Path | None) -> Path | None:
    """The file of limits that belongs to an Eyecandies depth image; None if there is none."""
    if depth is None or not depth.stem.endswith("depth"):
        return None
    path = depth.with_name(depth.stem.removesuffix("depth") + LIMITS)
    return path if path.is_file() else None


def find_camera(*folders: Path) -> Camera | None:
    """The camera that the first camera.json in these folders describes; None if none of them holds one.

    Raises:
        DataError: the file cannot be read, is not JSON, or does not describe a camera.
    """
    for folder in folders:
        path = folder / CAMERA_FILE
        if path.exists():
            try:
                return as_camera(json.loads(path.read_bytes()))
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {reason(error)}") from None
            except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):  # RecursionError: nested too deeply
                raise DataError(f"{path}: not valid JSON; write, for example, {EXAMPLE}") from None
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}: does not describe a camera: {error}; write, for example, {EXAMPLE}") from None
    return None


def as_camera(given: Any) -> Camera:
    """A camera from its intrinsics in pixels; "fy", "cx", "cy" and "scale" may be left out.

    Raises:
        TypeError, ValueError: "fx" is missing, a name is unknown, or a value is not a finite number or not positive (which
            "cx" and "cy" need not be).
    """
    names = ("fx", "fy", "cx", "cy", "scale")
    if not isinstance(given, dict):
        raise TypeError("it is not an object of names and numbers")
    unknown = set(given) - set(names)
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; use only {', '.join(names)}")
    try:
        if any(isinstance(value, bool) for value in given.values()):
            raise TypeError
        values = {name: float(given[name]) for name in names if given.get(name) not in (None, "")}
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        raise ValueError("fx, fy, cx, cy and scale must be numbers") from None
    if "fx" not in values:
        raise ValueError("fx, the focal length in pixels, is missing")
    if not all(np.isfinite(value) and (value > 0 or name in ("cx", "cy")) for name, value in values.items()):
        raise ValueError("fx, fy and scale must be positive numbers")
    return Camera(**{"fy": values["fx"], **values})
