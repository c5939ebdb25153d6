"""The network of section 3.3: two reconstruction networks whose features feed a discriminator."""

from __future__ import annotations

import functools
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from das3d_cli.contrast import depth_contrast, rgb_contrast
from das3d_cli.modality import Modality
from das3d_cli.template import Template

_LEVELS = 4  # halvings of the resolution from the discriminator's input to the reconstruction's narrowest layer
_RESIDUAL_GAIN = 20.0  # brings a depth residual of a few hundredths to order one


class Output(NamedTuple):
    """What one forward pass gives; B samples of S x S pixels.

    Attributes:
        logits: (B, 2, S, S), normal and anomalous.
        rgb: (B, 3, S, S) reconstruction F_I(I_a), or None for a depth-only model and where reconstruction is left out.
        depth: (B, 1, S, S) reconstruction F_Z(Z_a), or None likewise for an RGB-only model.
    """

    logits: Tensor
    rgb: Tensor | None
    depth: Tensor | None


class Block(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def fold(self) -> None:
        """Fold the normalisations, with their evaluation statistics, into the convolutions before them."""
        for place in (0, 3):
            conv, norm = self[place], self[place + 1]
            # The base class covers the synchronised normalisations of distributed training too.
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                self[place], self[place + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


class UNet(nn.Module):
    """Encoder and decoder over `levels` halvings of the resolution, at least two.

    Without skip connections a defect cannot slip past the bottleneck, which suits reconstruction; with them fine
    detail reaches the output, which suits segmentation.
    """

    def __init__(self, channels_in: int, channels_out: int, width: int, *, skips: bool, levels: int) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.skips = skips
        self.down = nn.ModuleList([Block(a, b) for a, b in zip([channels_in, *widths], widths, strict=False)])
        self.up = nn.ModuleList(
            [
                Block(below + (here if skips else 0), here)
                for below, here in zip(widths[:0:-1], widths[-2::-1], strict=True)
            ]
        )
        self.head = nn.Conv2d(width, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (B, C, S, S), S a multiple of 2^levels, to the output (B, channels_out, S, S) and the features the
        paper taps: of the first two and the last two layers, with sides S, S / 2, S / 2 and S.
        """
        encoded = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            encoded.append(x)
        decoded = []
        for block, skip in zip(self.up, encoded[-2::-1], strict=True):
            x = _grown(x, 2 * x.shape[-1])
            x = block(torch.cat((x, skip), dim=1) if self.skips else x)
            decoded.append(x)
        return self.head(x), [encoded[0], encoded[1], decoded[-2], decoded[-1]]


def _grown(x: Tensor, side: int) -> Tensor:
    """Upsample bilinearly, on a GPU in the input's precision: autocast would cast to float32, the next layer back."""
    with torch.autocast("cuda", enabled=False):
        grown = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    if grown.requires_grad and grown.device.type == "cpu":
        # A CPU takes six times as long over a gradient that is a slice of a larger tensor's channels.
        grown.register_hook(_dense)  # type: ignore[no-untyped-call]
    return grown


def _dense(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def folded(x: Tensor, step: int) -> Tensor:
    """Fold pixels into channels: as torch's `pixel_unshuffle`, in two fifths of its time on a CPU."""
    count, channels, size, _ = x.shape
    apart = x.view(count, channels, size // step, step, size // step, step).permute(0, 1, 3, 5, 2, 4)
    return apart.reshape(count, channels * step**2, size // step, size // step)


def unfolded(x: Tensor, step: int) -> Tensor:
    """The reverse of `folded`, torch's `pixel_shuffle`."""
    count, channels, size, _ = x.shape
    apart = x.view(count, channels // step**2, step, step, size, size).permute(0, 1, 4, 2, 5, 3)
    return apart.reshape(count, channels // step**2, size * step, size * step)


class Rebuilder(nn.Module):
    """F_I or F_Z: reconstructs the normal image from a damaged one, on pixels folded into channels.

    Given an expected image, it predicts how to scale and shift its values, and begins with no change. Where parts share
    a shape, the expected image is the mean part: a good reconstruction before the first step, with all the detail that
    the bottleneck would lose, so only how this part and its light differ is left to learn. Where they share none, it is
    the part's own local mean.

    Args:
        channels: of the image.
        stem: pixels folded, per axis.
        expecting: whether it is given an expected image.
    """

    def __init__(self, channels: int, width: int, *, stem: int, levels: int, expecting: bool) -> None:
        super().__init__()
        self.stem, seen = stem, (1 + expecting) * channels * stem**2
        self.unet = UNet(seen, seen, width, skips=False, levels=levels)
        if expecting:
            nn.init.zeros_(self.unet.head.weight)
            nn.init.zeros_(cast(Tensor, self.unet.head.bias))

    def forward(self, image: Tensor, expected: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the reconstruction, (B, C, S, S), and the features the paper taps; `expected` is shaped as `image`."""
        seen = image if expected is None else torch.cat((image, expected), dim=1)
        rebuilt, taps = self.unet(folded(seen, self.stem))
        rebuilt = unfolded(rebuilt, self.stem)
        if expected is not None:
            factor, offset = rebuilt.float().chunk(2, dim=1)
            rebuilt = expected * (1 + factor) + offset
        return rebuilt, taps


class Fuse(nn.Module):
    """f_fuse and the layer after it: features upsampled to one size, concatenated and mixed by a 1x1 convolution.

    A 1x1 convolution commutes with upsampling, and over concatenated features it is a sum of convolutions. So features
    are mixed at their own resolution and the results upsampled: the same function for a fraction of the memory.
    Images finer than the common size are in effect folded into channels, which makes their convolution a strided one.
    """

    def __init__(self, channels_in: list[int], channels_out: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList([nn.Conv2d(channels, channels_out, 1, bias=False) for channels in channels_in])
        self.norm = nn.BatchNorm2d(channels_out)

    def begin_with_last(self) -> None:
        """Start all groups of features but the last with zero weights, which grow as the features become useful."""
        for mix in list(self.mix)[:-1]:
            nn.init.zeros_(cast(nn.Conv2d, mix).weight)

    def forward(self, groups: list[list[Tensor]], size: int) -> Tensor:
        """Mix groups of features (B, channels, s, s), each with its own s, into (B, channels_out, size, size)."""
        dtype = groups[0][0].dtype
        alike: dict[tuple[int, bool], tuple[list[Tensor], list[Tensor]]] = {}
        for mix, group in zip(self.mix, groups, strict=True):
            side, weight = group[0].shape[-1], cast(nn.Conv2d, mix).weight
            step = max(1, side // size)
            # Kept apart by requires_grad: a common convolution would compute the images' gradient, which is not needed.
            features, weights = alike.setdefault((side, group[0].requires_grad), ([], []))
            features += group
            weights.append(weight.view(len(weight), -1, step, step))
        total: Tensor | float = 0.0
        for features, weights in alike.values():
            weight = torch.cat(weights, dim=1)
            y = F.conv2d(_stacked(features, dtype), weight, stride=weight.shape[-1])
            total = total + (y if y.shape[-1] == size else _grown(y, size))
        return F.relu(self.norm(total))


def _stacked(features: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Concatenate features of one size, with channels last in memory."""
    if features[0].requires_grad:  # a CPU is slower at the gradients of pieces interleaved in memory
        return torch.cat([x.to(dtype) for x in features], dim=1).contiguous(memory_format=torch.channels_last)
    return torch.cat([x.permute(0, 2, 3, 1).to(dtype) for x in features], dim=3).permute(0, 3, 1, 2)


class Das3d(nn.Module):
    """F_I, F_Z and D (Fig. 2).

    Args:
        modality: which images the network sees; with one of them there is one reconstruction network.
        stem: pixels folded into channels at the discriminator's input and unfolded at its output, per axis.
        reconstruction_shrink: how much coarser than the discriminator the reconstruction networks look, 1, 2 or 4: they
            fold more pixels and halve less often in return, so their narrowest layer keeps its resolution.
        reconstruction_width, discriminator_width: channels of the first layer; no reconstruction if the former is 0.
        discriminator_levels: halvings of the resolution within the discriminator, at least two.
        direct_inputs: give the discriminator the images, their local contrast and the reconstruction's residuals.
        template: among these, the deviations from the mean good part, from which the reconstruction then starts; the
            template must be learnt before training.
        size: side S of the samples, pixels.
    """

    def __init__(
        self,
        *,
        modality: Modality,
        stem: int,
        reconstruction_shrink: int,
        reconstruction_width: int,
        discriminator_width: int,
        discriminator_levels: int,
        direct_inputs: bool,
        template: bool,
        size: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.direct_inputs = direct_inputs
        self.uses_rgb, self.uses_depth = modality != "depth", modality != "rgb"
        fold, width = stem * stem, reconstruction_width
        rebuild_rgb, rebuild_depth = self.uses_rgb and width > 0, self.uses_depth and width > 0
        self.template = (
            Template(size, uses_rgb=self.uses_rgb, uses_depth=self.uses_depth) if template and direct_inputs else None
        )
        rebuilder = functools.partial(
            Rebuilder,
            width=width,
            stem=stem * reconstruction_shrink,
            levels=_LEVELS + 1 - reconstruction_shrink.bit_length(),
            expecting=self.template is not None,
        )
        self.reconstruct_rgb = rebuilder(3) if rebuild_rgb else None
        self.reconstruct_depth = rebuilder(1) if rebuild_depth else None
        channels = [width, 2 * width, 2 * width, width] * (rebuild_rgb + rebuild_depth)
        if direct_inputs:
            if width:
                channels.append((3 * rebuild_rgb + rebuild_depth) * fold)
            direct = 1 + 9 * self.uses_rgb + 5 * self.uses_depth
            direct += self.template.channels if self.template is not None else 0
            channels.append(direct * fold)
        self.fuse = Fuse(channels, discriminator_width)
        if direct_inputs:  # features of an untrained reconstruction would drown out the images
            self.fuse.begin_with_last()
        self.discriminate = UNet(
            discriminator_width, 2 * fold, discriminator_width, skips=True, levels=discriminator_levels
        )

    @property
    def compares(self) -> bool:
        """Whether parts are compared with the mean part."""
        return self.template is not None and self.template.compares

    @property
    def mean_parts(self) -> int:
        """Number of mean parts that parts are compared with, one for each way in which they lie; 0 if not at all."""
        return len(self.template.images) if self.template is not None and self.compares else 0

    def forward(self, rgb: Tensor, depth: Tensor, foreground: Tensor, parallax: Tensor) -> Output:
        """Run the three networks.

        Args:
            rgb: float, (B, 3, S, S), in [0, 1].
            depth: float, (B, 1, S, S), in [0, 1].
            foreground: float, (B, 1, S, S), 0 or 1.
            parallax: float, (B, 2), as in `das3d_cli.data.capture.Geometry`.
        """
        taps: list[Tensor] = []
        direct, residuals = [foreground], []
        rgb_rebuilt = depth_rebuilt = None
        beside = self.template(rgb, depth, foreground, parallax) if self.template is not None else None
        if self.uses_rgb:
            direct += [rgb, rgb_contrast(rgb, foreground)]
        if self.uses_depth:
            direct += [depth, depth_contrast(depth, foreground)]
        if self.reconstruct_rgb is not None:
            rgb_rebuilt, tapped = self.reconstruct_rgb(rgb, None if beside is None else beside.rgb)
            taps += tapped
            residuals.append((rgb - rgb_rebuilt) * foreground)
        if self.reconstruct_depth is not None:
            depth_rebuilt, tapped = self.reconstruct_depth(depth, None if beside is None else beside.depth)
            taps += tapped
            residuals.append((depth - depth_rebuilt) * foreground * _RESIDUAL_GAIN)
        if beside is not None:
            direct.append(beside.deviations)
        groups = [[tap] for tap in taps]
        if self.direct_inputs:
            groups += [group for group in (residuals, direct) if group]
        logits, _ = self.discriminate(self.fuse(groups, rgb.shape[-1] // self.stem))
        return Output(unfolded(logits, self.stem), rgb_rebuilt, depth_rebuilt)

    def fold(self) -> None:
        """Fold batch normalisation into the convolutions for good: same evaluation output, fewer passes over memory."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Block):
                module.fold()
