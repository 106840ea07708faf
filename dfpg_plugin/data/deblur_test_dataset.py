"""Published test and validation sets. Each has a folder of blurred faces, and most have a folder of sharp faces."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from basicsr.utils import img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from pydantic import model_validator
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Self

from dfpg_plugin.checks import UserError, check_choice, check_folder
from dfpg_plugin.data.images import list_images, read_image
from dfpg_plugin.data.naming import check_stems, list_some, pair_by_name
from dfpg_plugin.data.sizes import check_sizes
from dfpg_plugin.options.schema import DataSetKeys
from dfpg_plugin.options.section import Key, Text


class FaceDeblurTestOptions(DataSetKeys):
    """A published test set."""

    dataroot: Text | None = Key(None, "A published folder. In it lie two folders, whose names end in gt and in blur.")
    dataroot_lq: Text | None = Key(None, "The folder of the blurred faces, instead of dataroot.")
    dataroot_gt: Text | None = Key(None, "The folder of the sharp faces, with dataroot_lq. By default there are none.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.dataroot is None) == (self.dataroot_lq is None):
            raise UserError(
                "FaceDeblurTestDataset needs either dataroot (with ..._gt and ..._blur in it) or dataroot_lq."
            )
        if self.dataroot is not None and self.dataroot_gt is not None:
            raise UserError("dataroot_gt goes with dataroot_lq. Remove it, or dataroot.")
        return self

    def folders(self, where: str) -> tuple[Path, Path | None]:
        """Return the folders of the blurred faces and of the sharp faces, the second None if there are none.

        Raises UserError, beginning with ``where``, if a folder is missing.
        """
        if self.dataroot is not None:
            root = check_folder(f"{where}: dataroot", self.dataroot)
            return _only_folder(root, "blur", where), _only_folder(root, "gt", where)
        gt = None if self.dataroot_gt is None else check_folder(f"{where}: dataroot_gt", self.dataroot_gt)
        return check_folder(f"{where}: dataroot_lq", self.dataroot_lq or ""), gt


@DATASET_REGISTRY.register()
class FaceDeblurTestDataset(Dataset):
    """Blurred faces. If ``has_gt`` is true, each has a sharp face, found by :func:`pair_by_name`.

    The constructor checks all names and the header of every file. A sample without ground truth has only the keys
    ``lq`` and ``lq_path``. Options: :class:`FaceDeblurTestOptions`.
    """

    Options = FaceDeblurTestOptions

    def __init__(self, opt: Mapping[str, object]) -> None:
        super().__init__()
        self.opt = opt  # BasicSR reads dataset.opt['name']
        where = f"datasets: {opt.get('name')}"
        check_choice(f"{where}: io_backend", opt.get("io_backend") or {"type": "disk"}, [{"type": "disk"}])
        lq, gt = FaceDeblurTestOptions.of_data_set(where, opt).folders(where)
        self.has_gt = gt is not None
        blurred = list_images(lq)
        sharp = [] if gt is None else list_images(gt)
        try:
            check_stems(blurred, "would be saved under the same name")
            self.paths: list[tuple[Path, Path | None]] = [(lq / name, None) for name in blurred]
            if gt is not None:
                self.paths = [(lq / name, gt / gt_name) for name, gt_name in pair_by_name(blurred, sharp)]
            check_sizes(self.paths)
        except UserError as error:
            folders = str(lq) if gt is None else f"{lq} and {gt}"
            raise UserError(f"{where}: {folders}: {error}") from error

    def __len__(self) -> int:
        """Return the number of blurred faces."""
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return ``lq`` and, if ``has_gt`` is true, ``gt``: float RGB (3,H,W) in [0,1], and their paths.

        Raises UserError, naming the file, for a damaged file.
        """
        lq, gt = self.paths[index]
        sample: dict[str, Tensor | str] = {"lq": _read(lq), "lq_path": str(lq)}
        if gt is not None:
            sample.update(gt=_read(gt), gt_path=str(gt))
        return sample


def _read(path: Path) -> Tensor:
    return img2tensor(read_image(path).astype(np.float32) / np.float32(255), bgr2rgb=True, float32=True)


def _only_folder(root: Path, ending: str, where: str) -> Path:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for path in folders if path.name.lower().endswith(ending)]
    if len(found) != 1:
        names = list_some([path.name for path in found or folders]) or "no folder"
        raise UserError(
            f"{where}: dataroot: {root}: expected one folder whose name ends in {ending}, found {names}. Set dataroot "
            "to the folder above the two, or set dataroot_lq and dataroot_gt."
        )
    return found[0]
