"""What the page shows, without a browser: colours, boxes, blurs and the prior's pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from dfpg_plugin.demo.page import SAMPLES, Page, _heat
from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import Settings


def test_before_after_and_boxes_are_the_picture_in_rgb(weights: str) -> None:
    bgr = np.random.default_rng(0).integers(0, 200, (90, 140, 3), np.uint8)
    restorer = DFPGRestorer(weights, settings=Settings(boxes=[(50, 30, 80, 60)], recogniser=None))
    (before, after), boxes, prior, _, result = Page(restorer).restore_picture(Picture(bgr), "photo", 1.0)
    np.testing.assert_array_equal(before, bgr[..., ::-1])
    assert np.abs(after.astype(int) - result.array("rgb")).max() <= 1  # each is rounded by itself
    assert np.abs(after[45, 65].astype(int) - before[45, 65] - 25.5).max() <= 0.5  # the network's tenth, in the face
    expected = before.copy()
    expected[30, 50:81] = expected[60, 50:81] = (0, 255, 0)
    expected[30:61, 50] = expected[30:61, 80] = (0, 255, 0)
    np.testing.assert_array_equal(boxes, expected)
    assert prior == []


def test_a_sample_s_blur_follows_its_seed_and_size_alone(weights: str) -> None:
    page = Page(DFPGRestorer(weights, settings=Settings(recogniser=None)))

    def blurred(seed: int, size: int) -> np.ndarray:
        return page.restore_sample(SAMPLES[1], size, seed)[0][0]

    first = blurred(0, 9)
    assert not np.array_equal(blurred(1, 9), first)
    assert not np.array_equal(blurred(0, 15), first)
    np.testing.assert_array_equal(blurred(0, 9), first)


def test_the_prior_s_pictures_are_the_means_and_the_strongest_channels() -> None:
    rng = torch.Generator().manual_seed(0)
    priors = [torch.randn(1, 6, 4, 7, generator=rng), torch.randn(1, 5, 2, 3, generator=rng)]
    counts = [torch.tensor([0.1, 0.6, 0.3, 0.05, 0.5, 0.2]), torch.tensor([0.5, 0.1, 0.2, 0.4, 0.3])]
    given = []

    def network(batch: torch.Tensor, return_priors: bool) -> tuple:
        given.append(batch)
        return batch, priors

    restorer = SimpleNamespace(
        network=network, estimates_priors=True, device=torch.device("cpu"), as_seen=lambda batch: batch,
        attention=lambda layer, prior: counts[layer - 1],
    )  # fmt: skip
    square = np.random.default_rng(0).random((8, 12, 3), np.float32)
    shown = Page(restorer)._prior(square)
    np.testing.assert_array_equal(given[0][0].numpy(), square.transpose(2, 0, 1))
    channels = [[1, 4, 2, 5], [0, 3, 4, 2]]
    names = [[f"P{i + 1} mean", *(f"P{i + 1} #{c}: {counts[i][c]:.2f}" for c in channels[i])] for i in range(2)]
    assert [name for _, name in shown] == names[0] + names[1]
    wanted = [(priors[i][0].mean(0), *(priors[i][0, c] for c in channels[i])) for i in range(2)]
    for (picture, _), feature in zip(shown, wanted[0] + wanted[1], strict=True):
        np.testing.assert_array_equal(picture, _heat(feature))


@pytest.mark.parametrize("shape", [(4, 8), (8, 4)])
def test_the_colours_of_a_feature_are_matplotlib_s_viridis(shape: tuple[int, int]) -> None:
    feature = torch.from_numpy(np.random.default_rng(0).normal(3, 2, shape))
    spread = (feature - feature.min()) / (feature.max() - feature.min())
    expected = 255 * colormaps["viridis"](spread.numpy())[..., :3]
    rows, columns = (128 // side for side in shape)
    large = np.kron(expected, np.ones((rows, columns, 1)))
    assert np.abs(_heat(feature) - large).max() < 4  # of 256 colours


@pytest.mark.parametrize("shape", [(12, 12, 3), (40, 1000, 3)])
def test_a_narrow_picture_is_restored_and_its_prior_shown(shape: tuple[int, int, int]) -> None:
    page = Page(DFPGRestorer(settings=Settings(recogniser=None)))
    picture = Picture(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    (_, after), _, prior, account, _ = page.restore_picture(picture, "aligned", 1.0)
    assert after.shape == shape
    assert len(prior) == 3 * 5
    assert "left as it was" not in account
