"""Joining a group of processes: the backend, the device and the environment of each launcher."""

import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from kit import ROOT, write_yaml
from torch import distributed

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.completing import Arguments
from dfpg_plugin.runs.checkpoints import load_set
from dfpg_plugin.runs.distribution import start_group


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Record what would be joined instead of joining it; no GPU unless a test adds one."""
    calls: dict = {}
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, timeout: calls.update(backend=backend))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.update(device=device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    return calls


def test_without_launcher_nothing_is_joined(joined: dict) -> None:
    start_group(Arguments("t.yml"), {"backend": "nccl"}, 8)
    assert joined == {}


def test_cpus_join_by_gloo_whatever_the_yaml_says_of_nccl(joined: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    start_group(Arguments("t.yml", launcher="pytorch"), {"backend": "nccl", "port": 29500}, 0)
    assert joined == {"backend": "gloo"}


@pytest.mark.parametrize(("environment", "expected"), [("2", 2), (None, 5)])
def test_gpus_join_by_nccl_on_the_local_ranks_device(joined: dict, monkeypatch, environment, expected: int) -> None:
    monkeypatch.setenv("RANK", "6")
    monkeypatch.setenv("WORLD_SIZE", "8")
    if environment is not None:
        monkeypatch.setenv("LOCAL_RANK", environment)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    start_group(Arguments("t.yml", launcher="pytorch", local_rank=5), None, 8)
    assert joined == {"backend": "nccl", "device": expected}


def test_gpus_that_the_options_leave_alone_do_not_count(joined: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    start_group(Arguments("t.yml", launcher="pytorch"), None, 0)
    assert joined == {"backend": "gloo"}


def test_slurm_tells_rank_and_master(joined: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for key, value in {"PROCID": "3", "NTASKS": "4", "LOCALID": "1", "NODELIST": "node[1-2]"}.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    finished = subprocess.CompletedProcess([], 0, stdout="node1\nnode2\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: finished if command[-1] == "node[1-2]" else None)
    start_group(Arguments("t.yml", launcher="slurm"), {"port": 29777}, 0)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    assert [os.environ[k] for k in names] == ["3", "4", "1", "node1", "29777"]


@pytest.mark.parametrize(
    ("dist_params", "backend", "seconds"),
    [
        (None, "nccl", 1800), ({"timeout": 77.5}, "nccl", 77.5), ({"backend": "gloo"}, "gloo", 1800),
        ({"backend": "mpi", "timeout": 3, "port": 1}, "mpi", 3),
    ],
)  # fmt: skip
def test_gpus_join_by_the_backend_named_and_wait_as_long_as_asked(
    joined: dict, monkeypatch: pytest.MonkeyPatch, dist_params: dict | None, backend: str, seconds: float
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given: list[tuple] = []
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, timeout: given.append((backend, timeout)))
    start_group(Arguments("t.yml", launcher="pytorch"), dist_params, 2)
    assert given == [(backend, timedelta(seconds=seconds))]


def test_without_its_environment_a_launcher_says_how_to_start(joined: dict) -> None:
    with pytest.raises(UserError, match="torchrun"):
        start_group(Arguments("t.yml", launcher="pytorch"), None, 0)
    with pytest.raises(UserError, match="SLURM_NODELIST"):
        start_group(Arguments("t.yml", launcher="slurm"), None, 0)


FAILING = """
import os, time
import torch
from torch import nn
from basicsr.utils.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class Failing(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.body, self.way, self.calls = nn.Conv2d(3, 3, 3, 1, 1), way, 0

    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls == 4 and os.environ["RANK"] == "1":
            if self.way == "hang":
                time.sleep(10_000)
            if self.way == "die":
                os._exit(7)
            x = x * torch.nan
        return self.body(x)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "error"), [("hang", "process 0: another"), ("die", "process 0: another"), ("nan", "l_g_pix")]
)
def test_one_process_that_fails_ends_the_run_and_checkpoints_stay(
    basicsr: Callable, demo_options: dict, tmp_path: Path, way: str, error: str
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    demo_options.update(plugins=["failing"], path={}, dist_params={"timeout": 15})
    demo_options["network_g"] = {"type": "Failing", "way": way}
    demo_options["train"] = {
        "total_iter": 8, "pixel_opt": {"type": "L1Loss"}, "optim_g": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [9]},
    }  # fmt: skip
    for key in ("network_d", "network_prior"):
        del demo_options[key]
    file = write_yaml(tmp_path / "small.yml", demo_options)
    code = "import sys; from torch.distributed.run import main; main(sys.argv[1:])"
    done = basicsr(
        *("--nproc_per_node=2", "--standalone", "-m", "dfpg_cli.main"),
        *("train", "-opt", file, "--launcher", "pytorch"),
        code=code,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )
    assert done.returncode != 0
    messages = re.findall(r"^basicsr: error: .*", done.stderr, re.M)
    assert error in messages[0], done.stderr[-3000:]
    assert "Traceback" not in re.split(r"^E\d{4} ", done.stderr, flags=re.M)[0]  # the rest is torchrun's
    assert load_set(tmp_path / "experiments" / "small", 2)["iter"] == 2
