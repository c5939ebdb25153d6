"""Defects in millimetres: an anomaly map read against the point cloud."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class Defect(NamedTuple):
    """One region of `defective` pixels.

    Attributes:
        score: the map's peak in the region, 0 to 1.
        row, column: the peak's place in the raw image, pixels.
        length_mm, width_mm: extent seen by the camera along and across the region's main direction; nan where nothing
            was measured.
        area_mm2: area seen by the camera; nan where nothing was measured.
    """

    score: float
    row: int
    column: int
    length_mm: float
    width_mm: float
    area_mm2: float


def peak_level(anomaly_map: NDArray[np.float32], threshold: float, anomalous: bool) -> float:
    """What a defect's peak reaches on a part's map of any size: the threshold, or less where resizing lowered the peak."""
    return min(threshold, float(anomaly_map.max())) if anomalous else threshold


def defective(anomaly_map: NDArray[np.float32], threshold: float, outline: float) -> NDArray[np.bool_]:
    """Which pixels belong to a defect, by hysteresis: the threshold says whether there is one, the outline how far it goes.

    Args:
        anomaly_map: (H, W), 0 to 1.
        threshold: anomaly score that a defect's peak reaches.
        outline: value of the map that all of it reaches; no more than the threshold is asked for.

    Returns:
        (H, W): the connected regions at or over the outline whose peak is at or over the threshold.
    """
    over = anomaly_map >= min(outline, threshold)
    count, labels = cv2.connectedComponents(over.astype(np.uint8), connectivity=8)
    reached = np.zeros(count, dtype=np.bool_)
    reached[labels[anomaly_map >= threshold]] = True
    return np.asarray(reached[labels])


def find_defects(
    anomaly_map: NDArray[np.float32], xyz: NDArray[np.float32], threshold: float, outline: float
) -> list[Defect]:
    """The connected regions of `defective` pixels, strongest first.

    Args:
        anomaly_map: (H, W), 0 to 1.
        xyz: (H, W, 3), metres, NaN where missing.
        threshold, outline: as for `defective`.
    """
    over = defective(anomaly_map, threshold, outline).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(over, connectivity=8)
    pitch = _pixel_pitch_m(xyz)
    found = []
    for label in range(1, count):
        left, top, across, down, pixels = boxes[label].tolist()
        box = np.s_[top : top + down, left : left + across]
        region = labels[box] == label
        row, column = divmod(int(np.argmax(np.where(region, anomaly_map[box], -1.0))), across)
        score = float(anomaly_map[top + row, left + column])
        length, width = _extents_m(xyz[box][region][:, :2], pitch)
        area = pixels * pitch * pitch
        found.append(Defect(score, top + row, left + column, length * 1e3, width * 1e3, area * 1e6))
    return sorted(found, key=lambda defect: -defect.score)


def _pixel_pitch_m(xyz: NDArray[np.float32]) -> float:
    """Typical distance between neighbouring points; a median, so that steps and missing points do not count.

    Of some hundred rows and columns: more would not change it.
    """
    every = max(1, min(xyz.shape[:2]) // 100)
    along, across = np.diff(xyz[::every, :, :2], axis=1), np.diff(xyz[:, ::every, :2], axis=0)
    steps = np.hypot(*np.concatenate((along.reshape(-1, 2), across.reshape(-1, 2))).T)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if len(steps) else float("nan")


def _extents_m(points: NDArray[np.float32], pitch: float) -> tuple[float, float]:
    """From x and y alone: a region that crosses the part's outline would else be as long as the step to the table."""
    points = points[np.isfinite(points).all(axis=1)].astype(np.float64)
    if len(points) < 3:
        return (pitch, pitch) if len(points) else (float("nan"), float("nan"))
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    # The 2nd to 98th percentile, so that one flying pixel does not stretch the defect; a point is a pixel wide.
    low, high = np.percentile(centred @ axes, [2, 98], axis=0)
    length, width = sorted((high - low + pitch).tolist(), reverse=True)
    return length, width
