"""Registration of rigid parts: the turn and shift that align one image with another, and the mean of aligned parts.

A camera that is not straight above a part sees high points shifted against low ones, in a direction that depends on the
part's pose. So parts are aligned as seen from above: each pixel is moved back by its relief displacement.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from das3d_cli.affine import middles, places, sampled, turning
from das3d_cli.contrast import box_means, local_contrast
from das3d_cli.polar import best_angle, best_angles, certainty, likeness_of, matches_of, polar_spectra

_STARTS = 4  # candidates for the first mean, each grown from another part
_GROWN_FROM = 64  # parts at most for the first mean: one half to grow means, the other to choose between them
_SHARES = (0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.0)  # of the parts, best matches first, in the successive means
_ROUNDS = 3  # of aligning all parts with their mean to subpixel accuracy and averaging them again
_SURE = 0.65  # least `certainty`, median, of a mean that is not by chance: those are 0.1 to 0.5, others 0.8 to 6
_SIDE = 128  # least side of the marks, pixels: finer ones find no better pose
_TRIED = 3  # matches, the best ones: a defect that covers what tells two angles apart may put the right one second
_RIVAL = 0.7  # share of the best match's lead over the mean, from which another one is tried
_COARSE = 64  # least side of the images for the first Gauss-Newton steps, before those at `_SIDE`
_TWO_GROUPS = 10.0  # standard deviations between groups of parts: of parts that lie alike, halves are 3 to 6 apart
_OPPOSITE = -0.3  # likeness of a difference to itself half a turn on: 0 for one at one place, -1 if it changes sides
_CLEAR = 4.0  # standard errors, from which a mark differs between groups
_FEW = 0.1  # share of the parts: a smaller group is of odd parts
_CHUNK = 32  # parts at a time
_SHADE_FLOOR, _DEPTH_FLOOR = 0.01, 0.002  # contrasts of sensor noise, in units of the images
_SHADE_WEIGHT = 0.5  # of brightness beside depth: the shading of a relief changes as the part turns under the lamp
_LIMIT = 3.0  # of a mark, in multiples of the mean: an edge must not outweigh all lettering
_LARGE = 0.3  # difference of marks that gets half the weight
_PIECE = 256  # length of the pieces that long rows are split into on a GPU
_LOOKS = 5  # iterations to find the pixel that shows a point; odd, to end on the table where something tall hides it


class Pose(NamedTuple):
    """How B parts lie relative to the mean part: turned by `angle` (B,), radians from the x towards the y axis, then
    moved by `shift` (B, 2), x and y in half sides of the image."""

    angle: Tensor
    shift: Tensor


class Together(NamedTuple):
    """N aligned parts.

    Attributes:
        mean: (C, S, S), the mean of their marks.
        pose: of each part.
    """

    mean: Tensor
    pose: Pose


def displacements(depth: Tensor, foreground: Tensor, parallax: Tensor) -> Tensor:
    """Relief displacement: how far the point of each pixel appears from where it would appear at depth 1.

    Args:
        depth, foreground: float, (B, 1, S, S).
        parallax: (B, 2), of the samples, as in `das3d_cli.data.capture.Geometry`.

    Returns:
        (B, 2, S, S), x and y in half sides; zero off the part.
    """
    return parallax[:, :, None, None] * ((1 - depth) * foreground)


def marks(rgb: Tensor | None, depth: Tensor | None, foreground: Tensor, moved: Tensor | None = None) -> Tensor:
    """The features that a pose is found by: the part's outline, and what stands out within it in brightness and depth.

    Args:
        rgb, depth, foreground: float, (B, 3, S, S), (B, 1, S, S) and (B, 1, S, S), 0 or 1; rgb or depth may be None.
        moved: (B, 2, S, S), the part's `displacements`; the marks are then as seen from above.

    Returns:
        (B, 1 to 3, s, s), zero off the part: the foreground, then brightness and height against their surroundings,
        in multiples of their mean magnitude over the part, so that lettering counts beside the outline; beside height,
        brightness is halved. s is S, or a whole fraction of it that is no less than 128.
    """
    size = foreground.shape[-1]
    rim = max(1, size // 64)
    within = (box_means(1 - foreground, rim)[0] == 0).to(foreground.dtype)  # depths are least reliable at the rim
    found = [foreground]
    if rgb is not None:
        weight = _SHADE_WEIGHT if depth is not None else 1.0
        found.append(weight * _standing_out(rgb.mean(dim=1, keepdim=True), within, _SHADE_FLOOR))
    if depth is not None:
        found.append(_standing_out(-depth, within, _DEPTH_FLOOR))
    images = _shrunk(torch.cat(found, dim=1), _SIDE)
    if moved is None:
        return images
    as_they_lie = Pose(moved.new_zeros(len(moved)), moved.new_zeros(len(moved), 2))
    return laid_back(images, as_they_lie, _shrunk(moved, _SIDE))


def find_pose(parts: Tensor, mean: Tensor) -> Pose:
    """Find the poses of parts from their marks (B, C, S, S) and those of the mean part (C, S, S), which is centred.

    The centroid and the best matches of the polar images around it give first poses. They are refined to subpixel
    accuracy, and of those that match nearly as well as the best one, that is kept in which the mean part is most like the
    part: what stays where it is, such as shadows, must not outweigh a clear match.
    """
    centroid = _centroid(parts)
    matches = matches_of(polar_spectra(parts, centroid), polar_spectra(mean[None]))
    angles, leads = best_angles(matches, _TRIED)
    tried = Pose(angles.flatten(), centroid.repeat(_TRIED, 1))
    some, model = _shrunk(parts, _COARSE).repeat(_TRIED, 1, 1, 1), _shrunk(mean[None], _COARSE)
    for _ in range(2):
        tried = _refined(some, model, tried)
    parts, mean = _shrunk(parts, _SIDE), _shrunk(mean[None], _SIDE)
    return _refined(parts, mean, _most_alike(parts, mean, tried, leads >= _RIVAL * leads[0]))


def _most_alike(parts: Tensor, mean: Tensor, tried: Pose, rivals: Tensor) -> Pose:
    """Which of the poses tried for each part makes the mean part most like it.

    Args:
        parts, mean: (B, C, S, S) and (1, C, S, S).
        tried: `_TRIED` * B poses; first the first one of every part, then the second ones, and so on.
        rivals: bool, (`_TRIED`, B), which of them may be chosen.
    """
    model = laid(mean.expand(len(tried.angle), -1, -1, -1), tried)
    loss = _loss(model.view(_TRIED, *parts.shape) - parts).masked_fill(~rivals, torch.inf)
    best = loss.argmin(dim=0) * len(parts) + torch.arange(len(parts), device=parts.device)
    return Pose(tried.angle[best], tried.shift[best])


def unlikeness(parts: Tensor, mean: Tensor, pose: Pose) -> Tensor:
    """How unlike the mean part (C, S, S), laid as they lie, the marks of parts (B, C, S, S) are: (B,)."""
    return _loss(laid(mean.expand(len(parts), -1, -1, -1), pose) - parts)


def _loss(apart: Tensor) -> Tensor:
    """Cauchy's loss, as in `_refined`, of differences of marks (..., C, S, S)."""
    return (apart / _LARGE).square().log1p().mean(dim=(-3, -2, -1))


