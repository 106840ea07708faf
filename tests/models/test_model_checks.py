"""What a DFPGModel refuses, and says, in one line: ranges, sizes, orders in memory, priors that nothing compares."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.priors import sized_to_prior
from dfpg_plugin.training.loop import try_validation

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 1}


class Quarters(nn.Module):
    """Takes multiples of 4 only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(48, 48, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.conv(nn.functional.pixel_unshuffle(x, 4)), 4)


class Views(nn.Module):
    """An extractor that relies on the order in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x.view(len(x), -1).view(x.shape))]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for kind in (Quarters, Views):
        ARCH_REGISTRY._obj_map[kind.__name__] = kind
    yield
    for kind in (Quarters, Views):
        del ARCH_REGISTRY._obj_map[kind.__name__]


@pytest.fixture
def restored(options: dict) -> dict:
    """The prior loss around a network that returns an image only."""
    options["network_g"] = dict(EDSR)
    options["train"]["estimated_prior"] = "restored"
    del options["train"]["gan_opt"], options["train"]["optim_d"], options["network_d"]
    return options


def build(options: dict, height: int = 32, width: int = 32) -> DFPGModel:
    torch.manual_seed(0)
    model = build_model(copy.deepcopy(options))
    model.feed_data({"lq": torch.rand(2, 3, height, width), "gt": torch.rand(2, 3, height, width)})
    return model


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings of the log."""
    messages: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", messages.append)
    return messages


@pytest.mark.parametrize(("key", "values"), [("mean", [0.5, 0.5, 0.5]), ("std", [0.5, 1, 1])])
def test_data_that_are_normalised_are_refused(restored: dict, key: str, values: list) -> None:
    restored["datasets"]["val"].update({"mean": [0, 0, 0], "std": [1.0, 1.0, 1.0]})
    build(restored)
    restored["datasets"]["val"][key] = values
    with pytest.raises(UserError, match=rf"^datasets:val:{key}: images are in \[0,1\] in a DFPGModel"):
        build(restored)


def test_a_network_that_fails_on_a_size_is_named_with_it(restored: dict) -> None:
    restored["network_g"] = {"type": "Quarters"}
    build(restored).optimize_parameters(1)
    text = r"network_g: Quarters fails on images of 32x30 px \(RuntimeError: .*type: AdaptedNet, multiple: that size"
    with pytest.raises(UserError, match=text):
        build(restored, 32, 30).optimize_parameters(1)
    with pytest.raises(UserError, match=text):
        build(restored, 32, 30).test()


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyError, RuntimeError])
@pytest.mark.parametrize("width", [30, 64])
def test_a_fault_of_a_network_is_shown_as_such(restored: dict, monkeypatch, error: type, width: int) -> None:
    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise error("its own fault")

    monkeypatch.setattr(Quarters, "forward", forward)
    restored["network_g"] = {"type": "Quarters"}
    where = rf"64x{width} px: test_model_checks\.py, line \d+: {error.__name__}: '?its own fault"
    with pytest.raises(UserError, match=where) as caught:
        build(restored, 64, width).test()
    assert "AdaptedNet" not in str(caught.value)
    assert "--traceback" in str(caught.value)
    assert isinstance(caught.value.__cause__, error)


def test_what_would_fail_at_a_validation_fails_at_the_start(restored: dict) -> None:
    restored["network_g"] = {"type": "Quarters"}
    model = build(restored)
    fits, too_narrow = (DataLoader([{"lq": torch.rand(3, 32, width)}]) for width in (32, 30))
    try_validation(model, [fits])
    with pytest.raises(UserError, match="fails on images of 32x30 px"):
        try_validation(model, [fits, too_narrow])


def test_a_border_that_would_leave_nothing_fails_at_the_start(restored: dict) -> None:
    metric = {"type": "calculate_psnr", "crop_border": 16}
    restored["val"]["metrics"] = {"psnr": metric}
    model, image = build(restored), torch.rand(3, 32, 34)
    loader = DataLoader([{"lq": image, "gt": image}])
    with pytest.raises(UserError, match="crop_border: 16 leaves less than 1 px of an image of 34x32 px"):
        try_validation(model, [loader])
    metric["crop_border"] = 15
    try_validation(build(restored), [loader])


