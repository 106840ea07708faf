"""Trainings inside the test's process: the command in an empty folder, with BasicSR's global logger made new."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from basicsr.utils import logger as basicsr_logger

from dfpg_plugin.cli.main import main
from dfpg_plugin.data.faces import orl_faces


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


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Run ``basicsr`` in this process, in ``tmp_path``; return its exit status."""
    import basicsr.train

    monkeypatch.chdir(tmp_path)
    # so that a patch of the stock loop ends with the test
    monkeypatch.setattr(basicsr.train, "load_resume_state", basicsr.train.load_resume_state)

    def run(*args: object) -> int:
        clear_logger()
        monkeypatch.setattr("sys.argv", ["basicsr", *map(str, args)])
        return main([str(a) for a in args])

    yield run
    clear_logger()


@pytest.fixture
def eight_faces(tmp_path: Path) -> Path:
    """A folder of 8 real faces."""
    import cv2

    folder = tmp_path / "faces"
    folder.mkdir()
    faces = orl_faces("train")
    for name in faces.names[::40]:
        cv2.imwrite(str(folder / f"{name[:-4].replace('/', '_')}.png"), faces.read(name))
    return folder
