"""Which weights of a file a training starts with, and whether all of them have to fit, is said by its options."""

import logging
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from kit import ROOT, Brighten, register
from safetensors.torch import save_file
from torch import nn

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.mended_model import MendedModel
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.reading import read_option_file
from dfpg_plugin.restoration.network import load_attention, load_network


@pytest.mark.parametrize(
    ("key", "amount"), [(None, 1), ("params", 1), ("params_ema", 2), ("state_dict", 3), ("missing", 1)]
)
def test_the_generator_starts_with_the_weights_under_the_key_named(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, amount: int
) -> None:
    register(monkeypatch, ARCH_REGISTRY, Brighten)
    content = {
        name: {"amount": torch.tensor(float(i))} for i, name in enumerate(("params", "params_ema", "state_dict"), 1)
    }
    torch.save(content, tmp_path / "net.pth")
    options["network_g"], options["is_train"] = {"type": "Brighten"}, False
    options["path"] |= {"pretrain_network_g": str(tmp_path / "net.pth"), **({"param_key_g": key} if key else {})}
    assert MendedModel(options).net_g.amount.item() == amount


def discriminator(value: float) -> dict[str, torch.Tensor]:
    net = build_network({"type": "CAFeatureDiscriminator", "num_feat": 8})
    return {name: torch.full_like(weight, value) for name, weight in net.state_dict().items()}


@pytest.mark.parametrize(("key", "value"), [(None, 1), ("params_ema", 2)])
def test_so_does_the_discriminator(options: dict, tmp_path: Path, key: str | None, value: int) -> None:
    torch.save({"params": discriminator(1), "params_ema": discriminator(2)}, tmp_path / "d.pth")
    options["path"] |= {"pretrain_network_d": str(tmp_path / "d.pth"), **({"param_key_d": key} if key else {})}
    model = DFPGModel(options)
    assert all((p == value).all() for p in model.net_d.parameters())


def test_a_discriminators_file_may_lack_weights_where_that_is_allowed(options: dict, tmp_path: Path) -> None:
    state = discriminator(1)
    for name in [name for name in state if name.startswith("head.")]:
        del state[name]
    torch.save({"params": state}, tmp_path / "d.pth")
    options["path"]["pretrain_network_d"] = str(tmp_path / "d.pth")
    for strict in ({}, {"strict_load_d": True}):
        with pytest.raises(UserError, match=r"d\.pth does not fit CAFeatureDiscriminator"):
            DFPGModel({**deepcopy(options), "path": {**options["path"], **strict}})
    options["path"]["strict_load_d"] = False
    found = DFPGModel(options).net_d
    assert [name for name, p in found.named_parameters() if not (p == 1).all()] == [
        name for name, _ in found.named_parameters() if name.startswith("head.")
    ]


def write_exported(file: Path, network: nn.Module) -> dict[str, torch.Tensor]:
    """Write weights as ``basicsr export --discriminator`` does; return the channel attention in them, all of it 2."""
    found = {name: value for name, value in discriminator(2).items() if name.startswith("channel_attention.")}
    attention = {name.replace("channel_attention.", "network_d."): value for name, value in found.items()}
    save_file({**network.state_dict(), **attention}, file)
    return found


def test_a_training_starts_with_the_weights_of_an_exported_file(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exported = build_network(dict(options["network_g"]))
    attention = write_exported(tmp_path / "net.safetensors", exported)
    monkeypatch.setattr(torch, "load", None)  # which reads safetensors in some versions only
    options["path"] |= {f"pretrain_network_{key}": str(tmp_path / "net.safetensors") for key in "gd"}
    with caplog.at_level(logging.INFO, "basicsr"):
        model = DFPGModel({**options, "path": {**options["path"], "strict_load_d": False}})
    torch.testing.assert_close(model.net_g.state_dict(), exported.state_dict())
    twos = [name for name, value in model.net_d.state_dict().items() if (value == 2).all()]
    assert twos == list(attention)
    assert f"net.safetensors: {len(attention)} weights of another network are left out" in caplog.text


def test_a_foreign_file_is_loaded_whole_or_not_at_all(options: dict, tmp_path: Path) -> None:
    exported = build_network(dict(options["network_g"]))
    torch.save({**exported.state_dict(), "network_d.x": torch.ones(1)}, tmp_path / "net.pth")
    options["path"]["pretrain_network_g"] = str(tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth does not fit DFPGNet: it has 1 others: network_d\.x"):
        DFPGModel(options)


@pytest.mark.parametrize("resolved", [True, False], ids=["by this package", "by BasicSR's trainer"])
def test_a_training_starts_with_the_shipped_network(options: dict, tmp_path: Path, resolved: bool) -> None:
    text = (ROOT / "options" / "train_dfpg_lfw.yml").read_text()
    for key in ("g: ~\n", "d: ~\n  strict_load_d: false\n"):
        assert f"pretrain_network_{key[0]}: ~\n" in text
        text = text.replace(f"pretrain_network_{key[0]}: ~\n", f"pretrain_network_{key.replace('~', 'shipped')}")
    (tmp_path / "t.yml").write_text(text)
    given = read_option_file(str(tmp_path / "t.yml"))
    opt = complete(given, Arguments(str(tmp_path / "t.yml")), tmp_path, is_train=True)
    path = opt["path"] if resolved else {**options["path"], "pretrain_network_g": "shipped"}
    if not resolved:
        path |= {"pretrain_network_d": "shipped", "strict_load_d": False}
    model = DFPGModel({**options, "path": path, "network_g": opt["network_g"], "network_d": opt["network_d"]})
    torch.testing.assert_close(model.net_g.state_dict(), load_network().state_dict())
    attention = load_attention(None)
    assert attention is not None
    torch.testing.assert_close(model.net_d.channel_attention.state_dict(), attention.state_dict())