@pytest.mark.parametrize("phase", ["train", "test"])
def test_several_outputs_are_refused_wherever_they_come_from(options: dict, phase: str, monkeypatch) -> None:
    monkeypatch.setattr(Quarters, "forward", lambda self, x: (x, x))
    options["network_g"] = {"type": "Quarters"}
    for key in ("prior_opt", "gan_opt", "optim_d"):
        del options["train"][key]
    del options["network_d"]
    model = build(options)
    with pytest.raises(UserError, match=r"Quarters returns 2 outputs, not an image\. AdaptedNet's output"):
        model.test() if phase == "test" else model.optimize_parameters(1)


def test_an_extractor_of_others_gets_images_in_their_order(restored: dict) -> None:
    restored["network_prior"] = {"type": "Views"}
    model = build(restored)
    model.optimize_parameters(1)
    assert model.get_current_log()["l_g_prior"] > 0


@pytest.mark.parametrize("source", ["absent", None, "generator"])
def test_the_generators_own_estimates_are_the_default(options: dict, source: str | None, said: list) -> None:
    options["train"]["estimated_prior"] = source
    if source == "absent":
        del options["train"]["estimated_prior"]
    assert build(options).generator_estimates
    assert not [line for line in said if "estimated_prior" in line]


@pytest.mark.parametrize("prior_stream", [True, False])
def test_estimates_that_nothing_compares_are_said(options: dict, prior_stream: bool, said: list) -> None:
    options["train"]["estimated_prior"] = "restored"
    options["network_g"]["prior_stream"] = prior_stream
    build(options)
    lines = [line for line in said if line.startswith("train:estimated_prior: restored: DFPGNet estimates")]
    assert len(lines) == prior_stream


def test_only_the_networks_asked_for_are_sized(options: dict) -> None:
    options["network_g"] = dict(EDSR)
    options["train"]["estimated_prior"] = "restored"
    options["network_prior"] = {"type": "Gone", "file": "nowhere"}
    ARCH_REGISTRY._obj_map["Gone"] = lambda file: torch.load(file)
    try:
        assert sized_to_prior(options, ["network_g"]) == options
        with pytest.raises(UserError, match=r"network_prior: Gone can't be built: .*nowhere"):
            sized_to_prior(options)
    finally:
        del ARCH_REGISTRY._obj_map["Gone"]


GUIDED = {
    "type": "PriorGuidedNet", "encoder": ["body.0"] * 3, "decoder": ["conv_last"] * 3, "prior_strides": [1, 2, 4],
    "num_prior_block": 1, "squeeze_factor": 4, "network": EDSR,
}  # fmt: skip


def test_what_a_file_lacks_starts_the_same_in_the_average(options: dict, tmp_path: Path, said: list) -> None:
    torch.manual_seed(1)
    torch.save(build_network(dict(EDSR)).state_dict(), tmp_path / "edsr.pth")
    options["network_g"] = GUIDED
    options["path"].update(pretrain_network_g=str(tmp_path / "edsr.pth"), strict_load_g=False)
    options["train"]["ema_decay"] = 0.999
    model = build(options)
    average = model.net_g_ema.state_dict()
    for name, value in model.net_g.state_dict().items():
        assert torch.equal(average[name], value), name
    assert not any("  network." in line for line in said)  # all of which the file has
    assert any("  estimators." in line for line in said)


def test_a_wrapped_networks_own_file_says_nothing(restored: dict, tmp_path: Path, said: list) -> None:
    torch.save(build_network(dict(EDSR)).state_dict(), tmp_path / "edsr.pth")
    restored["network_g"] = {"type": "AdaptedNet", "network": EDSR}
    restored["path"].update(pretrain_network_g=str(tmp_path / "edsr.pth"), strict_load_g=True)
    build(restored)
    assert said == []
