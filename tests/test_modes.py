"""The modes in which good parts vary, against scikit-learn's principal components and by what they leave of a defect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from das3d_cli.modes import MODES, explained, principal_modes

SIDE = 32
WHOLE = torch.ones(1, 1, SIDE, SIDE)


def patterns(count: int) -> torch.Tensor:
    """Smooth patterns (count, 4, S, S) that are far from alike."""
    y, x = torch.meshgrid(*[torch.linspace(0, torch.pi, SIDE)] * 2, indexing="ij")
    waves = [torch.cos((n + 1) * x + c) * torch.cos(n * y) for n in range(count) for c in range(4)]
    return torch.stack(waves).view(count, 4, SIDE, SIDE)


def varying(parts: int, count: int, noise: float, seed: int = 0) -> torch.Tensor:
    """Differences of parts from their mean: `count` patterns, the first ones strongest, and noise; (parts, 4, S, S)."""
    random = torch.Generator().manual_seed(seed)
    shares = torch.randn(parts, count, generator=random) * 0.05 * (1 - 0.2 * torch.arange(count))
    shown = torch.einsum("pk,kchw->pchw", shares, patterns(count))
    return shown + noise * torch.randn(shown.shape, generator=random)


def modes_in(found: torch.Tensor) -> int:
    return int((found.flatten(1).abs().amax(dim=1) > 0).sum())


def on(apart: torch.Tensor, modes: torch.Tensor, noise: float = 0.01) -> torch.Tensor:
    return explained(apart, modes.expand(len(apart), -1, -1, -1, -1), torch.full_like(apart, noise**2), WHOLE)


@pytest.mark.parametrize("image", [slice(0, 3), slice(3, 4)], ids=["colour", "depth"])
def test_they_are_the_principal_components(image: slice):
    apart = varying(60, 3, 0.005)
    modes = principal_modes(apart, torch.ones(4, SIDE, SIDE))[:3, image].flatten(1).numpy().astype(np.float64)
    rows = apart[:, image].flatten(1).numpy().astype(np.float64)
    # Differences from the mean part are compared, whose own mean is zero up to the light; so nothing is subtracted here.
    reference = PCA(3, svd_solver="full").fit(np.concatenate((rows, -rows)))
    lengths = np.linalg.norm(modes, axis=1)
    np.testing.assert_allclose(
        lengths**2, reference.explained_variance_ * (2 * len(rows) - 1) / (2 * len(rows)), rtol=1e-3
    )
    alike = np.abs(np.sum(modes / lengths[:, None] * reference.components_, axis=1))
    np.testing.assert_allclose(alike, 1, atol=1e-4)


def test_what_new_parts_share_with_them_is_explained():
    modes = principal_modes(varying(60, 3, 0.005), torch.full((4, SIDE, SIDE), 0.05))
    apart = varying(8, 3, 0.005, seed=1)
    left = apart - on(apart, modes)
    assert left.square().mean().sqrt() < 0.006 and apart.square().mean().sqrt() > 0.03


def test_colour_says_nothing_of_depth():
    modes = principal_modes(varying(60, 3, 0.005), torch.full((4, SIDE, SIDE), 0.05))
    apart = varying(8, 3, 0.005, seed=1)
    other = apart.clone()
    other[:, :3] = 0
    assert torch.equal(on(apart, modes)[:, 3:], on(other, modes)[:, 3:])


def test_a_defect_is_left():
    modes = principal_modes(varying(60, 3, 0.005), torch.full((4, SIDE, SIDE), 0.05))
    apart = varying(8, 3, 0.005, seed=1)
    marked = apart.clone()
    marked[:, :, 8:14, 8:14] += 0.5
    left, before = marked - on(marked, modes), apart - on(apart, modes)
    assert (left - before)[:, :, 8:14, 8:14].mean() > 0.47
    rest = torch.ones(SIDE, SIDE, dtype=torch.bool)
    rest[8:14, 8:14] = False
    assert (left - before)[:, :, rest].abs().mean() < 0.02


def test_a_part_far_beyond_the_good_ones_still_differs():
    modes = principal_modes(varying(60, 1, 0.005), torch.full((4, SIDE, SIDE), 0.05))
    apart = 1.5 * patterns(1)  # thirty standard deviations
    assert (apart - on(apart, modes)).square().mean() > 0.7 * apart.square().mean()


def test_where_parts_are_not_compared_nothing_counts():
    modes = principal_modes(varying(60, 3, 0.005), torch.full((4, SIDE, SIDE), 0.05))
    apart = varying(2, 3, 0.005, seed=1)
    there = WHOLE.clone()
    there[..., :10] = 0
    garbage = apart.clone()
    garbage[..., :10] = 9.0
    arguments = modes.expand(2, -1, -1, -1, -1), torch.full_like(apart, 1e-4), there
    assert torch.equal(explained(apart, *arguments), explained(garbage, *arguments))


def test_a_mode_that_others_do_not_share_is_none():
    """Noise and one odd part are what some parts differ by, not what parts vary in."""
    apart = varying(60, 2, 0.005)
    apart[7, :, 4:14, 8:20] += 0.5
    found = principal_modes(apart, torch.full((4, SIDE, SIDE), 0.05))
    assert modes_in(found) == 2
    noise = 0.05 * torch.randn(60, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    assert modes_in(principal_modes(noise, torch.full((4, SIDE, SIDE), 0.05))) == 0


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_few_parts_do_no_harm(parts: int):
    found = principal_modes(varying(parts, 4, 0.01), torch.full((4, SIDE, SIDE), 0.05))
    assert found.shape == (MODES, 4, SIDE, SIDE) and torch.isfinite(found).all()
    assert torch.isfinite(on(varying(2, 4, 0.01, seed=1), found)).all()


def test_parts_that_do_not_differ_have_no_modes():
    found = principal_modes(torch.zeros(20, 4, SIDE, SIDE), torch.full((4, SIDE, SIDE), 0.05))
    assert torch.equal(found, torch.zeros_like(found))


def test_large_images_are_judged_by_some_of_their_pixels():
    """Sampling must neither shift nor weaken what is found."""
    large = torch.nn.functional.interpolate(varying(60, 3, 0.0), scale_factor=8, mode="bilinear")
    modes = principal_modes(large, torch.full_like(large[0], 0.05))
    apart = torch.nn.functional.interpolate(varying(4, 3, 0.0, seed=1), scale_factor=8, mode="bilinear")
    weight = torch.ones(4, 1, *apart.shape[2:])
    left = apart - explained(apart, modes.expand(4, -1, -1, -1, -1), torch.full_like(apart, 1e-4), weight)
    assert left.square().mean() < 0.02 * apart.square().mean()
