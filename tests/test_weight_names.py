"""Files of wrapped networks, as torch itself and other trainings write them, and what is said of those that misfit."""

import json
import logging
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from dfpg_plugin.archs.extractors_arch import TorchvisionFeatureExtractor
from dfpg_plugin.archs.vggface_arch import VGGFaceFeatureExtractor
from dfpg_plugin.checks import UserError
from dfpg_plugin.files import read_safetensors
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.restoration.export import add_attention
from dfpg_plugin.restoration.network import load_described
from dfpg_plugin.weight_names import load_into, with_fitting_names, without_wrapper


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 3, 1)))


class Holder(nn.Module):
    """Networks as attributes, as a module of Lightning holds them."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, network)


WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.compile": torch.compile,
    "DataParallel": nn.DataParallel,
    "compiled in DataParallel": lambda net: nn.DataParallel(torch.compile(net)),
    "DataParallel, compiled": lambda net: torch.compile(nn.DataParallel(net)),
    "an average": AveragedModel,
    "Lightning, model": lambda net: Holder(model=net),
    "Lightning, net_g beside net_d": lambda net: Holder(net_d=nn.Sequential(nn.Conv2d(3, 9, 3)), net_g=net),
    "Lightning, compiled": lambda net: Holder(generator=torch.compile(net), loss=nn.Linear(2, 2)),
}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """BasicSR's logger, which hands nothing on by itself."""
    get_root_logger().addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    get_root_logger().removeHandler(caplog.handler)


@pytest.fixture
def options(demo_options: dict, tmp_path: Path) -> dict:
    """Completed options of a small training."""
    folders = {key: str(tmp_path / key) for key in ("models", "training_states", "visualization")}
    return {**demo_options, "num_gpu": 0, "dist": False, "rank": 0, "is_train": True, "path": folders}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_known_wrappers_are_taken_off_and_said(wrap: Callable, said: pytest.LogCaptureFixture) -> None:
    source, net = small_net(), small_net()
    load_into(net, with_fitting_names(net, wrap(source).state_dict(), "net.pth"), "net.pth")
    torch.testing.assert_close(net.state_dict(), source.state_dict())
    (line,) = [record.getMessage() for record in said.records]
    assert line.startswith("net.pth: took the wrapper's ")


def test_a_compiled_part_in_the_middle(said: pytest.LogCaptureFixture) -> None:
    source, net = small_net(), small_net()
    source[2] = torch.compile(source[2])
    assert "2._orig_mod.0.weight" in source.state_dict()
    load_into(net, with_fitting_names(net, source.state_dict(), "net.pth"), "net.pth")
    torch.testing.assert_close(net[2].state_dict(), source[2]._orig_mod.state_dict())
    assert "'_orig_mod.'" in said.records[0].getMessage()


def test_what_other_parts_of_a_file_are_left_out_is_said(said: pytest.LogCaptureFixture) -> None:
    state = Holder(net_g=small_net(), net_d=nn.Linear(2, 3)).state_dict()
    with_fitting_names(small_net(), state, "net.ckpt")
    assert said.records[0].getMessage().endswith("left out 2 of other parts: net_d.weight, net_d.bias.")


def test_networks_that_are_called_like_a_wrapper_keep_their_names(said: pytest.LogCaptureFixture) -> None:
    for net in (Holder(module=nn.Conv2d(3, 3, 1)), Holder(model=nn.Conv2d(3, 3, 1), net=nn.Conv2d(3, 3, 1))):
        assert with_fitting_names(net, net.state_dict(), "net.pth").keys() == net.state_dict().keys()
        wrapped = with_fitting_names(net, Holder(module=net).state_dict(), "net.pth")
        assert wrapped.keys() == net.state_dict().keys()
    assert len(said.records) == 2


def test_the_network_that_fits_by_its_shapes_is_taken() -> None:
    state = Holder(net_g=nn.Conv2d(3, 9, 3), net_d=nn.Conv2d(3, 4, 3)).state_dict()
    assert with_fitting_names(nn.Conv2d(3, 4, 3), state, "net.ckpt")["weight"] is state["net_d.weight"]


