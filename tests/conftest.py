"""What several tests share: small options, and the command as a user runs it."""

import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

import dfpg_plugin  # noqa: F401 - before any test imports basicsr
from dfpg_plugin.cli.main import main

ROOT = Path(__file__).parents[1]
DEMO_YAML = ROOT / "options" / "train_dfpg_orl.yml"


if "PYTEST_XDIST_WORKER" in os.environ:  # several at a time: more threads than CPUs wait for one another
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def demo_options() -> dict:
    """The demo's options, shrunk to seconds: 32x32 crops, batches of 2, the narrowest networks."""
    return small_options()


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


def identity(file: Path | int) -> tuple[int, int]:
    """Return what stays the same of a file, a folder or an open one when it is renamed."""
    status = os.stat(file)
    return status.st_dev, status.st_ino


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, int]]]:
    """What is written to the disk ("synced") and what is renamed, in this order, each by its identity."""
    events: list[tuple[str, tuple[int, int]]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        events.append(("synced", identity(number)))
        fsync(number)

    def noted_replace(source: Path, target: Path) -> None:
        events.append(("renamed", identity(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return events


Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def basicsr(tmp_path: Path) -> Command:
    """Run ``basicsr`` in a process of its own, in ``tmp_path``, on one thread; return the finished process.

    A start takes 5 s. :func:`command` is for what does not depend on a process of its own.
    """

    def run(*args: object, code: str | None = None, env: dict | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code or "import sys; from dfpg_plugin.cli.main import main; sys.exit(main())"]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(env or {})}
        return subprocess.run(
            [*command, *map(str, args)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    return run


def clear_logger() -> None:
    """Remove what an earlier training in this process left: BasicSR opens a log file once a process only."""
    from basicsr.utils.logger import initialized_logger

    log = logging.getLogger("basicsr")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


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
