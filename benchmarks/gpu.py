"""What a GPU makes of a training step, of the loop around it and of restoring: at most five minutes on an H100.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --small        # whether the script still works, in a minute

The step is the paper's (44.66 M parameters, batch 16, 128 px), then that of the network which this package ships (batch
32), in each way: written plainly as in `train_step.py`, by `DFPGModel` with each kernel launched alone, and fast, which
is `DFPGModel` as it is: compiled and recorded as CUDA graphs. Every way starts from the same weights, on the same
pictures. The share of convolutions is the time of the step's own convolutions, measured alone in the same run without
the gradients of their biases, over that of the step. A step's operations are counted by torch, of the eager step.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
import yaml
from side_by_side import Convolutions, Shape, publish
from torch.utils.flop_counter import FlopCounterMode
from train_step import Ours, Plain

# isort: split
from basicsr.archs import build_network

from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.speed.acceleration import Acceleration, autocast, channels_last

PRIOR = {"type": "VGGFaceFeatureExtractor", "weights": "stand-in"}
SIZES = {
    "paper": (16, {"network_g": {"type": "DFPGNet"}, "network_d": {"type": "CAFeatureDiscriminator"}}),
    "shipped": (
        32,
        {
            "network_g": {"type": "DFPGNet", "num_feat": 48, "num_block": 3, "num_prior_block": 3, "init_scale": 0.4},
            "network_d": {"type": "CAFeatureDiscriminator", "num_feat": 32},
        },
    ),
    "small": (
        2,
        {
            "network_g": {"type": "DFPGNet", "num_feat": 16, "num_block": 1, "num_prior_block": 1},
            "network_d": {"type": "CAFeatureDiscriminator", "num_feat": 16},
        },
    ),
}
EAGER = {"compile": False, "cuda_graph": False}
PLAIN = "plain"
WAYS: dict[str, dict] = {  # options under `train`
    f"{PLAIN}, float32": {"tf32": False},
    f"{PLAIN}, TF32": {},
    "eager, float32": {"tf32": False, **EAGER},
    "eager, TF32": EAGER,
    "eager, bfloat16": {"amp": "bfloat16", **EAGER},
    "recorded, bfloat16": {"amp": "bfloat16", "compile": False},
    "fast, float32": {"tf32": False},
    "fast, TF32": {},
    "fast, bfloat16": {"amp": "bfloat16"},
}
WARM_UP = 6  # steps, in which kernels are chosen, compiled and recorded
ROUNDS = 3


class Clock:
    """Seconds on a device."""

    def __init__(self, device: str) -> None:
        self.is_gpu = device == "cuda"

    def __call__(self, function: Callable[[], object], repeats: int = 1) -> float:
        """Return the seconds that one of ``repeats`` calls takes."""
        self.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        self.wait()
        return (time.perf_counter() - start) / repeats

    def wait(self) -> None:
        """Wait for the device."""
        if self.is_gpu:
            torch.cuda.synchronize()


def set_tf32(train: dict) -> None:
    """Let convolutions round as the way says: torch's default is to do so."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = train.get("tf32", True)


def build(way: str, networks: dict, device: str) -> Callable[[torch.Tensor, torch.Tensor], object]:
    """Return what trains a step."""
    networks = {**networks, "network_prior": PRIOR}
    if way.startswith(PLAIN):
        return Plain(None, device, networks).step
    model = Ours(None, num_gpu=int(device == "cuda"), networks=networks, **WAYS[way]).model

    def step(lq: torch.Tensor, gt: torch.Tensor) -> None:
        model.feed_data({"lq": lq, "gt": gt})
        model.optimize_parameters(1)

    return step


def alone(calls: Counter, clock: Clock) -> float:
    """Return the seconds that convolutions take by themselves, without the gradients of their biases."""
    total = 0.0
    for (function, plain), count in calls.items():
        if function is torch.ops.aten.convolution_backward.default:
            plain = (*plain[:-1], (*plain[-1][:2], False))
        args = [arg.noise() if isinstance(arg, Shape) else arg for arg in plain]
        clock(lambda f=function, a=args: f(*a), 3)
        total += count * clock(graphed(lambda f=function, a=args: f(*a), clock), 10)
    return total


