"""The golden template: in any pose, good parts hardly deviate from it and defects do."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from das3d_cli.batch import background_depth
from das3d_cli.registration import Pose, laid, marks
from das3d_cli.template import Template
from das3d_cli.ways import find_ways

SIZE = 96


def straight(parts):
    """The parallax of parts seen from straight above."""
    return torch.zeros(len(parts), 2)


def rotated(images, angle, shift=None):
    return laid(images, Pose(angle, torch.zeros(len(images), 2) if shift is None else shift))


def bracket(count=12, seed=0, *, turned=True):
    """L-shaped parts with a bore and a little noise, shifted and, if `turned`, turned at random: rgb, depth, foreground."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    shape = ((x.abs() < 0.6) & (y.abs() < 0.5) & ~((x > 0.1) & (y > 0.0)) & (((x + 0.3) ** 2 + y**2) > 0.01)).float()
    tone = 0.4 + 0.2 * (x > 0)
    images = torch.stack((shape * tone, shape * 0.5, shape * (1 - tone), shape * (0.3 + 0.2 * (y > -0.2)), shape))
    angle = torch.rand(count, generator=generator) * 2 * math.pi * turned
    shift = 0.1 * torch.rand(count, 2, generator=generator) - 0.05
    laid_out = rotated(images.expand(count, -1, -1, -1), angle, shift)
    part = laid_out[:, 4:] > 0.5
    share = laid_out[:, 4:].clamp_min(0.5)
    noise = 0.01 * torch.randn(count, 4, SIZE, SIZE, generator=generator)
    rgb, depth = laid_out[:, :3] / share * part, torch.where(part, laid_out[:, 3:4] / share, 0.5)
    return (rgb + noise[:, :3] * part).clamp(0, 1), (depth + noise[:, 3:] * part).clamp(0, 1), part


@functools.cache
def learnt(**uses):
    template = Template(SIZE, **({"uses_rgb": True, "uses_depth": True} | uses))
    rgb, depth, part = bracket()
    template.learn((rgb * 255).round().byte(), depth, part, straight(part))
    return template


@pytest.mark.parametrize("degrees", [0.0, 37.3, 90.0, 181.6, 300.4])
def test_the_same_part_turned_is_compared_with_the_template_turned(degrees):
    template = learnt()
    rgb, depth, part = bracket(count=1, seed=5)
    angle = torch.tensor([math.radians(degrees)])
    turned = rotated(torch.cat((rgb, torch.where(part, depth, 0.0), part.float()), dim=1), angle)
    inside = turned[:, 4:] > 0.5
    share = turned[:, 4:].clamp_min(0.5)
    found = template(
        turned[:, :3] / share * inside, turned[:, 3:4] / share, inside.float(), straight(inside)
    ).deviations
    assert found.abs().mean() < 0.5 * inside.float().mean()


def test_parts_under_other_light_teach_the_same():
    """An ageing lamp must neither widen the spread of good parts nor draw the mean towards the more frequent light."""
    rgb, depth, part = bracket()
    light = torch.tensor([0.7, 1.3, 0.7])[torch.arange(len(rgb)) % 3].view(-1, 1, 1, 1)
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    template.learn((rgb * light * 255).round().byte(), depth, part, straight(part))
    mean, spread, coverage, _ = torch.split(template.images[0], [4, 8, 1, 16])
    whole = coverage[0] > 0.99
    plain, usual, *_ = torch.split(learnt().images[0], [4, 8, 1, 16])
    assert (mean[:3] / plain[:3])[:, whole].mean() == pytest.approx(0.9, abs=0.01)
    assert (spread[:3] / usual[:3])[:, whole].median() < 1.3
    deviations = template(rgb * 1.3, depth, part.float(), straight(part)).deviations
    alike = learnt()(rgb, depth, part.float(), straight(part)).deviations
    assert deviations.abs().mean() < 1.3 * alike.abs().mean()


def test_what_few_parts_show_has_the_light_of_all():
    """The image's border may have cut off the brightly lit parts."""
    rgb, depth, part = bracket(turned=False)
    bright = torch.arange(len(rgb)) % 3 == 1
    part = part & ~(bright.view(-1, 1, 1, 1) & (torch.arange(SIZE) < 36))
    light = torch.where(bright, 1.4, 0.7).view(-1, 1, 1, 1)
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    template.learn((rgb * light * part * 255).round().byte(), torch.where(part, depth, 0.5), part, straight(part))
    green, coverage = template.images[0, 1], template.images[0, 12]
    of_all, of_some = green[coverage > 0.95], green[(coverage > 0.55) & (coverage < 0.75)]
    assert len(of_some) > 500
    assert float(of_some.mean()) == pytest.approx(float(of_all.mean()), rel=0.03)


