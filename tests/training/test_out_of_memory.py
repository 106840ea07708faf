"""Where a GPU's memory does not suffice, a command says what helps, in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import ARCH_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from kit import write_yaml
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from dfpg_cli.memory import explain
from dfpg_plugin.data.faces import orl_faces

TORCHS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.20 GiB is free."
    " Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)
SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. "


class Clips(SRModel):
    """Measures in its own way."""

    def nondist_validation(self, dataloader: DataLoader, *_: object) -> None:
        self.feed_data(next(iter(dataloader)))
        self.test()


class Large(torch.nn.Module):
    """Needs more than there is, for more than ``most`` px or from the call ``last`` on; 0 is that it is built."""

    calls = 0

    def __init__(self, most: int = 10**9, last: int = 10**9) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.most, self.last = most, last
        if last == 0:
            raise torch.OutOfMemoryError(TORCHS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Large.calls += 1
        if x[:, 0].numel() > self.most or Large.calls >= self.last:
            raise torch.OutOfMemoryError(TORCHS)
        return self.scale * x


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "Large", Large)
    monkeypatch.setitem(MODEL_REGISTRY._obj_map, "Clips", Clips)
    monkeypatch.setattr(Large, "calls", 0)


def only_error(capsys: pytest.CaptureFixture, alone: bool = False) -> str:
    """Return the one line that a command has printed of an error; ``alone``: it has printed nothing else."""
    text = capsys.readouterr().err
    assert not alone or len(text.splitlines()) == 1
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("basicsr: error: ")]
    assert text.endswith(f"{line}\n")
    return line.removeprefix("basicsr: error: ")


def plain(options: dict, **network: int) -> dict:
    """Return a training's options with the network above and nothing but a pixel loss."""
    options["network_g"] = {"type": "Large", **network}
    for key in ("network_d", "network_prior"):
        del options[key]
    options["train"] = {
        "total_iter": 9, "pixel_opt": {"type": "L1Loss"}, "optim_g": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [9]},
    }  # fmt: skip
    return options


@pytest.mark.parametrize("model", ["DFPGModel", "SRModel"])
def test_a_training_says_what_helps_and_its_checkpoint_is_whole(
    command: Callable, demo_options: dict, tmp_path: Path, capsys: pytest.CaptureFixture, model: str
) -> None:
    options = {**plain(demo_options, last=5), "model_type": model}
    del options["datasets"]["val"], options["val"]
    file = write_yaml(tmp_path / "small.yml", options)
    assert command("train", "-opt", file) == 2
    line = only_error(capsys)
    assert line.startswith(SAID)
    for key in ("batch_size_per_gpu", "train:accumulate", "network_g:use_checkpoint", "train:amp", "--auto_resume"):
        assert key in line
    options["network_g"] = {"type": "Large"}
    options["datasets"]["train"]["batch_size_per_gpu"] = 1
    assert command("train", "-opt", write_yaml(file, options), "--auto_resume") == 0
    assert (tmp_path / "experiments" / "small" / "training_states" / "8.state").is_file()


@pytest.mark.parametrize("last", [0, 1])
def test_a_network_that_is_built_and_a_validation_that_is_tried_say_what_helps(
    command: Callable, demo_options: dict, tmp_path: Path, capsys: pytest.CaptureFixture, last: int
) -> None:
    file = write_yaml(tmp_path / "small.yml", plain(demo_options, last=last))
    assert command("train", "-opt", file) == 2
    line = only_error(capsys, alone=True)
    assert line.startswith(SAID)
    assert "val:tile" in line
    assert "val:amp" in line


def test_a_metric_says_what_helps(
    command: Callable, demo_options: dict, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    def large(img: np.ndarray, img2: np.ndarray) -> float:
        raise torch.OutOfMemoryError(TORCHS)

    monkeypatch.setitem(METRIC_REGISTRY._obj_map, "calculate_large", large)
    options = plain(demo_options)
    options["val"]["metrics"] = {"large": {"type": "calculate_large"}}
    assert command("train", "-opt", write_yaml(tmp_path / "small.yml", options)) == 2
    assert only_error(capsys).startswith(SAID)


@pytest.mark.parametrize("model", ["DFPGModel", "SRModel", "Clips"])
def test_a_test_says_what_helps(command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, model: str) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), orl_faces("test").read("s37/1.pgm"))
    torch.save({"params": Large().state_dict()}, tmp_path / "net.pth")
    options = {
        "name": "small", "model_type": model, "scale": 1, "num_gpu": 0, "manual_seed": 0,
        "datasets": {"test": {"name": "Set", "type": "FaceBlurDataset", "dataroot_gt": "faces", "kernel_sizes": [0]}},
        "network_g": {"type": "Large", "most": 1}, "path": {"pretrain_network_g": "net.pth"},
        "val": {"save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    }  # fmt: skip
    assert command("test", "-opt", write_yaml(tmp_path / "small.yml", options), "--workers", 0) == 2
    line = only_error(capsys, alone=model == "Clips")
    assert line.startswith(SAID)
    for key in ("val:tile", "val:amp", "val:batch_size", "--workers"):
        assert key in line


def restore(command: Callable, folder: Path, most: int, *arguments: object) -> int:
    """Restore two squares of a grey picture by a network that needs a megabyte a pixel."""
    save_file({"scale": torch.full((1,), 1.1)}, folder / "net.safetensors", {
        "network_g": json.dumps({"type": "Large", "most": most})
    })  # fmt: skip
    cv2.imwrite(str(folder / "photo.png"), np.full((100, 200, 3), 50, np.uint8))
    return command(
        "restore", folder / "photo.png", "--weights", folder / "net.safetensors", "--no_identity", *arguments
    )


BOXES = ("--box", "20,20,60,60", "--box", "120,20,160,60", "--face-size", 64)


def test_a_face_that_is_too_large_ends_a_restoration_and_says_what_helps(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert restore(command, tmp_path, 64 * 64 - 1, *BOXES) == 2
    line = only_error(capsys)
    assert line.startswith(SAID)
    for flag in ("--amp", "--face-size", "--passes", "--batch-size", "--device cpu"):
        assert flag in line


def test_a_picture_that_is_too_large_does_so_too(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert restore(command, tmp_path, 64 * 64, "--mode", "aligned") == 2
    assert only_error(capsys).startswith(SAID)


def test_faces_that_are_too_many_are_restored_one_by_one(command: Callable, tmp_path: Path) -> None:
    assert restore(command, tmp_path, 64 * 64, *BOXES) == 0
    restored = cv2.imread(str(tmp_path / "results" / "restored" / "photo.png"))
    assert (restored[40, 40] == 55).all()
    assert (restored[40, 140] == 55).all()


def test_what_a_worker_raises_is_one_line_too() -> None:
    message = f'Caught OutOfMemoryError in worker.\nTraceback:\n  File "a.py"\ntorch.OutOfMemoryError: {TORCHS}\n'
    assert explain(torch.OutOfMemoryError(message), "test").startswith(SAID)
    assert explain(torch.OutOfMemoryError("CUDA out of memory."), "export") == "CUDA out of memory."
