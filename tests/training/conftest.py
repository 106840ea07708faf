"""What trainings share: options of BasicSR's simplest model, and a few faces."""

from pathlib import Path

import cv2
import pytest

from dfpg_plugin.data.faces import orl_faces


def for_sr_model(opt: dict) -> dict:
    """Return options of a run that trains its network by BasicSR's simplest model, with one loss."""
    train = {
        "total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"},
        "scheduler": {"type": "MultiStepLR", "milestones": [5]},
    }  # fmt: skip
    kept = {key: value for key, value in opt.items() if key not in ("network_prior", "network_d")}
    return {**kept, "model_type": "SRModel", "path": {}, "train": train}


@pytest.fixture
def eight_faces(tmp_path: Path) -> Path:
    """A folder of 8 real faces."""
    return write_faces(tmp_path / "faces", slice(None, None, 40))


@pytest.fixture
def two_faces(tmp_path: Path) -> Path:
    """A folder of 2 real faces, for validations whose length does not matter."""
    return write_faces(tmp_path / "two", slice(None, None, 160))


def write_faces(folder: Path, which: slice) -> Path:
    """Write some of the demo's faces as PNGs into a new folder and return it."""
    folder.mkdir()
    faces = orl_faces("train")
    for name in faces.names[which]:
        cv2.imwrite(str(folder / f"{name[:-4].replace('/', '_')}.png"), faces.read(name))
    return folder
