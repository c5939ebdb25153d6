"""A network with the layers of 3DSR's published RGB and depth model and random weights, for timing only.

Zavrtanik, Kristan and Skocaj, WACV 2024; sizes as in their public code: 384 x 384 pixels, 256 channels, two levels of
2048 codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 384
_WIDTH, _INNER, _CODES, _DETECTOR = 256, 128, 2048, 32


def _conv(a: int, b: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1, groups=groups)


def _norm_conv(a: int, b: int) -> list[nn.Module]:
    return [_conv(a, b), nn.InstanceNorm2d(b), nn.ReLU(inplace=True)]


def _halved(a: int, b: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, 4, stride=2, padding=1, groups=groups)


def _doubled(a: int, b: int, groups: int = 1) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, groups=groups)


class _Residuals(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(_WIDTH, _INNER, 3, padding=1, bias=False, groups=groups),
                nn.ReLU(),
                nn.Conv2d(_INNER, _WIDTH, 1, bias=False, groups=groups),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return F.relu(x)


class _Codebook(nn.Module):
    """The nearest code of every pixel, found as in 3DSR: distances to all codes, then a product with one-hot rows."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(_CODES, _WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).contiguous()
        flat = rows.view(-1, _WIDTH)
        distances = (flat**2).sum(1, keepdim=True) + (self.codes**2).sum(1) - 2 * flat @ self.codes.T
        nearest = F.one_hot(distances.argmin(1), _CODES).to(flat.dtype)
        return (nearest @ self.codes).view(rows.shape).permute(0, 3, 1, 2).contiguous()


class _UNet(nn.Module):
    """U-Net of normalised double convolutions: with `skips` as in their detector, without as in their restriction."""

    def __init__(self, channels_in: int, channels_out: int, widths: list[int], *, skips: bool) -> None:
        super().__init__()
        pairs = list(zip([channels_in, *widths], widths, strict=False))
        self.skips = skips
        self.down = nn.ModuleList(nn.Sequential(*_norm_conv(a, b), *_norm_conv(b, b)) for a, b in pairs)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.Sequential(*_norm_conv(a, b)) for a, b in steps)
        self.mix = nn.ModuleList(
            nn.Sequential(*_norm_conv(2 * b if skips else b, b), *_norm_conv(b, b)) for _, b in steps
        )
        self.head = _conv(widths[0], channels_out)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            seen.append(x)
        for up, mix, skip in zip(self.up, self.mix, seen[-2::-1], strict=True):
            x = up(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True))
            x = mix(torch.cat((x, skip), dim=1) if self.skips else x)
        return self.head(x)


class Dsr(nn.Module):
    """Quantising autoencoder with one group per image, two restriction networks, image decoder and detector.

    Maps (B, 4, S, S) to (B, 2, S, S).
    """

    def __init__(self) -> None:
        super().__init__()
        w, relu = _WIDTH, nn.ReLU()
        self.look = nn.ModuleList((nn.Conv2d(1, w // 4, 1), nn.Conv2d(3, w // 4, 1)))
        self.fine = nn.Sequential(relu, _halved(w // 2, w // 2, 2), relu, _halved(w // 2, w, 2), relu, _conv(w, w, 2),
                                  _Residuals(2))  # fmt: skip
        self.coarse = nn.Sequential(_halved(w, w, 2), relu, _conv(w, w, 2), relu, _Residuals(2))
        self.to_coarse, self.to_fine = nn.Conv2d(w, w, 1, groups=2), nn.Conv2d(2 * w, w, 1, groups=2)
        self.codes = nn.ModuleList((_Codebook(), _Codebook()))
        self.raise_ = _doubled(w, w, 2)
        self.decode = nn.Sequential(
            _conv(2 * w, w, 2), _Residuals(2), _doubled(w, w // 2, 2), relu, _doubled(w // 2, w // 4, 2)
        )
        self.show = nn.ModuleList((nn.Conv2d(w // 8, 1, 1), nn.Conv2d(w // 8, 3, 1)))
        self.restrict = nn.ModuleList(_UNet(w, w, [w // 2, w, 2 * w], skips=False) for _ in range(2))
        self.rebuild = nn.Sequential(
            *_norm_conv(2 * w, 2 * w), *_norm_conv(2 * w, 4 * w), nn.MaxPool2d(2),
            *_norm_conv(4 * w, 4 * w), *_norm_conv(4 * w, 8 * w), nn.MaxPool2d(2), nn.Conv2d(8 * w, 64, 1),
            _doubled(64, 64), relu, _doubled(64, 64), relu, _conv(64, w), _Residuals(1),
            _doubled(w, w // 2), relu, _doubled(w // 2, 4),
        )  # fmt: skip
        d = _DETECTOR
        self.detect = _UNet(8, 2, [d, 2 * d, 4 * d, 4 * d], skips=True)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(torch.cat((self.look[0](x[:, :1]), self.look[1](x[:, 1:])), dim=1))
        coarse = self.codes[0](self.to_coarse(self.coarse(fine)))
        raised = self.raise_(coarse)
        quantised = self.codes[1](self.to_fine(torch.cat((fine, raised), dim=1)))
        decoded = self.decode(torch.cat((raised, quantised), dim=1))
        general = torch.cat([show(half) for show, half in zip(self.show, decoded.chunk(2, dim=1), strict=True)], dim=1)
        restricted = [
            codes(net(y)) for codes, net, y in zip(self.codes, self.restrict, (coarse, quantised), strict=True)
        ]
        own = self.rebuild(torch.cat((self.raise_(restricted[0]), restricted[1]), dim=1))
        return self.detect(torch.cat((own, general), dim=1))
