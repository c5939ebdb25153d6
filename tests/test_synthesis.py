"""Perlin noise, skew Gaussian filter and augmentation, each checked against an equation of the paper or a property."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, signal, stats

from das3d_cli.batch import Batch
from das3d_cli.scoring import quarter_turned
from das3d_cli.settings import SynthesisSettings
from das3d_cli.synthesis.added import add_material
from das3d_cli.synthesis.augment import augment, augment_often, draw
from das3d_cli.synthesis.cut import cut_off
from das3d_cli.synthesis.light import relight
from das3d_cli.synthesis.patches import _texture, beyond, within
from das3d_cli.synthesis.perlin import _noise, perlin
from das3d_cli.synthesis.pose import turn
from das3d_cli.synthesis.random import ItemRandom
from das3d_cli.synthesis.skew_gaussian import covariance, filter_each, skew_kernel, skew_normal_pdf

SIZE = 64


def streams(count=16, step=0):
    return ItemRandom.of(0, step, torch.arange(count))


@pytest.fixture
def parts():
    """A slanted disc with a random colour per pixel, on a slightly deeper background; 16 of them."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    disc = ((x - 30) ** 2 + (y - 34) ** 2 < 24**2)[None, None].expand(16, 1, SIZE, SIZE)
    depth = torch.where(disc, 0.3 + 0.004 * x.float(), 0.52)
    rgb = torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * disc
    return Batch(rgb, depth, disc, 0.05 * torch.randn(16, 2, generator=torch.Generator().manual_seed(2)))


