"""Contrast with the surroundings: it shows what stands out, but no slants, plain colours or edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from das3d_cli.contrast import _banded_mean, _summed_means, depth_contrast, rgb_contrast


def test_depth_contrast_sees_a_dent_and_not_the_slant():
    x = torch.linspace(0.2, 0.6, 64).expand(1, 1, 64, 64)
    part = torch.zeros(1, 1, 64, 64)
    part[..., 6:-6, 6:-6] = 1
    flat = depth_contrast(x * part, part)
    assert flat[:, :2, 16:-16, 16:-16].abs().max() < 1e-3
    assert flat[part.expand_as(flat) == 0].abs().max() == 0
    rise = float(x[0, 0, 0, 1] - x[0, 0, 0, 0])
    for image, channel, rows, columns in ((x, 0, 58, 57), (x.mT, 1, 57, 58)):  # none across the part's outline
        slopes = depth_contrast(image * part, part)[:, 2:]
        expected = torch.zeros_like(slopes)
        expected[:, channel, 6:rows, 6:columns] = 40 * rise
        torch.testing.assert_close(slopes, expected, atol=1e-4, rtol=1e-4)
    framed = depth_contrast(x, torch.ones_like(x))  # the part fills the image: no next pixel at the edge
    assert framed[:, 2:].abs().max() < 0.3
    assert framed[:, 2, :, -1].abs().max() == 0
    dented = x.clone()
    dented[..., 30:34, 30:34] += 0.02
    assert depth_contrast(dented * part, part)[0, :2, 30:34, 30:34].min() > 0.1


def test_rgb_contrast_sees_a_stain_and_neither_the_parts_colour_nor_its_edge():
    part = torch.zeros(1, 1, 64, 64)
    part[..., 6:-6, 6:-6] = 1
    rgb = torch.tensor([0.7, 0.5, 0.2]).view(1, 3, 1, 1) * part
    assert rgb_contrast(rgb, part).abs().max() < 1e-3
    stained = rgb.clone()
    stained[:, 0, 30:34, 30:34] += 0.1
    red, others = rgb_contrast(stained, part)[0, [0, 3]], rgb_contrast(stained, part)[0, [1, 2, 4, 5]]
    assert red[:, 30:34, 30:34].min() > 0.2
    assert others.abs().max() < 1e-3
    stained[:, 0, 30:34, 30:34] += 0.2
    assert rgb_contrast(stained, part)[0, 0, 30:34, 30:34].max() > 1.3  # a strong stain does not saturate at 1


def test_the_means_of_a_gpu_are_those_of_a_cpu():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    reaches = (1, 4, 20)
    for reach, summed in zip(reaches, _summed_means(images, *reaches), strict=True):
        assert torch.allclose(_banded_mean(images, reach), summed, atol=1e-5)
        assert torch.allclose(summed, F.avg_pool2d(images, 2 * reach + 1, 1, reach), atol=1e-5)


@pytest.mark.parametrize(("size", "reach"), [(512, 64), (720, 90), (1024, 128)])
def test_means_of_large_images_stay_within_the_whole_numbers(size, reach):
    """Only the final differences fit into 32 bits; the sums before them overflow."""
    means = _summed_means(torch.stack((torch.full((size, size), 3.5), torch.full((size, size), -3.5)))[None], reach)[0]
    inside = means[..., reach : size - reach, reach : size - reach]
    assert (inside - torch.tensor([3.5, -3.5]).view(1, 2, 1, 1)).abs().max() < 1e-5
