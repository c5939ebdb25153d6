"""The textures that colour synthetic defects: reproducible, varied, and taken from any folder of images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from das3d_cli.errors import DataError
from das3d_cli.synthesis.structures import STRUCTURES
from das3d_cli.synthesis.textures import folder_textures, procedural_textures


@pytest.fixture(scope="module")
def bank():
    return procedural_textures(160, 64, seed=5)


def luminance(textures):
    return textures.astype(np.float64) @ [0.299, 0.587, 0.114]


def dominant_wavelength(grey):
    """Wavelength in pixels at the mean frequency, weighted by spectral power."""
    spectrum = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(len(grey)), np.fft.fftfreq(len(grey))))
    return spectrum.sum() / (spectrum * frequency).sum()


class TestProcedural:
    def test_shape_and_type(self, bank):
        assert bank.shape == (160, 64, 64, 3)
        assert bank.dtype == np.uint8

    def test_same_seed_same_bank_and_a_longer_bank_begins_with_the_shorter(self, bank):
        np.testing.assert_array_equal(procedural_textures(20, 64, seed=5), bank[:20])

    def test_another_seed_is_another_bank(self, bank):
        other = procedural_textures(20, 64, seed=6)
        assert all((mine != theirs).any() for mine, theirs in zip(bank, other, strict=False))

    def test_no_texture_comes_twice(self, bank):
        assert len({texture.tobytes() for texture in bank}) == len(bank)

    def test_colours_cover_hues_and_tones(self, bank):
        means = bank.mean(axis=(1, 2)).astype(np.float32)[None] / 255
        hue, saturation, value = np.moveaxis(cv2.cvtColor(means, cv2.COLOR_RGB2HSV)[0], -1, 0)
        tinted = saturation > 0.3
        sextants = np.bincount((hue[tinted] // 60).astype(int), minlength=6) / len(bank)
        assert (sextants > 0.01).all(), sextants
        for share, what in [
            (tinted, "saturated"),
            (saturation < 0.1, "near-grey"),
            (value < 0.25, "dark"),
            (value > 0.75, "light"),
        ]:
            assert 0.08 < share.mean() < 0.7, what

    def test_contrast_runs_from_plain_to_glaring(self, bank):
        contrast = luminance(bank).std(axis=(1, 2))
        assert np.quantile(contrast, 0.1) < 8
        assert np.quantile(contrast, 0.9) > 45

    def test_scale_runs_from_grain_to_blotches(self, bank):
        wavelengths = [dominant_wavelength(grey) for grey in luminance(bank)]
        assert np.quantile(wavelengths, 0.1) < 5
        assert np.quantile(wavelengths, 0.9) > 10

    def test_some_structures_have_a_direction_and_some_have_none(self, bank):
        smooth = np.stack([cv2.GaussianBlur(grey, (0, 0), 1.0) for grey in luminance(bank)])
        dy, dx = np.gradient(smooth, axis=(1, 2))
        xx, yy, xy = ((a * b).mean(axis=(1, 2)) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
        coherence = np.hypot(xx - yy, 2 * xy) / (xx + yy)
        assert np.quantile(coherence, 0.2) < 0.15
        assert np.quantile(coherence, 0.9) > 0.6

    @pytest.mark.parametrize("size", [16, 64, 257])
    @pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.__name__)
    def test_structures_are_finite_fields_in_range(self, structure, size):
        for seed in range(4):
            field = structure(np.random.default_rng(seed), size)
            assert field.shape == (size, size)
            assert field.dtype == np.float32
            assert 0 <= field.min() <= field.max() <= 1

    def test_an_empty_bank_is_allowed(self):
        assert procedural_textures(0, 32, seed=0).shape == (0, 32, 32, 3)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


COLOURS = ((250, 10, 10), (10, 250, 10), (10, 10, 250))


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        """Images of one colour each, in several formats and folder depths, beside files that are not images."""
        for colour, name in zip(COLOURS, ["a/red.png", "b/c/green.BMP", "blue.tiff"], strict=True):
            write(tmp_path / name, np.full((90, 150, 3), colour, np.uint8))
        (tmp_path / "readme.txt").write_text("not an image")
        (tmp_path / "a" / "._red.png").write_text("what a Mac leaves beside a copy")
        return tmp_path

    def test_every_image_is_used_before_one_is_used_twice(self, folder):
        bank = folder_textures(folder, 7, 32, seed=0)
        assert bank.shape == (7, 32, 32, 3)
        seen = [tuple(int(c) for c in texture[0, 0]) for texture in bank]
        assert set(seen[:3]) == set(seen[3:6]) == set(COLOURS)

    @pytest.mark.parametrize("shape", [(40, 240), (240, 40)])
    def test_crops_lie_anywhere_in_long_images_and_are_not_squeezed(self, tmp_path, shape):
        ramp = np.arange(240, dtype=np.uint8)  # along the image
        image = np.broadcast_to(ramp if shape[1] == 240 else ramp[:, None], shape)
        write(tmp_path / "long.png", np.repeat(image[..., None], 3, axis=2))
        bank = folder_textures(tmp_path, 200, 16, seed=0).astype(int)
        starts, spans = bank.min(axis=(1, 2, 3)), np.ptp(bank, axis=(1, 2, 3))
        assert starts.min() < 20 and starts.max() > 180
        assert spans.min() >= 14 and spans.max() <= 40  # crops of 16 to 40 pixels

    def test_reproducible_and_seeded(self, tmp_path):
        write(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
        first = folder_textures(tmp_path, 4, 32, seed=1)
        np.testing.assert_array_equal(first, folder_textures(tmp_path, 4, 32, seed=1))
        assert (first != folder_textures(tmp_path, 4, 32, seed=2)).any()
        assert (first[0] != first[1]).any(), "crops of one image should differ"

    def test_grey_and_small_images_serve(self, tmp_path):
        write(tmp_path / "tiny.png", np.full((5, 3), 77, np.uint8))
        np.testing.assert_array_equal(folder_textures(tmp_path, 1, 16, seed=0), np.full((1, 16, 16, 3), 77, np.uint8))

    def test_jpeg_in_a_folder_with_an_odd_name(self, tmp_path):
        write(tmp_path / "é ü" / "x.jpeg", np.full((40, 40, 3), 200, np.uint8))
        assert abs(int(folder_textures(tmp_path, 1, 16, seed=0).mean()) - 200) <= 1


@pytest.mark.parametrize(
    ("make", "name", "complaint"),
    [
        (lambda path: None, "absent", "no such folder"),
        (lambda path: path.write_text("x"), "file.png", "no such folder"),
        (lambda path: path.mkdir(), "empty", "no texture images"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("x")), "texts", "no texture images"),
        (lambda path: (path.mkdir(), (path / "bad.png").write_bytes(b"no png")), "broken", "bad.png"),
        (lambda path: (path.mkdir(), (path / "void.jpg").touch()), "empty_file", "void.jpg"),
    ],
)
def test_folders_that_cannot_serve_are_named_in_one_line(tmp_path, make, name, complaint):
    make(tmp_path / name)
    with pytest.raises(DataError, match=complaint) as error:
        folder_textures(tmp_path / name, 3, 16, seed=0)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