@pytest.fixture
def textures():
    return torch.randint(0, 256, (9, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def make(parts, textures, random=None, **changed):
    return augment(*parts.images, textures, random or streams(), **(SynthesisSettings().augmentation() | changed))


ALWAYS = {"dropout": 0.0, "pierced_share": 0.0, "soft_share": 0.0}


class TestPerlin:
    def test_is_smooth_centred_and_of_unit_range(self):
        noise = perlin(streams(64), SIZE, scale_max=3)
        assert noise.abs().max() <= 1.05
        assert abs(noise.mean()) < 0.05
        assert noise.diff(dim=1).abs().max() < 0.4  # eight cells over 64 pixels

    def test_lattices_are_turned_any_way_and_as_fine_as_they_may_be(self, monkeypatch):
        drawn = []
        monkeypatch.setattr("das3d_cli.synthesis.perlin._noise", lambda *given: drawn.append(given) or _noise(*given))
        perlin(streams(400), SIZE, scale_max=3)
        ((angle, cells, *_),) = drawn
        assert cells.unique().tolist() == [1, 2, 4, 8]
        assert stats.kstest(angle, stats.uniform(-math.pi / 2, math.pi).cdf).pvalue > 1e-3

    def test_scale_sets_the_grain(self):
        def grain(scale):
            noise = perlin(ItemRandom.of(0, 0, torch.arange(400)), SIZE, scale_max=scale)
            return float(noise.diff(dim=2).abs().mean())

        assert grain(1) < grain(3) < grain(5)

    @pytest.mark.parametrize("scale", range(1, 7))
    def test_the_lattice_reaches_as_far_as_the_corners_do_when_turned(self, scale):
        """Beyond the lattice there would be no noise."""
        corners = perlin(streams(400), SIZE, scale_max=scale)[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners != 0).all()

    @pytest.mark.parametrize(("cells", "angle"), [((1, 1), 0.0), ((8, 2), 0.7), ((64, 64), -1.2)])
    def test_is_what_a_loop_over_pixels_and_corners_gives(self, cells, angle):
        """Perlin (2002): gradients at the lattice points, blended by 6 t^5 - 15 t^4 + 10 t^3."""
        random = np.random.default_rng(0)
        lines = 2 * math.ceil(max(cells) * math.sqrt(0.5)) + 2
        gradient, shift = random.uniform(0, 2 * np.pi, (lines, lines)), random.uniform(0, 1, 2)
        turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
        expected = np.zeros((12, 12))
        for row, column in np.ndindex(expected.shape):
            middle = (np.array((column, row)) + 0.5) / 12 - 0.5
            place = np.array(cells) * (turn @ middle) + shift
            first = np.floor(place).astype(int)
            ease = np.polyval((6, -15, 10, 0, 0, 0), place - first)
            for corner in np.ndindex(2, 2):
                x, y = first + corner
                direction = gradient[y + lines // 2 - 1, x + lines // 2 - 1]
                towards = (place - (x, y)) @ (np.cos(direction), np.sin(direction))
                expected[row, column] += towards * np.prod(np.where(corner, ease, 1 - ease))
        given = (torch.from_numpy(np.array([value], np.float32)) for value in (angle, cells, shift, gradient))
        np.testing.assert_allclose(_noise(*given, 12)[0], math.sqrt(2) * expected, atol=5e-5)


class TestSkewNormal:
    @pytest.mark.parametrize("alpha", [(0.0, 0.0), (0.5, -0.3), (-2.0, 1.0)])
    @pytest.mark.parametrize("sigma", [((1.0, 0.0), (0.0, 1.0)), ((4.0, 1.5), (1.5, 2.0))])
    def test_equals_the_formula_by_scipy(self, alpha, sigma):
        points = np.random.default_rng(0).normal(size=(50, 2)) * 2
        expected = 2 * stats.multivariate_normal([0, 0], sigma).pdf(points) * stats.norm.cdf(points @ np.array(alpha))
        actual = skew_normal_pdf(torch.tensor(points), torch.tensor(alpha, dtype=torch.float64),
                                 torch.tensor(sigma, dtype=torch.float64))  # fmt: skip
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-15)

    def test_is_a_density(self):
        def density(y, x):
            return float(
                skew_normal_pdf(torch.tensor([x, y]), torch.tensor([0.5, -0.2]), torch.tensor([[1.0, 0.3], [0.3, 2.0]]))
            )

        assert integrate.dblquad(density, -8, 8, -8, 8, epsabs=1e-3)[0] == pytest.approx(1, abs=1e-3)

    def test_kernel_has_unit_sum_and_ends_at_three_deviations(self):
        sigma = covariance(torch.tensor([[1.0, 1.0], [3.0, 2.0]]), torch.tensor([0.0, 0.5]))
        kernel = skew_kernel(torch.zeros(2, 2), sigma, radius=12)
        assert torch.allclose(kernel.sum(dim=(1, 2)), torch.ones(2))
        reach = [int((k.sum(0) > 0).sum()) for k in kernel]
        assert reach == [7, 19]
        assert torch.allclose(kernel, kernel.flip((1, 2)))  # without skew it is symmetric

    def test_skew_moves_the_peak_towards_alpha(self):
        kernel = skew_kernel(torch.tensor([[0.5, 0.0]]), covariance(torch.tensor([[3.0, 3.0]]), torch.zeros(1)), 10)
        row, column = divmod(int(kernel[0].argmax()), 21)
        assert row > 10 and column == 10

    def test_convolution_equals_scipy_for_each_item(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(3, 20, 24, generator=generator)
        kernels = torch.rand(3, 7, 7, generator=generator)
        for image, kernel, result in zip(images, kernels, filter_each(images, kernels), strict=True):
            np.testing.assert_allclose(result, signal.convolve2d(image, kernel, mode="same"), atol=1e-5)


class TestAugment:
    def test_the_change_stays_on_the_part_and_matches_the_mask(self, parts, textures):
        made = make(parts, textures, **ALWAYS)
        outside = ~parts.foreground
        assert torch.equal(made.depth[outside], parts.depth[outside])
        assert torch.equal(made.rgb[outside.expand_as(made.rgb)], parts.rgb[outside.expand_as(made.rgb)])
        assert not made.mask[outside].any()
        threshold = SynthesisSettings().change_threshold
        assert torch.equal(made.mask > 0, (made.change.abs() >= threshold) & parts.foreground)  # Eq. 7
        clean = made.mask == 0
        assert (made.depth - parts.depth)[clean].abs().max() < threshold
        assert torch.equal((made.rgb == parts.rgb).all(1, keepdim=True) | ~clean, torch.ones_like(clean))

    def test_depth_is_the_sum_of_equation_6(self, parts, textures):
        made = make(parts, textures, **ALWAYS)
        assert torch.allclose(made.depth, (parts.depth + made.change).clamp(0, 1))

    @pytest.mark.parametrize("beta_max", [0.0, 0.8])
    def test_colour_is_a_blend_of_part_and_texture(self, parts, textures, beta_max):
        """Eq. 8, with beta uniform between 0 and its limit."""
        arguments = SynthesisSettings().augmentation() | ALWAYS | {"beta_max": beta_max}
        drawn, made = draw(parts.foreground, textures, streams(), **arguments), make(parts, textures, **arguments)
        blend = drawn.beta * parts.rgb + (1 - drawn.beta) * drawn.texture
        assert torch.allclose(made.rgb, torch.where(made.mask > 0, blend, parts.rgb), atol=1e-6)
        many = draw(parts.foreground.repeat(20, 1, 1, 1), textures, streams(320), **arguments).beta.flatten()
        assert (stats.kstest(many / beta_max, "uniform").pvalue > 1e-3) if beta_max else not many.any()

    def test_each_is_filtered_by_a_skew_gaussian_of_its_own(self, parts, textures, monkeypatch):
        """Eq. 3 to 5: alpha, both deviations, their ratio (at most 4) and correlation (either sign) are within limits."""
        used = []

        def noted(alpha, sigma, radius):
            used.append((alpha, sigma, skew_kernel(alpha, sigma, radius)))
            return used[-1][-1]

        monkeypatch.setattr("das3d_cli.synthesis.augment.skew_kernel", noted)
        drawn = draw(parts.foreground.repeat(8, 1, 1, 1), textures, streams(128),
                     **(SynthesisSettings().augmentation() | ALWAYS))  # fmt: skip
        ((alpha, sigma, kernel),) = used
        change = filter_each(drawn.ternary[:, 0], kernel) * parts.foreground[:1, 0]
        peak, strength = (of.abs().amax(dim=(1, 2), keepdim=True) for of in (change, drawn.change[:, 0]))
        assert torch.allclose(drawn.change[:, 0], change / peak * strength, atol=1e-5)
        defaults = SynthesisSettings()
        assert stats.kstest(alpha.flatten() / defaults.alpha_max, stats.uniform(-1, 2).cdf).pvalue > 1e-3
        deviations = sigma.diagonal(dim1=1, dim2=2).sqrt() / SIZE
        assert deviations.min() < 0.003 and deviations.max() > 0.012
        assert defaults.sigma_min - 1e-6 <= deviations.min() and deviations.max() <= defaults.sigma_max + 1e-6
        ratio = deviations.amax(dim=1) / deviations.amin(dim=1)
        assert 3.9 < ratio.max() < 4.01
        correlation = sigma[:, 0, 1] / sigma.diagonal(dim1=1, dim2=2).prod(dim=1).sqrt()
        assert -0.7 <= correlation.min() < -0.5 and 0.5 < correlation.max() <= 0.7

    def test_sigma_can_be_a_multiple_of_the_unit_matrix(self, parts, textures, monkeypatch):
        """As in Fig. 4."""
        used = []
        monkeypatch.setattr(
            "das3d_cli.synthesis.augment.skew_kernel", lambda *given: used.append(given[1]) or skew_kernel(*given)
        )
        round_ = {"sigma_aspect_max": 1, "sigma_correlation": 0}
        draw(parts.foreground, textures, streams(), **(SynthesisSettings().augmentation() | ALWAYS | round_))
        assert torch.allclose(used[0], used[0][:, :1, :1] * torch.eye(2, dtype=used[0].dtype))

    @pytest.mark.parametrize(
        ("scale", "share_below"),
        [("log", lambda p: np.log(p / 0.05) / np.log(0.6 / 0.05)), ("uniform", lambda p: (p - 0.05) / 0.55)],
    )
    def test_strengths_are_spread_as_they_should_be(self, parts, textures, scale, share_below):
        """p_z of Eq. 6."""
        drawn = draw(parts.foreground.repeat(20, 1, 1, 1), textures, streams(320), **(
            SynthesisSettings().augmentation() | ALWAYS | {"strength_scale": scale, "strength_min": 0.05, "strength_max": 0.6}
        ))  # fmt: skip
        peaks = drawn.change.abs().amax(dim=(1, 2, 3)).numpy()
        assert stats.kstest(share_below(peaks), "uniform").pvalue > 1e-3

    def test_kinds_of_defects_have_their_shares(self, parts, textures):
        drawn = draw(parts.foreground.repeat(40, 1, 1, 1), textures, streams(640), **(
            SynthesisSettings().augmentation() | {"soft_share": 0.4, "pierced_share": 0.3, "dropout": 0.0}
        ))  # fmt: skip
        assert drawn.soft.float().mean() == pytest.approx(0.4, abs=0.06)
        assert (drawn.soft & ~drawn.keep_rgb).sum() / drawn.soft.sum() == pytest.approx(1 / 3, abs=0.09)
        assert drawn.pierced[~drawn.soft].float().mean() == pytest.approx(0.3, abs=0.07)

    def test_a_dent_as_deep_as_the_table_is_no_hole(self, parts, textures):
        made = make(parts, textures, **(ALWAYS | {"strength_min": 0.9, "strength_max": 0.9}))
        assert (made.depth[parts.foreground] == 1).any() and torch.equal(made.foreground, parts.foreground)

    def test_a_tint_fades_as_its_height_would(self, parts, textures):
        always = SynthesisSettings().augmentation() | ALWAYS | {"soft_share": 1.0}
        drawn, made = draw(parts.foreground, textures, streams(), **always), make(parts, textures, **always)
        height = made.change.abs() / drawn.change.abs().amax(dim=(2, 3), keepdim=True)
        blend = torch.lerp(parts.rgb, drawn.texture, height * (1 - drawn.beta) * ~drawn.keep_rgb)
        assert torch.allclose(made.rgb, blend * made.foreground, atol=1e-5)

    def test_a_patch_is_an_ellipse(self):
        rng = np.random.default_rng(0)
        for _ in range(5):
            centre, radius, aspect, angle = (
                rng.integers(64 * 64),
                rng.uniform(3, 12),
                rng.uniform(1, 4),
                rng.uniform(0, np.pi),
            )
            given = (torch.tensor([[value]], dtype=torch.float32) for value in (radius, aspect, angle))
            found = beyond(64, torch.tensor([[int(centre)]]), *given, torch.tensor([[True]]))[0, 0]
            y, x = np.indices((64, 64)) - np.array(divmod(centre, 64))[:, None, None]
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            np.testing.assert_allclose(found, along**2 + (aspect * across) ** 2 - radius**2, atol=0.3, rtol=1e-3)

    def test_a_defect_too_faint_for_its_mask_is_strengthened(self, parts, textures):
        """Otherwise Eq. 7 would remove all of it."""
        faint = {"kernel_norm": "sum", "sigma_min": 0.024, "strength_min": 0.013, "strength_max": 0.013}
        made = make(parts, textures, **(ALWAYS | faint))
        assert (made.mask.amax(dim=(1, 2, 3)) == 1).all()
        peak, threshold = made.change.abs().amax(dim=(1, 2, 3)), SynthesisSettings().change_threshold
        assert ((peak >= threshold) & (peak < 0.0131)).all() and (peak < 1.002 * threshold).sum() > 8

    def test_a_defect_has_one_patch_or_several(self, parts, textures, monkeypatch):
        counts = []

        def noted(picked, centre, radius, aspect, angle, used):
            counts.extend(used.sum(dim=1).tolist())
            return within(picked, centre, radius, aspect, angle, used)

        monkeypatch.setattr("das3d_cli.synthesis.augment.within", noted)
        draw(parts.foreground.repeat(8, 1, 1, 1), textures, streams(128), **SynthesisSettings().augmentation())
        assert np.bincount(counts, minlength=5)[1:].min() > 15 and max(counts) == SynthesisSettings().blobs_max

    def test_textures_are_turned_and_mirrored(self, textures):
        found = _texture(textures, torch.tensor([4, 2, 2, 7]), torch.tensor([3, 1, 2, 0]))
        expected = (textures[4].mT.flip(2), textures[2].flip(2), textures[2].mT, textures[7])
        assert torch.equal(found, torch.stack(expected) / 255)

    @pytest.mark.parametrize("small", [{}, {"kernel_norm": "sum", "sigma_min": 0.024, "blob_radius_max": 0.03}])
    def test_a_pierced_part_shows_the_table(self, parts, textures, small):
        made = make(parts, textures, **(ALWAYS | {"pierced_share": 1.0} | small))
        gone = parts.foreground & ~made.foreground
        assert gone.any(dim=3).any(dim=2).all()  # in every item
        assert (made.mask[gone] == 1).all()
        assert (made.rgb[gone.expand_as(made.rgb)] == 0).all()
        table = torch.where(parts.foreground, parts.depth, 0.0).amax(dim=(1, 2, 3), keepdim=True)
        assert torch.equal(made.depth[gone], table.expand_as(made.depth)[gone])
        assert not (made.foreground & ~parts.foreground).any()

    def test_no_island_stays_in_a_hole(self, parts, textures):
        low = parts._replace(depth=torch.where(parts.foreground, 0.3 + 0.7 * (parts.depth > 0.42).float(), 1.0))
        made = make(low, textures, **(ALWAYS | {"pierced_share": 1.0, "skew_filter": False}))
        picked = (made.ternary != 0) & parts.foreground & (low.depth < 1)
        assert picked.any() and not (picked & made.foreground).any()

    def test_nothing_is_pierced_where_the_depth_stays_normal(self, parts, textures):
        made = make(parts, textures, **(ALWAYS | {"pierced_share": 1.0}), modality="rgb")
        assert torch.equal(made.foreground, parts.foreground)
        assert torch.equal(made.depth, parts.depth)

    @pytest.mark.parametrize("step", range(5))
    def test_never_empty(self, parts, textures, step):
        made = make(parts, textures, ItemRandom.of(1, step, torch.arange(16)), **ALWAYS)
        assert (made.ternary.abs().sum(dim=(1, 2, 3)) > 0).all()
        assert (made.mask.sum(dim=(1, 2, 3)) > 0).all()

    def test_not_empty_even_where_the_noise_hardly_reaches(self, parts, textures):
        tiny = torch.zeros_like(parts.foreground)
        tiny[:, :, 30:33, 30:33] = True
        made = make(parts._replace(foreground=tiny), textures, **ALWAYS, mask_threshold=0.85)
        assert (made.ternary.abs().sum(dim=(1, 2, 3)) > 0).all()

    def test_ternary_mask_has_both_signs_and_no_other_values(self, parts, textures):
        made = make(parts, textures, **ALWAYS)
        assert set(made.ternary.unique().tolist()) == {-1.0, 0.0, 1.0}

    def test_strength_is_the_peak_of_the_change(self, parts, textures):
        made = make(parts, textures, **ALWAYS, strength_min=0.2, strength_max=0.2)
        assert torch.allclose(made.change.abs().amax(dim=(1, 2, 3)), torch.tensor(0.2))

    def test_kernel_of_unit_sum_never_exceeds_the_strength(self, parts, textures):
        made = make(parts, textures, **ALWAYS, strength_min=0.2, strength_max=0.2, kernel_norm="sum")
        peaks = made.change.abs().amax(dim=(1, 2, 3))
        assert peaks.max() <= 0.2 + 1e-5 and peaks.min() < 0.15

    def test_without_the_filter_the_change_is_the_mask(self, parts, textures):
        made = make(parts, textures, **ALWAYS, skew_filter=False, strength_min=0.1, strength_max=0.1)
        assert torch.allclose(made.change, 0.1 * made.ternary)

    def test_fewer_blobs_leave_less_of_the_mask(self, parts, textures):
        few = make(parts, textures, **ALWAYS, blobs_max=1, blob_radius_min=0.05, blob_radius_max=0.06)
        whole = make(parts, textures, **ALWAYS, blobs_max=0)
        assert few.ternary.abs().mean() < 0.2 * whole.ternary.abs().mean()
        rows, columns = np.nonzero(few.ternary[0, 0].numpy())
        assert max(np.ptp(rows), np.ptp(columns)) <= 2 * 0.06 * SIZE

    def test_dropout_follows_equation_12(self, parts, textures):
        many = [
            make(
                parts,
                textures,
                ItemRandom.of(0, step, torch.arange(16)),
                dropout=0.5,
                pierced_share=0.0,
                soft_share=0.0,
            )
            for step in range(40)
        ]
        rgb = torch.cat([(m.rgb != parts.rgb).any(1).any(-1).any(-1) for m in many])
        depth = torch.cat([(m.depth != parts.depth).any(1).any(-1).any(-1) for m in many])
        masked = torch.cat([m.mask.any(1).any(-1).any(-1) for m in many])
        assert torch.equal(masked, rgb | depth)
        for case in (rgb & depth, rgb & ~depth, ~rgb & depth, ~rgb & ~depth):
            assert case.float().mean() == pytest.approx(0.25, abs=0.06)

    @pytest.mark.parametrize(("modality", "untouched"), [("rgb", "depth"), ("depth", "rgb")])
    def test_one_modality_leaves_the_other_alone(self, parts, textures, modality, untouched):
        made = make(parts, textures, modality=modality, pierced_share=0.0)
        assert torch.equal(getattr(made, untouched), getattr(parts, untouched))
        changed = getattr(made, modality) != getattr(parts, modality)
        assert torch.equal(changed.any(1).any(-1).any(-1), made.mask.any(1).any(-1).any(-1))

    def test_a_soft_defect_fades_to_its_rim_in_one_modality(self, parts, textures):
        """Its mask ends at a quarter of its peak, or at the threshold of Eq. 7 if that is higher."""
        shape = {"soft_radius_min": 0.14, "soft_radius_max": 0.14}
        made = make(parts, textures, **(ALWAYS | {"soft_share": 1.0, "pierced_share": 1.0} | shape))
        dent, tint = ((a != b).any(1).any(-1).any(-1) for a, b in ((made.depth, parts.depth), (made.rgb, parts.rgb)))
        assert torch.equal(dent, ~tint)
        assert 0 < dent.sum() < len(dent)
        assert torch.equal(made.foreground, parts.foreground)  # nothing reaches through the part
        height = made.change.abs()
        peak = height.amax(dim=(1, 2, 3), keepdim=True)
        reached = parts.depth + made.change
        whole = ((reached > 0.01) & (reached < 0.99)).all(1).all(-1).all(-1)  # not cut off at depth 0 or 1
        least = (peak / 4).clamp_min(SynthesisSettings().change_threshold)
        assert torch.equal(made.mask[whole] > 0, (height >= least)[whole])
        assert (made.rgb - parts.rgb).abs().amax(dim=1, keepdim=True)[whole][(height < 0.05 * peak)[whole]].max() < 0.05
        steps = torch.stack([height.diff(dim=axis).amax(dim=(1, 2, 3)) for axis in (2, 3)]).amax(dim=0)
        inner = -F.max_pool2d(-parts.foreground.float(), 3, 1, 1) > 0
        uncut = whole & ((made.ternary == 0) | inner).all(1).all(-1).all(-1)  # nor by the part's outline
        assert uncut.sum() > 4
        assert (steps < 0.5 * peak.flatten())[uncut].all()

    def test_soft_defects_are_dents_and_bumps_steep_enough_and_tints_strong_enough_to_be_seen(self, parts, textures):
        arguments = SynthesisSettings().augmentation() | ALWAYS
        faint = {"strength_min": 0.02, "strength_max": 0.02, "soft_radius_min": 0.14, "soft_radius_max": 0.14}
        soft, hard = (
            draw(parts.foreground, textures, streams(), **(arguments | faint | {"soft_share": share}))
            for share in (1.0, 0.0)
        )
        assert soft.change.abs().amax(dim=(1, 2, 3)) == pytest.approx(0.75 * 0.14, rel=0.01)
        assert (soft.change.amin(dim=(1, 2, 3)) < -0.1).any() and (soft.change.amax(dim=(1, 2, 3)) > 0.1).any()
        assert torch.allclose(soft.beta, 0.6 * hard.beta)

    @pytest.mark.parametrize(("modality", "untouched"), [("rgb", "depth"), ("depth", "rgb")])
    def test_a_soft_defect_shows_in_what_is_trained_on(self, parts, textures, modality, untouched):
        made = make(parts, textures, soft_share=1.0, modality=modality)
        assert made.mask.any(1).any(-1).any(-1).all()
        assert torch.equal(getattr(made, untouched), getattr(parts, untouched))

    def test_an_item_does_not_depend_on_its_batch(self, parts, textures):
        together = make(parts, textures)
        alone = make(Batch(*(t[3:4] for t in parts)), textures, ItemRandom.of(0, 0, torch.tensor([3])))
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[3:4], b, atol=1e-6)

    def test_repeats_bit_for_bit(self, parts, textures):
        for a, b in zip(make(parts, textures), make(parts, textures), strict=True):
            assert torch.equal(a, b)


class TestAugmentOften:
    def make(self, parts, textures, random=None, *, defects=3, normal_share=0.0, **changed):
        arguments = SynthesisSettings().augmentation() | changed
        return augment_often(
            *parts.images, textures, random or streams(), defects=defects, normal_share=normal_share, **arguments
        )

    def test_the_mask_is_where_the_images_changed(self, parts, textures):
        made = self.make(parts, textures, **ALWAYS)
        threshold = SynthesisSettings().change_threshold
        clean = made.mask == 0
        assert torch.equal((made.rgb == parts.rgb).all(1, keepdim=True) | ~clean, torch.ones_like(clean))
        assert (made.depth - parts.depth)[clean].abs().max() < 3 * threshold
        assert torch.allclose(made.depth, parts.depth + made.change, atol=1e-6)
        assert torch.equal(made.mask, made.refined)

    def test_each_defect_is_of_its_own(self, parts, textures):
        one = self.make(parts, textures, **ALWAYS, defects=1)
        three = self.make(parts, textures, **ALWAYS)
        assert (three.mask >= one.mask).all()
        assert three.mask.sum() > 2 * one.mask.sum()

    def test_once_is_one_augmentation(self, parts, textures):
        once = self.make(parts, textures, defects=1)
        for a, b in zip(once, make(parts, textures, streams().fork(0)), strict=True):
            assert torch.equal(a, b)

    def test_drawn_at_once_or_one_after_the_other_they_are_the_same(self, parts, textures):
        arguments = SynthesisSettings().augmentation()
        at_once = draw(parts.foreground.repeat(3, 1, 1, 1), textures, streams().forks(3), **arguments)
        for number in range(3):
            alone = draw(parts.foreground, textures, streams().fork(number), **arguments)
            for a, b in zip(at_once, alone, strict=True):
                assert torch.allclose(a.chunk(3)[number].float(), b.float(), atol=1e-6)

    def test_what_one_defect_took_away_no_other_brings_back(self, parts, textures):
        made = self.make(parts, textures, dropout=0.0, pierced_share=1.0)
        gone = parts.foreground & ~made.foreground
        assert gone.any(dim=(1, 2, 3)).all()
        assert torch.equal(made.mask[gone], torch.ones_like(made.mask[gone]))
        assert made.rgb[gone.expand(-1, 3, -1, -1)].abs().max() == 0

    def test_normal_share_is_the_share_left_untouched(self, parts, textures):
        many = [
            self.make(parts, textures, ItemRandom.of(0, step, torch.arange(16)), dropout=0.0, normal_share=0.4)
            for step in range(40)
        ]
        masked = torch.cat([m.mask.any(1).any(-1).any(-1) for m in many])
        changed = torch.cat([(m.rgb != parts.rgb).any(1).any(-1).any(-1) for m in many])
        assert torch.equal(masked, changed)
        assert masked.float().mean() == pytest.approx(0.6, abs=0.06)
        for name in ("depth", "foreground"):
            made, normal = torch.cat([getattr(m, name) for m in many]), getattr(parts, name).repeat(40, 1, 1, 1)
            assert torch.equal(made[~masked], normal[~masked])

    def test_an_item_does_not_depend_on_its_batch(self, parts, textures):
        together = self.make(parts, textures)
        alone = self.make(Batch(*(t[3:4] for t in parts)), textures, ItemRandom.of(0, 0, torch.tensor([3])))
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[3:4], b, atol=1e-6)


class TestAddMaterial:
    """The parts of the fixture, a slanted disc of radius 24 around (30, 34), with a hole of 6 pixels around (24, 34)."""

    @pytest.fixture
    def ring(self, parts):
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        part = parts.foreground & ((x - 24) ** 2 + (y - 34) ** 2 > 3**2)
        return Batch(parts.rgb * part, torch.where(part, parts.depth, 0.52), part, parts.parallax)

    def add(self, parts, textures, random=None, **changed):
        arguments = {"share": 1.0, "radius_min": 0.05, "radius_max": 0.15}
        return add_material(*parts.images, textures, random or streams(len(parts.depth)), **(arguments | changed))

    def test_only_background_near_the_part_is_filled_and_all_of_that_is_marked(self, ring, textures):
        made = self.add(ring, textures)
        assert made.mask.any(dim=(1, 2, 3)).all()
        assert torch.equal(made.foreground, ring.foreground | made.mask) and not (made.mask & ring.foreground).any()
        for given, changed in zip(ring.images, made[:3], strict=True):
            assert torch.equal(given.masked_fill(made.mask, 0), changed.masked_fill(made.mask, 0))
        near = F.max_pool2d(ring.foreground.float(), 2 * 9 + 1, 1, 9) > 0
        assert not (made.mask & ~near).any()

    def test_holes_are_filled_as_well_as_places_beside_the_outline(self, ring, textures, parts):
        made = torch.cat([self.add(ring, textures, streams(step=step)).mask for step in range(20)])
        hole = (parts.foreground & ~ring.foreground).repeat(20, 1, 1, 1)
        in_hole, beside = ((made & where).any(dim=(1, 2, 3)) for where in (hole, ~hole))
        assert in_hole.float().mean() == pytest.approx(0.5, abs=0.1) and (in_hole ^ beside).all()
        assert ((made & hole).sum(dim=(1, 2, 3)) == hole.sum(dim=(1, 2, 3))).any()  # some are plugged altogether

    def test_its_height_lies_between_a_little_over_the_part_and_a_little_over_its_lowest_point(self, ring, textures):
        depth = torch.where(ring.foreground, 0.3, 0.8).index_fill(2, torch.tensor(12), 0.8)
        flat = ring._replace(depth=depth)
        made = self.add(flat, textures)
        depth = torch.stack([made.depth[n][made.mask[n]].median() for n in range(16)])
        assert 0.2 < depth.min() < 0.29 and 0.5 < depth.max() < 0.3 + 0.7 * 0.5

    def test_its_colour_is_between_the_part_s_and_a_texture_s(self, ring, textures):
        plain = torch.stack([torch.full((3, SIZE, SIZE), value, dtype=torch.uint8) for value in (0, 255)])
        flat = ring._replace(rgb=0.5 * ring.foreground.float().expand(-1, 3, -1, -1))
        made = self.add(flat, plain)
        colour = [image[:, mask[0]].unique() for image, mask in zip(made.rgb, made.mask, strict=True)]
        assert all(values.max() - values.min() < 1e-5 for values in colour)  # of one part and one texture
        of_each = torch.tensor([float(values[0]) for values in colour])
        assert of_each.min() < 0.2 and of_each.max() > 0.8 and (of_each - 0.5).abs().min() < 0.1

    def test_share_is_the_share_of_parts(self, ring, textures):
        made = torch.cat([self.add(ring, textures, streams(step=step), share=0.3).mask for step in range(40)])
        assert made.any(dim=(1, 2, 3)).float().mean() == pytest.approx(0.3, abs=0.06)

    def test_a_part_that_fills_the_image_stays_as_it_is(self, parts, textures):
        whole = parts._replace(foreground=torch.ones_like(parts.foreground))
        for given, made in zip(
            (*whole.images, torch.zeros_like(whole.foreground)), self.add(whole, textures), strict=True
        ):
            assert torch.equal(given, made)

    @pytest.mark.parametrize(("modality", "same"), [("rgb", (0, 1, 2)), ("depth", (0,))])
    def test_one_modality_leaves_the_other_alone(self, ring, textures, modality, same):
        made = self.add(ring, textures, modality=modality)
        assert [n for n in range(3) if torch.equal(made[n], ring[n])] == list(same)
        assert made.mask.any() == (modality == "depth")

    def test_an_item_does_not_depend_on_its_batch(self, ring, textures):
        together = self.add(ring, textures)
        alone = self.add(Batch(*(t[3:4] for t in ring)), textures, ItemRandom.of(0, 0, torch.tensor([3])))
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[3:4].float(), b.float(), atol=1e-6)