def test_light_beyond_doubling_is_a_deviation():
    """An unlit part must not be brightened until it looks good."""
    template = learnt()
    rgb, depth, part = bracket(count=3, seed=5)
    for factor, allowed in ((0.55, 0.2), (0.2, None)):
        found = template(rgb * factor, depth, part.float(), straight(part)).deviations[:, :3]
        share = (found.abs() > 1.5).float().mean() / part.float().mean()
        assert share < allowed if allowed else share > 0.9, factor


def test_parts_may_come_in_several_colours():
    """A part of a colour that was learnt is compared as that of one colour is, and a foreign colour still deviates."""
    colours = torch.tensor([(1, 0.15, 0.1), (0.15, 1, 0.2), (0.1, 0.2, 1), (1, 1, 1)]).view(-1, 3, 1, 1)
    rgb, depth, part = bracket(count=24)
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    template.learn((rgb * colours[torch.arange(24) % 4] * 255).round().byte(), depth, part, straight(part))
    assert template.images[:, 4:7].mean() < 0.04

    rgb, depth, part = bracket(count=3, seed=5)
    for colour, deviates in ((colours[2], False), (colours[3], False), (torch.full((3, 1, 1), 0.05), True)):
        found = template(rgb * colour, depth, part.float(), straight(part)).deviations[:, :3]
        share = (found.abs() > 1.5).float().mean() / part.float().mean()
        assert share > 0.9 if deviates else share < 0.2, colour


def test_one_odd_photo_does_not_teach_that_parts_may_be_unlit():
    rgb, depth, part = bracket(count=60)
    rgb[7] *= 0.1
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    template.learn((rgb * 255).round().byte(), depth, part, straight(part))
    assert template.lights[1].max() < 3


def test_a_good_part_hardly_deviates_and_a_defect_does():
    template = learnt()
    rgb, depth, part = bracket(count=4, seed=9)
    before = template(rgb, depth, part.float(), straight(part)).deviations
    assert before.shape == (4, 9, SIZE, SIZE) and before.abs().mean() < 0.15
    depth[:, :, 30:36, 30:36] += 0.08
    marked = (template(rgb, depth, part.float(), straight(part)).deviations - before)[:, :, 30:36, 30:36]
    inside = part[:, 0, 30:36, 30:36]
    assert inside.any() and marked[:, 6][inside].mean() > 2 and marked[:, 7][inside].mean() > 2


def test_the_mean_part_is_laid_as_the_part_lies_and_lit_as_it_is():
    template = learnt()
    rgb, depth, part = bracket(count=4, seed=9)
    expected = template(0.7 * rgb, depth, part.float(), straight(part))
    inside = -F.max_pool2d(-part.float(), 5, 1, 2) > 0  # the mean is least certain at the rim
    depth = torch.where(part, depth, background_depth(depth * part))
    assert ((expected.rgb - 0.7 * rgb) * inside).abs().mean() < 0.2 * (
        (rgb - rgb[inside.expand_as(rgb)].mean()) * inside
    ).abs().mean()
    assert ((expected.depth - depth) * inside).abs().mean() < 0.2 * (
        (depth - depth[inside].mean()) * inside
    ).abs().mean()
    apart = (expected.depth - depth).abs() > 0.05
    assert apart.float().mean() < 0.02 and (expected.rgb - 0.7 * rgb).abs().mean() < 0.02
    damaged = depth.clone()
    damaged[:, :, 30:36, 30:36] -= 0.08
    assert (template(0.7 * rgb, damaged, part.float(), straight(part)).depth - expected.depth).abs().mean() < 0.001


def test_what_is_missing_shows_in_the_foreground():
    template = learnt()
    rgb, depth, part = bracket(count=1, seed=3)
    rows, columns = torch.nonzero(part[0, 0], as_tuple=True)
    place = len(rows) // 2
    bite = torch.zeros_like(part)
    bite[..., rows[place] - 3 : rows[place] + 3, columns[place] - 3 : columns[place] + 3] = True
    bite &= part
    found = template(rgb * ~bite, depth, (part & ~bite).float(), straight(part)).deviations[:, 8:]
    assert found[bite].mean() < -1.5