def _refined(parts: Tensor, mean: Tensor, pose: Pose) -> Pose:
    """One Gauss-Newton step (Lucas and Kanade 1981) on the difference of parts (B, C, S, S) and the mean part (1, C, S, S).

    Large differences get less weight (Cauchy's weights): the far sides of steps, which are hidden or in the projector's
    shadow, must not shift the whole part.
    """
    model = laid(mean.expand(len(parts), -1, -1, -1), pose)
    along_y, along_x = torch.gradient(model, spacing=2 / parts.shape[-1], dim=(2, 3))
    axis = middles(parts.shape[-1], parts.device)
    x = axis[None, :] - pose.shift[:, 0, None, None]
    y = axis[:, None] - pose.shift[:, 1, None, None]
    around = along_y * x[:, None] - along_x * y[:, None]
    slopes = torch.stack((around, along_x, along_y), dim=1).flatten(2)
    apart = (model - parts).flatten(1)
    weighed = slopes / (1 + (apart / _LARGE) ** 2)[:, None]
    normal = _product(weighed, slopes.mT)
    damping = (1e-4 * normal.diagonal(dim1=1, dim2=2).sum(1)).clamp_min(1e-6)  # a round part has no angle to find
    normal = normal + damping[:, None, None] * torch.eye(3, device=x.device, dtype=x.dtype)
    step = _solved(normal, (weighed * apart[:, None]).sum(dim=2)).clamp(-0.05, 0.05)
    return Pose(pose.angle + step[:, 0], pose.shift + step[:, 1:])


