"""A small network in a file, and photographs with several faces."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from numpy.typing import NDArray
from safetensors.torch import save_file
from skimage import data
from torch import nn

from dfpg_plugin.cli.main import main
from dfpg_plugin.data.faces import orl_faces


class Brighten(nn.Module):
    """Adds a tenth, so that what was restored can be seen and computed by hand."""

    def __init__(self, amount: float = 0.1) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.amount


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Brighten", Brighten)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of the network that adds a tenth."""
    path = tmp_path / "brighten.safetensors"
    save_file({"amount": torch.tensor(0.1)}, path, {"network_g": json.dumps({"type": "Brighten"})})
    return str(path)


@pytest.fixture
def restore(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[int, str]]:
    """Run ``basicsr restore`` in an empty folder; return its status and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str]:
        status = main(["restore", "--weights", weights, "--no_identity", *map(str, args)])
        return status, capsys.readouterr().err

    return run


def photo(height: int = 400, width: int = 700) -> NDArray[np.uint8]:
    """A colour photograph, BGR, in which dlib finds three faces: two of the demo's and an astronaut's."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 160, (height, width, 3), np.uint8), (0, 0), 3)
    source = orl_faces("test")
    for i, name in enumerate(("s37/1.pgm", "s40/1.pgm")):
        image[40:264, 20 + 200 * i : 204 + 200 * i] = cv2.resize(source.read(name), (184, 224))
    image[20:270, 420:670] = data.astronaut()[0:250, 100:350, ::-1]
    return image
