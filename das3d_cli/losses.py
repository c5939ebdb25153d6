"""The losses of Eq. 9 to 11, plus one for small defects and one against false alarms."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5  # the SSIM paper's window
_C1, _C2 = 0.01**2, 0.03**2  # its constants, for images in [0, 1]


def reconstruction_loss(rebuilt: Tensor, normal: Tensor) -> Tensor:
    """Mean squared error (Eq. 9 and the first term of Eq. 10), a scalar."""
    return F.mse_loss(rebuilt.float(), normal)


def ssim_loss(rebuilt: Tensor, normal: Tensor, shrink: int = 1) -> Tensor:
    """One minus the mean structural similarity (Wang et al. 2004) of images (B, C, S, S) in [0, 1], a scalar.

    Args:
        shrink: factor by which the images are averaged down first; reduced if the window would no longer fit.
    """
    shrink = min(shrink, rebuilt.shape[-1] // _WINDOW)
    return 1 - ssim_map(F.avg_pool2d(rebuilt.float(), shrink), F.avg_pool2d(normal, shrink)).mean()


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity with an 11 x 11 Gaussian window, without padding: (B, C, S - 10, S - 10)."""
    channels = a.shape[1]
    kernel = _gaussian(a.device)
    stack = torch.cat((a, b, a * a, b * b, a * b), dim=1)
    groups = stack.shape[1]
    stack = F.conv2d(stack, kernel.view(1, 1, 1, -1).expand(groups, -1, -1, -1), groups=groups)
    stack = F.conv2d(stack, kernel.view(1, 1, -1, 1).expand(groups, -1, -1, -1), groups=groups)
    mean_a, mean_b, square_a, square_b, product = torch.split(stack, channels, dim=1)
    var_a, var_b, cov = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    similarity: Tensor = luminance * (2 * cov + _C2) / (var_a + var_b + _C2)
    return similarity


@functools.cache
def _gaussian(device: torch.device) -> Tensor:
    offset = torch.arange(_WINDOW, device=device) - _WINDOW // 2
    kernel = torch.exp(-0.5 * (offset / _SIGMA) ** 2)
    return kernel / kernel.sum()


def focal_loss(logits: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Focal loss (Lin et al. 2017) averaged over pixels, Eq. 11; both classes weigh the same.

    Args:
        logits: (B, 2, S, S).
        mask: (B, 1, S, S), 0 or 1.
        gamma: focusing exponent.
    """
    cross_entropy = F.cross_entropy(logits.float(), mask[:, 0].long(), reduction="none")
    miss = (1 - torch.exp(-cross_entropy)).clamp_min(1e-8)  # at 0 a power below 1 has no finite gradient
    return (miss**gamma * cross_entropy).mean()


def dice_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """One minus the Dice coefficient of each defective sample, averaged over the batch; normal samples count 0.

    Args:
        probability, mask: (B, 1, S, S), in [0, 1].
    """
    overlap = (probability * mask).sum(dim=(1, 2, 3))
    area = probability.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3))
    defective = mask.amax(dim=(1, 2, 3)) > 0
    return torch.where(defective, 1 - (2 * overlap + 1) / (area + 1), 0.0).mean()


def false_alarm_loss(probability: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean squared anomaly probability over good pixels, a scalar.

    Args:
        probability, mask: (B, 1, S, S), in [0, 1].
        count: divisor in place of this batch's number of good pixels. For one of several equal parts of a batch, pass
            their mean number, so that the mean of the parts' losses is the whole batch's loss.
    """
    good = 1 - mask
    return (probability**2 * good).sum() / (good.sum() if count is None else count).clamp_min(1)
