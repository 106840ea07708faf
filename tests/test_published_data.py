"""From sharp faces to a training of the paper's own options, with the commands alone."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from kit import ROOT
from vggface_styles import network, torchvision_names

from dfpg_plugin.data.faces import orl_faces

SIZES = ("13", "15", "17", "19", "21", "23", "25", "27")
MSPL_YAML = ROOT / "options" / "train_dfpg_mspl.yml"


def write_faces(folder: Path, split: str, count: int, side: int) -> None:
    folder.mkdir(parents=True)
    source = orl_faces(split)
    for number, name in enumerate(source.names[:count], 1):
        face = source.read(name)[:92]
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def succeed(command: Callable, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command in this process; return what it prints."""

    def run(*args: object) -> str:
        status, said = command(*args), capsys.readouterr()
        assert status == 0, said.err[-3000:]
        return said.out

    return run


@pytest.fixture
def mspl(tmp_path: Path, succeed: Callable) -> Path:
    """A folder of MSPL's shape: 12 training faces, two kernels of each size, two validation faces blurred 16 times."""
    root = tmp_path / "MSPL"
    write_faces(root / "train_img", "train", 12, 512)
    write_faces(tmp_path / "val_faces", "val", 2, 178)
    kernels = str(root / "trainkernels")
    assert "27 px: 2 kernels" in succeed("prepare", "kernels", kernels, "--count", 2)
    pairs = ["--faces", "val_faces", "--kernels", kernels, "--sizes", 13, 27, "--per_size", 2, "--crop", 96]
    assert "8 blurred pictures" in succeed("prepare", "pairs", root / "validationset", *pairs)
    return root


def forced(mspl: Path) -> list[str]:
    vggface = mspl.parent / "VGGFace16.pth"
    torch.save(torchvision_names(network()), vggface)
    return [
        f"datasets:train:dataroot_gt={mspl / 'train_img'}", f"datasets:train:dataroot_kernels={mspl / 'trainkernels'}",
        f"datasets:val:dataroot={mspl / 'validationset'}", f"network_prior:weights={vggface}",
        "datasets:train:batch_size_per_gpu=2", "datasets:train:num_worker_per_gpu=2",
        "train:total_iter=3", "val:val_freq=3", "logger:print_freq=1",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_papers_options_train_and_validate_the_full_network(basicsr: Callable, mspl: Path) -> None:
    done = basicsr("train", "-opt", MSPL_YAML, "--force_yml", *forced(mspl))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "44,66" in done.stderr.replace("_", ",")
    rows = [dict(re.findall(r"(\w+): (\S+)", line)) for line in done.stderr.splitlines() if "l_g_pix:" in line]
    assert len(rows) == 3
    assert all(np.isfinite(float(row[key])) for row in rows for key in ("l_g_pix", "l_g_prior", "l_g_gan", "l_d_real"))
    assert re.search(r"Validation MSPL-val", done.stderr)
    assert (mspl.parent / "experiments/train_dfpg_mspl/models/net_g_best.pth").is_file()


def test_a_validation_face_without_its_sharp_one_is_named_before_training(
    command: Callable, mspl: Path, capsys: pytest.CaptureFixture
) -> None:
    (mspl / "validationset" / "validationset_gt" / "2.png").unlink()
    assert command("train", "-opt", MSPL_YAML, "--force_yml", *forced(mspl)) == 2
    assert "2_ker01_blur_k13.png" in capsys.readouterr().err.splitlines()[-1]


def test_checking_and_packing_the_training_faces(
    command: Callable, succeed: Callable, mspl: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, target = mspl / "train_img", mspl / "train_img.lmdb"
    assert "nothing odd" in succeed("prepare", "check", folder)
    (folder / "read.me").touch()
    assert "ignored (1)" in succeed("prepare", "check", folder)
    assert command("prepare", "check", folder, "--min_side", 513) == 2
    said = capsys.readouterr()
    assert "too small (12), skipped: 512x512 px, 513 px are needed" in said.out
    assert "12 files can't be used" in said.err.splitlines()[-1]
    pairs = mspl / "validationset"
    succeed("prepare", "check", pairs / "validationset_blur", "--gt", pairs / "validationset_gt")
    assert "12 images" in succeed("prepare", "lmdb", folder, target)
    assert command("prepare", "lmdb", folder, target) == 2
    assert "is already there" in capsys.readouterr().err.splitlines()[-1]