def graphed(function: Callable[[], object], clock: Clock) -> Callable[[], object]:
    """Return a call without the seconds of its launch, which for small convolutions are longer than their own."""
    if not clock.is_gpu:
        return function
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def measure_step(size: str, way: str, args: argparse.Namespace, clock: Clock, shared: dict) -> dict:
    """Return a row of the table; ``shared`` keeps what the ways of a size have in common."""
    batch, networks = SIZES[size]
    set_tf32(WAYS[way])
    torch._dynamo.reset()
    torch.manual_seed(1)
    lq, gt = (torch.rand(batch, 3, args.px, args.px, device=args.device) for _ in range(2))
    if clock.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = build(way, networks, args.device)
    warm_up = WARM_UP * clock(lambda: step(lq, gt), WARM_UP)
    print(f"  {size}, {way}: timing, after {warm_up:.1f} s for {WARM_UP} steps", flush=True)
    seconds = statistics.median(clock(lambda: step(lq, gt), args.steps) for _ in range(ROUNDS))
    memory = round(torch.cuda.max_memory_allocated() / 1e9, 2) if clock.is_gpu else None
    if way.startswith("eager"):
        with Convolutions() as noted:
            step(lq, gt)
        shared[way.split(", ")[1]] = alone(noted.calls, clock)
        if "flop" not in shared:
            with FlopCounterMode(display=False) as counted:
                step(lq, gt)
            shared["flop"] = counted.get_total_flops()
    if args.profile and way.startswith("fast"):
        profile(lambda: step(lq, gt))
    return {
        "network": size,
        "way": way,
        "ms": round(1e3 * seconds, 2),
        "pictures/s": round(batch / seconds, 1),
        "seconds": seconds,
        "peak GB": memory,
        f"s for the first {WARM_UP}": round(warm_up, 1),
    }


