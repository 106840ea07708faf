"""Augmentation steps against Pillow, and their laws."""

import cv2
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
    difference = np.abs(transforms.resize(image, 16, name).astype(int) - expected.astype(int))
    assert difference.max() <= 1  # torch rounds single grey levels in another way


def test_jitter_is_pillows_brightness_then_contrast_then_saturation(image: np.ndarray) -> None:
    everything = (slice(None), slice(None))
    got = transforms.jitter(image, (0.5, 0.5, 0.5), everything, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    expected = Image.fromarray(image[..., ::-1])
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        expected = enhance(expected).enhance(rng.uniform(0.5, 1.5))
    difference = np.abs(got[..., ::-1].astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= 3  # grey levels; one of each step
    assert (difference <= 1).mean() > 0.98


def test_a_strength_of_0_leaves_a_step_out(image: np.ndarray) -> None:
    everything = (slice(None), slice(None))
    unchanged = transforms.jitter(image, (0, 0, 0), everything, np.random.default_rng(7))
    np.testing.assert_array_equal(unchanged, image)
    factor = np.random.default_rng(7).uniform(0.5, 1.5)
    bright = transforms.jitter(image, (0.5, 0, 0), everything, np.random.default_rng(7))
    np.testing.assert_array_equal(bright, transforms.scale_brightness(image, factor))


def test_the_window_of_the_jitter_is_cut_from_the_jittered_whole(image: np.ndarray) -> None:
    window = (slice(3, 20), slice(5, 30))
    strengths = (0.5, 0.5, 0.5)
    whole = transforms.jitter(image, strengths, (slice(None), slice(None)), np.random.default_rng(1))
    np.testing.assert_array_equal(transforms.jitter(image, strengths, window, np.random.default_rng(1)), whole[window])


def test_random_windows_are_everywhere(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    corners = set()
    for _ in range(300):
        rows, columns = transforms.random_window(image.shape, 38, rng)
        assert image[rows, columns].shape == (38, 38, 3)
        corners.add((rows.start, columns.start))
    assert len(corners) == 13 * 3  # every place, the last ones too
    assert image[transforms.random_window(image.shape, None, rng)].shape == image.shape


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


def test_rotation_is_opencvs_bicubic_one_around_the_centre_rounded_and_clipped(image: np.ndarray) -> None:
    height, width = image.shape[:2]
    for seed in range(3):
        angle = np.random.default_rng(seed).uniform(-40, 40)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1)
        rotated = cv2.warpAffine(image.astype(np.float64), matrix, (width, height), flags=cv2.INTER_CUBIC)
        assert rotated.min() < -10 and rotated.max() > 265  # noise overshoots
        got = transforms.random_rotation(image, 40, np.random.default_rng(seed))
        assert np.abs(got - np.clip(rotated, 0, 255)).max() < 0.51
