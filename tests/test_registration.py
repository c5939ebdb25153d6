"""Known poses are recovered, and parts are aligned by the features that tell one orientation from another."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from das3d_cli.registration import (
    Pose,
    _are_opposite,
    _product_of_pieces,
    displacements,
    find_pose,
    laid,
    laid_back,
    lay_together,
    marks,
)

SIZE = 128


def grid(size):
    """y and x of pixel centres, (size, size) each, in half sides."""
    return torch.meshgrid(*[(torch.arange(size) + 0.5) * (2 / size) - 1] * 2, indexing="ij")


def test_a_pose_is_found_to_a_small_share_of_a_pixel():
    y, x = grid(64)
    part = ((x.abs() < 0.6) & (y.abs() < 0.5) & ~((x > 0.1) & (y > 0.0))).float()
    small = F.avg_pool2d(
        torch.stack((part, part * (0.3 + 0.2 * (y > -0.2)), part * (0.4 + 0.2 * (x > 0))))[None], 3, 1, 1
    )
    pose = Pose(
        torch.tensor([0.0, 0.4, 1.7, 3.3, -2.0]), torch.tensor([[0, 0], [0.05, 0], [0, -0.1], [0.1, 0.1], [-0.1, 0]])
    )
    centre = torch.stack([(small[0, 0] * axis).sum() / small[0, 0].sum() for axis in (x, y)])[None]
    mean = laid_back(small, Pose(torch.zeros(1), centre))
    found = find_pose(laid(mean.expand(5, -1, -1, -1), pose), mean[0])
    wrapped = (found.angle - pose.angle + torch.pi) % (2 * torch.pi) - torch.pi
    assert wrapped.abs().max() < 0.01
    assert (found.shift - pose.shift).abs().max() * 32 < 0.15


def test_laying_back_undoes_laying():
    smooth = torch.nn.functional.interpolate(torch.rand(3, 2, 8, 8), size=64, mode="bicubic") * 0.5
    smooth[..., :8, :] = smooth[..., -8:, :] = 0
    pose = Pose(torch.tensor([0.3, -1.2, 2.9]), torch.tensor([[0.05, 0.0], [0.0, -0.1], [-0.05, 0.05]]))
    middle = slice(20, 44)
    back = laid_back(laid(smooth, pose), pose)
    assert (back - smooth)[..., middle, middle].abs().max() < 0.05


@pytest.mark.parametrize("size", [96, 160, 256, 416])
def test_a_pose_is_found_at_any_size(size):
    y, x = grid(size)
    part = ((x.abs() < 0.6) & (y.abs() < 0.4) & ~((x > 0.1) & (y > 0.0))).float()[None, None]
    depth = 0.5 - 0.1 * ((x - 0.3).abs() < 0.1)[None, None] * part
    shift = torch.tensor([[0.05, -0.03], [0.0, 0.08]])
    pose = Pose(torch.tensor([math.pi, 0.7]), shift)
    turned = laid(torch.cat((part, depth), dim=1).expand(2, -1, -1, -1), pose)
    whole = marks(None, depth, part)
    area = whole[0, 0] / whole[0, 0].sum()
    y, x = grid(whole.shape[-1])
    centre = torch.stack(((area * x).sum(), (area * y).sum()))[None]
    mean = laid_back(whole, Pose(torch.zeros(1), centre))[0]
    found = find_pose(marks(None, turned[:, 1:], (turned[:, :1] > 0.5).float()), mean)
    turn = torch.stack(
        (torch.stack((pose.angle.cos(), -pose.angle.sin()), 1), torch.stack((pose.angle.sin(), pose.angle.cos()), 1)), 1
    )
    wrapped = (found.angle - pose.angle + math.pi) % (2 * math.pi) - math.pi
    assert wrapped.abs().max() < 0.01
    assert (found.shift - (shift + (turn @ centre[0, :, None])[..., 0])).abs().max() * size / 2 < 0.5


def gear(angle, noise):
    """A ring with 24 identical deep slots and four faint raised words at uneven angles: rgb, depth, foreground."""
    y, x = grid(SIZE)
    around, radius = torch.atan2(y, x) - angle, torch.hypot(x, y)
    part = (radius > 0.35) & (radius < 0.8)
    depth = 0.4 + 0.5 * ((torch.cos(24 * around) > 0.6) & (radius > 0.66))
    for place, length in ((0.0, 0.50), (1.5, 0.25), (3.1, 0.35), (4.4, 0.30)):
        away = (around - place + math.pi) % (2 * math.pi) - math.pi
        letters = torch.sin(40 * away + 3 * place) > 0
        depth = depth - 0.05 * ((away.abs() < length) & ((radius - 0.5).abs() < 0.06) & letters)
    rgb = (0.3 + 0.01 * noise[:3]).clamp(0, 1) * part
    return rgb, torch.where(part, depth + 0.006 * noise[3:], 0.9), part[None].float()


def nut(angle, noise):
    """A hexagon under a disc with 36 identical ribs round its rim: rgb, depth, foreground."""
    y, x = grid(SIZE)
    around, radius = torch.atan2(y, x) - angle, torch.hypot(x, y)
    folded = (around + math.pi / 6) % (math.pi / 3) - math.pi / 6
    part = radius * torch.cos(folded) < 0.72
    depth = torch.where(radius < 0.6 - 0.03 * (torch.cos(36 * around) > 0), 0.2, 0.6)
    rgb = (0.5 + 0.02 * noise[:3]).clamp(0, 1) * part
    return rgb, torch.where(part, depth + 0.006 * noise[3:], 0.9), part[None].float()


@pytest.mark.parametrize(("make", "turns", "seed", "right"), [(gear, 1, 3, 0.85), (gear, 1, 4, 0.85), (nut, 6, 3, 1.0)])
def test_parts_are_laid_by_what_tells_one_way_from_another(make, turns, seed, right):
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(40, generator=generator)
    noise = torch.randn(40, 4, SIZE, SIZE, generator=generator)
    parts = marks(*(torch.stack(images) for images in zip(*map(make, angles, noise), strict=True)))
    turned = torch.exp(1j * turns * (lay_together(parts).pose.angle - angles))
    apart = torch.angle(turned[:, None] / turned[None]).abs() / turns  # slots are 15 degrees apart, ribs 10
    assert (apart < math.radians(2)).float().mean(dim=1).max() >= right


def flange(angle, noise):
    """A disc with six equal holes, one faint word, and streaks of light that stay where they are: rgb, depth, foreground."""
    y, x = grid(SIZE)
    here, radius = torch.atan2(y, x), torch.hypot(x, y)
    around = here - angle
    part = (radius < 0.8).float()
    holes = (torch.cos(6 * around) > 0.9) & ((radius - 0.65).abs() < 0.06)
    away = (around + math.pi) % (2 * math.pi) - math.pi
    word = (away.abs() < 0.6) & ((radius - 0.5).abs() < 0.04) & (torch.sin(40 * away) > 0)
    streaks = ((here - 0.8).abs() < 0.5) & (radius < 0.42) & (torch.sin(80 * radius) > 0)
    rgb = (0.5 + 0.4 * streaks - 0.15 * word + 0.01 * noise[:3]).clamp(0, 1) * part
    return rgb, torch.where(part > 0, 0.3 + 0.4 * holes + 0.006 * noise[3:], 0.9), part[None]


@pytest.mark.parametrize("seed", [3, 4])
def test_light_that_stays_where_it_is_does_not_decide_how_parts_are_laid(seed):
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(40, generator=generator)
    noise = torch.randn(40, 4, SIZE, SIZE, generator=generator)
    parts = marks(*(torch.stack(images) for images in zip(*map(flange, angles, noise), strict=True)))
    turned = torch.exp(1j * (lay_together(parts).pose.angle - angles))
    apart = torch.angle(turned[:, None] / turned[None]).abs()
    assert (apart < math.radians(2)).float().mean(dim=1).max() > 0.95


@pytest.mark.parametrize("seed", [6, 8])
def test_a_spot_on_a_part_does_not_have_it_laid_another_way(seed):
    generator = torch.Generator().manual_seed(seed)
    angles, noise = 6 * torch.rand(224, generator=generator), torch.randn(224, 4, SIZE, SIZE, generator=generator)
    images = [torch.stack(image) for image in zip(*map(flange, angles, noise), strict=True)]
    together = lay_together(marks(*(image[:24] for image in images)))
    y, x = grid(SIZE)
    place = 7 * angles[:, None, None, None]
    spot = torch.hypot(x - 0.5 * place.cos(), y - 0.5 * place.sin()) < 0.12
    found = find_pose(marks(torch.where(spot, 0.1, images[0]), *images[1:]), together.mean)
    apart = torch.exp(1j * (found.angle - angles)) / torch.exp(1j * (together.pose.angle - angles[:24])).mean()
    assert torch.angle(apart).abs().max() < math.radians(2)


def cap(angle, slot, noise):
    """A hexagon under a disc with a faint word and a deep slot at any angle, and a shadow that stays: rgb, depth, foreground."""
    y, x = grid(SIZE)
    here, radius = torch.atan2(y, x), torch.hypot(x, y)
    around = here - angle
    part = radius * torch.cos((around + math.pi / 6) % (math.pi / 3) - math.pi / 6) < 0.72
    away = (around + math.pi) % (2 * math.pi) - math.pi
    word = (away.abs() < 1.6) & ((radius - 0.4).abs() < 0.05) & (torch.sin(17 * away + 2 * away**2) > 0)
    cut = ((x * slot.cos() + y * slot.sin()).abs() < 0.05) & (radius < 0.2)
    shadow = ((here - 0.8).abs() < 0.9) & ((radius - 0.64).abs() < 0.06)
    rgb = (0.5 - 0.45 * shadow - 0.03 * word - 0.2 * cut + 0.01 * noise[:3]).clamp(0, 1) * part
    depth = torch.where(radius < 0.58, 0.2, 0.6) - 0.02 * word + 0.3 * cut
    return rgb, torch.where(part, depth + 0.006 * noise[3:], 0.9), part[None].float()


@pytest.mark.parametrize("seed", [3, 4])
def test_a_clear_match_is_not_given_up_for_the_sake_of_a_shadow(seed):
    """Of six ways that fit the outline, one fits the word, and others may fit slot and shadow."""
    generator = torch.Generator().manual_seed(seed)
    angles, slots = 2 * math.pi * torch.rand(2, 40, generator=generator)
    noise = torch.randn(40, 4, SIZE, SIZE, generator=generator)
    parts = marks(*(torch.stack(images) for images in zip(*map(cap, angles, slots, noise), strict=True)))
    mean = laid_back(parts, Pose(angles, torch.zeros(40, 2))).mean(dim=0)
    apart = torch.angle(torch.exp(1j * (find_pose(parts, mean).angle - angles)))
    assert apart.abs().max() < math.radians(2)


@pytest.mark.parametrize("make", [gear, flange])
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_parts_that_lie_about_the_same_way_are_laid_so(make, spread):
    generator = torch.Generator().manual_seed(5)
    angles = 0.3 + spread * torch.rand(12, generator=generator)
    noise = torch.randn(12, 4, SIZE, SIZE, generator=generator)
    parts = marks(*(torch.stack(images) for images in zip(*map(make, angles, noise), strict=True)))
    turned = torch.exp(1j * (lay_together(parts).pose.angle - angles))
    assert torch.angle(turned[:, None] / turned[None]).abs().max() < math.radians(2)


def keyed(angle, notched, noise):
    """A plate that is low on the image's lower side, as in a shadow, with a notch near one end or without: marks."""
    y, x = grid(SIZE)
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    part = (along.abs() < 0.8) & (across.abs() < 0.5)
    shadow = across * math.copysign(1, math.cos(angle)) > 0.35  # whichever way the plate lies
    depth = 0.4 + 0.3 * shadow + 0.2 * notched * ((along - 0.5).abs() < 0.12) * ((across + 0.05).abs() < 0.12)
    rgb = (0.5 + 0.3 * shadow + 0.02 * noise[:3]).clamp(0, 1) * part
    return rgb, torch.where(part, depth + 0.004 * noise[3:], 0.9), part[None].float()


