"""Which weights of a file a training starts with, and whether all of them have to fit, is said by its options."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from kit import Brighten, register

from dfpg_plugin.checks import UserError
from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.models.mended_model import MendedModel


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
