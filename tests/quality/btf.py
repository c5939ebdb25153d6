"""The baseline: BTF (Horwitz and Hoshen 2023), a memory bank of FPFH features; nothing is trained.

FPFH by Open3D on each sample's measured points, averaged to 28 x 28 patches; a coreset of a tenth of the good parts'
patches; the score is the distance to the nearest of them. Search radii are left out: in the published code they exceed
the part, so that only the numbers of neighbours matter. Neighbours are measured points, of which a capture here has no
more than a sample has pixels: if captures were resampled to that size, as the published code does with larger ones,
points would have their own copies as neighbours.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from das3d_cli.data.cache import Cache, Record, load_split, read_sample
from das3d_cli.data.capture import GOOD
from das3d_cli.data.layouts import Entry
from das3d_cli.data.readers import read_capture
from das3d_cli.metrics import Metrics, evaluate
from das3d_cli.scoring import Scored

_NORMAL_NEIGHBOURS, _FEATURE_NEIGHBOURS = 30, 100
_PATCHES = 28
_CORESET = 0.1
_BLUR_PX = 4.0  # of a 224-pixel map
_REWEIGHT = 3  # patches nearest to the matched one, itself included, that reweight the image score


def btf(cache: Cache, entries: list[Entry]) -> dict[str, Metrics]:
    """Metrics of the test split, as `das3d_cli.metrics.evaluate` gives them; `entries` are the raw captures."""
    raw = {(entry.split, entry.label, entry.name): entry for entry in entries}
    split = load_split(cache, "test")
    train = [_patches(cache, record, raw) for record in cache.samples("train") if record.label == GOOD]
    bank = coreset(torch.cat(train))
    tested = [_judge(_patches(cache, record, raw), bank, split.depth.shape[-1]) for record in cache.samples("test")]
    scored = Scored(np.stack([anomaly_map for anomaly_map, _ in tested]), np.array([score for _, score in tested]))
    masks = split.ground_truth & (np.array(split.labels) != GOOD)[:, None, None]
    return evaluate(split.labels, scored.scores, scored.maps, masks)


def _patches(cache: Cache, record: Record, raw: dict[tuple[str, str, str], Entry]) -> Tensor:
    """(28 * 28, 33) features of one sample."""
    sample = read_sample(cache.folder / record.path)
    entry = raw[record.split, record.label, record.name]
    g, size = sample.geometry, sample.depth.shape[-1]
    place = np.floor((np.arange(size) + 0.5) * g.side / size).astype(int)
    rows, columns = place - g.pad_top, place - g.pad_left
    inside = ((rows >= 0) & (rows < g.raw_height))[:, None] & ((columns >= 0) & (columns < g.raw_width))[None]
    xyz = read_capture(entry.rgb, entry.xyz).xyz
    grid = np.clip(rows, 0, g.raw_height - 1)[:, None], np.clip(columns, 0, g.raw_width - 1)[None]
    shown = inside & sample.foreground & ~np.isnan(xyz[grid][..., 2])
    part = np.zeros(xyz.shape[:2], bool)
    part[tuple(places[shown] for places in np.broadcast_arrays(*grid))] = True
    features = np.where(shown[..., None], fpfh(xyz, part)[grid], 0)
    maps = torch.from_numpy(features).permute(2, 0, 1)[None]
    smooth = F.avg_pool2d(maps, 3, stride=1)
    return F.adaptive_avg_pool2d(smooth, _PATCHES)[0].flatten(1).T.contiguous()


def fpfh(points: NDArray[np.float32], part: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fast point feature histograms of the part's points (H, W, 3): (H, W, 33), zero elsewhere."""
    import open3d as o3d

    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points[part].astype(np.float64)))
    cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(_NORMAL_NEIGHBOURS))
    found = o3d.pipelines.registration.compute_fpfh_feature(
        cloud, o3d.geometry.KDTreeSearchParamKNN(_FEATURE_NEIGHBOURS)
    )
    features = np.zeros((*part.shape, 33), np.float32)
    features[part] = np.asarray(found.data).T
    return features


def coreset(patches: Tensor) -> Tensor:
    """A tenth of the patches (N, C), each the farthest from those picked before.

    The published code picks them in a random projection, which does not reduce 33 dimensions.
    """
    length = patches.square().sum(1)
    nearest = length
    picked: list[int] = []
    for _ in range(round(_CORESET * len(patches))):
        index = int(nearest.argmax())
        distance = (length + length[index] - 2 * (patches @ patches[index])).clamp_min(0)
        nearest = torch.minimum(nearest, distance) if picked else distance
        picked.append(index)
    return patches[torch.tensor(picked)]


def _judge(patches: Tensor, bank: Tensor, size: int) -> tuple[NDArray[np.float32], float]:
    distance, place = torch.cdist(patches, bank).min(dim=1)
    worst = int(distance.argmax())
    nearest = bank[place[worst]][None]
    around = torch.cdist(nearest, bank)[0].topk(min(_REWEIGHT, len(bank)), largest=False).indices[1:]  # without itself
    to_around = (patches[worst] - bank[around]).norm(dim=1)
    scale = patches.shape[1] ** 0.5
    weight = 1 - torch.exp(distance[worst] / scale - torch.logsumexp(to_around / scale, dim=0))
    small = distance.view(1, 1, _PATCHES, _PATCHES)
    large = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)[0, 0].numpy()
    return cv2.GaussianBlur(large, (0, 0), _BLUR_PX * size / 224), float(weight * distance[worst])
