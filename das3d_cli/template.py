"""The golden template: what the good parts of a category look like on average, turned to the part at hand.

A rigid part that lies at any angle is one and the same image once it is turned back; what then differs from the mean
by more than the good parts do is worth a look. Where parts share no shape, as potatoes, there is nothing to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHRINK = 2  # poses are found on images smaller by this: exact enough, and calmer
_ANGLES, _RADII = 360, 32  # of their polar form
_ROUNDS = 3  # of laying the parts on their mean and taking the mean again
_REFINEMENTS = 3  # Gauss-Newton steps from a pose found to a degree to one found to a small share of a pixel
_CHUNK = 32  # parts at a time
_SHAPE = 0.9  # least overlap (intersection over union) of the middle part with the mean part, to share its shape
_FLOOR_RGB, _FLOOR_DEPTH = 0.03, 0.01  # least spread: the sensors' noise, in units of the images
_LIMIT = 3.0  # of a deviation: farther out is all the same


class Pose(NamedTuple):
    """How B parts lie compared with the mean part: turned by `angle` (B,), radians from the x towards the y axis, then
    moved by `shift` (B, 2), x and y in half sides of the image."""

    angle: Tensor
    shift: Tensor


class Template(nn.Module):
    """Mean and spread of good parts laid on each other, kept with the network's weights.

    Args:
        size: side S of the samples, pixels.
        uses_rgb, uses_depth: what poses are found on and deviations are given of, beside the foreground.
    """

    outline: Tensor  # (C, S/2, S/2), the mean part that poses are measured against
    images: Tensor  # (9, S, S): mean and spread of RGB and depth, three, three, one and one, and the coverage
    shared: Tensor  # (), 1 where the parts share a shape, else 0

    def __init__(self, size: int, *, uses_rgb: bool, uses_depth: bool) -> None:
        super().__init__()
        self.uses_rgb, self.uses_depth = uses_rgb, uses_depth
        self.register_buffer("outline", torch.zeros(1 + uses_rgb + uses_depth, size // _SHRINK, size // _SHRINK))
        self.register_buffer("images", torch.zeros(9, size, size))
        self.register_buffer("shared", torch.zeros(()))

    @property
    def channels(self) -> int:
        """Number of the deviations."""
        return 1 + 3 * self.uses_rgb + self.uses_depth

    @torch.no_grad()
    def learn(self, rgb: Tensor, depth: Tensor, foreground: Tensor) -> None:
        """Take the mean of N good parts, on any device: uint8 (N, 3, S, S), float (N, 1, S, S) and bool (N, 1, S, S)."""
        device = self.images.device

        def chunks() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for a, b, c in zip(*(torch.split(t, _CHUNK) for t in (rgb, depth, foreground)), strict=True):
                yield a.to(device).float() / 255, b.to(device).float(), c.to(device).float()

        small = torch.cat([self._small(*chunk) for chunk in chunks()])
        mean = laid_back(small[:1], Pose(small.new_zeros(1), _centroid(small[:1])))[0]
        for _ in range(_ROUNDS):
            laid_alike = [laid_back(part, find_pose(part, mean)).sum(dim=0) for part in torch.split(small, _CHUNK)]
            mean = torch.stack(laid_alike).sum(dim=0) / len(small)
        self.outline.copy_(mean)
        poses = [find_pose(part, mean) for part in torch.split(small, _CHUNK)]
        laid_parts = [
            laid_back(part[:, :1], pose) for part, pose in zip(torch.split(small, _CHUNK), poses, strict=True)
        ]
        self.shared.copy_(_overlap(torch.cat(laid_parts)[:, 0], mean[0]).median() >= _SHAPE)
        total = torch.zeros(9, *depth.shape[-2:], device=device)
        light = torch.cat([_mean_colour(colour, part) for colour, _, part in chunks()]).mean(dim=0)
        for (colour, height, part), pose in zip(chunks(), poses, strict=True):
            colour = colour * (light / _mean_colour(colour, part))
            moments = torch.cat((colour, colour**2, height, height**2), dim=1) * part
            total += laid_back(torch.cat((moments, part), dim=1), pose).sum(dim=0)
        weight = total[8].clamp_min(1e-6)
        first, second = total[[0, 1, 2, 6]] / weight, total[[3, 4, 5, 7]] / weight
        spread = (second - first**2).clamp_min(0).sqrt()
        self.images.copy_(torch.cat((first[:3], spread[:3], first[3:], spread[3:], total[8:] / len(rgb))))

    @torch.no_grad()
    def forward(self, rgb: Tensor, depth: Tensor, foreground: Tensor) -> Tensor:
        """How each part deviates from the mean part, in multiples of the good parts' spread, within 3.

        Args:
            rgb, depth, foreground: float, (B, 3, S, S), (B, 1, S, S) and (B, 1, S, S).

        Returns:
            float32, (B, channels, S, S): colour and depth where both the part and the mean part are, and three times the
            difference of the foregrounds, which is positive where the mean part is not; zero of parts that share no shape.
        """
        with torch.autocast(rgb.device.type, enabled=False):
            rgb, depth, foreground = rgb.float(), depth.float(), foreground.float()
            pose = find_pose(self._small(rgb, depth, foreground), self.outline)
            mean = laid(self.images.expand(len(rgb), -1, -1, -1), pose)
            coverage = mean[:, 8:]
            both = foreground * coverage
            found = []
            if self.uses_rgb:
                rgb = rgb * (_mean_colour(mean[:, :3], both) / _mean_colour(rgb, both)).clamp(0.5, 2)
                found.append((rgb - mean[:, :3]) / (mean[:, 3:6] ** 2 + _FLOOR_RGB**2).sqrt() * both)
            if self.uses_depth:
                found.append((depth - mean[:, 6:7]) / (mean[:, 7:8] ** 2 + _FLOOR_DEPTH**2).sqrt() * both)
            found.append(_LIMIT * (foreground - coverage))
            return torch.cat(found, dim=1).clamp(-_LIMIT, _LIMIT) * self.shared

    def _small(self, rgb: Tensor, depth: Tensor, foreground: Tensor) -> Tensor:
        """Foreground, brightness and height of the part, small and zero off it: (B, C, S/2, S/2).

        Brightness and height are of unit spread over the part, so that lettering counts beside a round outline.
        """
        seen = [foreground]
        if self.uses_rgb:
            seen.append(_standardised(rgb.mean(dim=1, keepdim=True), foreground))
        if self.uses_depth:
            seen.append(_standardised(-depth, foreground))
        return F.avg_pool2d(torch.cat(seen, dim=1), _SHRINK)


def find_pose(small: Tensor, mean: Tensor) -> Pose:
    """The pose of parts (B, C, s, s) compared with the mean part (C, s, s), which is centred; the first channel is the foreground.

    The centroid and the best match of the polar images give a first pose; Gauss-Newton steps (Lucas and Kanade 1981)
    on the difference of the images refine it.
    """
    shift = _centroid(small)
    centred = laid_back(small, Pose(torch.zeros_like(shift[:, 0]), shift))
    pose = Pose(-_turns(_polar(centred), _polar(mean[None])[0]), shift)
    axis = (torch.arange(small.shape[-1], device=small.device) + 0.5) * (2 / small.shape[-1]) - 1
    for _ in range(_REFINEMENTS):
        model = laid(mean.expand(len(small), -1, -1, -1), pose)
        along_y, along_x = torch.gradient(model, spacing=2 / small.shape[-1], dim=(2, 3))
        x = axis[None, :] - pose.shift[:, 0, None, None]
        y = axis[:, None] - pose.shift[:, 1, None, None]
        around = along_y * x[:, None] - along_x * y[:, None]
        slopes = torch.stack((around, along_x, along_y), dim=-1).flatten(1, 3)
        difference = (model - small).flatten(1)[..., None]
        normal = slopes.mT @ slopes
        damping = (1e-4 * normal.diagonal(dim1=1, dim2=2).sum(1)).clamp_min(1e-6)  # a round part has no angle to find
        normal = normal + damping[:, None, None] * torch.eye(3, device=x.device)
        step = torch.linalg.solve_ex(normal, slopes.mT @ difference).result[..., 0].clamp(-0.05, 0.05)
        pose = Pose(pose.angle + step[:, 0], pose.shift + step[:, 1:])
    return pose


def laid(images: Tensor, pose: Pose) -> Tensor:
    """Images of the mean part (B, C, S, S), laid as the parts lie."""
    turn = _turning(pose.angle)
    return _warped(images, turn, -(turn @ pose.shift[..., None]))


def laid_back(images: Tensor, pose: Pose) -> Tensor:
    """Images of the parts (B, C, S, S), laid as the mean part lies."""
    return _warped(images, _turning(-pose.angle), pose.shift[..., None])


def _turning(angle: Tensor) -> Tensor:
    """Where turned images take their pixels from: (B, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, sin, -sin, cos), dim=1).view(-1, 2, 2)


