"""The ways in which rigid parts lie: those that rest on different faces look like different parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from das3d_cli.registration import Pose, Together, find_pose, in_chunks, laid_back, lay_together, unlikeness

_MOST = 4  # ways that are looked for
_LOOKED_AT = 64  # parts at most by which it is decided how many there are
_LEAST, _FEW = 4, 0.1  # parts, and share of them: a smaller group is of odd parts
_FAR = 0.9  # rank of the part that stands for a further way, by how unlike those found it is; the last may be odd
# So many times as unlike any other mean part as their own must nine of ten parts be: 1.6 times if they lie on two faces,
# 1.2 at most if not. Less is asked for while single parts, which differ among themselves, stand for the means.
_APART, _FIRST_APART = 1.35, 1.1


class Ways(NamedTuple):
    """N parts, each in one of W ways.

    Attributes:
        means: (W, C, S, S), the mean marks of the parts that lie in each way.
        way: int64, (N,), of each part.
        pose: of each part, relative to the mean part of its way.
    """

    means: Tensor
    way: Tensor
    pose: Pose


def find_ways(parts: Tensor, *, heights: bool = True) -> Ways:
    """Find the ways in which N parts lie, by their marks (N, C, S, S), and lay those of each way together.

    Args:
        parts, heights: as for `lay_together`.
    """
    together = lay_together(parts, heights=heights)
    chosen = torch.linspace(0, len(parts) - 1, min(len(parts), _LOOKED_AT), device=parts.device).round().long()
    of_chosen = Together(together.mean, Pose(*(tensor[chosen] for tensor in together.pose)))
    found = _several_means(parts[chosen], of_chosen, heights)
    if found is not None:
        way, _ = _all_matched(parts, found)
        means = _means_of(parts, way, len(found), heights)
        way, pose = _all_matched(parts, means)
        if _sizes(way, len(means)).min() >= _LEAST:
            return Ways(means, way, pose)
    return Ways(together.mean[None], torch.zeros(len(parts), dtype=torch.long, device=parts.device), together.pose)


def matched(parts: Tensor, means: Tensor) -> tuple[Tensor, Pose]:
    """The way, int64, (B,), in which each of B parts (B, C, S, S) lies, and its pose relative to the mean of that way."""
    poses = [find_pose(parts, mean) for mean in means]
    each = torch.arange(len(parts), device=parts.device)
    if len(poses) == 1:
        return torch.zeros_like(each), poses[0]
    unlike = torch.stack([unlikeness(parts, mean, pose) for mean, pose in zip(means, poses, strict=True)])
    way = unlike.argmin(dim=0)
    return way, Pose(*(torch.stack(tensors)[way, each] for tensors in zip(*poses, strict=True)))


def _all_matched(parts: Tensor, means: Tensor) -> tuple[Tensor, Pose]:
    found = [(way, *pose) for way, pose in (matched(some, means) for (some,) in in_chunks(parts))]
    way, *pose = (torch.cat(tensors) for tensors in zip(*found, strict=True))
    return way, Pose(*pose)


def _several_means(parts: Tensor, together: Together, heights: bool) -> Tensor | None:
    """The mean marks of as many groups of parts as are far apart, (W, C, S, S); None if there are no such groups."""
    if len(parts) < 2 * _LEAST:
        return None
    standing = [int(_unlike(parts, together.mean, together.pose).argmin())]
    unlike, found = _laid_on(parts, _alone(parts, together.pose, standing[0]))[None], None
    for count in range(2, _MOST + 1):
        standing.append(int(unlike.amin(dim=0).argsort()[int(_FAR * (len(parts) - 1))]))
        unlike = torch.cat((unlike, _laid_on(parts, _alone(parts, together.pose, standing[-1]))[None]))
        if _are_apart(unlike, _FIRST_APART, standing):
            means = _means_of(parts, unlike.argmin(dim=0), count, heights)
            if _are_apart(torch.stack([_laid_on(parts, mean) for mean in means]), _APART):
                found = means
    return found


def _means_of(parts: Tensor, way: Tensor, count: int, heights: bool) -> Tensor:
    return torch.stack([lay_together(parts[way == one], heights=heights).mean for one in range(count)])


def _are_apart(unlike: Tensor, times: float, standing: Sequence[int] = ()) -> bool:
    """Whether parts make groups.

    Args:
        unlike: (W, N), how unlike what stands for each group they are.
        times: how far apart the groups must be, see `_APART`.
        standing: the parts that stand for groups, which are not counted.
    """
    if _sizes(unlike.argmin(dim=0), len(unlike)).min() < max(_LEAST, _FEW * unlike.shape[1]):
        return False
    counted = torch.ones(unlike.shape[1], dtype=torch.bool, device=unlike.device)
    counted[list(standing)] = False
    own, next_best = unlike[:, counted].sort(dim=0).values[:2]
    return bool((next_best / own.clamp_min(1e-9)).quantile(0.1) > times)


def _sizes(way: Tensor, count: int) -> Tensor:
    return torch.bincount(way, minlength=count)


def _alone(parts: Tensor, pose: Pose, place: int) -> Tensor:
    """The marks of one part (C, S, S), laid back."""
    one = slice(place, place + 1)
    return laid_back(parts[one], Pose(pose.angle[one], pose.shift[one]))[0]


def _laid_on(parts: Tensor, mean: Tensor) -> Tensor:
    """How unlike a mean part (C, S, S) the parts are in their best poses on it, (N,)."""
    return torch.cat([unlikeness(some, mean, find_pose(some, mean)) for (some,) in in_chunks(parts)])


def _unlike(parts: Tensor, mean: Tensor, pose: Pose) -> Tensor:
    return torch.cat([unlikeness(some, mean, Pose(*of_some)) for some, *of_some in in_chunks(parts, *pose)])