def _product(rows: Tensor, columns: Tensor) -> Tensor:
    """Products of a few long rows (B, M, K) and a few long columns (B, K, N): (B, M, N)."""
    whole = rows.device.type == "cpu" or rows.shape[-1] % _PIECE
    return rows @ columns if whole else _product_of_pieces(rows, columns)


def _product_of_pieces(rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply in pieces and add the products: with few long rows and columns most of a GPU would be idle."""
    count = rows.shape[-1] // _PIECE
    left, right = (of.reshape(len(of), -1, count, _PIECE).transpose(1, 2) for of in (rows, columns.mT))
    return (left @ right.mT).sum(dim=1)


def _solved(matrices: Tensor, right: Tensor) -> Tensor:
    """Solutions (B, 3) of three equations each, (B, 3, 3), by cofactors: a library's solver launches many kernels."""
    cofactors: Tensor = torch.linalg.cross(matrices.roll(-1, 1), matrices.roll(-2, 1))
    determinant = (matrices[:, 0] * cofactors[:, 0]).sum(dim=1, keepdim=True)
    return (right[..., None] * cofactors).sum(dim=1) / determinant


def lay_together(parts: Tensor, *, heights: bool = True) -> Together:
    """Align N parts with each other by their marks (N, C, S, S); `heights` tells whether the last channel is height.

    Shadows that stay in place may outweigh what turns with parts that lie in two opposite ways, so that all are laid the
    same way. Then some parts differ from the others in height, by opposite signs at opposite places. These are turned
    by half a turn, and all are aligned anew.
    """
    chosen = torch.linspace(0, len(parts) - 1, min(len(parts), _GROWN_FROM), device=parts.device).round().long()
    together = _settled(parts, _first_mean(parts[chosen]))
    if not heights or (opposite := _opposite(parts, together, chosen)) is None:
        return together
    turned = Pose(together.pose.angle + math.pi * opposite, together.pose.shift)
    return _settled(parts, _mean_in(parts, turned))


def _settled(parts: Tensor, mean: Tensor) -> Together:
    """Align all parts with the mean part and average them again, a few times."""
    for _ in range(_ROUNDS):
        mean = _mean_in(parts, _poses(parts, mean))
    return Together(mean, _poses(parts, mean))


def _poses(parts: Tensor, mean: Tensor) -> Pose:
    found = [find_pose(some, mean) for (some,) in in_chunks(parts)]
    return Pose(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))


def _mean_in(parts: Tensor, pose: Pose) -> Tensor:
    sums = [laid_back(some, Pose(*of_some)).sum(dim=0) for some, *of_some in in_chunks(parts, *pose)]
    return torch.stack(sums).sum(dim=0) / len(parts)


