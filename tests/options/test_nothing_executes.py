"""Every known way to run code from what a training loads: refused with status 2, and nothing runs."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import write_yaml

MARK = "executed"


class Payload:
    """Unpickles by making a file."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(MARK),)


def old_format(path: Path) -> None:
    torch.save({"params": Payload()}, path, _use_new_zipfile_serialization=False)


def zip_format(path: Path) -> None:
    torch.save({"params": {"weight": torch.zeros(1), "x": Payload()}}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def zip_with_another_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
        archive.writestr("archive/version", "3\n")


def script_module(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))


WAYS = (old_format, zip_format, bare_pickle, zip_with_another_pickle, script_module)


@pytest.fixture
def refused(command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a training that has to be refused; return its message."""

    def run(opt: dict, *arguments: str) -> str:
        assert command("train", "-opt", write_yaml(tmp_path / "t.yml", opt), *arguments) == 2
        assert not (tmp_path / MARK).exists()
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_the_payloads_do_run_where_pickles_are_trusted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (old_format, zip_format):
        make(tmp_path / "x.pth")
        torch.load(tmp_path / "x.pth", weights_only=False)
        (tmp_path / MARK).unlink()  # which fails where nothing ran


@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("key", ["path:pretrain_network_g", "path:pretrain_network_d", "path:resume_state"])
def test_weights_and_states(refused: Callable, demo_options: dict, tmp_path: Path, key: str, make: Callable) -> None:
    make(tmp_path / "x.pth")
    section, name = key.split(":")
    demo_options[section][name] = str(tmp_path / "x.pth")
    assert "x.pth" in refused(demo_options)


@pytest.mark.parametrize("make", WAYS)
def test_a_state_that_auto_resume_finds(refused: Callable, demo_options: dict, tmp_path: Path, make: Callable) -> None:
    folder = tmp_path / "experiments" / "small" / "training_states"
    folder.mkdir(parents=True)
    make(folder / "2.state")
    assert "none of the 1 states" in refused(demo_options, "--auto_resume")


@pytest.mark.parametrize("make", WAYS)
@pytest.mark.parametrize("suffix", [".pth", ".t7", ".mat", ".h5", ".caffemodel", ".safetensors"])
def test_the_priors_weights(refused: Callable, demo_options: dict, tmp_path: Path, make: Callable, suffix: str) -> None:
    make(tmp_path / f"x{suffix}")
    demo_options["network_prior"]["weights"] = str(tmp_path / f"x{suffix}")
    assert f"x{suffix}" in refused(demo_options)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_kernels(refused: Callable, demo_options: dict, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    path = folder / f"psf5{suffix}"
    array = np.array([Payload()], object)
    if suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    elif suffix == ".npz":
        np.savez(path, array, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Payload()))
    demo_options["datasets"]["train"].update(dataroot_kernels=str(folder), kernel_sizes=[5])
    assert "psf5" in refused(demo_options)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['executed']]",
        '[__import__("pathlib").Path("executed").touch()',
        "!!python/name:os.system",
    ],
)
def test_forced_values(refused: Callable, demo_options: dict, value: str) -> None:
    assert "--force_yml" in refused(demo_options, "--force_yml", f"name={value}")
