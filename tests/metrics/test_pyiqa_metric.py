"""pyiqa's metrics: against BasicSR's where pyiqa is installed, and what is said where it is not.

pyiqa is not installed with the tests: it brings more than 100 MB of packages, and its licence allows no commercial use.
"""

import importlib
import random
import socket
import sys
import types
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from torch import nn

from dfpg_plugin.checks import UserError
from dfpg_plugin.metrics import pyiqa_metric as module
from dfpg_plugin.runs.metric_trials import check_metrics, try_metrics

needs_pyiqa = pytest.mark.skipif(find_spec("pyiqa") is None, reason="needs pyiqa: pip install pyiqa")
RNG = np.random.default_rng(0)
SHARP = RNG.integers(0, 256, (64, 72, 3), dtype=np.uint8)
RESTORED = np.clip(SHARP.astype(int) + RNG.integers(-30, 31, SHARP.shape), 0, 255).astype(np.uint8)


class PSNR(nn.Module):
    """As pyiqa's: RGB in [0,1], on float32."""

    metric_mode, lower_better = "FR", False

    def forward(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return -10 * ((image - reference) ** 2).mean((1, 2, 3)).log10()


class Red(nn.Module):
    """Without a ground truth: the mean of red at one random pixel, and of all."""

    metric_mode, lower_better = "NR", True

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        draws = torch.rand(1) + random.random() + np.random.rand()
        return image[:, 0].mean((1, 2)) + draws


def download(address: str) -> None:
    urllib.request.urlopen(address)


def resolve(host: str) -> None:
    try:
        socket.getaddrinfo(host, 443)
    except Exception as error:  # as clients do, which try again
        raise AssertionError("it was caught") from error


def needs_a_package() -> None:
    raise ModuleNotFoundError("No module named 'clip'")


CREATED: dict[str, Callable] = {
    "psnr": PSNR, "red": Red, "needs_url": lambda: download("https://weights.example/x.pth"),
    "needs_host": lambda: resolve("hub.example"), "needs_package": needs_a_package, "fid": PSNR,
    "broken": lambda: 1 / 0,
}  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that answers as pyiqa 0.1.16 does."""
    package = types.ModuleType("pyiqa")
    package.__version__ = "0.1.16"
    package.list_models = lambda: sorted(CREATED)

    def create_metric(name: str, device: torch.device) -> nn.Module:
        sys.stdout.write(f"Downloading: {name}")
        torch.rand(1), np.random.rand(), random.random()
        return CREATED[name]()

    package.create_metric = create_metric
    utils = types.ModuleType("pyiqa.utils")
    utils.get_root_logger = lambda: SimpleNamespace(setLevel=lambda level: None)
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    monkeypatch.setitem(sys.modules, "pyiqa.utils", utils)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module.load_pyiqa.cache_clear()
    yield
    module.load_pyiqa.cache_clear()


def value(metric: str, **options: object) -> float:
    pair = {"img": RESTORED, "img2": SHARP}
    return calculate_metric(pair, {"type": "calculate_pyiqa", "metric": metric, **options})


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("crop_border", [0, 4])
def test_images_arrive_as_rgb_from_0_to_1_without_their_border(crop_border: int) -> None:
    expected = calculate_metric(
        {"img": RESTORED, "img2": SHARP}, {"type": "calculate_psnr", "crop_border": crop_border}
    )
    assert value("psnr", crop_border=crop_border) == pytest.approx(expected, abs=1e-4)
    crop = slice(crop_border, -crop_border or None)
    red = RESTORED[crop, crop, 2].mean() / 255
    assert value("red", crop_border=crop_border, better="lower") == pytest.approx(
        red + value("red", better="lower") - RESTORED[..., 2].mean() / 255, abs=1e-5
    )
    assert module.calculate_pyiqa(RESTORED, metric="red", better="lower") == value("red", better="lower")


@pytest.mark.usefixtures("stand_in")
def test_a_network_is_loaded_once_and_random_numbers_are_left_alone(capsys: pytest.CaptureFixture) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    assert value("red", better="lower") == value("red", better="lower")  # though it draws
    assert module.load_pyiqa("red") is module.load_pyiqa("red")
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("psrn", {}, r"pyiqa 0\.1\.16 has no metric 'psrn' of single images\. Did you mean psnr\?"),
        ("fid", {}, "has no metric 'fid' of single images"),
        ("red", {}, "red is better when lower. Write `better: lower`"),
        ("psnr", {"better": "lower"}, "psnr is better when higher. Write `better: higher`"),
        ("needs_url", {}, r"needs weights from https://weights\.example/x\.pth; nothing is downloaded here\. Fe"),
        ("needs_host", {}, r"needs weights from hub\.example; .*`python -c \"import pyiqa; pyiqa\.create_metric\('"),
        ("needs_package", {}, "needs a package that is missing .No module named 'clip'."),
        ("broken", {}, "broken can't be loaded .ZeroDivisionError: division by zero"),
        ("psnr", {"crop_border": 200}, "crop_border: 200 does not fit"),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_said_in_one_line(metric: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        value(metric, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"val:metrics:m: .*{message}"):
        try_metrics({"val": {"metrics": {"m": {"type": "calculate_pyiqa", "metric": metric, **options}}}})


@pytest.mark.usefixtures("stand_in")
def test_the_network_is_free_again_after_a_refusal() -> None:
    with pytest.raises(UserError):
        value("needs_host")
    assert socket.getaddrinfo("localhost", 80)


@pytest.mark.usefixtures("stand_in")
def test_only_metrics_that_compare_need_a_ground_truth() -> None:
    without = SimpleNamespace(has_gt=False)
    metrics = {"r": {"type": "calculate_pyiqa", "metric": "red", "better": "lower"}}
    check_metrics({"val": {"metrics": metrics}}, without, "real")
    metrics["p"] = {"type": "calculate_pyiqa", "metric": "psnr"}
    with pytest.raises(UserError, match="val:metrics:p: calculate_pyiqa: psnr compares with a ground truth"):
        check_metrics({"val": {"metrics": metrics}}, without, "real")


def test_without_pyiqa_the_licence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    module.load_pyiqa.cache_clear()
    with pytest.raises(UserError, match=r"pyiqa is missing.*pip install pyiqa.*no commercial use .PolyForm Noncommerc"):
        value("psnr")


@needs_pyiqa
@pytest.mark.parametrize(("metric", "basicsr_metric"), [("psnr", "calculate_psnr"), ("ssimc", "calculate_ssim")])
@pytest.mark.parametrize("crop_border", [0, 3])
def test_pyiqas_own_metrics_are_basicsrs(metric: str, basicsr_metric: str, crop_border: int) -> None:
    pair = {"img": RESTORED, "img2": SHARP}
    expected = calculate_metric(pair, {"type": basicsr_metric, "crop_border": crop_border})
    assert value(metric, crop_border=crop_border) == pytest.approx(expected, abs=1e-4)


@needs_pyiqa
def test_pyiqas_metrics_without_a_ground_truth() -> None:
    pyiqa = importlib.import_module("pyiqa")
    image = torch.from_numpy(RESTORED[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    assert value("entropy") == pytest.approx(pyiqa.create_metric("entropy")(image).item())
