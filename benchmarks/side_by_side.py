"""What the benchmarks of speed share: real faces, convolutions measured alone, steps that take turns, tables."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dfpg_plugin.data.degradation import blur
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.kernels import synthesise_kernels

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
Batch = tuple[Tensor, Tensor]


def batches(count: int, batch: int, size: int, seed: int = 0) -> Iterator[Batch]:
    """Yield (blurred, sharp) faces, RGB (batch,3,size,size) in [0,1]: the demo's, blurred by kernels of 13 to 27 px."""
    rng = np.random.default_rng(seed)
    source = orl_faces("train")
    for _ in range(count):
        pairs = []
        for name in rng.choice(source.names, batch):
            face = cv2.resize(source.read(name)[:92], (size, size), interpolation=cv2.INTER_CUBIC)
            sharp = face.astype(np.float32) / 255
            (kernel,) = synthesise_kernels(int(rng.integers(6, 14)) * 2 + 1, 1, rng)
            pairs.append((blur(sharp, kernel), sharp))
        lq, gt = (
            torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).contiguous() for side in zip(*pairs, strict=True)
        )
        yield lq.clamp(0, 1), gt


@dataclass(frozen=True)
class Shape:
    """A tensor's sizes, whether its channels lie innermost in memory, its numbers' type and its device."""

    sizes: tuple[int, ...]
    channels_last: bool
    dtype: torch.dtype
    device: str

    @classmethod
    def of(cls, tensor: Tensor) -> "Shape":
        """Describe a tensor."""
        channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(tensor.shape), channels_last, tensor.dtype, tensor.device.type)

    def noise(self) -> Tensor:
        """Return such a tensor of random numbers."""
        tensor = torch.randn(self.sizes, dtype=self.dtype, device=self.device)
        return tensor.contiguous(memory_format=torch.channels_last) if self.channels_last else tensor


class Convolutions(TorchDispatchMode):
    """Notes every convolution, forward and backward, that is computed below it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204, D105
        del types
        if func in CONVOLUTIONS:
            plain = tuple(
                Shape.of(arg) if isinstance(arg, Tensor) else tuple(arg) if isinstance(arg, list) else arg
                for arg in args
            )
            self.calls[func, plain] += 1
        return func(*args, **(kwargs or {}))


def seconds_of(calls: Counter, repeats: int = 3) -> float:
    """Return the seconds that convolutions take by themselves, each with its own shapes; medians of ``repeats``."""
    total = 0.0
    for (function, plain), count in calls.items():
        args = [arg.noise() if isinstance(arg, Shape) else arg for arg in plain]
        function(*args)
        total += count * statistics.median(timed(lambda f=function, a=args: f(*a)) for _ in range(repeats))
    return total


KINDS_OF_WORK = {
    "convolutions": ("convolution", "conv2d", "conv_transpose"),
    "optimizer": ("adam", "addcdiv", "addcmul", "lerp", "sqrt"),
    "copies and layouts": ("copy_", "clone", "contiguous", "reorder", "to_copy", "fill_", "zero_", "empty", "cat"),
    "activations, sums, products": ("leaky_relu", "add", "mul", "tanh", "sub", "threshold", "sigmoid", "div", "neg"),
}


def profile(function: Callable[[], object]) -> dict[str, float]:
    """Return the share of a call's time that each kind of work takes, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        function()
    shares = dict.fromkeys([*KINDS_OF_WORK, "the rest"], 0.0)
    for event in profiled.key_averages():
        found = (kind for kind, names in KINDS_OF_WORK.items() if any(name in event.key.lower() for name in names))
        shares[next(found, "the rest")] += event.self_cpu_time_total
    return {kind: share / sum(shares.values()) for kind, share in shares.items()}


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each side once a round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, function in sides.items():
            taken = timed(function)
            if i:
                seconds[name].append(taken)
    return seconds


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return ``median (least to most)``."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def publish(rows: Sequence[dict], title: str, file: str | None) -> None:
    """Print rows as a table, and write them as JSON where a file is named."""
    print(f"\n{title}\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    for line in cells:
        print(f"| {' | '.join(line)} |")
    if file is not None:
        about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "title": title, "rows": rows}
        Path(file).write_text(f"{json.dumps(about, indent=1)}\n")
