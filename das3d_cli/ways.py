"""The ways in which rigid parts lie: those that rest on either of two faces look like two different parts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from das3d_cli.registration import Pose, Together, find_pose, in_chunks, laid_back, lay_together, unlikeness

_LOOKED_AT = 64  # parts at most by which it is decided whether there are several ways
_LEAST, _FEW = 4, 0.1  # parts, and share of them: a smaller group is of odd parts
_FAR = 0.9  # rank of the part that stands for another way, by how unlike the usual one it is; the last may be odd
# So many times as unlike the other group's mean part as their own must nine of ten parts be: 1.6 times if they lie on
# two faces, 1.2 at most if not. Less is asked for while single parts, which differ among themselves, stand for the means.
_APART, _FIRST_APART = 1.35, 1.1


class Ways(NamedTuple):
    """N parts, each in one of W ways, one or two.

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
    pair = _two_means(parts[chosen], of_chosen, heights)
    if pair is None:
        way = torch.zeros(len(parts), dtype=torch.long, device=parts.device)
        return Ways(together.mean[None], way, together.pose)
    way, _ = _all_matched(parts, pair)
    means = torch.stack([lay_together(parts[way == one], heights=heights).mean for one in (0, 1)])
    return Ways(means, *_all_matched(parts, means))


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


def _two_means(parts: Tensor, together: Together, heights: bool) -> Tensor | None:
    """The means of two groups of parts that are far apart, (2, C, S, S); None if there are no such groups."""
    if len(parts) < 2 * _LEAST:
        return None
    usual = int(_unlike(parts, together.mean, together.pose).argmin())
    from_usual = _laid_on(parts, _alone(parts, together.pose, usual))[1]
    other = int(from_usual.argsort()[int(_FAR * (len(parts) - 1))])
    from_both = torch.stack((from_usual, _laid_on(parts, _alone(parts, together.pose, other))[1]))
    if not _are_apart(from_both, _FIRST_APART, (usual, other)):
        return None
    first = from_both.argmin(dim=0) == 0
    means = torch.stack([lay_together(group, heights=heights).mean for group in (parts[first], parts[~first])])
    from_both = torch.stack([_laid_on(parts, mean)[1] for mean in means])
    return means if _are_apart(from_both, _APART) else None


def _are_apart(unlike: Tensor, times: float, besides: tuple[int, ...] = ()) -> bool:
    """Whether parts that are so `unlike` the one and the other of two, (2, N), make two groups, these two not counted."""
    counted = torch.ones(unlike.shape[1], dtype=torch.bool, device=unlike.device)
    counted[list(besides)] = False
    least = max(_LEAST, _FEW * unlike.shape[1])
    sizes = torch.bincount(unlike.argmin(dim=0), minlength=2)
    if int(sizes.min()) < least:
        return False
    ratio = unlike.amax(dim=0) / unlike.amin(dim=0).clamp_min(1e-9)
    return bool(ratio[counted].quantile(0.1) > times)


def _alone(parts: Tensor, pose: Pose, place: int) -> Tensor:
    """The marks of one part (C, S, S), laid back."""
    one = slice(place, place + 1)
    return laid_back(parts[one], Pose(pose.angle[one], pose.shift[one]))[0]


def _laid_on(parts: Tensor, mean: Tensor) -> tuple[Pose, Tensor]:
    """The poses of parts on a mean part (C, S, S), and how unlike it they are, (N,)."""
    found = [find_pose(some, mean) for (some,) in in_chunks(parts)]
    pose = Pose(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))
    return pose, _unlike(parts, mean, pose)


def _unlike(parts: Tensor, mean: Tensor, pose: Pose) -> Tensor:
    return torch.cat([unlikeness(some, mean, Pose(*of_some)) for some, *of_some in in_chunks(parts, *pose)])
