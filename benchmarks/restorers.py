"""What restorers cost: parameters, operations, seconds of a training step; and option files for equal budgets.

    python benchmarks/restorers.py options/ablation/b[14].yml options/combine/{edsr,nafnet,rrdbnet,swinir}_prior.yml
    python benchmarks/restorers.py --iterations 400 --write equal_iterations options/...
    python benchmarks/restorers.py --seconds 60 --write equal_time options/...

Each option file's own model trains on one batch of its data, all by turns on one thread; a step is the median of its
turns. Operations are those of one forward of a 92x112 face (two for a multiplication and addition), as torch counts
them. With ``--write``, copies of the option files that train so long, their scheduler stretched with them.
"""

import argparse
import re
import statistics
from functools import partial
from pathlib import Path

import torch
from side_by_side import publish, take_turns
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import dfpg_plugin  # noqa: F401 - before basicsr

# isort: split
from basicsr.data import build_dataset
from basicsr.models import build_model

from dfpg_plugin.models.dfpg_model import DFPGModel
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.plugins import load_plugins
from dfpg_plugin.options.reading import read_option_file

DECAYS = 10  # of the learning rate in a training, as in the option files
FACE = (1, 3, 112, 92)


def build(file: Path) -> DFPGModel:
    """Build an option file's model and give it a batch of its data."""
    opt = complete(read_option_file(str(file)), Arguments(str(file)), Path(), is_train=True)
    load_plugins(opt.get("plugins") or [])
    opt.update(rank=0, world_size=1)
    torch.manual_seed(0)
    dataset = build_dataset(opt["datasets"]["train"])
    model = build_model(opt)
    model.feed_data(next(iter(DataLoader(dataset, opt["datasets"]["train"]["batch_size_per_gpu"]))))
    return model


def operations(model: DFPGModel) -> int:
    """Count the operations of one forward."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.net_g(torch.rand(FACE))
    return counter.get_total_flops()


def write_copy(file: Path, iterations: int, folder: Path) -> None:
    """Write an option file that trains for so many iterations, with one validation and one checkpoint, at the end."""
    text = file.read_text(encoding="utf-8")
    values = {
        "total_iter": iterations, "step_size": max(1, iterations // DECAYS),
        "val_freq": iterations, "save_checkpoint_freq": iterations,
    }  # fmt: skip
    for key, value in values.items():
        text, count = re.subn(rf"^( +{key}: )\d+", rf"\g<1>{value}", text, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{file}: expected the key {key} once, found it {count} times.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file.name).write_text(text, encoding="utf-8")


def main() -> None:
    """Print the table; write the copies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="option files of DFPGModel")
    parser.add_argument("--rounds", type=int, default=5)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--iterations", type=int, help="of every training")
    budget.add_argument("--seconds", type=float, help="of every training's steps")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="for the option files of that budget")
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.write is not None and not (args.iterations or args.seconds):
        parser.error("--write needs --iterations or --seconds.")
    torch.set_num_threads(1)
    models = {file: build(file) for file in args.files}
    turns = take_turns({str(f): partial(model.optimize_parameters, 1) for f, model in models.items()}, args.rounds)
    rows = []
    for file, model in models.items():
        step = statistics.median(turns[str(file)])
        iterations = args.iterations or round((args.seconds or 0) / step)
        rows.append(
            {
                "options": file.stem, "M parameters": f"{sum(p.numel() for p in model.net_g.parameters()) / 1e6:.2f}",
                "GFLOP": f"{operations(model) / 1e9:.2f}", "s a step": f"{step:.3f}",
                "least": f"{min(turns[str(file)]):.3f}", "most": f"{max(turns[str(file)]):.3f}",
                "iterations": iterations or "",
            }
        )  # fmt: skip
        if args.write is not None:
            write_copy(file, iterations, args.write)
    publish(rows, "Restorers", args.json)


if __name__ == "__main__":
    main()
