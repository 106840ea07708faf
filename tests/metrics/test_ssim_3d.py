"""SSIM of volumes against a float64 computation written from the definition."""

from itertools import product

import numpy as np
import pytest
from basicsr.metrics import calculate_metric, calculate_ssim
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.metrics import structural_similarity

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics.ssim_3d import calculate_ssim_3d, ssim_3d


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Weighted moments of every 11x11x11 window, one by one."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.einsum("i,j,k->ijk", taps, taps, taps)
    weights /= weights.sum()
    px, py = (np.pad(v.astype(np.float64), 5, mode="edge") for v in (x, y))
    values = []
    for i, j, k in product(*map(range, x.shape)):
        wx, wy = px[i : i + 11, j : j + 11, k : k + 11], py[i : i + 11, j : j + 11, k : k + 11]
        mx, my = (weights * wx).sum(), (weights * wy).sum()
        vx, vy = (weights * (wx - mx) ** 2).sum(), (weights * (wy - my) ** 2).sum()
        cov = (weights * (wx - mx) * (wy - my)).sum()
        c1, c2 = 2.55**2, 7.65**2
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    sharp = data.astronaut()[40:58, 200:224]
    noise = np.random.default_rng(0).normal(0, 25, sharp.shape)
    return np.clip(sharp + noise, 0, 255).astype(np.uint8), sharp


def test_equals_the_definition_in_float64(pair: tuple) -> None:
    assert ssim_3d(*pair) == pytest.approx(by_definition(*pair), abs=1e-10)
    assert calculate_ssim_3d(*pair) == ssim_3d(*pair)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 40, 3), (31, 8, 1), (9, 9, 5)])
def test_volumes_of_any_size_equal_scipys_filter(shape: tuple) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float64)
    mx, my, vx, vy, xy = (gaussian_filter(v, 1.5, radius=5, mode="nearest") for v in (x, y, x * x, y * y, x * y))
    c1, c2 = 2.55**2, 7.65**2
    similar = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    expected = np.mean(similar / ((mx**2 + my**2 + c1) * (vx - mx**2 + vy - my**2 + c2)))
    assert ssim_3d(x.astype(np.uint8), y.astype(np.uint8)) == pytest.approx(expected, abs=1e-10)


def test_interior_equals_scikit_image(pair: tuple) -> None:
    # scikit-image mirrors at the border, which a volume that is constant there does not notice
    x, y = (np.pad(v, 12, constant_values=90) for v in pair)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    full = structural_similarity(x, y, full=True, **settings)[1]
    assert ssim_3d(x, y) == pytest.approx(full.mean(), abs=1e-9)


def test_equal_images_give_1_and_it_reads_above_ssim_of_the_channels(pair: tuple) -> None:
    assert ssim_3d(pair[1], pair[1]) == pytest.approx(1)
    assert ssim_3d(*pair) > calculate_ssim(*pair, crop_border=0)


def test_as_a_metric_of_basicsr(pair: tuple) -> None:
    opt = {"type": "calculate_ssim_3d", "crop_border": 2, "better": "higher"}
    value = calculate_metric({"img": pair[0], "img2": pair[1]}, opt)
    assert value == ssim_3d(*(v[2:-2, 2:-2] for v in pair))
    chw = [v.transpose(2, 0, 1) for v in pair]
    assert calculate_ssim_3d(*chw, crop_border=2, input_order="CHW") == value


def test_wrong_input_is_named(pair: tuple) -> None:
    with pytest.raises(UserError, match="calculate_ssim_3d: the images' shapes differ"):
        calculate_ssim_3d(pair[0], pair[1][1:])
    with pytest.raises(UserError, match="calculate_ssim_3d: expected uint8"):
        calculate_ssim_3d(pair[0] / 255, pair[1])
    with pytest.raises(UserError, match="input_order"):
        calculate_ssim_3d(*pair, input_order="HCW")
    with pytest.raises(UserError, match=r"expected colour images, got shape \(18, 24\)"):
        calculate_ssim_3d(pair[0][..., 0], pair[1][..., 0])
    for border in (-1, 9, 2.0, "2"):
        with pytest.raises(UserError, match=r"crop_border: .* does not fit images of shape \(18, 24, 3\)"):
            calculate_ssim_3d(*pair, crop_border=border)
