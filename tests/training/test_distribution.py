"""Joining a group of processes: the backend, the device and the environment of each launcher."""

import subprocess

import pytest
import torch
from torch import distributed

from dfpg_plugin.checks import UserError
from dfpg_plugin.training.distribution import start_group
from dfpg_plugin.training.options import Arguments


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Record what would be joined instead of joining it; no GPU unless a test adds one."""
    calls: dict = {}
    monkeypatch.setattr(distributed, "init_process_group", lambda backend: calls.update(backend=backend))
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


def test_without_its_environment_a_launcher_says_how_to_start(joined: dict) -> None:
    with pytest.raises(UserError, match="torchrun"):
        start_group(Arguments("t.yml", launcher="pytorch"), None, 0)
    with pytest.raises(UserError, match="SLURM_NODELIST"):
        start_group(Arguments("t.yml", launcher="slurm"), None, 0)
