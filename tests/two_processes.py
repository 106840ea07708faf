"""Run a function in two processes of a gloo group, forked from the test's: torch is not imported once more."""

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import distributed

LIMIT = 30  # s, after which a process that waits for the other is ended


def in_two_processes(function: Callable[[int], object], folder: Path) -> list:
    """Return what ``function(rank)`` returns in each process: plain values, for tensors would be shared.

    Not for backward passes, which torch refuses after a fork on machines with a GPU.
    """
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [
        context.Process(target=_join, args=(function, rank, folder / "group", end), daemon=True)
        for rank, (_, end) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    try:
        found = [receiver.recv() if receiver.poll(LIMIT) else "no answer" for receiver, _ in ends]
    finally:
        for process in processes:
            process.join(LIMIT)
            process.kill()
    assert all(isinstance(answer, tuple) for answer in found), found
    return [answer[0] for answer in found]


def _join(function: Callable[[int], object], rank: int, file: Path, end: Connection) -> None:
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    limit = timedelta(seconds=LIMIT)
    try:
        distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2, timeout=limit)
        end.send((function(rank),))
        distributed.barrier()  # neither leaves while the other still needs it
    except Exception as error:  # the test shows it
        end.send(repr(error))
    finally:
        distributed.destroy_process_group()