class TestCutOff:
    @pytest.fixture
    def parts(self, parts):
        return parts._replace(depth=torch.where(parts.foreground, parts.depth, parts.depth[parts.foreground].max()))

    def cut(self, parts, share=1.0, step=0):
        return cut_off(parts, streams(step=step), share=share)

    def test_what_is_missing_is_gone_and_nothing_else(self, parts):
        whole, left, missing = self.cut(parts)
        assert torch.equal(left.foreground, whole.foreground & ~missing)
        assert torch.equal(left.rgb, whole.rgb * left.foreground)
        assert torch.equal(left.depth[left.foreground], whole.depth[left.foreground])
        for made in (whole, left):
            for depth, part in zip(made.depth, made.foreground, strict=True):
                assert (depth[~part] == depth[part].max()).all()

    def test_a_piece_of_2_to_30_percent_lies_beyond_a_line(self, parts):
        lost, apart = [], []
        for step in range(20):
            whole, left, missing = self.cut(parts, step=step)
            cut = missing.flatten(1).any(dim=1)
            lost.append(missing[cut].sum(dim=(1, 2, 3)) / whole.foreground[cut].sum(dim=(1, 2, 3)))
            for gone, rest in zip(missing[cut, 0], left.foreground[cut, 0], strict=True):
                points, sides = torch.cat((gone.nonzero(), rest.nonzero())).float(), torch.ones(gone.sum() + rest.sum())
                sides[gone.sum() :] = -1
                fit = torch.linalg.lstsq(F.pad(points, (0, 1), value=1.0), sides[:, None]).solution
                apart.append(((F.pad(points, (0, 1), value=1.0) @ fit)[:, 0].sign() == sides).float().mean())
        shares = torch.cat(lost)
        assert 0.02 < shares.min() < 0.04 and 0.26 < shares.max() < 0.3
        assert len(shares) > 0.7 * 320 and torch.stack(apart).mean() > 0.85

    def test_what_is_left_lies_where_the_part_lay(self, parts):
        def middle(mask):
            return torch.stack([(rows_columns.amin(0) + rows_columns.amax(0)) / 2
                                for rows_columns in (one[0].nonzero().float() for one in mask)])  # fmt: skip

        _, left, missing = self.cut(parts)
        assert (middle(left.foreground) - middle(parts.foreground)).abs().max() <= 1
        assert missing.any()

    def test_share_is_the_share_of_parts_and_the_others_stay_as_they_are(self, parts):
        cut = torch.stack([self.cut(parts, 0.3, step).missing.any(dim=(1, 2, 3)) for step in range(40)])
        every = torch.stack([self.cut(parts, 1.0, step).missing.any(dim=(1, 2, 3)) for step in range(40)])
        assert cut.sum() / every.sum() == pytest.approx(0.3, abs=0.06)
        whole, left, missing = self.cut(parts, 0.3)
        kept = ~missing.any(dim=(1, 2, 3))
        for given, *made in zip(parts, whole, left, strict=True):
            assert kept.any() and all(torch.equal(given[kept], one[kept]) for one in made)
        assert all(torch.equal(a, b) for a, b in zip(parts, self.cut(parts, 0.0).left, strict=True))

    def test_an_item_does_not_depend_on_its_batch(self, parts):
        together = self.cut(parts)
        alone = cut_off(Batch(*(t[3:4] for t in parts)), ItemRandom.of(0, 0, torch.tensor([3])), share=1.0)
        for a, b in zip((*together.left, together.missing), (*alone.left, alone.missing), strict=True):
            assert torch.allclose(a[3:4].float(), b.float(), atol=1e-6)


