"""Seconds of restoring a batch of faces, by the ways that this package offers and by a plain eager forward.

    python benchmarks/inference.py                          # freshly initialised, one face of 128 px
    python benchmarks/inference.py --trained trained.pt     # with weights that benchmarks/train_step.py has kept

Every way is a process of its own, and they take turns. The share of convolutions is that of the network's convolutions
measured alone in the same process, in the same memory layout. ONNX Runtime is measured where it is installed.
Then other registered restorers of the same task and size, by billions of operations a second.
"""

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from side_by_side import Convolutions, batches, publish, seconds_of, spread, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import dfpg_plugin  # noqa: F401 - before basicsr

# isort: split
from basicsr.archs import build_network

from dfpg_plugin.speed.winograd import with_winograd

OTHERS = {
    "EDSR": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 1, "num_feat": 64, "num_block": 16},
    "RRDBNet": {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 4, "num_feat": 64, "num_block": 4},
    "RIDNet": {
        "type": "RIDNet", "in_channels": 3, "mid_channels": 64, "out_channels": 3, "num_block": 4, "img_range": 255,
        "rgb_mean": [0, 0, 0], "rgb_std": [1, 1, 1],
    },
    "SwinIR": {
        "type": "SwinIR", "upscale": 1, "img_size": 128, "window_size": 8, "depths": [6, 6], "embed_dim": 60,
        "num_heads": [6, 6], "mlp_ratio": 2, "upsampler": "", "resi_connection": "1conv",
    },
}  # fmt: skip
WAYS = ("plain", "channels_last", "winograd", "compiled", "bfloat16", "onnxruntime")

NOT_TORCHS = ("winograd", "onnxruntime")  # whose convolutions are others


def make(way: str, options: dict, weights: Path | None, image: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that restores a batch in one of WAYS."""
    torch.set_flush_denormal(way != "plain")
    torch.manual_seed(0)
    net = build_network(dict(options)).eval()
    if weights is not None:
        net.load_state_dict(torch.load(weights, weights_only=True)[0])
    if way == "onnxruntime":
        return with_onnxruntime(net, image)
    if way == "winograd":
        net = with_winograd(net)
    if way != "plain":
        net = net.to(memory_format=torch.channels_last)
    if way == "compiled":
        net.compile()

    def restore(x: Tensor) -> Tensor:
        x = x if way == "plain" else x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way == "bfloat16"):
            return net(x).float()

    return restore


def with_onnxruntime(net: torch.nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that restores by ONNX Runtime."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "net.onnx")
        torch.onnx.export(net, (image,), file, dynamo=True, verbose=False, external_data=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def serve(way: str, options: dict, weights: Path | None, image: Tensor, connection: Connection) -> None:
    """Restore when asked, answering with the seconds; after None, send the result and the convolutions' seconds."""
    restore = make(way, options, weights, image)
    result = restore(image)
    connection.send("ready")
    while connection.recv() is not None:
        connection.send(timed(lambda: restore(image)))
    with Convolutions() as noted:
        restore(image)
    connection.send((result.numpy(), seconds_of(noted.calls)))


def compare(ways: tuple[str, ...], options: dict, weights: Path | None, image: Tensor, rounds: int) -> dict[str, tuple]:
    """Return, of every way, its seconds in turns, the result and its convolutions' seconds."""
    context = get_context("spawn")
    pipes = {}
    for way in ways:
        pipes[way], there = context.Pipe()
        context.Process(target=serve, args=(way, options, weights, image, there), daemon=True).start()
        pipes[way].recv()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, pipe in pipes.items():
            pipe.send("again")
            seconds[way].append(pipe.recv())
    found = {}
    for way, pipe in pipes.items():
        pipe.send(None)
        result, alone = pipe.recv()
        found[way] = (seconds[way], result, alone)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, help="weights kept by train_step.py --trained")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=128, help="px")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--others", action="store_true", help="other restorers as well")
    parser.add_argument("--json", help="write the tables to this file as well")
    args = parser.parse_args()
    has_onnx = all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnxscript"))
    ways = tuple(way for way in args.ways if way != "onnxruntime" or has_onnx)
    ((image, _),) = batches(1, args.batch, args.size, seed=1)
    rows = rows_of("DFPGNet", {"type": "DFPGNet"}, args.trained, image, ways, args.rounds)
    if args.others:
        for name, options in OTHERS.items():
            rows += rows_of(name, options, None, image, ("plain", "channels_last"), args.rounds)
    state = "freshly initialised" if args.trained is None else f"weights of {args.trained.name}"
    publish(rows, f"Restoring {args.batch} of {args.size} px, {state}; medians of {args.rounds} turns", args.json)


def rows_of(name: str, options: dict, weights: Path | None, image: Tensor, ways: tuple, rounds: int) -> list[dict]:
    """Measure a network; return a row for each way."""
    net = build_network(dict(options)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    operations = counter.get_total_flops() / 1e9
    found = compare(ways, options, weights, image, rounds)
    plain, exact, _ = found[ways[0]]
    rows = []
    for way, (seconds, result, alone) in found.items():
        median = statistics.median(seconds)
        ratios = [a / b for a, b in zip(plain, seconds, strict=True)]
        rows.append({
            "network": name, "way": way, "GFLOP": round(operations, 1), "s": spread(seconds, 3),
            "GFLOP/s": round(operations / median), f"times {ways[0]}": spread(ratios),
            "convolutions alone / all": f"{alone / median:.0%}" if way not in NOT_TORCHS else "",
            "differs at most": f"{abs(result - exact).max():.0e}",
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
