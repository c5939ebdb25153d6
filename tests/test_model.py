"""The network: shapes, modalities, and layers that compute what the paper's do; and the scoring of its output."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F

from das3d_cli.batch import Batch
from das3d_cli.model import Das3d, Fuse, Rebuilder, UNet
from das3d_cli.scoring import (
    anomaly_maps,
    anomaly_scores,
    good_threshold,
    judging,
    quarter_turned,
    score,
    threshold_scores,
)


def network(**changed):
    torch.manual_seed(0)
    arguments = {
        "modality": "both",
        "stem": 2,
        "reconstruction_shrink": 2,
        "reconstruction_width": 4,
        "discriminator_width": 4,
        "discriminator_levels": 2,
        "direct_inputs": True,
        "template": True,
        "size": 64,
    }
    made = Das3d(**(arguments | changed))
    if made.template is not None:
        made.template.compare(True)  # off by default
        made.template.images.uniform_(0.2, 0.8)
    for rebuilder in (made.reconstruct_rgb, made.reconstruct_depth):
        if rebuilder is not None:
            torch.nn.init.normal_(rebuilder.unet.head.weight, std=0.1)  # as if after a first step
    return made


def images(batch=2, size=64):
    generator = torch.Generator().manual_seed(0)
    foreground = torch.zeros(batch, 1, size, size)
    foreground[:, :, 8:-8, 8:-8] = 1
    return (
        torch.rand(batch, 3, size, size, generator=generator),
        torch.rand(batch, 1, size, size, generator=generator),
        foreground,
        0.1 * torch.rand(batch, 2, generator=generator) - 0.05,
    )


@pytest.mark.parametrize(
    ("stem", "reconstruction_shrink", "discriminator_levels"), [(1, 1, 4), (2, 1, 2), (2, 2, 3), (1, 4, 2)]
)
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("modality", ["both", "rgb", "depth"])
def test_shapes(stem, reconstruction_shrink, discriminator_levels, direct, modality):
    changed = {
        "stem": stem, "reconstruction_shrink": reconstruction_shrink, "discriminator_levels": discriminator_levels,
    }  # fmt: skip
    output = network(**changed, direct_inputs=direct, modality=modality)(*images())
    assert output.logits.shape == (2, 2, 64, 64)
    assert (output.rgb is None) == (modality == "depth")
    assert (output.depth is None) == (modality == "rgb")
    if modality == "both":
        assert output.rgb.shape == (2, 3, 64, 64) and output.depth.shape == (2, 1, 64, 64)


def test_reconstruction_can_be_left_out():
    output = network(reconstruction_width=0)(*images())
    assert output.logits.shape == (2, 2, 64, 64) and output.rgb is None and output.depth is None


@pytest.mark.parametrize(("modality", "unseen"), [("rgb", 1), ("depth", 0)])
def test_one_modality_does_not_look_at_the_other(modality, unseen):
    model = network(modality=modality).eval()
    given = list(images())
    before = model(*given).logits
    given[unseen] = 1 - given[unseen]
    assert torch.equal(model(*given).logits, before)


def test_every_parameter_learns():
    model = network()
    output = model(*images())
    (output.logits.square().mean() + output.rgb.square().mean() + output.depth.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()] == []


def test_the_features_are_of_the_first_two_and_the_last_two_layers():
    unet, seen = UNet(3, 1, 4, skips=False, levels=4).eval(), []
    for block in (unet.down[0], unet.down[1], unet.up[-2], unet.up[-1]):
        block.register_forward_hook(lambda module, given, output: seen.append(output))
    _, features = unet(torch.rand(1, 3, 64, 64))
    assert [f.shape[1:] for f in features] == [(4, 64, 64), (8, 32, 32), (8, 32, 32), (4, 64, 64)]
    assert len(seen) == 4 and all(torch.equal(a, b) for a, b in zip(features, seen, strict=True))


def test_the_discriminator_is_shown_what_the_reconstruction_undid():
    model, given, shown = network().eval(), images(), []
    model.fuse.register_forward_pre_hook(lambda module, arguments: shown.extend(arguments[0]))
    output = model(*given)
    rgb, depth, foreground, _ = given
    of_rgb, of_depth = shown[-2]
    assert output.rgb.std() > 0.01 and output.depth.std() > 0.01
    assert torch.equal(of_rgb, (rgb - output.rgb) * foreground)
    torch.testing.assert_close(of_depth, 20 * (depth - output.depth) * foreground)


def test_reconstruction_has_no_way_around_its_bottleneck():
    """With the bottleneck's output set to zero, the output must not depend on the input."""
    torch.manual_seed(0)
    unet = UNet(1, 1, 4, skips=False, levels=4).eval()
    unet.down[-1].register_forward_hook(lambda module, given, output: torch.zeros_like(output))
    a, b = (unet(torch.rand(1, 1, 64, 64))[0] for _ in range(2))
    assert torch.equal(a, b)


