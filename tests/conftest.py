"""What several tests share: small options, and the command as a user runs it."""

import dfpg_plugin  # noqa: F401 - before anything imports basicsr

# isort: split
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from kit import ROOT, Brighten, clear_logger, identity, register, small_options, write_faces
from safetensors.torch import save_file

from dfpg_cli.main import main

if "PYTEST_XDIST_WORKER" in os.environ:  # several at a time: more threads than CPUs wait for one another
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def demo_options() -> dict:
    """The demo's options, shrunk to seconds: 32x32 crops, batches of 2, the narrowest networks."""
    return small_options()


Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def basicsr(tmp_path: Path) -> Command:
    """Run ``basicsr`` in a process of its own, in ``tmp_path``, on one thread; return the finished process.

    A start takes 5 s. :func:`command` is for what does not depend on a process of its own.
    """

    def run(*args: object, code: str | None = None, env: dict | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code or "import sys; from dfpg_cli.main import main; sys.exit(main())"]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(env or {})}
        return subprocess.run(
            [*command, *map(str, args)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    return run


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
    return write_faces(tmp_path / "faces", slice(None, None, 40))


@pytest.fixture
def two_faces(tmp_path: Path) -> Path:
    """A folder of 2 real faces, for validations whose length does not matter."""
    return write_faces(tmp_path / "two", slice(None, None, 160))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of the network that adds a tenth."""
    register(monkeypatch, ARCH_REGISTRY, Brighten)
    path = tmp_path / "brighten.safetensors"
    save_file({"amount": torch.tensor(0.1)}, path, {"network_g": json.dumps({"type": "Brighten"})})
    return str(path)


@pytest.fixture
def restore(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int, str]]:
    """Run ``basicsr restore`` in an empty folder; return its status and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str]:
        status = main(["restore", "--weights", weights, "--no_identity", *map(str, args)])
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def options(demo_options: dict, tmp_path: Path) -> dict:
    """The demo's smallest options, completed, their folders made."""
    folders = {key: str(tmp_path / key) for key in ("models", "training_states", "visualization")}
    for folder in folders.values():
        Path(folder).mkdir()
    demo_options.update(num_gpu=0, dist=False, rank=0, is_train=True, path=folders)
    return demo_options
