"""Pairs of blurred and sharp faces that lie in two folders, an LMDB or a list."""

import random
from collections.abc import Mapping

import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.stream import EpochCounter


@DATASET_REGISTRY.register()
class FacePairDataset(PairedImageDataset):
    """BasicSR's PairedImageDataset, with its options, in the same order on every disk and with damaged pairs named.

    BasicSR takes the order of the directory (defect 55), stops at a bad file without naming it (51), and with workers
    draws the same crops in every epoch (17). Option ``seed``: of crops and flips, by default the one that was set.
    """

    def __init__(self, opt: Mapping[str, object]) -> None:
        needed = ("scale", "gt_size", "use_hflip", "use_rot") if opt["phase"] == "train" else ("scale",)
        for key in ("dataroot_gt", "dataroot_lq", *needed):
            if opt.get(key) is None:
                raise UserError(f"datasets: {opt.get('name')}: FacePairDataset needs the key {key!r}.")
        super().__init__({"io_backend": {"type": "disk"}, **opt})
        self.paths.sort(key=lambda pair: (pair["gt_path"], pair["lq_path"]))
        seed = opt.get("seed")
        self.seed = torch.initial_seed() if seed is None else seed
        self.epochs = EpochCounter()

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return ``lq`` and ``gt``, float RGB (3,H,W) in [0,1], and their paths; raise UserError, naming both files."""
        if self.opt["phase"] == "train":
            # what BasicSR's crops and flips draw from
            random.seed(f"{self.seed} {self.epochs.position_of(index)[0]} {int(index)}")
        try:
            return super().__getitem__(index)
        except Exception as error:  # OpenCV and BasicSR raise what comes
            pair = self.paths[index]
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"{pair['lq_path']} and {pair['gt_path']}: not a usable pair ({type(error).__name__}: {reason}). "
                "Replace them, or remove both."
            ) from error
