"""A small published test set of real faces, and a small network to test on it."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network

from dfpg_plugin.data.degradation import blur
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.kernels import synthesise_kernels
from dfpg_plugin.evaluation.evaluate import evaluate
from dfpg_plugin.options.checking import check_options
from dfpg_plugin.options.completing import Arguments, RunOptions, complete
from dfpg_plugin.options.reading import force, open_option_file

SIZES = (5, 9)
NETWORK = {"type": "DFPGNet", "num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}
METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False},
    "ssim": {"type": "calculate_ssim", "crop_border": 0, "test_y_channel": False},
    "ssim_3d": {"type": "calculate_ssim_3d", "better": "higher"},
    "d_vgg": {
        "type": "calculate_vggface_distance", "weights": "stand-in", "layer": "relu3_3", "input": "pm1",
        "better": "lower",
    },
}  # fmt: skip


@dataclass(frozen=True)
class SmallSet:
    """A folder with a published test set, network weights, and the option file that names both."""

    folder: Path
    option_file: Path
    names: tuple[str, ...]  # of the blurred faces

    def run(self, *forced: str, images: str = "restored", workers: int = 0) -> Path:
        """Evaluate in this process, in ``folder``; return the results folder."""
        file = open_option_file(str(self.option_file))
        opt = deepcopy(file.values)
        force(opt, forced)
        complete(opt, Arguments(str(self.option_file)), self.folder, is_train=False)
        check_options(opt, ["dfpg_plugin"], needs_network=images == "restored")
        evaluate(RunOptions.of(file, opt), images, workers)
        return Path(opt["path"]["results_root"])


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SmallSet]:
    """Make a test set of the first pictures of people 37 to 40, blurred by a kernel of each size."""

    def make(people: int = 4, sizes: tuple[int, ...] = SIZES, **val: object) -> SmallSet:
        monkeypatch.chdir(tmp_path)
        gt, lq = tmp_path / "set" / "set_gt", tmp_path / "set" / "set_blur"
        gt.mkdir(parents=True)
        lq.mkdir()
        names = []
        for person in range(37, 37 + people):
            face = orl_faces("test").read(f"s{person}/1.pgm")
            cv2.imwrite(str(gt / f"s{person}.png"), face)
            for size in sizes:
                kernel = synthesise_kernels(size, 1, np.random.default_rng(size))[0]
                names.append(f"s{person}_ker01_blur_k{size}")
                blurred = np.rint(255 * blur(face.astype(np.float32) / 255, kernel)).clip(0, 255).astype(np.uint8)
                cv2.imwrite(str(lq / f"{names[-1]}.png"), blurred)
        torch.save({"params": build_network(dict(NETWORK)).state_dict()}, tmp_path / "net.pth")
        options = {
            "name": "small", "model_type": "DFPGModel", "scale": 1, "num_gpu": 0, "manual_seed": 0,
            "datasets": {"test": {"name": "Small", "type": "FaceDeblurTestDataset", "dataroot": "set"}},
            "network_g": NETWORK, "path": {"pretrain_network_g": "net.pth"},
            "val": {"save_img": False, "batch_size": 3, "metrics": METRICS, **val},
        }  # fmt: skip
        file = tmp_path / "small.yml"
        file.write_text(json.dumps(options))  # which is YAML
        return SmallSet(tmp_path, file, tuple(names))

    return make
