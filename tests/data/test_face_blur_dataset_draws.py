"""What a data set draws: from seed, epoch and index alone, each kernel, size and noise from numbers of its own."""

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.signal import convolve2d

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.bad_files import BadFiles
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.data.stream import EpochIndex

TRAIN = {
    "name": "t", "phase": "train", "faces": "orl", "split": "train", "seed": 3,
    "kernel_sizes": [5, 9], "kernels_per_size": 2,
}  # fmt: skip
VAL = {**TRAIN, "phase": "val", "split": "val"}


def test_a_pair_of_a_coloured_face_is_its_rgb_and_the_convolution_of_that(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, kernels = rng.integers(0, 256, (31, 23, 3), np.uint8), rng.random((2, 5, 5))
    for folder in ("faces", "kernels"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "faces" / "1.png"), image)
    np.save(tmp_path / "kernels" / "k.npy", kernels)
    roots = {"dataroot_gt": str(tmp_path / "faces"), "dataroot_kernels": str(tmp_path / "kernels")}
    own = {"faces": None, "split": None, **roots, "kernel_sizes": [5], "noise_sigma": 0, "kernel_range": [1, 2]}
    dataset = FaceBlurDataset({**VAL, **own})
    pair, rgb = dataset[0], image[..., ::-1].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(pair["gt"], rgb, atol=1e-6)
    padded = np.pad(rgb, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    blurred = np.stack([convolve2d(channel, kernels[1] / kernels[1].sum(), mode="valid") for channel in padded])
    assert np.abs(pair["lq"].numpy() - blurred).max() < 0.51 / 255  # rounded to 8 bits


@pytest.mark.parametrize("phase", ["train", "val"])
def test_the_noise_of_each_image_and_seed_and_epoch_is_another(phase: str) -> None:
    """Of images that differ, the noise alone tells whether it was drawn anew."""
    options = {**(TRAIN if phase == "train" else VAL), "kernel_sizes": [0], "noise_sigma": 5}
    first, second = FaceBlurDataset(options), FaceBlurDataset({**options, "seed": 4})
    wanted = [(first, EpochIndex(5, 0)), (first, EpochIndex(6, 0)), (second, EpochIndex(5, 0))]
    wanted += [(first, EpochIndex(5, 1))] if phase == "train" else []

    def noise() -> list[np.ndarray]:
        pairs = [dataset[index] for dataset, index in wanted]
        middle = [(pair["gt"] > 0.2) & (pair["gt"] < 0.8) for pair in pairs]  # where nothing is clipped
        return [((pair["lq"] - pair["gt"]) * kept).numpy() for pair, kept in zip(pairs, middle, strict=True)]

    found = noise()
    wanted.reverse()
    for one, again in zip(found, reversed(noise()), strict=True):  # whatever was read before
        np.testing.assert_array_equal(one, again)
    for one, other in combinations(found, 2):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / one.size**0.5


def test_the_kernels_of_each_phase_seed_and_size_are_others() -> None:
    first = FaceBlurDataset(TRAIN).kernels
    assert not np.array_equal(first[9][0], first[9][1])
    for same in (TRAIN, {**TRAIN, "kernel_sizes": [9]}, {**TRAIN, "kernel_sizes": [9, 0, 7, 5]}):
        np.testing.assert_array_equal(FaceBlurDataset(same).kernels[9], first[9])
    for other in (VAL, {**TRAIN, "seed": 4}):
        kernels = FaceBlurDataset(other).kernels
        assert not any(np.array_equal(kernels[size], first[size]) for size in (5, 9))


def test_a_bad_image_is_replaced_by_one_that_is_drawn() -> None:
    def read(index: int) -> int:
        if index == 7:
            raise UserError("damaged")
        return index

    bad = BadFiles("t", 50, 0.1)
    drawn = [[bad.read(read, 7, np.random.default_rng(seed)) for seed in range(30)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 15  # 22.7 of 49 are expected
    assert max(drawn[0]) > 40 and min(drawn[0]) < 10


def test_the_size_of_a_step_follows_seed_and_step_alone() -> None:
    def sizes(seed: int, steps: range) -> list[int]:
        dataset = FaceBlurDataset({**TRAIN, "seed": seed, "kernel_sizes": [3, 5, 7, 9], "kernels_per_size": 1})
        return [dataset._draw_size(step, np.random.default_rng()) for step in steps]

    first = sizes(3, range(40))
    assert sizes(3, range(39, -1, -1)) == first[::-1]
    for other in (sizes(4, range(40)), sizes(3, range(40, 80))):
        assert sum(a == b for a, b in zip(first, other, strict=True)) < 25  # 10 of 40 by chance
