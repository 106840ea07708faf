"""Pairs of blurred and sharp faces from two folders, two LMDBs or a list of names."""

import random
from collections.abc import Mapping
from pathlib import Path

import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import get_root_logger, imfrombytes
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import walk
from dfpg_plugin.data.naming import list_some
from dfpg_plugin.data.sizes import check_sizes, describe_size, fits
from dfpg_plugin.data.stream import EpochCounter


@DATASET_REGISTRY.register()
class FacePairDataset(PairedImageDataset):
    """BasicSR's PairedImageDataset with four faults mended.

    - The pairs are sorted. BasicSR keeps the order of the directory, which differs between disks.
    - An error names both files. BasicSR stops at a damaged file without naming it.
    - Crops and flips depend on (``seed``, epoch, index). BasicSR's workers repeat them in every epoch.
    - Outside of training, a ground truth of another size is an error: for files when the data set is built, for an LMDB
      when the sample is read. BasicSR crops such a ground truth (docs/basicsr_defects.md#data).

    Options: BasicSR's, and ``seed``, by default torch's initial seed.
    """

    def __init__(self, opt: Mapping[str, object]) -> None:
        needed = ("scale", "gt_size", "use_hflip", "use_rot") if opt["phase"] == "train" else ("scale",)
        for key in ("dataroot_gt", "dataroot_lq", *needed):
            if opt.get(key) is None:
                raise UserError(f"datasets: {opt.get('name')}: FacePairDataset needs the key {key!r}.")
        super().__init__({"io_backend": {"type": "disk"}, **opt})
        self.paths.sort(key=lambda pair: (pair["gt_path"], pair["lq_path"]))
        if opt["phase"] != "train" and not self._in_lmdb():
            try:
                pairs = [(Path(pair["lq_path"]), Path(pair["gt_path"])) for pair in self.paths]
                check_sizes(pairs, opt["scale"])  # type: ignore[arg-type]
            except UserError as error:
                raise UserError(
                    f"datasets: {opt.get('name')}: {self.lq_folder} and {self.gt_folder}: {error}"
                ) from error
        if not self._in_lmdb():
            self._log_unpaired_files()
        seed = opt.get("seed")
        self.seed = torch.initial_seed() if seed is None else seed
        self.epochs = EpochCounter()

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return ``lq`` and ``gt``, float RGB (3,H,W) in [0,1], and their paths.

        Raises UserError, naming both files, for a pair that can't be used.
        """
        if self.opt["phase"] == "train":
            epoch, _ = self.epochs.position_of(index)
            random.seed(f"{self.seed} {epoch} {int(index)}")  # BasicSR's crops and flips draw from random
        try:
            sample = super().__getitem__(index)
            if self.opt["phase"] != "train" and self._in_lmdb():
                self._check_uncropped(sample)
            return sample
        except Exception as error:  # OpenCV and BasicSR raise many kinds of error
            pair = self.paths[index]
            reason = "".join(map(str, error.args)).strip().split("\n")[0].rstrip(".")  # BasicSR splits some messages
            raise UserError(
                f"{pair['lq_path']} and {pair['gt_path']}: not a usable pair ({type(error).__name__}: {reason}). "
                "Replace them, or remove both."
            ) from error

    def _log_unpaired_files(self) -> None:
        """Log the files that are in no pair, because BasicSR skips files in subfolders and hidden files silently."""
        used = {Path(pair[key]) for pair in self.paths for key in ("lq_path", "gt_path")}
        for folder in (Path(self.lq_folder), Path(self.gt_folder)):
            others = sorted(path.relative_to(folder).as_posix() for path in walk(folder) if path not in used)
            if others and not self.opt.get("meta_info_file"):
                get_root_logger().warning(f"{folder}: {len(others)} not used, in no pair: {list_some(others)}")

    def _in_lmdb(self) -> bool:
        return "db_paths" in self.io_backend_opt

    def _check_uncropped(self, sample: Mapping) -> None:
        """Raise ValueError if BasicSR has cropped the ground truth of a sample."""
        height, width = imfrombytes(self.file_client.get(sample["gt_path"], "gt")).shape[:2]
        size = sample["lq"].shape[-1], sample["lq"].shape[-2]
        if not fits(size, (width, height), self.opt["scale"]):
            raise ValueError(f"{describe_size(size)} and {describe_size((width, height))}, scale: {self.opt['scale']}")
