"""Blur and noise against SciPy and their statistics."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from dfpg_plugin.data.degradation import add_noise, blur, quantise


@pytest.mark.parametrize("size", range(3, 29, 2))
def test_blur_is_convolution_after_reflection(size: int) -> None:
    rng = np.random.default_rng(size)
    image = rng.random((40, 33, 3))
    kernel = rng.random((size, size))
    kernel /= kernel.sum()
    half = size // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    expected = np.stack([convolve2d(padded[..., c], kernel, mode="valid") for c in range(3)], axis=-1)
    got = blur(image.astype(np.float32), kernel.astype(np.float32))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got.dtype == np.float32


def test_noise_has_the_sigma_asked_for_and_is_not_clipped() -> None:
    noisy = add_noise(np.ones((200, 200, 3), np.float32), 2.0, np.random.default_rng(0))
    assert noisy.std() * 255 == pytest.approx(2.0, rel=0.02)
    assert noisy.mean() == pytest.approx(1.0, abs=1e-4)
    assert noisy.max() > 1
    assert noisy.dtype == np.float32


def test_noise_follows_the_generator_alone() -> None:
    def noise(rng: np.random.Generator) -> np.ndarray:
        return add_noise(np.zeros((60, 50, 3), np.float32), 2.0, rng).ravel()

    rng = np.random.default_rng(1)
    drawn = [noise(rng), noise(rng), noise(np.random.default_rng(2))]
    np.testing.assert_array_equal(noise(np.random.default_rng(1)), drawn[0])
    correlations = np.corrcoef(drawn)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 5 / len(drawn[0]) ** 0.5  # standard deviations of independent ones


def test_quantise_is_what_a_png_keeps() -> None:
    image = np.array([[[-0.2, 0.0, 0.5], [1.0, 1.3, 100.6 / 255]]], np.float32)
    np.testing.assert_allclose(quantise(image) * 255, [[[0, 0, 128], [255, 255, 101]]], atol=1e-4)


def test_blur_in_float64_is_convolution_to_float64s_precision() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.random((30, 41, 3)), np.zeros((13, 13))
    kernel[2, 9], kernel[11, 4] = 0.25, 0.75  # few cells, off centre: a correlation would differ
    padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="reflect")
    expected = np.stack([convolve2d(padded[..., c], kernel, mode="valid") for c in range(3)], axis=-1)
    np.testing.assert_allclose(blur(image, kernel), expected, atol=1e-14)
