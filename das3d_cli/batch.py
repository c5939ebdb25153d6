"""Samples as tensors: a whole split in compact form, and the float batches that the network takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from das3d_cli.device import send

_AT_ONCE = 64  # samples averaged down together


class Batch(NamedTuple):
    """B samples. rgb: float32, (B, 3, S, S), in [0, 1], black off the part; depth: float32, (B, 1, S, S), in [0, 1];
    foreground: bool, (B, 1, S, S); parallax: float32, (B, 2), as in `das3d_cli.data.capture.Geometry`."""

    rgb: Tensor
    depth: Tensor
    foreground: Tensor
    parallax: Tensor

    @property
    def images(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.rgb, self.depth, self.foreground


class Parts(NamedTuple):
    """N samples in compact form. rgb: uint8, (N, 3, S, S); depth: float16, (N, 1, S, S), in [0, 1]; foreground: bool,
    (N, 1, S, S); parallax: as in `Batch`."""

    rgb: Tensor
    depth: Tensor
    foreground: Tensor
    parallax: Tensor

    @classmethod
    def stack(
        cls,
        rgb: NDArray[np.uint8],
        depth: NDArray[np.float32],
        foreground: NDArray[np.bool_],
        parallax: NDArray[np.float32],
        *,
        size: int,
        device: torch.device,
    ) -> Parts:
        """Stack arrays (N, C, C, 3), (N, C, C), (N, C, C) and (N, 2); C is `size` or a multiple, then averaged down.

        Depths are rounded to float16 here so that training and the detector see the same. The error is at most 0.00024,
        a tenth of a depth sensor's noise.
        """
        parts = cls(
            send(torch.from_numpy(rgb), device).permute(0, 3, 1, 2).contiguous(),
            send(torch.from_numpy(depth), device)[:, None],
            send(torch.from_numpy(foreground), device)[:, None],
            send(torch.from_numpy(parallax), device),
        )
        if depth.shape[-1] != size:
            parts = parts._shrunk(depth.shape[-1] // size)
        return cls(parts.rgb, parts.depth.half(), parts.foreground, parts.parallax)

    def __len__(self) -> int:
        return len(self.depth)

    def take(self, indices: Tensor) -> Parts:
        """The samples at `indices`, int64, (B,), on the parts' device."""
        return Parts(*(tensor[indices] for tensor in self))

    def pick(self, indices: Tensor) -> Batch:
        """As `take`, in the form for the network."""
        return self.take(indices).unpacked()

    def unpacked(self) -> Batch:
        """All samples, in the form for the network."""
        return Batch(self.rgb.float() / 255, self.depth.float(), self.foreground, self.parallax.float())

    def to(self, device: torch.device) -> Parts:
        return Parts(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self)

    def _shrunk(self, factor: int) -> Parts:
        """Average down a few samples at a time, as each needs several times its memory meanwhile."""
        some = zip(*(torch.split(tensor, _AT_ONCE) for tensor in self), strict=True)
        shrunk = [Parts(*tensors)._averaged(factor) for tensors in some]
        return Parts(*(torch.cat(tensors) for tensors in zip(*shrunk, strict=True)))

    def _averaged(self, factor: int) -> Parts:
        """Average over the part only, so that its edge does not mix with the background."""
        rgb, depth = self.rgb.float() * self.foreground, self.depth * self.foreground
        rgb, depth, inside = on_part(*(F.avg_pool2d(image, factor) for image in (rgb, depth, self.foreground.float())))
        return Parts(rgb.round().to(torch.uint8), depth, inside, self.parallax)


def turned_left(vectors: Tensor) -> Tensor:
    """Image vectors x and y, (B, 2), after a quarter turn of the image to the left; y points down."""
    return torch.stack((vectors[:, 1], -vectors[:, 0]), dim=1)


def on_part(rgb: Tensor, depth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bring a part's resampled images, which were zero off the part, into the form of a `Batch`.

    Args:
        rgb, depth: (B, 3, S, S) and (B, 1, S, S).
        weight: (B, 1, S, S): share of each pixel that shows the part.

    Returns:
        rgb, depth and foreground: a pixel at least half on the part is foreground, with the values of that share alone.
    """
    inside = weight >= 0.5
    scale = torch.where(inside, 1 / weight.clamp_min(1e-6), 0.0)
    deep = depth * scale
    return rgb * scale, torch.where(inside, deep, background_depth(deep)), inside


def background_depth(depth_on_part: Tensor) -> Tensor:
    """The depth of every background pixel: the part's largest. (B, 1, S, S), zero off the part, to (B, 1, 1, 1)."""
    return depth_on_part.amax(dim=(1, 2, 3), keepdim=True)