def test_a_misfit_shows_the_names_of_both_sides_and_shapes() -> None:
    with pytest.raises(UserError) as caught:
        load_into(small_net(), Holder(strange=small_net()).state_dict(), "net.pth")
    text = str(caught.value)
    assert "0 of the network's 9 weights are in it, not 0.weight, 0.bias, 1.weight, ..." in text
    assert "it has 9 others: strange.0.weight, strange.0.bias, strange.1.weight, ..." in text
    assert "\n" not in text
    with pytest.raises(UserError, match=r"1 have another shape: weight, \[5, 2\] in the file, \[3, 2\] in the network"):
        load_into(nn.Linear(2, 3, bias=False), nn.Linear(2, 5, bias=False).state_dict(), "net.pth")


def test_without_strict_something_has_to_be_loaded(said: pytest.LogCaptureFixture) -> None:
    net = small_net()
    with pytest.raises(UserError, match="0 of the network's 9 weights"):
        load_into(net, {"a.weight": torch.zeros(1)}, "net.pth", strict=False)
    with pytest.raises(UserError, match="2 have another shape: weight"):
        load_into(nn.Linear(2, 3), nn.Linear(4, 5).state_dict(), "net.pth", strict=False)
    load_into(net, {"0.bias": torch.full((4,), 2.0), "1.bias": torch.zeros(7)}, "net.pth", strict=False)
    assert net[0].bias.tolist() == [2.0] * 4
    assert said.records[0].getMessage() == (
        "net.pth: 1 of Sequential's 9 weights are loaded, and 1 of the file's are not."
    )


def test_without_a_network_only_what_all_names_share_is_taken_off() -> None:
    state = {"module._orig_mod.features.0.weight": torch.ones(1), "module._orig_mod.fc.bias": torch.ones(1)}
    assert [*without_wrapper(state, "a.pth")] == ["features.0.weight", "fc.bias"]
    state = {"model.a": torch.ones(1), "loss.a": torch.ones(1), "features.0.weight": torch.ones(1)}
    assert without_wrapper(state, "a.pth") == state


@pytest.mark.parametrize("strict", [True, False])
def test_a_training_loads_wrapped_weights_of_all_networks(options: dict, tmp_path: Path, strict: bool) -> None:
    model = DFPGModel(deepcopy(options))
    nets = {"g": model.net_g, "d": model.net_d}
    for key, net in nets.items():
        torch.save({"state_dict": Holder(model=torch.compile(net)).state_dict()}, tmp_path / f"{key}.ckpt")
        options["path"] |= {f"pretrain_network_{key}": str(tmp_path / f"{key}.ckpt"), f"strict_load_{key}": strict}
    torch.manual_seed(1)
    loaded = DFPGModel(deepcopy(options))
    torch.testing.assert_close(loaded.net_g.state_dict(), nets["g"].state_dict())
    torch.testing.assert_close(loaded.net_d.state_dict(), nets["d"].state_dict())
    torch.save({"epoch": 3, "optimizer": {}, "weights": nets["g"].state_dict()}, tmp_path / "g.ckpt")
    with pytest.raises(UserError, match=r"g\.ckpt holds no weights: .* with the keys epoch, optimizer, weights"):
        DFPGModel(deepcopy(options))


@pytest.mark.parametrize("strict", [True, False])
def test_a_training_with_other_weights_is_refused(options: dict, tmp_path: Path, strict: bool) -> None:
    torch.save({"params": small_net().state_dict()}, tmp_path / "other.pth")
    options["path"] |= {"pretrain_network_g": str(tmp_path / "other.pth"), "strict_load_g": strict}
    with pytest.raises(UserError, match=r"other.pth does not fit DFPGNet: 0 of the network's \d+ .*: 0\.weight"):
        DFPGModel(deepcopy(options))