def profile(function: Callable[[], object]) -> None:
    """Print the kernels that take longest."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        function()
        torch.cuda.synchronize()
    print(profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=90))


def measure_steps(size: str, ways: list[str], args: argparse.Namespace, clock: Clock) -> list[dict]:
    """Return the rows of one network."""
    shared: dict = {}
    rows = []
    for way in ways:
        rows.append(measure_step(size, way, args, clock, shared))
        print(f"  {rows[-1]}", flush=True)
    for row in rows:
        seconds = row.pop("seconds")
        if "flop" in shared:
            row["TFLOP/s"] = round(shared["flop"] / seconds / 1e12, 1)
        if (convolutions := shared.get(row["way"].split(", ")[1])) is not None:
            row["convolutions alone, ms"] = round(1e3 * convolutions, 2)
            row["share"] = f"{convolutions / seconds:.0%}"
    return rows


@torch.inference_mode()
def measure_restoring(size: str, args: argparse.Namespace, clock: Clock) -> list[dict]:
    """Return the milliseconds of restoring 1 and 16 faces, in each way."""
    set_tf32({})
    net = channels_last(build_network(dict(SIZES[size][1]["network_g"])).to(args.device).eval())
    ways = {"float32": (None, False), "bfloat16": ("bfloat16", False), "bfloat16, compiled": ("bfloat16", True)}
    rows = []
    for way, (amp, compiled) in ways.items():
        if compiled:
            torch._dynamo.reset()
            Acceleration(compile=True).compiled(net, torch.device(args.device))
        for batch in (1, 16):
            faces = torch.rand(batch, 3, args.px, args.px, device=args.device)
            faces = faces.contiguous(memory_format=torch.channels_last)

            def restore(faces: torch.Tensor = faces, amp: str | None = amp) -> torch.Tensor:
                with autocast(amp, torch.device(args.device)):
                    return net(faces)

            first = clock(restore, 3)
            seconds = statistics.median(clock(restore, args.steps) for _ in range(ROUNDS))
            rows.append({"network": size, "way": way, "faces": batch, "ms": round(1e3 * seconds, 2),
                         "faces/s": round(batch / seconds, 1), "s for the first 3": round(3 * first, 1)})  # fmt: skip
    return rows


def write_faces(folder: Path, size: int = 160) -> None:
    """Write the demo's training faces, enlarged."""
    folder.mkdir()
    source = orl_faces("train")
    for i, name in enumerate(source.names):
        face = cv2.resize(source.read(name)[:92], (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i}.png"), face)


def measure_loop(size: str, step_ms: float | None, args: argparse.Namespace) -> dict:
    """Return the milliseconds of an iteration of `basicsr train`, by its own log, beside those of the bare step."""
    batch, networks = SIZES[size]
    iterations = 6 if args.small else 300
    opt = {
        "name": "loop", "model_type": "DFPGModel", "scale": 1, "num_gpu": int(args.device == "cuda"), "manual_seed": 0,
        "datasets": {"train": {
            "name": "ORL", "type": "FaceBlurDataset", "dataroot_gt": "faces", "crop": args.px,
            "use_hflip": True, "kernels_per_size": 4, "kernel_sizes": [13, 21], "pin_memory": True,
            "batch_size_per_gpu": batch, "num_worker_per_gpu": args.workers, "persistent_workers": True,
            "dataset_enlarge_ratio": 20,
        }},
        **networks, "network_prior": PRIOR, "path": {},
        "train": {
            "total_iter": iterations, "amp": "bfloat16", "ema_decay": 0.999,
            "pixel_opt": {"type": "L1Loss"}, "prior_opt": {"type": "PriorLoss"},
            "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.05},
            "optim_g": {"type": "Adam", "lr": 1e-4}, "optim_d": {"type": "Adam", "lr": 1e-5},
        },
        "logger": {"print_freq": iterations // 3, "save_checkpoint_freq": 10**6},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_faces(Path(folder) / "faces")
        file = Path(folder) / "loop.yml"
        file.write_text(yaml.safe_dump(opt), encoding="utf-8")
        started = time.time()
        command = [sys.executable, "-m", "dfpg_cli.main", "train", "-opt", str(file)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"gpu.py: the training of the loop failed:\n{done.stderr[-2000:]}")
        taken = time.time() - started
        (log,) = (Path(folder) / "experiments" / "loop").glob("train_*.log")
        lines = log.read_text(encoding="utf-8")
    times = [float(value) for value in re.findall(r"time \(data\): (\d+\.\d+)", lines)]
    begun = re.search(r"^(\S+ \S+),\d+ INFO: Start training", lines, re.MULTILINE)
    start = time.mktime(time.strptime(begun[1], "%Y-%m-%d %H:%M:%S")) - started if begun else None
    return {"network": size, "ms an iteration": 1e3 * times[-1], "ms a bare step": step_ms,
            "s to the first iteration": start and round(start, 1), f"s for {iterations}": round(taken, 1)}  # fmt: skip


def main() -> None:
    """Print the tables, and store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="the smallest network alone, whose figures mean nothing")
    parser.add_argument("--steps", type=int, default=10, help=f"in each of {ROUNDS} rounds")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["paper", "shipped"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument(
        "--parts", nargs="+", choices=("steps", "restoring", "loop"), default=["steps", "restoring", "loop"]
    )
    parser.add_argument("--workers", type=int, default=12, help="that read pictures, of the loop")
    parser.add_argument("--profile", action="store_true", help="print the fast step's longest kernels")
    parser.add_argument("--json", help="write the tables to this file as well")
    args = parser.parse_args()
    args.px = 128
    if args.small:
        args.sizes, args.steps, args.workers, args.px = ["small"], 1, 1, 48
    torch.backends.cudnn.benchmark = True
    clock = Clock(args.device)
    about = torch.cuda.get_device_name() if clock.is_gpu else "CPU"
    tables: dict[str, list[dict]] = {}
    if "steps" in args.parts:
        tables["steps"] = [row for size in args.sizes for row in measure_steps(size, args.ways, args, clock)]
    if "restoring" in args.parts:
        tables["restoring"] = [row for size in args.sizes for row in measure_restoring(size, args, clock)]
    if "loop" in args.parts:
        fast = {row["network"]: row["ms"] for row in tables.get("steps", []) if row["way"] == "fast, bfloat16"}
        tables["loop"] = [measure_loop(size, fast.get(size), args) for size in args.sizes]
    for name, rows in tables.items():
        publish(rows, f"{name}: {about}, torch {torch.__version__}, {args.px} px", None)
    if args.json:
        content = {"device": about, "torch": torch.__version__, "px": args.px, **tables}
        Path(args.json).write_text(f"{json.dumps(content, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
