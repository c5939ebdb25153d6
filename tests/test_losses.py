"""The losses against slow, literal versions of their definitions, and their gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from das3d_cli import losses


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def test_reconstruction_loss_is_the_mean_square(random):
    a, b = torch.rand(2, 3, 9, 9, generator=random), torch.rand(2, 3, 9, 9, generator=random)
    assert losses.reconstruction_loss(a, b).item() == pytest.approx(float(((a - b) ** 2).mean()), rel=1e-6)


def test_ssim_equals_a_loop_over_windows(random):
    a, b = torch.rand(1, 2, 15, 14, generator=random), torch.rand(1, 2, 15, 14, generator=random)
    offset = np.arange(11) - 5
    gauss = np.exp(-0.5 * (offset / 1.5) ** 2)
    window = np.outer(gauss, gauss) / gauss.sum() ** 2
    expected = np.empty((1, 2, 5, 4))
    for channel, row, column in np.ndindex(2, 5, 4):
        x, y = (t[0, channel, row : row + 11, column : column + 11].numpy() for t in (a, b))
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        cov = (window * (x - mx) * (y - my)).sum()
        numerator = (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)
        expected[0, channel, row, column] = numerator / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))
    np.testing.assert_allclose(losses.ssim_map(a, b), expected, atol=1e-4)


def test_ssim_loss_is_zero_for_equal_images_and_grows_with_blur(random):
    image = torch.rand(1, 3, 32, 32, generator=random)
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    assert losses.ssim_loss(image, image).item() == pytest.approx(0, abs=1e-6)
    assert losses.ssim_loss(blurred, image) > 0.3
    averaged = [torch.nn.functional.avg_pool2d(x, 2) for x in (blurred, image)]
    for shrink in (2, 4):  # at 4 the window would no longer fit
        assert torch.equal(losses.ssim_loss(blurred, image, shrink), losses.ssim_loss(*averaged))


def test_focal_loss_equals_its_formula_on_each_pixel(random):
    logits = torch.randn(2, 2, 4, 5, generator=random)
    mask = (torch.rand(2, 1, 4, 5, generator=random) > 0.7).float()
    total = 0.0
    for item, row, column in np.ndindex(2, 4, 5):
        exponentials = np.exp(logits[item, :, row, column].numpy().astype(np.float64))
        p = exponentials[int(mask[item, 0, row, column])] / exponentials.sum()
        total -= (1 - p) ** 2 * np.log(p)
    assert losses.focal_loss(logits, mask, 2.0).item() == pytest.approx(total / 40, rel=1e-5)


def test_focal_loss_weighs_normal_pixels_too():
    """An all-normal mask must give a gradient; a class weight of zero would give none."""
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    losses.focal_loss(logits, torch.zeros(1, 1, 4, 4), 2.0).backward()
    assert logits.grad is not None and (logits.grad[:, 0] < 0).all() and (logits.grad[:, 1] > 0).all()


def test_focal_gradient_by_finite_differences(random):
    logits = torch.randn(1, 2, 3, 3, generator=random, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(1, 1, 3, 3, generator=random) > 0.5).float()

    def loss(values):  # the loss itself computes in float32
        return losses.focal_loss(values, mask, 2.0)

    loss(logits).backward()
    step = 1e-2
    for place in np.ndindex(1, 2, 3, 3):
        shifted = [logits.detach().clone() for _ in range(2)]
        shifted[0][place] += step
        shifted[1][place] -= step
        slope = (loss(shifted[0]) - loss(shifted[1])) / (2 * step)
        assert logits.grad[place].item() == pytest.approx(slope.item(), abs=2e-4)


def test_dice_counts_defective_samples_only():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, 0, :4] = 1
    perfect = losses.dice_loss(mask, mask)
    blind = losses.dice_loss(torch.zeros_like(mask), mask)
    assert perfect.item() == pytest.approx(0, abs=1e-6)
    assert blind.item() == pytest.approx(0.5 * (1 - 1 / 33), rel=1e-5)
    hazy = torch.zeros_like(mask)
    hazy[1] = 0.5  # probability on the normal sample does not count
    assert losses.dice_loss(mask + hazy, mask).item() == pytest.approx(0, abs=1e-6)


def test_false_alarms_are_counted_on_good_pixels_only():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0] = 1
    probability = torch.full((1, 1, 4, 4), 0.5)
    assert losses.false_alarm_loss(probability, mask).item() == pytest.approx(0.25)
    probability[..., 1:] = 0
    assert losses.false_alarm_loss(probability, mask).item() == 0


def test_false_alarms_of_equal_parts_have_the_whole_batchs_as_their_mean(random):
    """Even where one part holds nearly all of the good pixels."""
    probability, mask = torch.rand(4, 1, 6, 6, generator=random), torch.zeros(4, 1, 6, 6)
    mask[:2, :, 1:] = 1
    count = (1 - mask).sum() / 2
    parts = [losses.false_alarm_loss(probability[part], mask[part], count) for part in (slice(2), slice(2, 4))]
    assert sum(parts).item() / 2 == pytest.approx(losses.false_alarm_loss(probability, mask).item())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_where_the_network_is_sure(gamma):
    logits = torch.tensor([0.0, 40.0]).view(1, 2, 1, 1).requires_grad_()
    losses.focal_loss(logits, torch.ones(1, 1, 1, 1), gamma).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
