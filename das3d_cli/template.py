"""The golden template: what the good parts of a category look like on average, turned to the part at hand.

A rigid part that lies at any angle is one and the same image once it is turned back; what then differs from the mean
by more than the good parts do is worth a look. Where parts share no shape, as potatoes, there is nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from das3d_cli.batch import background_depth
from das3d_cli.contrast import local_contrast
from das3d_cli.registration import (
    Pose,
    displacements,
    find_pose,
    in_chunks,
    laid,
    laid_back,
    lay_together,
    marked_side,
    marks,
)

_SHAPE = 0.9  # least overlap (intersection over union) of the middle part with the mean part, to share its shape
_FLOORS = (0.03, 0.03, 0.03, 0.01)  # least spread of RGB and depth: the sensors' noise, in units of the images
_LOCAL_FLOOR = 0.5  # share of these floors, for differences less their local mean
_SURROUNDINGS = 8  # how far that mean reaches, as a divisor of the image side
_TELLING = 0.8  # share of what the parts' surroundings leave open that a mean part may, without outlines to go by
_LIMIT = 3.0  # of a deviation: farther out is all the same
_OBLIQUE = 0.15  # half sides: where the middle part's parallax is larger, sides are seen rather than the top


class Comparison(NamedTuple):
    """B parts beside the mean part, laid as each of them lies.

    Parts that share no shape deviate by zero, and in place of the mean part stands what is around each place of them.

    Attributes:
        deviations: float32, (B, channels, S, S), in multiples of the good parts' spread, within 3: colour and depth where
            both the part and the mean part are, as they are and less their mean around there, and three times the difference
            of the foregrounds, which is positive where the mean part is not.
        rgb, depth: float32, (B, 3, S, S) and (B, 1, S, S): a sample of the mean part, about as light as the part and, off it,
            as deep as the part's own background; else the part's own local mean.
    """

    deviations: Tensor
    rgb: Tensor
    depth: Tensor


class _Posed(NamedTuple):
    """Good parts, how they lie and their `displacements`."""

    rgb: Tensor
    depth: Tensor
    foreground: Tensor
    pose: Pose
    moved: Tensor | None


class _Beside(NamedTuple):
    """B parts, and the mean part laid on each of them.

    Attributes:
        images: (B, 13, S, S), `Template.images` as the parts lie.
        light: (B, 3, 1, 1), how many times as light the mean part is.
        apart: (B, 8, S, S), RGB, made as light, and depth minus the mean part's; then the same less their mean around there:
            of parts that bulge or are lit a little differently everything is apart, and what is small tells by the
            second four alone. Both weighed by foreground and coverage.
    """

    images: Tensor
    light: Tensor
    apart: Tensor


class Template(nn.Module):
    """Mean and spread of good parts laid on each other, kept with the network's weights.

    Args:
        size: side S of the samples, pixels.
        uses_rgb, uses_depth: what poses are found on and deviations are given of, beside the foreground.
    """

    mean_marks: Tensor  # (C, s, s), which poses are measured against
    images: Tensor  # (13, S, S): the mean RGB and depth, the spread of what good parts are `apart`, and the coverage
    floors: Tensor  # (8, 1, 1): of that spread
    shared: Tensor  # (), 1 where the parts share a shape, else 0
    above: Tensor  # (), 1 where they are compared as seen from above, 0 where the view is too oblique for that

    def __init__(self, size: int, *, uses_rgb: bool, uses_depth: bool) -> None:
        super().__init__()
        self.uses_rgb, self.uses_depth = uses_rgb, uses_depth
        side = marked_side(size)
        self.register_buffer("mean_marks", torch.zeros(1 + uses_rgb + uses_depth, side, side))
        self.register_buffer("images", torch.zeros(13, size, size))
        floors = torch.tensor([*_FLOORS, *(_LOCAL_FLOOR * floor for floor in _FLOORS)])
        self.register_buffer("floors", floors[:, None, None], persistent=False)
        self.register_buffer("shared", torch.zeros(()))
        self.register_buffer("above", torch.ones(()))
        self._compares = False  # as `shared`, on the host: a GPU would have to be waited for
        self.register_load_state_dict_post_hook(_compare_as_loaded)  # type: ignore[no-untyped-call]

    def compare(self, wanted: bool) -> None:
        """Compare parts with the mean part from now on, or do not."""
        self.shared.fill_(wanted)
        self._compares = wanted

    @property
    def channels(self) -> int:
        """Number of the deviations."""
        return 1 + 2 * (3 * self.uses_rgb + self.uses_depth)

    @torch.no_grad()
    def learn(self, rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor) -> None:
        """Take the mean of N good parts, on any device: uint8 (N, 3, S, S), float (N, 1, S, S), bool (N, 1, S, S), float (N, 2)."""
        device = self.images.device

        def chunks() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
            for a, b, c, d in in_chunks(rgb, depth, foreground, parallax):
                yield a.to(device).float() / 255, b.to(device).float(), c.to(device).float(), d.to(device).float()

        self.above.copy_(parallax.float().norm(dim=1).median() <= _OBLIQUE)
        parts = torch.cat([marks(*self._used(*chunk[:3]), self._displacements(*chunk[1:])) for chunk in chunks()])
        together = lay_together(parts)
        self.mean_marks.copy_(together.mean)
        overlap = [
            _overlap(laid_back(some, Pose(*pose))[:, 0], together.mean[0])
            for some, *pose in in_chunks(parts[:, :1], *together.pose)
        ]
        self.compare(bool(torch.cat(overlap).median() >= _SHAPE))

        def posed() -> Iterator[_Posed]:
            for (colour, height, part, view), pose in zip(chunks(), in_chunks(*together.pose), strict=True):
                yield _Posed(colour, height, part, Pose(*pose), self._displacements(height, part, view))

        self._learn_mean(posed, len(rgb))
        if self._compares and bool(foreground.all()):  # then the outline, on which parts were compared, says nothing
            self.compare(self._tells(posed))
        self._learn_spread(posed)

    def _learn_mean(self, posed: Callable[[], Iterator[_Posed]], count: int) -> None:
        light = torch.cat([_mean_colour(some.rgb, some.foreground) for some in posed()]).mean(dim=0)
        total = torch.zeros_like(self.images[:5])
        for rgb, depth, part, pose, moved in posed():
            colour = rgb * (light / _mean_colour(rgb, part))
            total += laid_back(torch.cat((colour * part, depth * part, part), dim=1), pose, moved).sum(dim=0)
        self.images[:4], self.images[12:] = total[:4] / total[4:].clamp_min(1e-6), total[4:] / count

    def _tells(self, posed: Callable[[], Iterator[_Posed]]) -> bool:
        """Whether the mean part says more of the parts than what is around each place of them does."""
        share = []
        used = slice(0 if self.uses_rgb else 3, 4 if self.uses_depth else 3)
        for some in posed():
            beside = self._beside(*some)
            both = some.foreground * beside.images[:, 12:]
            images = torch.cat((some.rgb, some.depth), dim=1)
            against = local_contrast(images, both, both.shape[-1] // _SURROUNDINGS)
            left, beyond = (image[:, used].abs().sum(dim=(1, 2, 3)) for image in (beside.apart[:, :4], against * both))
            share.append(left / beyond.clamp_min(1e-6))
        return bool(torch.cat(share).median() <= _TELLING)

    def _learn_spread(self, posed: Callable[[], Iterator[_Posed]]) -> None:
        total = torch.zeros_like(self.images[:9])
        for some in posed():
            beside = self._beside(*some)
            both = some.foreground * beside.images[:, 12:]
            total += laid_back(torch.cat((beside.apart**2, both), dim=1), some.pose, some.moved).sum(dim=0)
        self.images[4:12] = (total[:8] / total[8:].clamp_min(1e-6)).sqrt()

    @torch.no_grad()
    def forward(self, rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor) -> Comparison:
        """Lay the mean part on each part: float, (B, 3, S, S), (B, 1, S, S), (B, 1, S, S) and (B, 2)."""
        if not self._compares:
            return self._uncompared(rgb, depth, foreground)
        with torch.autocast(rgb.device.type, enabled=False):
            rgb, depth, foreground, parallax = (given.float() for given in (rgb, depth, foreground, parallax))
            moved = self._displacements(depth, foreground, parallax)
            pose = find_pose(marks(*self._used(rgb, depth, foreground), moved), self.mean_marks)
            beside = self._beside(rgb, depth, foreground, pose, moved)
            mean, spread, coverage = torch.split(beside.images, [4, 8, 1], dim=1)
            outline = _LIMIT * (foreground - coverage)
            apart = self._of_used(beside.apart * (spread**2 + self.floors**2).rsqrt())
            deviations = torch.cat((*apart, outline), dim=1).clamp_(-_LIMIT, _LIMIT)
            beyond = (1 - coverage) * background_depth(depth * foreground)
            return Comparison(deviations, mean[:, :3] / beside.light * coverage, mean[:, 3:] * coverage + beyond)

    def _beside(self, rgb: Tensor, depth: Tensor, foreground: Tensor, pose: Pose, moved: Tensor | None) -> _Beside:
        images = laid(self.images.expand(len(rgb), -1, -1, -1), pose, moved)
        mean, both = images[:, :4], foreground * images[:, 12:]
        light = (_mean_colour(mean[:, :3], both) / _mean_colour(rgb, both)).clamp(0.5, 2)
        apart = torch.cat((rgb * light, depth), dim=1) - mean
        against = local_contrast(apart, both, apart.shape[-1] // _SURROUNDINGS)
        return _Beside(images, light, torch.cat((apart * both, against), dim=1))

    def _of_used(self, apart: Tensor) -> list[Tensor]:
        """The channels of the images that are used."""
        rgb, depth, rgb_local, depth_local = torch.split(apart, [3, 1, 3, 1], dim=1)
        return [rgb, rgb_local] * self.uses_rgb + [depth, depth_local] * self.uses_depth

    def _uncompared(self, rgb: Tensor, depth: Tensor, foreground: Tensor) -> Comparison:
        part, reach = foreground.float(), rgb.shape[-1] // _SURROUNDINGS
        with torch.autocast(rgb.device.type, enabled=False):
            around = [image.float() - local_contrast(image.float(), part, reach) for image in (rgb, depth)]
        return Comparison(around[1].new_zeros(len(rgb), self.channels, *rgb.shape[-2:]), *around)

    def _displacements(self, depth: Tensor, foreground: Tensor, parallax: Tensor) -> Tensor | None:
        return displacements(depth, foreground, self.above * parallax) if self.uses_depth else None

    def _used(self, rgb: Tensor, depth: Tensor, foreground: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        return rgb if self.uses_rgb else None, depth if self.uses_depth else None, foreground


def _compare_as_loaded(module: nn.Module, _: object) -> None:
    assert isinstance(module, Template)
    module.compare(bool(module.shared))


def _mean_colour(rgb: Tensor, weight: Tensor) -> Tensor:
    """Over the pixels of weight (B, 1, S, S): (B, 3, 1, 1)."""
    total = (rgb * weight).sum(dim=(2, 3), keepdim=True)
    return total / weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6) + 1e-3


def _overlap(parts: Tensor, mean: Tensor) -> Tensor:
    """Intersection over union of soft foregrounds (N, s, s) with that of the mean part (s, s): (N,)."""
    return torch.minimum(parts, mean).sum(dim=(1, 2)) / torch.maximum(parts, mean).sum(dim=(1, 2)).clamp_min(1e-6)
