"""Augmentation steps against Pillow, and their laws."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dfpg_plugin.data import transforms


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_resize_is_pillows_with_antialiasing(image: np.ndarray, name: str) -> None:
    expected = np.asarray(Image.fromarray(image).resize((16, 16), getattr(Image.Resampling, name.upper())))
    np.testing.assert_array_equal(transforms.resize(image, 16, name), expected)


def test_jitter_is_brightness_then_contrast_then_saturation(image: np.ndarray) -> None:
    got = transforms.jitter(image, 0.5, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    expected = Image.fromarray(image[..., ::-1])
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        expected = enhance(expected).enhance(rng.uniform(0.5, 1.5))
    difference = np.abs(got[..., ::-1].astype(int) - np.asarray(expected).astype(int))
    assert np.percentile(difference, 99) <= 3  # mmcv rounds grey values in other places than Pillow


def test_random_crop_cuts_the_same_window_from_all(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    corners = set()
    for _ in range(300):
        a, b = transforms.random_crop([image, image + 1], 38, rng)
        assert a.shape == (38, 38, 3)
        np.testing.assert_array_equal(a + 1, b)
        corners.add(
            next((y, x) for y in range(13) for x in range(3) if np.array_equal(image[y : y + 38, x : x + 38], a))
        )
    assert len(corners) == 13 * 3  # every place, the last ones too


def test_hflip_mirrors_half_of_the_time_and_leaves_its_input_alone(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    before = image.copy()
    flipped = [np.array_equal(transforms.random_hflip(image, rng), image[:, ::-1]) for _ in range(400)]
    np.testing.assert_array_equal(image, before)
    assert 150 < sum(flipped) < 250


def test_rotation_keeps_the_size_and_turns_by_the_angle_drawn() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[18:23, 28:38] = 255  # a bar to the right of the centre
    rng = np.random.default_rng(5)
    angle = np.deg2rad(np.random.default_rng(5).uniform(-270, 270))
    y, x = np.nonzero(transforms.random_rotation(image, 270, rng)[..., 0] > 128)
    turned = np.arctan2(y.mean() - 20, x.mean() - 20)
    assert np.cos(turned - angle) == pytest.approx(1, abs=0.01)  # clockwise, as mmcv counts
