"""Start the group of processes that train together: by nccl on GPUs, by gloo on CPUs."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.completing import Arguments

DEFAULT_PORT = 29500  # as in torch.distributed
LOST = r"connection (closed|reset)|broken pipe|timed out|timeout"  # in errors of torch's backends
DEFAULT_TIMEOUT = 1800  # seconds


def start_group(args: Arguments, dist_params: dict | None, num_gpu: int) -> None:
    """Join the group of processes that ``args.launcher`` started. Does nothing for the launcher ``none``.

    A process uses the GPU with the number LOCAL_RANK, and the backend in ``dist_params`` (default nccl). Without GPUs,
    gloo replaces nccl. BasicSR needs a GPU and ignores LOCAL_RANK (utils/dist_util.py:22-24). ``timeout`` in
    ``dist_params``: a process gives up after waiting so many seconds for another process. The timeout must be longer
    than a process's share of a validation. Raises UserError if the launcher's environment variables are not set.
    """
    if args.launcher == "none":
        return
    params = dict(dist_params or {})
    if args.launcher == "slurm":
        _environment_from_slurm(params.get("port"))
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise UserError("--launcher pytorch: RANK and WORLD_SIZE are not set. Start with torchrun.")
    cuda = num_gpu > 0 and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", args.local_rank)))
    backend = params.get("backend", "nccl")
    timeout = timedelta(seconds=params.get("timeout", DEFAULT_TIMEOUT))
    distributed.init_process_group("gloo" if backend == "nccl" and not cuda else backend, timeout=timeout)


def of_first_process(value: int) -> int:
    """Return the value that the group's first process has; without a group, the value itself."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


class LostProcessError(RuntimeError):
    """Another process of the group has ended or does not answer."""


@contextmanager
def telling_lost_processes() -> Iterator[None]:
    """Raise LostProcessError for an error of torch's backends that says that another process is lost."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        if distributed.is_initialized() and re.search(LOST, reason, re.IGNORECASE):
            raise LostProcessError(
                f"another process has ended or does not answer ({reason[:100]}). Its own error stands above, or in its "
                "log; checkpoints are whole."
            ) from error
        raise


def stop_group() -> None:
    """Wait for the other processes, then leave the group. Does nothing without a group."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _environment_from_slurm(port: int | None) -> None:
    try:
        nodes = os.environ["SLURM_NODELIST"]
        rank, world, local = (os.environ[f"SLURM_{key}"] for key in ("PROCID", "NTASKS", "LOCALID"))
    except KeyError as error:
        raise UserError(f"--launcher slurm: {error.args[0]} is not set. Start with srun.") from error
    hosts = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True).stdout
    os.environ.update(RANK=rank, WORLD_SIZE=world, LOCAL_RANK=local, MASTER_ADDR=hosts.split()[0])
    os.environ["MASTER_PORT"] = str(port or os.environ.get("MASTER_PORT", DEFAULT_PORT))