def test_basicsrs_own_models_load_as_ours_do(options: dict, tmp_path: Path) -> None:
    options["train"] = {"optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"}}
    options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [2]}
    source = SRModel(deepcopy(options)).net_g
    torch.save({"state_dict": Holder(net_g=torch.compile(source)).state_dict()}, tmp_path / "g.ckpt")
    options["path"] |= {"pretrain_network_g": str(tmp_path / "g.ckpt"), "strict_load_g": False}
    torch.testing.assert_close(SRModel(deepcopy(options)).net_g.state_dict(), source.state_dict())
    torch.save(small_net().state_dict(), tmp_path / "g.ckpt")
    with pytest.raises(UserError, match=r"g\.ckpt does not fit DFPGNet: 0 of"):
        SRModel(deepcopy(options))


def test_priors_load_wrapped_weights(tmp_path: Path) -> None:
    names = {f"features.{k}": v for k, v in models.vgg16(weights=None).features.state_dict().items()}
    for name, state in (("plain", names), ("wrapped", {f"module._orig_mod.{k}": v for k, v in names.items()})):
        torch.save(state, tmp_path / f"{name}.pth")
    plain, wrapped = (VGGFaceFeatureExtractor(weights=str(tmp_path / f"{n}.pth")) for n in ("plain", "wrapped"))
    torch.testing.assert_close(wrapped.state_dict(), plain.state_dict())

    whole = TorchvisionFeatureExtractor(model="resnet18", layers=["layer1"], weights="random")
    beside = {f"net_g.{k}": v for k, v in whole.net.state_dict().items()} | {"loss.weight": torch.zeros(1)}
    torch.save({"state_dict": beside}, tmp_path / "resnet.ckpt")
    loaded = TorchvisionFeatureExtractor(model="resnet18", layers=["layer1"], weights=str(tmp_path / "resnet.ckpt"))
    torch.testing.assert_close(loaded.net.state_dict(), whole.net.state_dict())
    torch.save({f"strange.{k}": v for k, v in whole.net.state_dict().items()}, tmp_path / "resnet.ckpt")
    with pytest.raises(UserError, match=r"lacks \d+ of \d+ weights, .* It has strange\.conv1\.weight, "):
        TorchvisionFeatureExtractor(model="resnet18", layers=["layer1"], weights=str(tmp_path / "resnet.ckpt"))


def test_restoring_and_exporting_read_wrapped_weights(demo_options: dict, tmp_path: Path) -> None:
    yml = tmp_path / "a.yml"
    yml.write_text(yaml.safe_dump(demo_options), encoding="utf-8")
    plain, _ = load_network_of(demo_options, tmp_path)
    torch.save({"params": torch.compile(plain).state_dict()}, tmp_path / "compiled.pth")
    loaded, about = load_described(str(tmp_path / "compiled.pth"), str(yml))
    torch.testing.assert_close(loaded.state_dict(), plain.state_dict())
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth does not fit DFPGNet: 0 of .* it has 1 others: x\."):
        load_described(str(tmp_path / "x.pth"), str(yml))

    options = {**demo_options["network_d"], "prior_channels": [64, 128, 256], "prior_strides": [1, 2, 4]}
    discriminator = build_network(options)
    torch.save({"params": torch.compile(discriminator).state_dict()}, tmp_path / "d.pth")
    file = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, file, about)
    add_attention(file, str(tmp_path / "d.pth"), options)
    state, meta = read_safetensors(file)
    found = {k.removeprefix("network_d."): v for k, v in state.items() if k.startswith("network_d.")}
    torch.testing.assert_close(found, dict(discriminator.channel_attention.state_dict()))
    assert json.loads(meta["network_d"]) == options


def load_network_of(options: dict, tmp_path: Path) -> tuple[nn.Module, dict[str, str]]:
    net = build_network(dict(options["network_g"]))
    file = tmp_path / "plain.safetensors"
    save_file(net.state_dict(), file, {"network_g": json.dumps(options["network_g"])})
    return load_described(str(file), None)
