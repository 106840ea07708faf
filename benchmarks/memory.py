"""Seconds and memory of a training step: how they grow with the batch and the pixels, and what each option saves.

    python benchmarks/memory.py

DFPG's complete step with the paper's networks and the demo's prior. Every row is a process of its own, on a CPU: its
memory is the most that the process ever held, less the most that it had held before the first step.
"""

import argparse
import resource
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
from side_by_side import batches, publish, timed
from torch.utils.flop_counter import FlopCounterMode
from train_step import NETWORKS, Ours, shrink

OPTIONS = {
    "none": {},
    "use_checkpoint": {},
    "accumulate: 2": {"accumulate": 2},
    "amp: bfloat16": {"amp": "bfloat16"},
}


def measure(option: str, batch: int, size: int, steps: int, small: bool, connection: Connection) -> None:
    """Train a few steps; send the fastest one's seconds, its operations and the memory's growth in MB."""
    shrink(small)
    NETWORKS["network_g"]["use_checkpoint"] = option == "use_checkpoint"
    trained = Ours(None, **OPTIONS[option])
    data = list(batches(steps + 1, batch, size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FlopCounterMode(display=False) as counter:
        trained.step(*data[0])
    seconds = min(timed(lambda pair=pair: trained.step(*pair)) for pair in data[1:])
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    connection.send((seconds, counter.get_total_flops(), growth / 1024))


def row(option: str, batch: int, size: int, steps: int, small: bool) -> dict:
    """Measure in a process of its own; return the table's row."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=measure, args=(option, batch, size, steps, small, there))
    process.start()
    seconds, operations, megabytes = here.recv()
    process.join()
    images = batch * size * size / 128**2
    return {
        "batch": batch, "px": size, "option": option, "s": f"{seconds:.2f}", "TFLOP": f"{operations / 1e12:.2f}",
        "MB": round(megabytes), "s for each 128x128": f"{seconds / images:.2f}",
        "MB for each 128x128": round(megabytes / images),
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="the fastest of which counts")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8], help="at 64 px")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128, 192], help="px, at batch 1")
    parser.add_argument("--small", action="store_true", help="a small generator, to see that all of it works")
    parser.add_argument("--json", help="write the table to this file as well")
    args = parser.parse_args()
    rows = [row("none", batch, 64, args.steps, args.small) for batch in args.batches]
    rows += [row("none", 1, size, args.steps, args.small) for size in args.sizes]
    rows += [row(option, 4, 64, args.steps, args.small) for option in OPTIONS]
    threads = torch.get_num_threads()
    publish(rows, f"A training step of DFPG on {threads} CPUs; the fastest of {args.steps} steps", args.json)


if __name__ == "__main__":
    main()
