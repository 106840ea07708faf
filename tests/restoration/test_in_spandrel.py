"""Networks of this package load in spandrel: known by their weights alone, and restoring as they do here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import spandrel
import torch

import dfpg_plugin
from dfpg_plugin.archs.dfpgnet_arch import DFPGNet
from dfpg_plugin.checks import UserError
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.files import SHIPPED

SMALL = {"num_feat": 16, "num_block": 1, "num_prior_block": 2, "squeeze_factor": 4}


@pytest.fixture(autouse=True)
def _registry_is_put_back() -> Iterator[None]:
    before = spandrel.MAIN_REGISTRY.copy()
    yield
    vars(spandrel.MAIN_REGISTRY).update(vars(before))


@pytest.fixture
def face() -> torch.Tensor:
    """A real face, RGB (1,3,96,80) in [0,1]."""
    source = orl_faces("test")
    image = cv2.resize(source.read(source.names[0]), (80, 96))
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 255


def test_the_shipped_file_restores_a_face_as_our_own_loader_does(face: torch.Tensor) -> None:
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_file(str(SHIPPED))
    (added,) = dfpg_plugin.register_in_spandrel()
    assert added.architecture.id == "DFPGNet"
    loaded = spandrel.ModelLoader().load_from_file(str(SHIPPED))
    assert (loaded.purpose, loaded.scale, loaded.input_channels) == ("Restoration", 1, 3)
    with torch.no_grad():
        restored = loaded(face)
    torch.testing.assert_close(restored, dfpg_plugin.load_network()(face), atol=1e-5, rtol=0)
    assert (restored - face).abs().max() > 0.1


def test_half_precision_in_the_file_is_single_precision_in_the_network() -> None:
    dfpg_plugin.register_in_spandrel()
    loaded = spandrel.ModelLoader().load_from_file(str(SHIPPED))
    assert loaded.dtype == torch.float32
    for kind in (torch.half, torch.bfloat16):
        with pytest.raises(spandrel.UnsupportedDtypeError):
            loaded.to(kind)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"num_block": 3, "num_prior_block": 1}, {"num_feat": 21, "squeeze_factor": 5},
        {"prior_channels": [24, 32, 40]}, {"prior_channels": [16, 32, 64]}, {"prior_stream": False},
        {"feature_transform": False}, {"feature_transform": False, "prior_channels": [16, 32, 64]},
        {"num_in_ch": 1, "num_out_ch": 1}, {"prior_strides": [2, 4, 8]},
    ],
)  # fmt: skip
def test_sizes_are_read_from_the_weights(options: dict, face: torch.Tensor, tmp_path: Path) -> None:
    network = DFPGNet(**{**SMALL, "init_scale": 1.0, **options}).eval()
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    dfpg_plugin.register_in_spandrel()
    loaded = spandrel.ModelLoader().load_from_file(tmp_path / "net.pth")
    seen = face[:, : options.get("num_in_ch", 3)]
    with torch.no_grad():
        assert torch.equal(loaded(seen), network(seen))


def test_an_image_below_the_least_size_is_padded(face: torch.Tensor) -> None:
    dfpg_plugin.register_in_spandrel()
    loaded = spandrel.ModelLoader().load_from_state_dict(DFPGNet(**SMALL).state_dict())
    assert loaded(face[..., :9, :12]).shape == (1, 3, 9, 12)


def test_a_second_registration_is_an_error_or_nothing() -> None:
    assert len(dfpg_plugin.register_in_spandrel()) == 1
    assert dfpg_plugin.register_in_spandrel(ignore_duplicates=True) == []
    with pytest.raises(ValueError, match="DFPGNet"):
        dfpg_plugin.register_in_spandrel()


def test_without_spandrel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match="pip install spandrel"):
        dfpg_plugin.register_in_spandrel()
