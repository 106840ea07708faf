"""A network for Python, ready to call: :func:`dfpg_plugin.load_network`."""

from pathlib import Path

import pytest
import torch
from kit import write_yaml

from dfpg_plugin import load_network
from dfpg_plugin.checks import UserError


def test_a_loaded_network_is_ready_to_call(weights: str) -> None:
    network = load_network(Path(weights))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    torch.testing.assert_close(network(torch.zeros(1, 3, 16, 16)), torch.full((1, 3, 16, 16), 0.1))


def test_a_trainings_file_needs_its_options(weights: str, tmp_path: Path) -> None:
    torch.save({"params": {"amount": torch.tensor(0.3)}}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="which network is it"):
        load_network(tmp_path / "net.pth")
    options = write_yaml(tmp_path / "o.yml", {"network_g": {"type": "Brighten"}})
    assert load_network(tmp_path / "net.pth", options)(torch.zeros(1)) == pytest.approx(0.3)


def test_a_loaded_network_lies_where_it_is_asked_to(weights: str) -> None:
    assert load_network(weights, device="meta").amount.device.type == "meta"
    with pytest.raises(UserError, match="cuda:99"):
        load_network(weights, device="cuda:99")
