"""Start the processes' group: nccl on GPUs, gloo on CPUs, by LOCAL_RANK."""

import os
import subprocess

import torch
from torch import distributed

from dfpg_plugin.checks import UserError
from dfpg_plugin.training.options import Arguments

DEFAULT_PORT = 29500  # torch.distributed's


def start_group(args: Arguments, dist_params: dict | None, num_gpu: int) -> None:
    """Join the group that ``args.launcher`` started, by nccl if ``num_gpu`` is not 0; does nothing for ``none``.

    BasicSR needs a GPU and nccl for this, and ignores LOCAL_RANK (utils/dist_util.py:22-24). Raises UserError where the
    launcher's environment is not there.
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
    distributed.init_process_group("gloo" if backend == "nccl" and not cuda else backend)


def stop_group() -> None:
    """Wait for the other processes and leave the group, where there is one."""
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