@pytest.mark.parametrize(("uses", "channels"), [({"uses_depth": False}, 7), ({"uses_rgb": False}, 3)])
def test_one_modality_looks_at_its_own_image_alone(uses, channels):
    template = learnt(**uses)
    rgb, depth, part = bracket(count=2, seed=4)
    found = template(rgb, depth, part.float(), straight(part)).deviations
    assert found.shape[1] == template.channels == channels
    other = template(rgb if uses.get("uses_rgb", True) else 1 - rgb, depth if uses.get("uses_depth", True) else 1 - depth,
                     part.float(), straight(part)).deviations  # fmt: skip
    assert torch.equal(found, other)


def without_modes(apart, _):
    return apart.new_zeros(4, *apart.shape[1:])


@pytest.mark.parametrize("modes", [False, True])
def test_a_small_defect_stands_out_although_good_parts_differ_everywhere(modes, monkeypatch):
    """Good parts are tinted by up to 0.1 and lie up to 0.06 higher or lower: less than that counts little by itself,
    but much against its surroundings; and where it is known how they differ, it counts by itself, too."""
    if not modes:
        monkeypatch.setattr("das3d_cli.template.principal_modes", without_modes)
    generator = torch.Generator().manual_seed(6)
    rgb, depth, part = bracket(count=20, seed=6)
    tint = torch.linspace(0.1, -0.1, 3)[None, :, None, None] * (2 * torch.rand(20, 1, 1, 1, generator=generator) - 1)
    higher = 0.06 * (2 * torch.rand(20, 1, 1, 1, generator=generator) - 1)
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    tinted = ((rgb + tint) * part).clamp(0, 1)
    template.learn((tinted * 255).round().byte(), torch.where(part, depth + higher, depth), part, straight(part))
    rgb, depth, part = bracket(count=4, seed=9)
    before = template(rgb, depth, part.float(), straight(part)).deviations
    depth[:, :, 30:36, 30:36] += 0.03
    rgb[:, 0, 30:36, 30:36] += 0.05
    marked = (template(rgb, depth, part.float(), straight(part)).deviations - before)[:, :, 30:36, 30:36]
    inside = part[:, 0, 30:36, 30:36]
    red, red_local, deep, deep_local = (marked[:, channel][inside].mean() for channel in (0, 3, 6, 7))
    assert deep_local > 1.5 and red_local > 1
    if modes:
        assert deep > 1.5 and red > 0.7
    else:
        assert deep_local > 1.5 * deep and red_local > 1.5 * red


def test_learning_is_of_the_parts_not_of_their_chunks(monkeypatch):
    whole = learnt()
    monkeypatch.setattr("das3d_cli.registration._CHUNK", 5)
    pieces = learnt.__wrapped__()
    assert torch.allclose(whole.images, pieces.images, atol=1e-5)


def discs(angles, mark):
    """Round parts with one printed mark and a little noise."""
    generator = torch.Generator().manual_seed(8)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    part = (x**2 + y**2 < 0.72**2).expand(len(angles), 1, -1, -1)
    along = x * angles.cos()[:, None, None] + y * angles.sin()[:, None, None]
    across = y * angles.cos()[:, None, None] - x * angles.sin()[:, None, None]
    printed = (((along - 0.4).abs() < 0.12) & (across.abs() < 0.08))[:, None]
    noise = 0.01 * torch.randn(len(angles), 4, SIZE, SIZE, generator=generator)
    rgb = (0.4 + mark * printed + noise[:, :3]) * part
    return rgb, torch.where(part, 0.3 + noise[:, 3:], 0.5), part