def _opposite(parts: Tensor, together: Together, chosen: Tensor) -> Tensor | None:
    """Which of N parts lie half a turn from the others, (N,), judged by the `chosen` ones; None if all lie alike.

    Parts differ most along their first principal component. If it falls into two groups that are far apart, and where
    one group is higher the other one is at the opposite place, these are the same parts the other way round.
    """

    def apart(some: Tensor, *pose: Tensor) -> Tensor:
        return (laid_back(some, Pose(*pose)) - together.mean)[:, (0, -1)]  # in outline and height

    of_chosen = apart(parts[chosen], *(tensor[chosen] for tensor in together.pose))
    rows = of_chosen.clamp(-_LARGE, _LARGE).flatten(1)
    middle = rows.mean(dim=0)
    component = torch.linalg.eigh((rows - middle) @ (rows - middle).T).eigenvectors[:, -1] @ (rows - middle)
    if not _are_opposite(of_chosen, (rows - middle) @ component):
        return None
    all_rows = (apart(*some).clamp(-_LARGE, _LARGE).flatten(1) for some in in_chunks(parts, *together.pose))
    return torch.cat([(some - middle) @ component for some in all_rows]) > 0


def _are_opposite(apart: Tensor, place: Tensor) -> bool:
    """Whether parts fall into two groups that differ from each other by opposite signs at opposite places.

    Args:
        apart: (N, 2, S, S), differences from the mean part.
        place: (N,), along their first principal component; its sign tells the group.
    """
    groups = [place > 0, place <= 0]
    if min(int(group.sum()) for group in groups) < max(2, _FEW * len(place)):
        return False
    gap = place[groups[0]].mean() - place[groups[1]].mean()
    if gap < _TWO_GROUPS * (sum(place[group].var() for group in groups) / 2) ** 0.5:
        return False
    difference = apart[groups[0]].mean(dim=0) - apart[groups[1]].mean(dim=0)
    error = sum(apart[group].var(dim=0) / group.sum() for group in groups) ** 0.5
    difference = torch.where(difference.abs() > _CLEAR * error, difference, 0.0)
    likeness = (difference.rot90(2, (1, 2)) * difference).sum() / difference.square().sum().clamp_min(1e-9)
    return bool(likeness < _OPPOSITE)


