"""Options of the faces that are blurred while they are read: each changes the pair as it says."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.data.stream import EpochIndex

SEED = 5


@pytest.fixture
def face(tmp_path: Path) -> np.ndarray:
    """The one image of the folder, BGR: not square, not grey, not symmetric."""
    noise = np.random.default_rng(1).integers(0, 256, (12, 10, 3), np.uint8)
    image = cv2.resize(noise, (50, 60), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "faces").mkdir()
    cv2.imwrite(str(tmp_path / "faces" / "a.png"), image)
    return image


@pytest.fixture
def dataset(face: np.ndarray, tmp_path: Path) -> Callable[..., FaceBlurDataset]:
    """Build the data set of that image, which by default leaves the image as it is."""
    options = {
        "name": "t", "type": "FaceBlurDataset", "phase": "train", "dataroot_gt": str(tmp_path / "faces"), "seed": SEED,
        "kernel_sizes": [0], "noise_sigma": 0, "kernels_per_size": 2,
    }  # fmt: skip
    return lambda **changes: FaceBlurDataset({**options, **changes})


def sharp(dataset: FaceBlurDataset, epoch: int = 0) -> np.ndarray:
    """Return a sample's sharp face as BGR grey levels."""
    gt = 255 * dataset[EpochIndex(0, epoch)]["gt"].double().numpy()
    return gt.transpose(1, 2, 0)[..., ::-1]


def test_without_options_the_face_is_that_of_the_file(dataset: Callable, face: np.ndarray) -> None:
    np.testing.assert_allclose(sharp(dataset()), face, atol=1e-4)


def test_resize_is_pillows_bilinear(dataset: Callable, face: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(face).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(sharp(dataset(resize=32)) - expected).max() < 1.01


def test_a_crop_is_a_part_of_the_face_and_is_resized_bicubic(dataset: Callable, face: np.ndarray) -> None:
    places = set()
    for epoch in range(4):
        part = sharp(dataset(crop=40), epoch)
        squares = {(top, left): face[top : top + 40, left : left + 40] for top in range(21) for left in range(11)}
        (place,) = [place for place, square in squares.items() if np.abs(part - square).max() < 1e-3]
        places.add(place)
        small = np.asarray(Image.fromarray(squares[place]).resize((24, 24), Image.Resampling.BICUBIC))
        assert np.abs(sharp(dataset(crop=40, resize_crop=24), epoch) - small).max() < 1.01
    assert len(places) > 1


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.mark.parametrize(
    ("given", "strengths"), [(0.4, (0.4, 0.4, 0.4)), ([0.6, 0, 0], (0.6, 0, 0)), ([0, 0.5, 0.9], (0, 0.5, 0.9))]
)
def test_jitter_has_one_strength_or_three(
    dataset: Callable, face: np.ndarray, given: object, strengths: tuple[float, ...]
) -> None:
    rng = np.random.default_rng([SEED, 0, 0])
    expected = Image.fromarray(face[..., ::-1])
    for strength, enhance in zip(strengths, ENHANCERS, strict=True):
        if strength:
            expected = enhance(expected).enhance(rng.uniform(1 - strength, 1 + strength))
    assert np.abs(sharp(dataset(jitter=given))[..., ::-1] - np.asarray(expected)).max() < 3.01  # one of each step
    assert np.abs(np.asarray(expected)[..., ::-1].astype(int) - face).max() > 20


def test_rotation_goes_as_far_as_the_option_says(dataset: Callable, face: np.ndarray) -> None:
    for degrees in (5, 80):
        angle = np.random.default_rng([SEED, 0, 0]).uniform(-degrees, degrees)
        matrix = cv2.getRotationMatrix2D((24.5, 29.5), -angle, 1)
        expected = cv2.warpAffine(face.astype(np.float64), matrix, (50, 60), flags=cv2.INTER_CUBIC).clip(0, 255)
        assert np.abs(sharp(dataset(rotation=degrees)) - expected).max() < 0.51


def spread(kernels: np.ndarray) -> float:
    """Return how many of a kernel's cells weigh most of it, in the mean: the sharper, the fewer."""
    return float(np.mean([np.count_nonzero(kernel > 0.01) for kernel in kernels]))


def test_as_many_kernels_are_synthesised_as_the_option_says_by_the_method_named(dataset: Callable) -> None:
    drawn = {}
    for method in ("chakrabarti", "boracchi-foi"):
        found = dataset(kernel_sizes=[5, 9], kernels_per_size=3, kernel_method=method).kernels
        assert {size: kernels.shape for size, kernels in found.items()} == {5: (3, 5, 5), 9: (3, 9, 9)}
        drawn[method] = found[9]
    assert spread(drawn["chakrabarti"]) > 2 * spread(drawn["boracchi-foi"])  # most of these are nearly sharp


@pytest.mark.parametrize("sigma", [0, 3, 12])
def test_the_noise_is_as_strong_as_the_option_says(dataset: Callable, sigma: float) -> None:
    pair = dataset(noise_sigma=sigma)[EpochIndex(0, 0)]
    noise = 255 * (pair["lq"] - pair["gt"])
    assert noise.std().item() == pytest.approx(sigma, rel=0.05)  # of 9,000 draws, which scatter by 0.8 %


def test_the_blur_has_the_papers_sizes_unless_others_are_named(dataset: Callable[..., FaceBlurDataset]) -> None:
    assert sorted(dataset(kernel_sizes=None, kernels_per_size=1).kernels) == [*range(13, 28, 2)]