def test_rebuilding_begins_with_the_mean_part_and_without_one_from_the_bottleneck_alone():
    torch.manual_seed(0)
    image, expected = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    started = Rebuilder(1, 4, stem=2, levels=2, expecting=True)
    assert torch.equal(started(image, expected)[0], expected)
    torch.nn.init.constant_(started.unet.head.bias[:4], 0.5)  # the scale factors of four folded pixels
    torch.testing.assert_close(started(image, expected)[0], 1.5 * expected)
    alone = Rebuilder(1, 4, stem=2, levels=2, expecting=False)
    rebuilt, taps = alone(image, None)
    folded, features = alone.unet(F.pixel_unshuffle(image, 2))
    assert torch.equal(rebuilt, F.pixel_shuffle(folded, 2))
    assert all(torch.equal(a, b) for a, b in zip(taps, features, strict=True))


def test_training_begins_with_pictures_of_the_mean_part():
    model = Das3d(modality="both", stem=2, reconstruction_shrink=2, reconstruction_width=4, discriminator_width=4,
                  discriminator_levels=2, direct_inputs=True, template=True, size=64)  # fmt: skip
    rgb, depth, foreground, parallax = images(batch=4)
    model.template.learn((rgb * 255).byte(), depth, foreground > 0, parallax)
    assert model.template.shared == 1
    output, expected = (made(rgb, depth, foreground, parallax) for made in (model, model.template))
    assert (
        torch.equal(output.rgb, expected.rgb)
        and torch.equal(output.depth, expected.depth)
        and expected.depth.std() > 0.01
    )


def test_fuse_equals_concatenation_of_upsampled_features():
    torch.manual_seed(0)
    fuse = Fuse([3, 5], 4).eval()
    small, large = torch.rand(2, 5, 8, 8), torch.rand(2, 3, 16, 16)
    joined = torch.cat((large, F.interpolate(small, size=(16, 16), mode="bilinear")), dim=1)
    weight = torch.cat([mix.weight for mix in fuse.mix], dim=1)
    assert torch.allclose(fuse([[large], [small]], 16), F.relu(fuse.norm(F.conv2d(joined, weight))), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_fuse_folds_images_that_are_finer(training):
    torch.manual_seed(0)
    fuse = Fuse([3, 2 * 4, 4 * 4], 4).eval()
    features, rebuilt, image = torch.rand(2, 3, 4, 4), torch.rand(2, 2, 16, 16), torch.rand(2, 4, 16, 16)
    mixed = torch.cat(
        [F.interpolate(features, size=8, mode="bilinear")] + [F.pixel_unshuffle(x, 2) for x in (rebuilt, image)], dim=1
    )
    weight = torch.cat([mix.weight for mix in fuse.mix], dim=1)
    expected = F.relu(fuse.norm(F.conv2d(mixed, weight)))
    for given in (features, rebuilt):
        given.requires_grad_(training)
    groups = [[features], [rebuilt[:, :1], rebuilt[:, 1:]], [image[:, :1], image[:, 1:]]]
    torch.testing.assert_close(fuse(groups, 8), expected)


def test_training_begins_with_the_images_and_lets_the_reconstruction_in():
    net = network()
    before = net(*images())
    for parameter in net.reconstruct_rgb.parameters():
        torch.nn.init.normal_(parameter)
    after = net(*images())
    assert not torch.equal(before.rgb, after.rgb)
    assert torch.equal(before.logits, after.logits)
    after.logits[:, 1].square().mean().backward()
    assert all(mix.weight.grad.abs().max() > 0 for mix in net.fuse.mix)


NORMS = (torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("modality", ["both", "rgb", "depth"])
def test_folded_it_gives_the_same(modality, shared):
    """Including normalisations that several GPUs share."""
    model = network(modality=modality)
    if shared:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NORMS):  # as if trained
                for tensor in (module.running_mean, module.weight, module.bias):
                    tensor.normal_()
                module.running_var.uniform_(0.2, 3)
        plain = model.eval()(*images())
        model.fold()
        folded = model(*images())
        model.fold()  # folding twice does no harm
        assert torch.equal(model(*images()).logits, folded.logits)
    for one, other in zip(plain, folded, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.std() > 0.01 and torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.std()))
    left = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
    assert left == ["fuse.norm"]


