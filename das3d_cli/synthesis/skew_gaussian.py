"""The two-dimensional skew-normal density and the filter made from it (Eq. 3 to 5)."""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def skew_normal_pdf(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Density of the 2-D skew-normal distribution, Eq. 3 (Azzalini and Capitanio 1999).

    Args:
        x: (..., 2), points.
        alpha: (..., 2), skew coefficients.
        sigma: (..., 2, 2), symmetric positive definite matrices.

    Returns:
        (...), 2 * phi_2(x; 0, sigma) * Phi(alpha^T x).
    """
    first, cross, second = sigma[..., 0, 0], sigma[..., 0, 1], sigma[..., 1, 1]
    determinant = first * second - cross**2
    across, down = x.unbind(-1)
    quadratic = (second * across**2 - 2 * cross * across * down + first * down**2) / determinant
    phi = torch.exp(-0.5 * quadratic) / (2 * math.pi * determinant.sqrt())
    skewed: Tensor = 2 * phi * torch.special.ndtr((alpha * x).sum(-1))
    return skewed


def covariance(sigma: Tensor, correlation: Tensor) -> Tensor:
    """(B, 2, 2) covariance matrices from standard deviations (B, 2) and correlations (B,) in (-1, 1)."""
    cross = correlation * sigma[:, 0] * sigma[:, 1]
    return torch.stack((sigma[:, 0] ** 2, cross, cross, sigma[:, 1] ** 2), dim=-1).view(-1, 2, 2)


def skew_kernel(alpha: Tensor, covariance: Tensor, radius: int) -> Tensor:
    """Filters of Eq. 4, normalised to unit sum: (B, h, h) with h = 2 * radius + 1.

    A filter's own h follows from its Sigma (three standard deviations to each side); what lies beyond that, up
    to the common radius, is zero.

    Args:
        alpha: (B, 2), per-sample skew in 1/pixel, in the order (row, column).
        covariance: (B, 2, 2), per-sample Sigma in squared pixels.
        radius: common radius of the batch's filters, pixels.
    """
    axis = torch.arange(-radius, radius + 1, dtype=alpha.dtype, device=alpha.device)
    x = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    kernel = skew_normal_pdf(x[None], alpha[:, None, None], covariance[:, None, None])
    reach = (3 * covariance.diagonal(dim1=-2, dim2=-1).amax(-1).sqrt()).ceil()
    kernel = kernel * (x.abs().amax(-1)[None] <= reach[:, None, None])
    return kernel / kernel.sum(dim=(-2, -1), keepdim=True)


def filter_each(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image (B, H, W) with its own odd kernel (B, h, h), zero beyond the border, same size out.

    By the Fourier transform: its cost does not grow with the kernel, and it needs no loop over the batch.
    """
    (height, width), reach = images.shape[-2:], kernels.shape[-1]
    shape = [next_fast_len(side + reach - 1, real=True) for side in (height, width)]
    product = torch.fft.rfft2(images, s=shape) * torch.fft.rfft2(kernels, s=shape)
    full: Tensor = torch.fft.irfft2(product, s=shape)
    start = reach // 2
    return full[:, start : start + height, start : start + width]
