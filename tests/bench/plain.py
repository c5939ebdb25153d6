"""A plain version of the paper's training: defects in numpy, one sample after the other, then an eager float32 step.

Equations 1 to 8 and 12 with the paper's choices (the whole mask, a filter of unit sum, uniform strengths), and none of
what das3d does besides: no rotation, no relighting, no template to learn.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from das3d_cli import losses
from das3d_cli.model import Das3d
from das3d_cli.settings import Settings

Image = NDArray[np.float32]


class Made(NamedTuple):
    """One sample. rgb: (S, S, 3); depth, mask: (S, S); all float32 in [0, 1]."""

    rgb: Image
    depth: Image
    mask: Image


def perlin(random: np.random.Generator, size: int, scale_max: int) -> Image:
    """Gradient noise with 2^0 to 2^scale_max cells along each axis, rotated by up to 90 degrees: (S, S)."""
    rows, columns = (2 ** random.integers(scale_max + 1, size=2)).tolist()
    angles = random.uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    gradients = np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    y, x = np.mgrid[:size, :size] / size * np.array((rows, columns)).reshape(2, 1, 1)
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = y - y0, x - x0

    def corner(i: int, j: int) -> NDArray[np.float64]:
        gradient = gradients[y0 + i, x0 + j]
        return gradient[..., 0] * (fy - i) + gradient[..., 1] * (fx - j)

    ease_y, ease_x = (t**3 * (t * (6 * t - 15) + 10) for t in (fy, fx))
    upper = corner(0, 0) + ease_x * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + ease_x * (corner(1, 1) - corner(1, 0))
    noise = np.sqrt(2) * (upper + ease_y * (lower - upper))
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), float(random.uniform(-90, 90)), 1.0)
    return np.asarray(cv2.warpAffine(noise.astype(np.float32), turn, (size, size)), dtype=np.float32)


def skew_filter(random: np.random.Generator, low: float, high: float, alpha_max: float, correlation: float) -> Image:
    """A filter of unit sum after Eq. 3 and 4; standard deviations from low to high, pixels."""
    sigma = np.exp(random.uniform(np.log(low), np.log(high), 2))
    cross = random.uniform(-correlation, correlation) * sigma.prod()
    inverse = np.linalg.inv(((sigma[0] ** 2, cross), (cross, sigma[1] ** 2)))
    reach = int(np.ceil(3 * sigma.max()))
    x = np.stack(np.mgrid[-reach : reach + 1, -reach : reach + 1], axis=-1).astype(np.float64)
    alpha = random.uniform(-alpha_max, alpha_max, 2)
    kernel = np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", x, inverse, x)) * ndtr(x @ alpha)
    return (kernel / kernel.sum()).astype(np.float32)


def synthesise(
    random: np.random.Generator, rgb: Image, depth: Image, foreground: NDArray[np.bool_], textures: NDArray[np.uint8],
    settings: Settings,
) -> Made:  # fmt: skip
    """A defect on one part, or none: rgb (S, S, 3), depth and foreground (S, S), textures (T, S, S, 3)."""
    s, size = settings.synthesis, depth.shape[0]
    noise = perlin(random, size, s.perlin_scale_max) * foreground
    peak = np.abs(noise).max()
    threshold = s.mask_threshold if peak > s.mask_threshold else 0.6 * peak
    ternary = np.where(np.abs(noise) > threshold, np.sign(noise), 0).astype(np.float32)
    kernel = skew_filter(random, s.sigma_min * size, s.sigma_max * size, s.alpha_max, s.sigma_correlation)
    change = cv2.filter2D(ternary, -1, kernel[::-1, ::-1], borderType=cv2.BORDER_CONSTANT) * foreground
    changed = np.clip(depth + random.uniform(s.strength_min, s.strength_max) * change, 0, 1)
    refined = ((np.abs(changed - depth) >= s.change_threshold) & foreground).astype(np.float32)
    texture = textures[random.integers(len(textures))].astype(np.float32) / 255
    beta = random.uniform(0, s.beta_max)
    blended = np.where(refined[..., None] > 0, (1 - beta) * texture + beta * rgb, rgb)
    keep_rgb, keep_depth = random.random(2) < s.dropout
    return Made(
        rgb if keep_rgb else blended.astype(np.float32),
        depth if keep_depth else changed.astype(np.float32),
        np.zeros_like(refined) if keep_rgb and keep_depth else refined,
    )


class Loop:
    """Adam on Eq. 13; `step` is one batch from synthesis to update.

    Args:
        rgb, depth, foreground, textures: uint8 (N, S, S, 3), float32 (N, S, S), bool (N, S, S), uint8 (T, S, S, 3).
    """

    def __init__(
        self, settings: Settings, rgb: NDArray[np.uint8], depth: Image, foreground: NDArray[np.bool_],
        textures: NDArray[np.uint8], device: torch.device,
    ) -> None:  # fmt: skip
        self.settings, self.device = settings, device
        self.rgb, self.depth, self.foreground, self.textures = rgb, depth, foreground, textures
        self.random = np.random.default_rng(settings.seed)
        self.network = Das3d(**settings.model.model_dump()).to(device).train()
        if self.network.template is not None:
            self.network.template.compare(True)  # as for parts that are compared with the mean part
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)

    def synthesis(self) -> tuple[list[Made], NDArray[np.int64]]:
        """The samples of one batch, and the indices of the parts they are made from."""
        chosen = self.random.integers(len(self.depth), size=self.settings.train.batch_size)
        made = [
            synthesise(self.random, self.rgb[i].astype(np.float32) / 255, self.depth[i], self.foreground[i],
                       self.textures, self.settings)
            for i in chosen
        ]  # fmt: skip
        return made, chosen

    def step(self) -> float:
        """One optimiser step; returns the loss."""
        made, chosen = self.synthesis()
        weights = self.settings.loss
        normal_rgb = self._images(self.rgb[chosen].astype(np.float32) / 255)
        normal_depth, foreground = self._images(self.depth[chosen]), self._images(self.foreground[chosen])
        rgb, depth, mask = (self._images(np.stack(images)) for images in zip(*made, strict=True))
        output = self.network(rgb, depth, foreground.float(), rgb.new_zeros(len(rgb), 2))
        loss = weights.focal * losses.focal_loss(output.logits, mask, weights.focal_gamma)
        loss = loss + weights.reconstruction * losses.reconstruction_loss(output.depth, normal_depth)
        loss = loss + weights.reconstruction * losses.reconstruction_loss(output.rgb, normal_rgb)
        loss = loss + weights.ssim * losses.ssim_loss(output.rgb, normal_rgb)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def _images(self, arrays: NDArray[np.generic]) -> Tensor:
        """(B, S, S) or (B, S, S, 3) on the device, channels first."""
        tensor = torch.from_numpy(arrays).to(self.device)
        return tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