class TestScoring:
    def test_certain_logits_give_a_certain_map(self):
        logits = torch.zeros(1, 2, 32, 32)
        logits[:, 0] = 20
        logits[:, :, 10:20, 10:20] = torch.tensor([0.0, 20.0]).view(1, 2, 1, 1)
        maps = anomaly_maps(logits, smoothing=0.0)
        assert maps[0, 10:20, 10:20].min() > 0.999 and maps[0, :10].max() < 1e-3
        assert anomaly_scores(maps).item() == maps.max()

    def test_the_border_of_the_image_counts_in_full(self):
        certain = torch.tensor([0.0, 30.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
        assert anomaly_maps(certain, 0.1).min() > 0.999

    def test_smoothing_averages_over_the_window(self):
        logits = torch.zeros(1, 2, 50, 50)
        logits[:, 0] = 30
        logits[0, :, 25, 25] = torch.tensor([0.0, 30.0])
        assert anomaly_maps(logits, 0.04).max().item() == pytest.approx(1 / 9, rel=1e-4)

    @pytest.mark.parametrize("views", [1, 2, 4])
    def test_the_views_of_a_part_are_averaged_as_it_lies(self, views):
        model = network(template=False)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.bias)
        parts = Batch(*images(batch=17))  # more than one chunk
        seen = [score(judging(model), quarter_turned(parts, n), 0.05, 1).maps for n in range(views)]
        turned_back = [np.rot90(maps, -n, (1, 2)) for n, maps in enumerate(seen)]
        found = score(judging(model), parts, 0.05, views)
        assert found.scores.tolist() == found.maps.max((1, 2)).tolist()
        apart = np.abs(found.maps - np.mean(turned_back, axis=0)).mean()  # bfloat16 rounding, if the CPU has it
        assert apart < 0.2 * found.maps.std() and (views == 1 or apart < 0.5 * np.abs(found.maps - seen[0]).mean())

    def test_four_views_see_the_same_however_a_part_lies(self):
        model, parts = network(template=False), Batch(*images())
        as_it_lies, turned = (score(judging(model), quarter_turned(parts, n), 0.05, 4).maps for n in (0, 1))
        assert np.allclose(np.rot90(as_it_lies, 1, (1, 2)), turned, atol=1e-2)

    def test_the_best_known_good_part_passes(self):
        scores = torch.tensor([0.1, 0.4, 0.2]).double().numpy()
        assert scores.max() * (1 + 9e-6) < good_threshold(scores, 1.0)  # judged alone, its score differs slightly

    @pytest.mark.parametrize(
        ("count", "share", "rank"), [(99, 0.55, 55), (99, 0.95, 95), (10, 0.95, 10), (19, 0.95, 19), (9, 0.5, 5)]
    )
    def test_the_threshold_lies_just_over_the_score_of_its_rank(self, count: int, share: float, rank: int):
        found = good_threshold(np.arange(1.0, count + 1), share)
        assert rank < found < rank + 0.5

    @pytest.mark.parametrize("count", [19, 40, 200])
    def test_unseen_good_parts_pass_as_often_as_asked(self, count: int):
        random = np.random.default_rng(0)
        passed = [(random.random(50) < good_threshold(random.random(count), 0.95)).mean() for _ in range(2000)]
        assert 0.945 < np.mean(passed) < 0.945 + 2.5 / count + 0.01

    @pytest.mark.parametrize("lower", [0.0, 1.0, 3.0])
    def test_few_held_out_parts_are_helped_by_those_trained_on_even_if_these_score_lower(self, lower: float):
        random = np.random.default_rng(0)
        alone, together = [], []
        for _ in range(2000):
            held_out, trained, unseen = (random.logistic(size=count) for count in (10, 64, 50))
            scores = threshold_scores(scipy.special.expit(held_out), scipy.special.expit(trained - lower), 0.95)
            alone.append((unseen < held_out.max()).mean())
            together.append((scipy.special.expit(unseen) < good_threshold(scores, 0.95)).mean())
        assert np.mean(alone) < 0.92 and 0.945 < np.mean(together) < 0.98

    def test_one_odd_part_of_few_does_not_decide(self):
        alike = np.linspace(0.05, 0.2, 10)
        odd = np.append(alike[:-1], 1.0)
        usual, raised = (good_threshold(threshold_scores(held, np.tile(alike, 6), 0.95), 0.95) for held in (alike, odd))
        assert usual == pytest.approx(0.2, abs=0.01) and raised == pytest.approx(usual, abs=0.02)

    def test_parts_trained_on_are_not_lowered_to_where_held_out_ones_score(self):
        trained = np.linspace(0.2, 0.6, 20)
        assert threshold_scores(trained[:5] / 10, trained, 0.95)[:20] == pytest.approx(trained)

    @pytest.mark.parametrize(("count", "share", "enough"), [(39, 0.95, True), (38, 0.95, False), (300, 1.0, False)])
    def test_held_out_parts_are_enough_where_no_single_one_decides(self, count: int, share: float, enough: bool):
        held_out = np.linspace(0.1, 0.9, count)
        scores = threshold_scores(held_out, np.full(64, 0.1), share)
        assert scores[-count:].tolist() == held_out.tolist() and len(scores) == count + 64 * (not enough)
        with_an_odd_one = good_threshold(np.append(held_out[:-1], 1.0), share)
        assert (with_an_odd_one == good_threshold(held_out, share)) == enough