def _mirrored(batch):
    across = batch.parallax * torch.tensor((-1.0, 1.0))
    return Batch(*(image.flip(3) for image in batch.images), across)


class TestTurn:
    def test_everything_turns_together(self, parts):
        """A sample whose three images show the same shape still does when turned."""
        mark = torch.zeros(16, 1, SIZE, SIZE)
        mark[:, :, 20:30, 34:52] = 1
        turned = turn(
            Batch(mark.expand(-1, 3, -1, -1), 1 - mark, mark > 0, parts.parallax), streams(), rotate=True, flip=True
        )
        assert torch.equal(turned.rgb[:, :1] > 0.5, turned.foreground)
        assert torch.allclose(turned.depth[turned.foreground], torch.tensor(0.0), atol=1e-5)
        areas = turned.foreground.sum(dim=(1, 2, 3)).float()
        assert areas.min() > 0.9 * 180 and areas.max() < 1.1 * 180

    def test_half_of_the_samples_turn_by_quarters_and_are_not_blurred(self, parts):
        def seen(batch):
            images = torch.cat((batch.rgb, batch.depth * batch.foreground, batch.foreground), dim=1)
            return torch.cat((images.flatten(1), batch.parallax), dim=1)

        quarters = [quarter_turned(one, n) for one in (parts, _mirrored(parts)) for n in range(4)]
        for flip, found in ((True, range(8)), (False, range(4))):
            turned = torch.cat([seen(turn(parts, streams(step=step), rotate=True, flip=flip)) for step in range(4)])
            apart = torch.stack([(turned - seen(one).repeat(4, 1)).abs().amax(dim=1) for one in quarters])
            nearest, which = apart.min(dim=0)
            exact = nearest < 1e-4
            assert exact.float().mean() == pytest.approx(0.5, abs=0.2) and nearest[~exact].min() > 0.1
            assert which[exact].unique().tolist() == list(found)

    def test_without_turning_half_of_them_are_mirrored(self, parts):
        turned = turn(parts, streams(), rotate=False, flip=True)
        still, mirrored = ((turned.rgb - one.rgb).abs().amax(dim=(1, 2, 3)) < 1e-4 for one in (parts, _mirrored(parts)))
        assert (still ^ mirrored).all() and 3 <= still.sum() <= 13

    def test_part_does_not_mix_with_the_background(self, parts):
        flat = parts._replace(rgb=parts.rgb * 0 + 0.7 * parts.foreground, depth=torch.full_like(parts.depth, 0.2))
        turned = turn(flat, streams(), rotate=True, flip=False)
        assert torch.allclose(turned.rgb[turned.foreground.expand(-1, 3, -1, -1)], torch.tensor(0.7), atol=1e-4)
        assert turned.rgb[~turned.foreground.expand(-1, 3, -1, -1)].max() == 0

    def test_the_parallax_turns_with_the_images(self):
        """The colours show the foot of a post, the depths its top."""
        y, x = torch.meshgrid(*[(torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1] * 2, indexing="ij")
        lean = 0.15 * torch.randn(16, 2, generator=torch.Generator().manual_seed(2))

        def spot(at):
            return torch.exp(-((x - at[:, 0, None, None]) ** 2 + (y - at[:, 1, None, None]) ** 2) / 0.01)[:, None]

        def place(image):
            return torch.stack([(image * axis).sum((1, 2, 3)) / image.sum((1, 2, 3)) for axis in (x, y)], dim=1)

        foot = torch.full((16, 2), 0.2)
        posts = Batch(
            spot(foot).repeat(1, 3, 1, 1), spot(foot + lean), torch.hypot(x, y).expand(16, 1, -1, -1) < 0.9, lean
        )
        turned = [turn(posts, streams(), rotate=True, flip=True), *(quarter_turned(posts, n) for n in range(4))]
        for found in turned:
            assert (place(found.depth * found.foreground) - place(found.rgb[:, :1]) - found.parallax).abs().max() < 0.02
        assert (turned[0].parallax - lean).abs().max() > 0.1

    def test_background_holds_the_largest_depth_of_the_part(self, parts):
        turned = turn(parts, streams(), rotate=True, flip=False)
        for depth, part in zip(turned.depth, turned.foreground, strict=True):
            assert depth[~part].unique().numel() == 1
            assert depth[~part].max() >= depth[part].max() - 1e-6

    def test_off_means_off(self, parts):
        still = turn(parts, streams(), rotate=False, flip=False)
        assert all(torch.equal(a, b) for a, b in zip(still, parts, strict=True))


class TestRelight:
    def test_changes_brightness_softly_and_within_its_bounds(self):
        grey = torch.full((64, 3, SIZE, SIZE), 0.5)
        grey[..., :8] = 0
        lit = relight(grey, streams(64), 0.2)
        assert lit[..., :8].abs().max() == 0
        ratio = lit[..., 8:] / 0.5
        assert 0.8 * 0.95 * 0.78 < ratio.min() < 0.85 and 1.15 < ratio.max() < 1.2 * 1.05 * 1.22
        assert ratio.diff(dim=-1).abs().max() < 0.06
        assert ratio.mean(dim=(1, 2, 3)).std() > 0.05

    def test_what_has_no_colours_gets_none(self):
        images = torch.rand(2, 1, SIZE, SIZE).repeat(1, 3, 1, 1)
        images[1, 0, 3, 3] = 0.5 * images[1, 1, 3, 3]
        lit = relight(images, streams(2), 0.2)
        assert torch.equal(lit[0, 0], lit[0, 1]) and torch.equal(lit[0, 1], lit[0, 2])
        assert not torch.equal(lit[1, 1], lit[1, 2])

    def test_no_light_is_brighter_than_white(self):
        assert relight(torch.ones(8, 3, SIZE, SIZE), streams(8), 0.5).max() <= 1

    def test_nothing_is_nothing(self):
        image = torch.rand(2, 3, SIZE, SIZE)
        assert torch.equal(relight(image, streams(2), 0.0), image)