def _warped(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    grid = F.affine_grid(torch.cat((matrix, offset), dim=2), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _standardised(image: Tensor, foreground: Tensor) -> Tensor:
    """Of mean 0 and spread 1 over the part, zero off it: (B, 1, S, S)."""
    area = foreground.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    centred = (image - (image * foreground).sum(dim=(2, 3), keepdim=True) / area) * foreground
    return centred / (centred.square().sum(dim=(2, 3), keepdim=True) / area + 1e-4).sqrt()


def _mean_colour(rgb: Tensor, weight: Tensor) -> Tensor:
    """Over the pixels of weight (B, 1, S, S): (B, 3, 1, 1)."""
    total = (rgb * weight).sum(dim=(2, 3), keepdim=True)
    return total / weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6) + 1e-3


def _overlap(parts: Tensor, mean: Tensor) -> Tensor:
    """Intersection over union of soft foregrounds (N, s, s) with that of the mean part (s, s): (N,)."""
    return torch.minimum(parts, mean).sum(dim=(1, 2)) / torch.maximum(parts, mean).sum(dim=(1, 2)).clamp_min(1e-6)


def _centroid(small: Tensor) -> Tensor:
    """Of the foreground, the first channel: (B, 2), x and y in half sides."""
    part = small[:, 0]
    axis = (torch.arange(part.shape[-1], device=part.device) + 0.5) * (2 / part.shape[-1]) - 1
    area = part.sum(dim=(1, 2)).clamp_min(1e-6)
    return torch.stack(((part.sum(dim=1) * axis).sum(1) / area, (part.sum(dim=2) * axis).sum(1) / area), dim=1)


def _polar(small: Tensor) -> Tensor:
    """The images along circles about the centre, less each circle's mean: (B, C, angles, radii)."""
    angle = torch.arange(_ANGLES, device=small.device) * (2 * math.pi / _ANGLES)
    radius = (torch.arange(_RADII, device=small.device) + 0.5) / _RADII
    grid = torch.stack((angle.cos()[:, None] * radius, angle.sin()[:, None] * radius), dim=-1)
    polar = F.grid_sample(small, grid.expand(len(small), -1, -1, -1), align_corners=False) * radius.sqrt()
    centred: Tensor = polar - polar.mean(dim=2, keepdim=True)
    return centred


def _turns(polar: Tensor, target: Tensor) -> Tensor:
    """How far each polar image (B, C, angles, radii) must turn to match the target (C, angles, radii): (B,), radians."""
    across = torch.fft.rfft(polar, dim=2).conj() * torch.fft.rfft(target, dim=1)
    match = torch.fft.irfft(across.sum(dim=(1, 3)), n=_ANGLES, dim=1)
    found: Tensor = match.argmax(dim=1) * (2 * math.pi / _ANGLES)
    return found
