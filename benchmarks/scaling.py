"""Seconds of a training step in one process and in several, which share the same batch and the same CPUs.

    python benchmarks/scaling.py

One process with all CPUs and the whole batch, then ``--processes`` that share both, by gloo. On one machine this shows
what sharing costs, not what more machines bring.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
import torch.multiprocessing as mp
from side_by_side import batches, publish, spread, timed
from torch import distributed
from train_step import Ours, shrink


def train(rank: int, processes: int, batch: int, size: int, steps: int, small: bool, folder: str) -> None:
    """Train this process's share; the first process writes the seconds of each step and the parameters."""
    shrink(small)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    if processes > 1:
        distributed.init_process_group("gloo", f"file://{folder}/group{processes}", rank=rank, world_size=processes)
    ours = Ours(None, world=(rank, processes))
    seconds = []
    for lq, gt in batches(steps + 1, batch, size):
        mine = slice(rank * batch // processes, (rank + 1) * batch // processes)
        seconds.append(timed(lambda pair=(lq[mine], gt[mine]): ours.step(*pair)))
    if rank == 0:
        weights = torch.cat([p.detach().flatten() for p in ours.model.net_g.parameters()])
        torch.save((seconds[1:], weights), Path(folder) / f"{processes}.pt")
    if processes > 1:
        distributed.destroy_process_group()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="of all processes together")
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--small", action="store_true", help="a small generator, to see that all of it works")
    parser.add_argument("--json", help="write the table to this file as well")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = {}
        for processes in (1, args.processes):
            mp.spawn(train, (processes, args.batch, args.size, args.steps, args.small, folder), processes)
            seconds, weights[processes] = torch.load(Path(folder) / f"{processes}.pt", weights_only=True)
            difference = (weights[processes] - weights[1]).abs().max().item()
            rows.append({"processes": processes, "s": spread(seconds), "weights differ at most": f"{difference:.0e}"})
    publish(rows, f"DFPG's step at batch {args.batch} in all, {args.size} px; medians of {args.steps}", args.json)


if __name__ == "__main__":
    main()
