"""The golden template: the average good part of a category, turned to the pose of the part at hand.

Rigid parts look alike once they are turned back; where one then differs from the mean by more than good parts do, it is
worth a look. Where parts lie in several ways, as on either face, there is a mean part for each. Where parts share no
shape, such as potatoes, there is nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from das3d_cli.batch import background_depth
from das3d_cli.contrast import local_contrast
from das3d_cli.modes import MODES, explained, principal_modes
from das3d_cli.registration import (
    Pose,
    displacements,
    in_chunks,
    laid,
    laid_back,
    marked_side,
    marks,
)
from das3d_cli.ways import Ways, find_ways, matched

_SHAPE = 0.9  # least median overlap (intersection over union) of parts that share a shape with their mean part
_FLOORS = (0.03, 0.03, 0.03, 0.01)  # least spread of R, G, B and depth: sensor noise, in units of the images
_LOCAL_FLOOR = 0.5  # share of these floors, for differences minus their local mean
_SURROUNDINGS = 8  # reach of that local mean, as a divisor of the image side
# Without outlines, a mean part is of use if parts differ from it by no more than this share of their local contrast.
_TELLING = 0.8
_MEAN, _SPREAD, _COVERAGE, _MODES = slice(0, 4), slice(4, 12), slice(12, 13), slice(13, 13 + 4 * MODES)  # of `images`
_LIMIT = 3.0  # that deviations are clipped to
_LIGHTS = (0.5, 2.0)  # that a part's channel is made as bright as the mean part's by; an unlit part must stand out
# Good parts of several colours widen that, by all but the most extreme of them and a little more.
_NEARLY_ALL, _MARGIN = 0.98, 1.25
# Pixels of the parts, about, from which modes are learnt, as all of these are in memory at a time; and parts at least.
_VARYING, _FEW = 128 * 256**2, 32
_OBLIQUE = 0.15  # half sides: with a larger median parallax, sides of parts are seen rather than the top


class Comparison(NamedTuple):
    """B parts compared with the mean part in the pose of each.

    Where parts share no shape, deviations are zero, and each part's own local mean takes the place of the mean part.

    Attributes:
        deviations: float32, (B, channels, S, S), within +-3. Differences in colour and in depth where both the part and
            the mean part are, as they are and minus their local mean, in multiples of the good parts' spread; then
            three times the difference of the foregrounds, positive where the mean part is not.
        rgb, depth: float32, (B, 3, S, S) and (B, 1, S, S): images of the mean part, about as bright as the part and,
            off the mean part, as deep as the part's background; or the part's own local mean.
    """

    deviations: Tensor
    rgb: Tensor
    depth: Tensor


class _Posed(NamedTuple):
    """Good parts, how they lie and their `displacements`."""

    rgb: Tensor
    depth: Tensor
    foreground: Tensor
    way: Tensor
    pose: Pose
    moved: Tensor | None


class _Beside(NamedTuple):
    """The mean part in the pose of each of B parts, varied by its modes to be most like it, and how the parts differ.

    Attributes:
        mean, spread, coverage: (B, 4, S, S), (B, 8, S, S) and (B, 1, S, S), as `Template.images` has them.
        light: (B, 3, 1, 1), how many times as bright as the part the mean part is.
        apart: (B, 8, S, S), the part's RGB, made as bright, and depth minus the mean part's; then the same minus their
            local mean. Where a part bulges or is lit a little differently, the first four differ everywhere, and only
            the second four show small defects. All are weighted by foreground and coverage.
    """

    mean: Tensor
    spread: Tensor
    coverage: Tensor
    light: Tensor
    apart: Tensor


class Template(nn.Module):
    """Mean and spread of aligned good parts, stored with the network's weights.

    Args:
        size: side S of the samples, pixels.
        uses_rgb, uses_depth: which images, beside the foreground, poses are found by and deviations are given for.
    """

    mean_marks: Tensor  # (W, C, s, s), what poses are found against, for each of the ways in which parts lie
    images: Tensor  # (W, 29, S, S): the mean RGB and depth, the spread of good parts' `apart`, coverage, modes
    lights: Tensor  # (2, 3, 1, 1), the least and the most that each colour channel is multiplied by
    floors: Tensor  # (8, 1, 1), sensor noise that is added to that spread in quadrature
    shared: Tensor  # (), 1 where the parts share a shape, else 0
    above: Tensor  # (), 1 where they are compared as seen from above, 0 where the view is too oblique for that

    def __init__(self, size: int, *, uses_rgb: bool, uses_depth: bool) -> None:
        super().__init__()
        self.uses_rgb, self.uses_depth = uses_rgb, uses_depth
        side = marked_side(size)
        self.register_buffer("mean_marks", torch.zeros(1, 1 + uses_rgb + uses_depth, side, side))
        self.register_buffer("images", torch.zeros(1, _MODES.stop, size, size))
        self.register_buffer("lights", torch.tensor(_LIGHTS).view(2, 1, 1, 1).repeat(1, 3, 1, 1))
        floors = torch.tensor([*_FLOORS, *(_LOCAL_FLOOR * floor for floor in _FLOORS)])
        self.register_buffer("floors", floors[:, None, None], persistent=False)
        self.register_buffer("shared", torch.zeros(()))
        self.register_buffer("above", torch.ones(()))
        self.compares = False  # as `shared`, on the host, so that no GPU is waited for
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_compare_as_loaded)  # type: ignore[no-untyped-call]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # The network's channels come to lie last in memory; these images are looked at channel by channel.
        self.images, self.mean_marks = self.images.contiguous(), self.mean_marks.contiguous()
        return self

    def compare(self, wanted: bool) -> None:
        """Switch the comparison with the mean part on or off."""
        self.shared.fill_(wanted)
        self.compares = wanted

    @property
    def channels(self) -> int:
        """Number of channels of the deviations."""
        return 1 + 2 * (3 * self.uses_rgb + self.uses_depth)

    @torch.no_grad()
    def learn(self, rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor) -> None:
        """Learn from N good parts, on any device: uint8 (N, 3, S, S), float and bool (N, 1, S, S), float (N, 2)."""
        device = self.images.device

        def chunks() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
            for a, b, c, d in in_chunks(rgb, depth, foreground, parallax):
                yield a.to(device).float() / 255, b.to(device).float(), c.to(device).float(), d.to(device).float()

        self.above.copy_(parallax.float().norm(dim=1).median() <= _OBLIQUE)
        parts = torch.cat([marks(*self._used(*chunk[:3]), self._displacements(*chunk[1:])) for chunk in chunks()])
        ways = find_ways(parts, heights=self.uses_depth)
        self.mean_marks = ways.means
        self.images = self.images.new_zeros(len(ways.means), *self.images.shape[1:])
        self.compare(bool(_overlaps(parts, ways).median() >= _SHAPE))

        def posed() -> Iterator[_Posed]:
            for (colour, height, part, view), (way, *pose) in zip(
                chunks(), in_chunks(ways.way, *ways.pose), strict=True
            ):
                yield _Posed(colour, height, part, way, Pose(*pose), self._displacements(height, part, view))

        self._learn_mean(posed)
        if self.compares and bool(foreground.all()):  # without an outline the overlap says nothing
            self.compare(self._tells(posed))
        self._learn_spread(posed)
        if self.compares:
            self._learn_modes(posed, -(-len(rgb) // max(_FEW, _VARYING // rgb[0, 0].numel())))
            self._learn_spread(posed)

    def _learn_mean(self, posed: Callable[[], Iterator[_Posed]]) -> None:
        ways, colours = (
            torch.cat(tensors)
            for tensors in zip(*((some.way, _mean_colour(some.rgb, some.foreground)) for some in posed()), strict=True)
        )
        light = torch.stack([colours[ways == one].mean(dim=0) for one in range(len(self.images))])
        self._learn_lights(light[ways] / colours)
        total = torch.zeros_like(self.images[:, :5])
        for rgb, depth, part, way, pose, moved in posed():
            colour = rgb * (light[way] / _mean_colour(rgb, part))
            self._add(total, laid_back(torch.cat((colour * part, depth * part, part), dim=1), pose, moved), way)
        self.images[:, _MEAN] = total[:, :4] / total[:, 4:].clamp_min(1e-6)
        self.images[:, _COVERAGE] = total[:, 4:] / ways.bincount()[:, None, None, None]

    def _learn_lights(self, lights: Tensor) -> None:
        """Learn by how much colour channels are multiplied from what N good parts need, (N, 3, 1, 1)."""
        least, most = (lights.quantile(share, dim=0) for share in (1 - _NEARLY_ALL, _NEARLY_ALL))
        self.lights[0], self.lights[1] = (least / _MARGIN).clamp_max(_LIGHTS[0]), (most * _MARGIN).clamp_min(_LIGHTS[1])

    @staticmethod
    def _add(total: Tensor, of_each: Tensor, way: Tensor) -> None:
        """Add images of parts (B, C, S, S) to the sums (W, C, S, S) of their ways."""
        for number, of_way in enumerate(total):
            of_way += of_each[way == number].sum(dim=0)

    def _tells(self, posed: Callable[[], Iterator[_Posed]]) -> bool:
        """Whether the mean part predicts the parts better than the surroundings of each pixel do."""
        share = []
        used = slice(0 if self.uses_rgb else 3, 4 if self.uses_depth else 3)
        for some in posed():
            beside = self._beside(*some)
            both = some.foreground * beside.coverage
            images = torch.cat((some.rgb, some.depth), dim=1)
            against = local_contrast(images, both, both.shape[-1] // _SURROUNDINGS)
            left, beyond = (image[:, used].abs().sum(dim=(1, 2, 3)) for image in (beside.apart[:, :4], against * both))
            share.append(left / beyond.clamp_min(1e-6))
        return bool(torch.cat(share).median() <= _TELLING)

    def _learn_modes(self, posed: Callable[[], Iterator[_Posed]], every: int) -> None:
        found: list[list[Tensor]] = [[] for _ in self.images]
        for some in posed():
            apart = laid_back(self._beside(*some).apart[:, :4], some.pose, some.moved)
            for number, of_way in enumerate(found):
                of_way += apart[(some.way == number).nonzero()[::every, 0]].unbind()
        for images, of_way in zip(self.images, found, strict=True):
            spread = images[_SPREAD][:4]
            modes = principal_modes(torch.stack(of_way), (spread**2 + self.floors[:4] ** 2).sqrt())
            images[_MODES] = modes.flatten(0, 1)
            spread.copy_((spread**2 - modes.square().sum(dim=0)).clamp_min(0).sqrt())

    def _learn_spread(self, posed: Callable[[], Iterator[_Posed]]) -> None:
        total = torch.zeros_like(self.images[:, :9])
        for some in posed():
            beside = self._beside(*some)
            both = some.foreground * beside.coverage
            of_each = laid_back(torch.cat((beside.apart**2, both), dim=1), some.pose, some.moved)
            self._add(total, of_each, some.way)
        self.images[:, _SPREAD] = (total[:, :8] / total[:, 8:].clamp_min(1e-6)).sqrt()

    @torch.no_grad()
    def forward(self, rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor) -> Comparison:
        """Compare each part with the mean part: float, (B, 3, S, S), (B, 1, S, S), (B, 1, S, S) and (B, 2)."""
        if not self.compares:
            return self._uncompared(rgb, depth, foreground)
        with torch.autocast(rgb.device.type, enabled=False):
            rgb, depth, foreground, parallax = (given.float() for given in (rgb, depth, foreground, parallax))
            moved = self._displacements(depth, foreground, parallax)
            way, pose = matched(marks(*self._used(rgb, depth, foreground), moved), self.mean_marks)
            beside = self._beside(rgb, depth, foreground, way, pose, moved)
            mean, coverage = beside.mean, beside.coverage
            outline = _LIMIT * (foreground - coverage)
            apart = self._of_used(beside.apart * (beside.spread**2 + self.floors**2).rsqrt())
            deviations = torch.cat((*apart, outline), dim=1).clamp_(-_LIMIT, _LIMIT)
            beyond = (1 - coverage) * background_depth(depth * foreground)
            return Comparison(deviations, mean[:, :3] / beside.light * coverage, mean[:, 3:] * coverage + beyond)

    def _beside(
        self, rgb: Tensor, depth: Tensor, foreground: Tensor, way: Tensor, pose: Pose, moved: Tensor | None
    ) -> _Beside:
        several = len(self.images) > 1
        images = laid(self.images[way] if several else self.images.expand(len(rgb), -1, -1, -1), pose, moved)
        mean, spread, coverage = images[:, _MEAN], images[:, _SPREAD], images[:, _COVERAGE]
        both = foreground * coverage
        light = (_mean_colour(mean[:, :3], both) / _mean_colour(rgb, both)).clamp(*self.lights)
        apart = torch.cat((rgb * light, depth), dim=1) - mean
        modes = images[:, _MODES].view(len(rgb), MODES, *apart.shape[1:])
        varied = explained(apart, modes, spread[:, :4] ** 2 + self.floors[:4] ** 2, both)
        mean, apart = mean + varied, apart - varied
        against = local_contrast(apart, both, apart.shape[-1] // _SURROUNDINGS)
        return _Beside(mean, spread, coverage, light, torch.cat((apart * both, against), dim=1))

    def _of_used(self, apart: Tensor) -> list[Tensor]:
        """The channels of the images in use."""
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


def _make_room(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Make room for as many mean parts as were saved."""
    assert isinstance(module, Template)
    for name in ("mean_marks", "images"):
        own, saved = getattr(module, name), state.get(prefix + name)
        if saved is not None and saved.shape[1:] == own.shape[1:]:
            setattr(module, name, own.new_zeros(saved.shape))


def _compare_as_loaded(module: nn.Module, _: object) -> None:
    assert isinstance(module, Template)
    module.compare(bool(module.shared))


def _mean_colour(rgb: Tensor, weight: Tensor) -> Tensor:
    """Mean colour of pixels weighted by (B, 1, S, S): (B, 3, 1, 1)."""
    total = (rgb * weight).sum(dim=(2, 3), keepdim=True)
    return total / weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6) + 1e-3


def _overlaps(parts: Tensor, ways: Ways) -> Tensor:
    """Intersection over union of the parts' soft foregrounds, by marks (N, C, s, s), with those of their mean parts: (N,)."""
    found = []
    for some, way, *pose in in_chunks(parts[:, :1], ways.way, *ways.pose):
        own, mean = laid_back(some, Pose(*pose)), ways.means[way, :1]
        found.append(
            torch.minimum(own, mean).sum(dim=(1, 2, 3)) / torch.maximum(own, mean).sum(dim=(1, 2, 3)).clamp_min(1e-6)
        )
    return torch.cat(found)
