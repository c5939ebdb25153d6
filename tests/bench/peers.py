"""Plain versions of common practice: 3D-ADS's preprocessing, and the usual approximation of AUPRO."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

_FRAME = 10  # pixels along the border that are taken as table
_PLANE_FIT, _PLANE_CUT, _CLUSTER = 0.004, 0.005, 0.006  # metres
_THRESHOLDS = 100


def have_open3d() -> bool:
    """Whether the preprocessing below can run here."""
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError):  # OSError: a system library is missing
        return False
    return True


def preprocess(rgb: NDArray[np.uint8], xyz: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Remove the plane through the border's points, pad to a square, and keep the largest cluster.

    Args:
        rgb: (H, W, 3).
        xyz: (H, W, 3), metres, missing points zero.

    Returns:
        rgb and xyz, (S, S, 3), zero off the part.
    """
    import open3d as o3d

    frame = np.concatenate(
        [xyz[:_FRAME], xyz[-_FRAME:], xyz[:, :_FRAME].swapaxes(0, 1), xyz[:, -_FRAME:].swapaxes(0, 1)], axis=None
    )
    border = frame.reshape(-1, 3)
    border = border[(border != 0).all(axis=1)].astype(np.float64)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(border))
    a, b, c, d = cloud.segment_plane(_PLANE_FIT, 50, 1000)[0]
    points = xyz.reshape(-1, 3).astype(np.float64)
    distance = np.abs(points @ (a, b, c) + d) / np.sqrt(a * a + b * b + c * c)
    table = (distance < _PLANE_CUT).reshape(xyz.shape[:2])
    rgb, xyz = (np.where(table[..., None], 0, image).astype(image.dtype) for image in (rgb, xyz))
    side = -(-max(table.shape) // 100) * 100
    up, left = (side - table.shape[0]) // 2, (side - table.shape[1]) // 2
    around = ((up, side - table.shape[0] - up), (left, side - table.shape[1] - left), (0, 0))
    rgb, xyz = np.pad(rgb, around), np.pad(xyz, around)
    places = np.flatnonzero((xyz != 0).all(axis=2))
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(xyz.reshape(-1, 3)[places].astype(np.float64)))
    labels = np.asarray(cloud.cluster_dbscan(_CLUSTER, 30))
    names, counts = np.unique(labels, return_counts=True)
    away = places[labels != names[np.argmax(counts)]]
    rgb.reshape(-1, 3)[away], xyz.reshape(-1, 3)[away] = 0, 0
    return rgb, xyz


def aupro(masks: NDArray[np.bool_], maps: NDArray[np.float32], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, at a hundred quantiles of the good pixels.

    Args:
        masks, maps: (N, H, W).
    """
    good = np.sort(np.concatenate([values[~mask] for mask, values in zip(masks, maps, strict=True)]))
    regions = []
    for mask, values in zip(masks, maps, strict=True):
        labels, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [np.sort(values[labels == label]) for label in range(1, count + 1)]
    thresholds = good[np.linspace(0, len(good) - 1, _THRESHOLDS).astype(int)][::-1]
    false = 1 - np.searchsorted(good, thresholds, side="left") / len(good)
    overlap = np.mean([1 - np.searchsorted(r, thresholds, side="left") / len(r) for r in regions], axis=0)
    x, y = np.concatenate(([0.0], false)), np.concatenate(([0.0], overlap))
    inside = x < limit
    x, y = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
    return float(np.trapezoid(y, x) / limit)
