"""What tests build by hand in many places: options, files, photographs, and a name in a registry."""

import errno
import logging
import os
import pathlib
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.utils import logger as basicsr_logger
from basicsr.utils.registry import Registry
from numpy.typing import NDArray
from skimage import data
from torch import nn

from dfpg_plugin.data.faces import orl_faces

ROOT = Path(__file__).parents[1]
DEMO_YAML = ROOT / "options" / "train_dfpg_orl.yml"


def small_options() -> dict:
    """Return the demo's options with the smallest networks and crops and an untrained prior."""
    opt = yaml.safe_load(DEMO_YAML.read_text(encoding="utf-8"))
    opt["name"] = "small"
    opt["datasets"]["train"].update(batch_size_per_gpu=2, gt_size=32, kernels_per_size=3, kernel_sizes=[5, 7])
    opt["datasets"]["val"].update(kernels_per_size=2, kernel_sizes=[5])
    opt["network_g"] = {"type": "DFPGNet", "num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}
    opt["network_d"] = {"type": "CAFeatureDiscriminator", "num_feat": 8}
    opt["network_prior"] = {"type": "VGGFaceFeatureExtractor", "weights": "random"}
    opt["train"]["total_iter"] = 4
    opt["val"]["val_freq"] = 1000
    opt["logger"].update(print_freq=1, save_checkpoint_freq=2)
    return deepcopy(opt)


def write_yaml(path: Path, opt: dict) -> Path:
    """Write options to ``path`` and return it."""
    path.write_text(yaml.safe_dump(opt, sort_keys=False), encoding="utf-8")
    return path


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, as a full disk does: what is written up to there lies in the file."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def fail_at(monkeypatch: pytest.MonkeyPatch, step: str, number: int = 0) -> None:
    """Let call ``number``, from 0, of ``os.replace``, say, fail as on a full disk; the others do their work."""
    calls, work = count(), getattr(os, step)

    def failing(*args: object, **kwargs: object) -> object:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return work(*args, **kwargs)

    monkeypatch.setattr(os, step, failing)
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10's paths keep the functions of os
    if accessor is not None and hasattr(accessor, step):
        monkeypatch.setattr(accessor, step, staticmethod(failing))


def identity(file: Path | int) -> tuple[int, int]:
    """Return what stays the same of a file, a folder or an open one when it is renamed."""
    status = os.stat(file)
    return status.st_dev, status.st_ino


def clear_logger() -> None:
    """Remove what an earlier training in this process left: BasicSR opens a log file once a process only."""
    log = logging.getLogger("basicsr")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    basicsr_logger.initialized_logger.clear()


def for_sr_model(opt: dict) -> dict:
    """Return options of a run that trains its network by BasicSR's simplest model, with one loss."""
    train = {
        "total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"},
        "scheduler": {"type": "MultiStepLR", "milestones": [5]},
    }  # fmt: skip
    kept = {key: value for key, value in opt.items() if key not in ("network_prior", "network_d")}
    return {**kept, "model_type": "SRModel", "path": {}, "train": train}


def register(monkeypatch: pytest.MonkeyPatch, registry: Registry, *components: object) -> None:
    """Register classes or functions under their names until the test ends."""
    for component in components:
        monkeypatch.setitem(registry._obj_map, component.__name__, component)


def write_faces(folder: Path, which: slice) -> Path:
    """Write some of the demo's faces as PNGs into a new folder and return it."""
    folder.mkdir()
    faces = orl_faces("train")
    for name in faces.names[which]:
        cv2.imwrite(str(folder / f"{name[:-4].replace('/', '_')}.png"), faces.read(name))
    return folder


def photo(height: int = 400, width: int = 700) -> NDArray[np.uint8]:
    """A colour photograph, BGR, in which dlib finds three faces: two of the demo's and an astronaut's."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 160, (height, width, 3), np.uint8), (0, 0), 3)
    source = orl_faces("test")
    for i, name in enumerate(("s37/1.pgm", "s40/1.pgm")):
        image[40:264, 20 + 200 * i : 204 + 200 * i] = cv2.resize(source.read(name), (184, 224))
    image[20:270, 420:670] = data.astronaut()[0:250, 100:350, ::-1]
    return image


class Brighten(nn.Module):
    """Adds a tenth, so that what was restored can be seen and computed by hand."""

    def __init__(self, amount: float = 0.1) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.amount
