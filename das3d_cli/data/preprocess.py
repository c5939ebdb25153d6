"""A raw capture into a sample: the part cut out of the scene, made square, resized and scaled."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from das3d_cli.data.capture import Geometry, RawCapture, Sample
from das3d_cli.data.fill import enclosed, fill
from das3d_cli.data.plane import Table, find_part
from das3d_cli.errors import DataError

DepthAxis = Literal["camera", "plane"]
_SEED = 0
_TAIL_PERCENT = 0.5  # of the part's points, left out of the range at either end: a defect may lie there
_MIN_SPAN_M = 1e-3


def measure_range(capture: RawCapture, *, plane_distance_m: float, depth_axis: DepthAxis) -> tuple[float, float]:
    """The part's (nearest, farthest) depth in metres, without the half percent of points at either end.

    Raises:
        DataError: as `preprocess`.
    """
    _check(capture)
    table = find_part(capture.xyz, plane_distance_m=plane_distance_m, seed=_SEED)
    return _range_of(_depth(capture.xyz, table, depth_axis)[table.foreground])


def preprocess(
    capture: RawCapture,
    *,
    size: int,
    plane_distance_m: float,
    depth_axis: DepthAxis,
    depth_range: tuple[float, float] | None,
    ground_truth: NDArray[np.bool_] | None = None,
) -> Sample:
    """Cut the part out of a capture and bring it to a square of `size` x `size` pixels.

    Args:
        capture: colour (H, W, 3) and points (H, W, 3) in metres.
        size: side of the sample in pixels.
        plane_distance_m: points this near to the table's plane belong to the table.
        depth_axis: "camera": depth is the distance along the optical axis; "plane": minus the height over the
            table, so that a tilted table does not tilt the part's depth.
        depth_range: depths in metres that become 0 and 1 (beyond them is clipped). None: this capture's own
            range, the paper's reading, but without the half percent of points at either end: a small
            defect that sticks out is clipped and does not rescale the part.
        ground_truth: bool, (H, W), or None.

    Returns:
        The sample. `valid` holds only where the part itself was measured.

    Raises:
        DataError: the arrays do not fit each other, nothing was measured, there is no table, or nothing
            stands on it.
    """
    _check(capture, ground_truth)
    table = find_part(capture.xyz, plane_distance_m=plane_distance_m, seed=_SEED)
    measured = np.asarray(~np.isnan(capture.xyz[..., 2]))
    depth = _depth(capture.xyz, table, depth_axis)
    near, far = depth_range if depth_range is not None else _range_of(depth[table.foreground])
    if not (np.isfinite([near, far]).all() and near < far):
        raise ValueError(f"depth_range must be finite and increasing, got ({near}, {far})")

    holes = enclosed(measured, table.foreground)
    part = table.foreground | holes
    depth = fill(depth, table.foreground, holes)
    height, width = part.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    geometry = Geometry(table.plane, table.tilt_deg, near, far, height, width, top, left, float(1 - measured.mean()))

    weight = part.astype(np.float32)
    coverage = _resize(_square(weight, geometry), size)
    known = _resize(_square(table.foreground.astype(np.float32), geometry), size)
    foreground = coverage >= 0.5
    if not foreground.any():
        raise DataError(f"the part is too small: no pixel of {size} x {size} is at least half covered by it")
    share = np.maximum(coverage, np.float32(1e-6))
    scaled = np.where(part, (depth - np.float32(near)) / np.float32(far - near), np.float32(0))
    small = np.clip(_resize(_square(scaled, geometry), size) / share, 0, 1)
    small = np.where(foreground, small, small[foreground].max())
    colour = _resize(_square(capture.rgb * weight[..., None], geometry), size) / share[..., None]
    rgb = np.where(foreground[..., None], np.rint(np.clip(colour, 0, 255)), 0).astype(np.uint8)
    truth = None if ground_truth is None else _resize_truth(ground_truth, geometry, size)
    return Sample(rgb, small.astype(np.float32), foreground, foreground & (known >= 0.5 * coverage), geometry, truth)


def to_raw(map_: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """An (S, S) map in the raw image's own (H, W): resized to the square, and the padding cut off."""
    side = max(geometry.raw_height, geometry.raw_width)
    square = _resize(np.asarray(map_, dtype=np.float32), side)
    top, left = geometry.pad_top, geometry.pad_left
    return square[top : top + geometry.raw_height, left : left + geometry.raw_width]


def _check(capture: RawCapture, ground_truth: NDArray[np.bool_] | None = None) -> None:
    rgb, xyz = capture.rgb.shape, capture.xyz.shape
    if len(xyz) != 3 or xyz[2] != 3 or len(rgb) != 3 or rgb[2] != 3:
        raise DataError(f"rgb and xyz must be (H, W, 3), got {rgb} and {xyz}")
    if rgb != xyz:
        raise DataError(f"rgb is {rgb[1]} x {rgb[0]} pixels, xyz {xyz[1]} x {xyz[0]}: they must be of one size")
    if ground_truth is not None and ground_truth.shape != xyz[:2]:
        raise DataError(f"the ground truth is of shape {ground_truth.shape}, the capture of {xyz[:2]}")


def _depth(xyz: NDArray[np.float32], table: Table, axis: DepthAxis) -> NDArray[np.float32]:
    if axis == "camera":
        return np.asarray(np.abs(xyz[..., 2]))
    plane = np.asarray(table.plane, dtype=np.float32)
    return np.asarray(-(xyz @ plane[:3] + plane[3]))


def _range_of(depth: NDArray[np.float32]) -> tuple[float, float]:
    near, far = (float(v) for v in np.percentile(depth, [_TAIL_PERCENT, 100 - _TAIL_PERCENT]))
    lacking = max(0.0, _MIN_SPAN_M - (far - near))
    return near - lacking / 2, far + lacking / 2


def _square(image: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """The image centred in a square of zeros."""
    side = max(geometry.raw_height, geometry.raw_width)
    if image.shape[:2] == (side, side):
        return image
    square = np.zeros((side, side, *image.shape[2:]), np.float32)
    top, left = geometry.pad_top, geometry.pad_left
    square[top : top + geometry.raw_height, left : left + geometry.raw_width] = image
    return square


def _resize(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Area averages when it shrinks, linear interpolation when it grows."""
    how = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), dtype=np.float32)


def _resize_truth(truth: NDArray[np.bool_], geometry: Geometry, size: int) -> NDArray[np.bool_]:
    """Pixels at least half covered by the defect; a defect too small for any keeps the one at its middle."""
    square = _square(truth.astype(np.float32), geometry)
    small = _resize(square, size) >= 0.5
    count, labels = cv2.connectedComponents(square.astype(np.uint8), connectivity=8)
    scale = size / square.shape[0]
    for label in range(1, count):
        rows, columns = (np.floor((axis + 0.5) * scale).astype(int) for axis in np.nonzero(labels == label))
        if not small[rows, columns].any():
            middle = len(rows) // 2
            small[rows[middle], columns[middle]] = True
    return small
