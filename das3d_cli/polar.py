"""Match images at every angle about a centre, by their Fourier spectra on circles around it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ANGLES, _RADII = 360, 64  # sampling of the polar images around the centre
_FLAT = 0.012 * _ANGLES / math.sqrt(2)  # length of the spectrum of marks that vary by 0.012: less says nothing
_WIDEST = 6  # degrees on either side of a match that still belong to it: closer angles are not told apart


def polar_spectra(images: Tensor, centre: Tensor | None = None) -> Tensor:
    """Spectra of images (B, C, S, S) on circles about a centre (B, 2), else the middle: (B, C, frequencies, radii)."""
    angle = torch.arange(_ANGLES, device=images.device, dtype=images.dtype) * (2 * math.pi / _ANGLES)
    radii = min(images.shape[-1] // 2, _RADII)
    radius = (torch.arange(radii, device=images.device, dtype=images.dtype) + 0.5) / radii
    grid = torch.stack((angle.cos()[:, None] * radius, angle.sin()[:, None] * radius), dim=-1)
    grid = grid.expand(len(images), -1, -1, -1) if centre is None else grid + centre[:, None, None]
    polar = F.grid_sample(images, grid, align_corners=False)
    spectra: Tensor = torch.fft.rfft(polar - polar.mean(dim=2, keepdim=True), dim=2)
    return spectra


def matches_of(polar: Tensor, target: Tensor) -> Tensor:
    """How well the spectra (B, C, frequencies, radii) match those of a target (1, C, ...) at every angle: (B, angles).

    Phase correlation (Kuglin and Hines 1975) on every circle of every channel: what repeats around the part, as a
    tread, counts no more than what is there once, and a high rim no more than faint lettering within it. What differs
    from part to part is weak in a target that is the mean of many, and gets as much less weight.
    """
    across = polar.conj() * target
    strength = _magnitude(across)
    shared = (_magnitude(target) / _magnitude(polar).clamp_min(1e-6)).clamp_max(1)
    phase = across * (shared / (strength + 1e-3 * strength.amax(dim=2, keepdim=True)).clamp_min(1e-6))
    matches: Tensor = torch.fft.irfft(phase.sum(dim=(1, 3)), n=_ANGLES, dim=1)
    return matches


def likeness_of(polar: Tensor, target: Tensor) -> Tensor:
    """How alike spectra (B, C, frequencies, radii) are to a target (1, C, ...) at every angle: (B, angles).

    The sum, over all circles of all channels, of the square of their correlation, so that a few circles with a pattern
    in common count for more than many that agree by chance.
    """
    lengths = [_magnitude(spectra).square().sum(dim=2, keepdim=True).sqrt() + _FLAT for spectra in (polar, target)]
    across = (polar / lengths[0]).conj() * (target / lengths[1])
    correlation: Tensor = torch.fft.irfft(across, n=_ANGLES, dim=2) * (_ANGLES / 2)
    return correlation.clamp_min(0).square().sum(dim=(1, 3))


def _magnitude(spectra: Tensor) -> Tensor:
    """Magnitude of complex numbers well within the range of float32, in half the time of `abs`."""
    return torch.addcmul(spectra.real**2, spectra.imag, spectra.imag).sqrt()


def best_angle(matches: Tensor) -> Tensor:
    """How far each part is turned, from its matches (B, angles): (B,), radians."""
    return matches.argmax(dim=1).to(matches.dtype) * (-2 * math.pi / _ANGLES)


def best_angles(matches: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The angles of the `count` best matches (B, angles), best first, radians, and their leads over the mean: (count, B)."""
    angles, leads, mean = [], [], matches.mean(dim=1)
    for _ in range(count):
        angles.append(best_angle(matches))
        leads.append(matches.amax(dim=1) - mean)
        matches = _others(matches)
    return torch.stack(angles), torch.stack(leads)


def _others(matches: Tensor) -> Tensor:
    """The matches (B, angles) without the best one and those that belong to it, which are minus infinity."""
    away = (torch.arange(_ANGLES, device=matches.device) - matches.argmax(dim=1, keepdim=True)).abs()
    return matches.masked_fill(torch.minimum(away, _ANGLES - away) <= _WIDEST, -torch.inf)


def certainty(matches: Tensor) -> Tensor:
    """How many standard deviations the best of the matches (B, angles) is ahead of any other: (B,)."""
    ahead = matches.amax(dim=1) - _others(matches).amax(dim=1)
    return ahead / matches.std(dim=1).clamp_min(1e-12)
