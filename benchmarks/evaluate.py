"""Seconds that `basicsr test` takes against BasicSR's own validation loop, with the same metrics on the same CPUs.

    python benchmarks/evaluate.py

1,000 blurred faces of 128 px (25 sharp ones, 40 times each; the published sets have 80 to one), with PSNR, SSIM,
SSIM-3D and d_VGG (pool5 of VGG-16 with random weights: the time does not depend on their values). Twice: the blurred
faces are measured as they are, so that the metrics are what is timed, and a small network restores them first. Each
side is a process of its own, its start included, and they take turns; medians are printed, and how far the means of the
metrics are apart. The network that leaves images as they are is needed by BasicSR's loop only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import dfpg_plugin  # noqa: F401 - before basicsr

# isort: split
from basicsr.archs import build_network
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY

from dfpg_plugin.data.degradation import blur
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.kernels import synthesise_kernels
from dfpg_plugin.data.naming import blurred_name
from dfpg_plugin.evaluation.evaluate import evaluate
from dfpg_plugin.evaluation.records import read_run
from dfpg_plugin.options.completing import Arguments, RunOptions, complete
from dfpg_plugin.options.reading import open_option_file
from dfpg_plugin.runs.building import build_loaders

SIZE = 128  # px
SMALL_NETWORK = {"type": "DFPGNet", "num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}
METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False},
    "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
    "ssim_3d": {"type": "calculate_ssim_3d", "better": "higher"},
    "d_vgg": {"type": "calculate_vggface_distance", "weights": "random", "better": "lower"},
}


@ARCH_REGISTRY.register()
class LeaveAsItIs(nn.Module):
    """A network that returns its input."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x


def write_set(folder: Path, count: int, sharp: int) -> None:
    """Write ``count`` blurred faces of ``sharp`` sharp ones, in the published layout."""
    per_face = count // sharp
    kernels = [synthesise_kernels(13 + 2 * (i % 8), 1, np.random.default_rng(i))[0] for i in range(per_face)]
    source = orl_faces("train")
    for kind in ("gt", "blur"):
        (folder / f"set_{kind}").mkdir(parents=True)
    for person, name in enumerate(source.names[:: len(source.names) // sharp][:sharp]):
        face = cv2.resize(source.read(name)[:92], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "set_gt" / f"{person}.png"), face)
        for i, kernel in enumerate(kernels):
            blurred = np.rint(255 * blur(face.astype(np.float32) / 255, kernel)).clip(0, 255).astype(np.uint8)
            path = folder / "set_blur" / blurred_name(str(person), i // 8 + 1, len(kernel))
            cv2.imwrite(str(path), blurred)


def write_options(folder: Path, network: dict | None) -> Path:
    """Write a test's options as a file for both sides, and the network's weights."""
    options = network or {"type": "LeaveAsItIs"}
    torch.manual_seed(0)
    torch.save({"params": build_network(dict(options)).state_dict()}, folder / "net.pth")
    content = {
        "name": "benchmark", "model_type": "SRModel", "scale": 1, "num_gpu": 0, "manual_seed": 0,
        "datasets": {"test": {"name": "Set", "type": "FaceDeblurTestDataset", "dataroot": str(folder / "set")}},
        "network_g": options, "path": {"pretrain_network_g": str(folder / "net.pth")},
        "val": {"save_img": False, "metrics": METRICS},
    }  # fmt: skip
    file = folder / "options.yml"
    file.write_text(json.dumps(content))
    return file


def run_side(side: str, file: Path, folder: Path) -> dict[str, float]:
    """Measure the set by one side, in this process; return every metric's mean."""
    read = open_option_file(str(file))
    opt = complete(deepcopy(read.values), Arguments(str(file)), folder, is_train=False)
    if side == "stock":
        opt.update(rank=0, world_size=1)
        (loader,) = build_loaders(opt, "test")
        model = build_model(opt)
        model.validation(loader, "benchmark", None, False)
        return {key: float(value) for key, value in model.metric_results.items()}
    evaluate(RunOptions.of(read, opt), "blurred" if opt["network_g"]["type"] == LeaveAsItIs.__name__ else "restored")
    records = read_run(folder / "results" / "benchmark").sets["Set"]
    return {key: float(np.mean([record.values[key] for record in records])) for key in METRICS}


def turn(side: str, file: Path, folder: Path) -> tuple[float, dict[str, float]]:
    """Run one side in a process of its own; return its seconds and means."""
    result = folder / "result.json"
    start = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--side", side, str(file), str(result)], check=True, capture_output=True)
    return time.perf_counter() - start, json.loads(result.read_text())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="of blurred images, a multiple of --sharp")
    parser.add_argument("--sharp", type=int, default=25, help="faces that these are made of")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--network", choices=("none", "small"), help="one of the two parts alone")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side, file, result = args.side
        Path(result).write_text(json.dumps(run_side(side, Path(file), Path(result).parent)))
        return
    parts = {"none": ("images given", None), "small": ("a small network in the loop", SMALL_NETWORK)}
    for what, network in [parts[args.network]] if args.network else parts.values():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_set(folder / "set", args.count, args.sharp)
            file = write_options(folder, network)
            seconds: dict[str, list[float]] = {"stock": [], "ours": []}
            means: dict[str, dict[str, float]] = {}
            for _ in range(args.rounds):
                for side, times in seconds.items():
                    taken, means[side] = turn(side, file, folder)
                    times.append(taken)
            theirs, ours = (np.array(seconds[side]) for side in ("stock", "ours"))
            ratios = theirs / ours
            print(f"{args.count} images of {SIZE} px, {what}: medians of {args.rounds} turns")
            print(f"  BasicSR's loop {np.median(theirs):.1f} s, basicsr test {np.median(ours):.1f} s")
            print(f"  {np.median(ratios):.1f} times ({ratios.min():.1f} to {ratios.max():.1f})")
            for key in METRICS:
                a, b = means["stock"][key], means["ours"][key]
                print(f"  {key:8} {a:.6f} {b:.6f}  difference {abs(a - b):.1e}, relative {abs(a - b) / abs(a):.1e}")


if __name__ == "__main__":
    main()