@pytest.mark.parametrize(("ways", "kinds"), [((0, 1), (1,)), ((0,), (1,)), ((0,), (1, 0))])
def test_parts_that_lie_in_two_opposite_ways_are_told_from_parts_of_two_kinds(ways, kinds):
    generator = torch.Generator().manual_seed(7)
    angles = 0.35 * torch.rand(24, generator=generator) + math.pi * torch.tensor(ways).repeat(24 // len(ways))
    noise = torch.randn(24, 4, SIZE, SIZE, generator=generator)
    images = [
        keyed(float(angle), kinds[n % len(kinds)], own)
        for n, (angle, own) in enumerate(zip(angles, noise, strict=True))
    ]
    found = lay_together(marks(*(torch.stack(image) for image in zip(*images, strict=True)))).pose.angle
    turned = torch.exp(1j * (found - angles))
    assert torch.angle(turned / turned[0]).abs().max() < math.radians(2)


@pytest.mark.parametrize(
    ("gap", "opposite", "few", "turned"), [(20, 1, 6, True), (1, 1, 6, False), (20, 0, 6, False), (20, 1, 1, False)]
)
def test_only_two_clear_groups_of_opposite_signs_are_opposite(gap, opposite, few, turned):
    """Twelve parts, of which the last few are higher at one place, and the others perhaps at the opposite one."""
    generator = torch.Generator().manual_seed(8)
    apart = 0.01 * torch.randn(12, 2, 16, 16, generator=generator)
    apart[-few:, 1, 2:5, 3:6] += 0.2
    apart[:-few, 1, 11:14, 10:13] += 0.2 * opposite
    place = torch.linspace(-1, 1, 12) + gap * 0.5 * torch.tensor([-1] * (12 - few) + [1] * few)
    assert _are_opposite(apart, place) == turned
    assert not _are_opposite(0.01 * torch.randn(12, 2, 16, 16, generator=generator), place)  # by chance alone


def tower(angle, lean, noise):
    """A solid hexagonal post with faint letters on top; height h is shifted by h * lean: rgb, depth, foreground."""
    y, x = grid(SIZE)

    def hexagon(rise):
        left, up = x - rise * lean[0], y - rise * lean[1]
        folded = (torch.atan2(up, left) - angle + math.pi / 6) % (math.pi / 3) - math.pi / 6
        return torch.hypot(left, up) * torch.cos(folded) < 0.7

    rises = torch.linspace(0, 0.9, 31)
    highest = torch.stack([rise * hexagon(rise) for rise in rises]).amax(dim=0)
    part = torch.stack([hexagon(rise) for rise in rises]).any(dim=0)
    left, up = x - 0.9 * lean[0], y - 0.9 * lean[1]
    around, radius = torch.atan2(up, left) - angle, torch.hypot(left, up)
    for place, length in ((0.0, 0.50), (1.5, 0.25), (3.1, 0.35), (4.4, 0.30)):
        away = (around - place + math.pi) % (2 * math.pi) - math.pi
        letters = torch.sin(40 * away + 3 * place) > 0
        highest = highest + 0.05 * ((away.abs() < length) & ((radius - 0.48).abs() < 0.06) & letters)
    rgb = (0.5 + 0.01 * noise[:3]).clamp(0, 1) * part
    return rgb, torch.where(part, 1 - highest + 0.004 * noise[3:], 1.0), part[None].float()


def towers(count, seed):
    """`count` randomly turned towers: rgb, depth, foreground, their parallaxes and their angles."""
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(count, generator=generator)
    leans = 0.14 * torch.rand(count, 2, generator=generator) - 0.07
    noise = torch.randn(count, 4, SIZE, SIZE, generator=generator)
    images = (torch.stack(found) for found in zip(*map(tower, angles, leans, noise), strict=True))
    return *images, leans, angles


@pytest.mark.parametrize("seed", [3, 4])
def test_tall_parts_are_laid_as_seen_from_above(seed):
    rgb, depth, part, leans, angles = towers(30, seed)
    right = []
    for moved in (displacements(depth, part, leans), None):
        turned = torch.exp(1j * (lay_together(marks(rgb, depth, part, moved)).pose.angle - angles))
        apart = torch.angle(turned[:, None] / turned[None]).abs()
        right.append((apart < math.radians(2)).float().mean(dim=1).max())
    assert right[0] > 0.99 and right[1] < 0.5


def test_what_is_seen_from_above_is_seen_again_from_the_side():
    lean = torch.tensor([[0.06, -0.04]])
    silent = torch.zeros(4, SIZE, SIZE)
    _, depth, part = (image[None] for image in tower(torch.tensor(0.3), lean[0], silent))
    _, upright, footprint = (image[None] for image in tower(torch.tensor(0.3), torch.zeros(2), silent))
    moved, as_it_lies = displacements(depth, part, lean), Pose(torch.zeros(1), torch.zeros(1, 2))
    above, outline = laid_back(torch.cat((depth, part), dim=1), as_it_lies, moved).split(1, dim=1)

    def overlap(outline):
        return torch.minimum(outline, footprint).sum() / torch.maximum(outline, footprint).sum()

    assert overlap(outline) > 0.97 > overlap(part)
    y, x = grid(SIZE)
    top = torch.hypot(x, y) < 0.62
    assert (above - upright)[..., top].abs().mean() < 0.5 * (depth - upright)[..., top].abs().mean()
    assert (laid(above, as_it_lies, moved) - depth)[part > 0].abs().median() < 0.002


def test_a_single_part_is_its_own_mean():
    noise = torch.zeros(4, SIZE, SIZE)
    parts = marks(*(image[None] for image in gear(torch.tensor(0.5), noise)))
    together = lay_together(parts)
    back = laid(together.mean[None], together.pose)[:, 0]
    assert (back - parts[:, 0]).abs().mean() < 0.02


def test_marks_stand_out_alike_whatever_the_light():
    noise = torch.zeros(4, SIZE, SIZE)
    rgb, depth, part = (image[None] for image in gear(torch.tensor(0.5), noise))
    print_on = rgb * (1 + 0.5 * ((part > 0) & (depth < 0.38)))
    bright, dark = (marks(light * print_on, None, part) for light in (1.0, 0.5))
    assert F.cosine_similarity(bright[:, 1].flatten(1), dark[:, 1].flatten(1)).item() > 0.98
    assert dark[:, 1].abs().mean() > 0.7 * bright[:, 1].abs().mean()
    assert marks(None, depth, part).shape[1] == 2 and marks(rgb, depth, part).shape[1] == 3


def test_the_products_of_a_gpu_are_those_of_a_cpu():
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.rand(4, 3, 2048, generator=generator), torch.rand(4, 2048, 2, generator=generator)
    assert torch.allclose(_product_of_pieces(rows, columns), rows @ columns, rtol=1e-4)