@pytest.mark.parametrize("mark", [0.3, 0.1])
def test_a_round_part_is_turned_by_what_is_printed_on_it(mark):
    rgb, depth, part = discs(torch.linspace(0, 6, 10), mark)
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    template.learn((rgb * 255).round().byte(), depth, part, straight(part))
    expected = template.images[0, 0]
    assert expected.max() - expected[SIZE // 2, SIZE // 2] > 0.6 * mark  # if turned wrongly, the mark would blur away


def test_a_part_without_any_feature_does_no_harm():
    rgb, depth, part = discs(torch.zeros(5), 0.0)
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    assert all(image.isfinite().all() for image in template(rgb, depth, part.float(), straight(part)))  # not learnt yet
    template.learn((rgb * 255).round().byte(), depth, part, straight(part))
    assert all(image.isfinite().all() for image in template(rgb, depth, part.float(), straight(part)))
    nothing = torch.zeros_like(part)
    assert all(image.isfinite().all() for image in template(rgb * 0, depth, nothing.float(), straight(part)))


def posts(count, seed):
    """Posts with a lower step, each seen from another side, with a little noise: rgb, depth, foreground, parallax."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    lean = 0.28 * torch.rand(count, 2, generator=generator) - 0.14

    def at(rise):
        return x - rise * lean[:, 0, None, None], y - rise * lean[:, 1, None, None]

    heights = torch.zeros(count, SIZE, SIZE)
    for rise in torch.linspace(0.05, 0.9, 30):
        left, up = at(rise)
        square = (left.abs() < 0.6) & (up.abs() < 0.5)
        heights = torch.where(square & ((left < 0.1) | (rise < 0.4)), rise, heights)
    part = heights[:, None] > 0
    noise = 0.01 * torch.randn(count, 4, SIZE, SIZE, generator=generator)
    rgb = (0.3 + 0.4 * heights[:, None] + noise[:, :3]) * part
    return rgb.clamp(0, 1), torch.where(part, 1 - heights[:, None] + noise[:, 3:], 1.0).clamp(0, 1), part, lean


def test_a_tall_part_is_expected_to_look_as_from_where_it_is_seen(monkeypatch):
    monkeypatch.setattr("das3d_cli.template.principal_modes", without_modes)  # they would learn how the views differ
    outline, height = {}, {}
    for known in (1, 0, -1):
        template = Template(SIZE, uses_rgb=True, uses_depth=True)
        rgb, depth, part, lean = posts(24, seed=1)
        template.learn((rgb * 255).round().byte(), depth, part, known * lean)
        rgb, depth, part, lean = posts(8, seed=2)
        found = template(rgb, depth, part.float(), known * lean)
        outline[known] = found.deviations[:, 8].abs().mean()
        height[known] = (found.depth - depth)[part].abs().mean()
    assert outline[1] < 0.8 * outline[0] and outline[1] < 0.6 * outline[-1]
    assert height[1] < height[0] and height[1] < 0.4 * height[-1]


def test_an_oblique_view_is_compared_as_it_is():
    rgb, depth, part, lean = posts(6, seed=3)
    found = []
    for parallax in (lean + torch.tensor([0.4, 0.0]), 0 * lean):
        template = Template(SIZE, uses_rgb=True, uses_depth=True)
        template.learn((rgb * 255).round().byte(), depth, part, parallax)
        found.append(template(rgb, depth, part.float(), parallax))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_parts_without_a_common_shape_are_not_compared():
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    lengths = torch.linspace(0.4, 0.9, 9)[:, None, None, None]
    parts = (x / lengths) ** 2 + (y / lengths.flip(0)) ** 2 < 1
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    template.learn((parts * torch.full((1, 3, 1, 1), 128)).byte(), parts * 0.5, parts, straight(parts))
    assert template.shared == 0
    rgb, depth = parts * torch.full((1, 3, 1, 1), 0.1), torch.where(parts, 0.9, 0.4)
    rgb[:, :, 47:49, 47:49] = 1.0
    compared = template(rgb, depth, parts.float(), straight(parts))
    assert not compared.deviations.any()
    assert (compared.rgb[:, :, 47:49, 47:49] < 0.2).all()  # a spot is expected to look like its surroundings
    assert torch.allclose(compared.depth, depth, atol=1e-4)
    assert learnt().shared == 1


def on_either_face(count, seed, *, over):
    """Brackets of which those chosen by `over`, bool (count,), lie on their other face and so are seen mirrored."""
    return [torch.where(over[:, None, None, None], image.flip(3), image) for image in bracket(count, seed)]


OVER = torch.arange(24) % 3 == 1


@functools.cache
def learnt_on_either_face():
    template = Template(SIZE, uses_rgb=True, uses_depth=True)
    rgb, depth, part = on_either_face(24, 0, over=OVER)
    template.learn((rgb * 255).round().byte(), depth, part, straight(part))
    return template


class TestSeveralWays:
    def test_parts_on_either_face_are_each_compared_with_their_like(self):
        template = learnt_on_either_face()
        assert len(template.images) == len(template.mean_marks) == 2 and template.compares
        rgb, depth, part = on_either_face(8, 9, over=torch.arange(8) < 4)
        before = template(rgb, depth, part.float(), straight(part)).deviations
        usual = learnt()(*bracket(8, 9)[:2], bracket(8, 9)[2].float(), straight(part)).deviations
        assert before.abs().mean() < 1.3 * usual.abs().mean()
        depth[:, :, 44:50, 30:36] += 0.08
        marked = (template(rgb, depth, part.float(), straight(part)).deviations - before)[:, 6]
        inside = part[:, 0].clone()
        inside[:, :44], inside[:, 50:], inside[..., :30], inside[..., 36:] = False, False, False, False
        for of_way in (slice(0, 4), slice(4, 8)):
            assert inside[of_way].any() and marked[of_way][inside[of_way]].mean() > 2

    def test_the_parts_of_each_way_are_told_apart(self):
        template = learnt_on_either_face()
        rgb, depth, part = on_either_face(24, 0, over=OVER)
        way = find_ways(marks(rgb, depth, part.float()), heights=True).way
        assert torch.equal(way == way[1], OVER)
        assert template.images[:, 12].amax(dim=(1, 2)).min() > 0.99  # each mean is of its own parts alone

    def test_one_face_may_be_much_darker_than_the_other(self):
        template = Template(SIZE, uses_rgb=True, uses_depth=True)
        dark = torch.where(OVER, 0.15, 1.0)[:, None, None, None]
        rgb, depth, part = on_either_face(24, 0, over=OVER)
        template.learn((rgb * dark * 255).round().byte(), depth, part, straight(part))
        found = template(rgb * dark, depth, part.float(), straight(part)).deviations
        usual = learnt_on_either_face()(rgb, depth, part.float(), straight(part)).deviations
        assert len(template.images) == 2 and found.abs().mean() < 1.1 * usual.abs().mean()

    def test_a_saved_template_has_as_many_mean_parts(self):
        rgb, depth, part = on_either_face(3, 9, over=torch.tensor([True, False, True]))
        again = Template(SIZE, uses_rgb=True, uses_depth=True)
        again.load_state_dict(learnt_on_either_face().state_dict())
        for one, other in zip(
            *(made(rgb, depth, part.float(), straight(part)) for made in (learnt_on_either_face(), again)), strict=True
        ):
            assert torch.equal(one, other)

    def test_a_template_for_other_images_is_refused(self):
        with pytest.raises(RuntimeError, match="size mismatch"):
            Template(2 * SIZE, uses_rgb=True, uses_depth=True).load_state_dict(learnt_on_either_face().state_dict())

    def test_three_ways(self):
        """A third of the parts lie on their other face, a third stand on edge."""
        third = torch.arange(36) % 3
        rgb, depth, part = on_either_face(36, 1, over=third == 1)
        flat = torch.cat((rgb, depth * part, part.float()), dim=1)
        narrow = F.pad(F.interpolate(flat, size=(SIZE, SIZE // 4)), (3 * SIZE // 8, 3 * SIZE // 8))
        images = torch.where((third == 2)[:, None, None, None], narrow, flat)
        way = find_ways(marks(images[:, :3], images[:, 3:4], (images[:, 4:] > 0.5).float()), heights=True).way
        assert way.bincount().tolist() == [12, 12, 12]
        assert all(len(way[third == one].unique()) == 1 for one in range(3))

    @pytest.mark.parametrize("odd", [0, 1, 2])
    def test_a_few_odd_parts_are_no_way(self, odd):
        rgb, depth, part = on_either_face(24, 2, over=torch.arange(24) < odd)
        assert len(find_ways(marks(rgb, depth, part.float()), heights=True).means) == 1

    def test_few_parts_lie_in_one_way(self):
        for count in (1, 2, 7):
            rgb, depth, part = on_either_face(count, 3, over=torch.arange(count) % 2 > 0)
            assert len(find_ways(marks(rgb, depth, part.float()), heights=True).means) == 1


class TestImagesWithoutOutlines:
    """Where images show nothing but the part, its outline carries no information."""

    @staticmethod
    def shared(images: np.ndarray) -> bool:
        template = Template(SIZE, uses_rgb=True, uses_depth=False)
        whole = torch.ones(len(images), 1, SIZE, SIZE, dtype=torch.bool)
        template.learn(torch.from_numpy(images).permute(0, 3, 1, 2), whole * 0.5, whole, straight(whole))
        return bool(template.shared)

    def test_boards_are_compared(self):
        random = np.random.default_rng(0)
        board = cv2.resize(random.integers(20, 230, (9, 9, 3), np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        assert self.shared(np.clip(board + random.integers(-8, 9, (12, SIZE, SIZE, 3)), 0, 255).astype(np.uint8))

    @pytest.mark.parametrize("grain", [0, 2, 6])
    def test_cuttings_of_a_carpet_are_not(self, grain):
        random = np.random.default_rng(1)
        carpet = random.normal(0, 40, (6 * SIZE, 6 * SIZE, 3))
        if grain:
            carpet = cv2.GaussianBlur(carpet, (0, 0), grain) * 2 * grain
        corners = random.integers(0, 5 * SIZE, (12, 2))
        cut = np.stack([carpet[row : row + SIZE, column : column + SIZE] for row, column in corners])
        assert not self.shared(np.clip(128 + cut, 0, 255).astype(np.uint8))