def _first_mean(parts: Tensor) -> Tensor:
    """A mean (C, S, S), of all parts or of half of them, by which all can be laid.

    Of several means grown from half of the parts, it is by the one that the other half matches most certainly.

    A part with a repeated feature, such as a tyre's tread, fits at many angles. A mean of parts each laid at any of
    these blurs whatever could tell the angles apart, and every part in it fits it well at the angle it was laid at,
    so others must judge. The halves are the first and the last parts, as samples of one part are next to each other.

    What all parts show at the same place, however they are turned, comes from the light and the camera. Highlights and
    shadows outweigh faint lettering, so this is subtracted first. If what is left is alike by chance only, as it is if
    all parts lie the same way, they are matched as they are.
    """
    centres, half = _centroid(parts), -(-len(parts) // 2)
    polar = torch.cat([polar_spectra(some, centre) for some, centre in in_chunks(parts, centres)])
    judges = slice(half, None) if len(parts) > half else slice(None)
    starts = range(0, half, -(-half // _STARTS))

    own = polar - polar.mean(dim=0)
    spectra = [_grown_spectra(own[:half], start) for start in starts]
    sure = torch.stack([certainty(likeness_of(own[judges], mean)).median() for mean in spectra])
    if bool(sure.max() > _SURE):
        angles = best_angle(likeness_of(own, spectra[int(sure.argmax())]))
        return laid_back(parts, Pose(angles, centres)).mean(dim=0)

    grown = [_grown(parts[:half], polar[:half], centres[:half], start) for start in starts]
    sure = torch.stack([certainty(matches_of(polar[judges], polar_spectra(mean[None]))).median() for mean in grown])
    return grown[int(sure.argmax())]


def _grown_spectra(own: Tensor, start: int) -> Tensor:
    """As `_grown`, by spectra (N, C, ...) without what stays where it is: mean spectra (1, C, ...)."""
    mean, frequencies = own[start : start + 1], torch.arange(own.shape[2], device=own.device)
    for share in _SHARES:
        alike = likeness_of(own, mean)
        kept = certainty(alike).argsort(descending=True, stable=True)[: max(4, round(share * len(own)))]
        turn = torch.exp(1j * best_angle(alike[kept])[:, None] * frequencies)
        mean = (own[kept] * turn[:, None, :, None]).mean(dim=0, keepdim=True)
    return mean


def _grown(parts: Tensor, polar: Tensor, centres: Tensor, start: int) -> Tensor:
    """Grow a mean (C, S, S) from one part by adding the others, those first that match it most certainly."""
    mean = laid_back(parts[start : start + 1], Pose(centres.new_zeros(1), centres[start : start + 1]))[0]
    for share in _SHARES:
        matches = matches_of(polar, polar_spectra(mean[None]))
        kept = certainty(matches).argsort(descending=True, stable=True)[: max(4, round(share * len(parts)))]
        mean = laid_back(parts[kept], Pose(best_angle(matches[kept]), centres[kept])).mean(dim=0)
    return mean


def laid(images: Tensor, pose: Pose, moved: Tensor | None = None) -> Tensor:
    """Warp images of the mean part (B, C, S, S) to the parts' poses; with their `displacements`, as they are seen."""
    turn = turning(pose.angle)
    taken = places(turn, -(turn @ pose.shift[..., None])[..., 0], images.shape[-1])
    if moved is not None:
        taken = taken - (turn @ moved.flatten(2)).view_as(moved)
    return sampled(images, taken)


def laid_back(images: Tensor, pose: Pose, moved: Tensor | None = None) -> Tensor:
    """Warp images of the parts (B, C, S, S) to the mean part's pose; with their `displacements`, as seen from above.

    Each iteration reads the displacement where the last one put the point. A hidden point shows something near it:
    behind the far edge of something tall, the iterations alternate between its top and its surroundings.
    """
    taken = from_above = places(turning(-pose.angle), pose.shift, images.shape[-1])
    if moved is not None:
        for _ in range(_LOOKS):
            taken = from_above + sampled(moved, taken)
    return sampled(images, taken)


def _standing_out(image: Tensor, within: Tensor, floor: float) -> Tensor:
    """Local contrast in multiples of its mean magnitude over the part, clipped to +-3."""
    contrast = local_contrast(image, within, image.shape[-1] // 32)
    area = within.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    return (contrast / (contrast.abs().sum(dim=(2, 3), keepdim=True) / area + floor)).clamp(-_LIMIT, _LIMIT)


def in_chunks(*tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    """Iterate over tensors of the same number of parts, a chunk of parts at a time."""
    return zip(*(torch.split(tensor, _CHUNK) for tensor in tensors), strict=True)


def marked_side(size: int) -> int:
    """Side of the marks of images of side `size`."""
    return size // _divisor(size, _SIDE)


def _divisor(size: int, side: int) -> int:
    """The largest divisor of `size` with a quotient of at least `side`, else 1."""
    return max((shrink for shrink in range(1, size // side + 1) if size % shrink == 0), default=1)


def _shrunk(images: Tensor, side: int) -> Tensor:
    """Average down to no less than `side`, by a divisor of the size: a row left over would shift the image's centre."""
    shrink = _divisor(images.shape[-1], side)
    return images if shrink == 1 else F.avg_pool2d(images, shrink)


def _centroid(parts: Tensor) -> Tensor:
    """Centroid of the foreground, the first channel: (B, 2), x and y in half sides."""
    part = parts[:, 0]
    axis = middles(part.shape[-1], part.device)
    area = part.sum(dim=(1, 2)).clamp_min(1e-6)
    return torch.stack(((part.sum(dim=1) * axis).sum(1) / area, (part.sum(dim=2) * axis).sum(1) / area), dim=1)
