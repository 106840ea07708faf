"""What a training ends with: figures of all images, and a picture of some."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils import get_root_logger
from kit import files_of_at_most
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfpg_plugin.checks import UserError
from dfpg_plugin.training.summary import summarise

METRICS = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


class Pairs(Dataset):
    """Eight pairs; the sharp faces are twice as large as the blurred ones."""

    opt = {"name": "eight"}  # noqa: RUF012

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        lq = np.random.default_rng(index).integers(50, 200, (3, 5, 7)) / 255
        gt = lq.repeat(2, axis=1).repeat(2, axis=2) + (index + 1) / 255
        return {"lq": torch.from_numpy(lq).float(), "gt": torch.from_numpy(gt).float()}


class Darkens:
    """Enlarges, and takes twice the grey levels away by which the sharp face is brighter."""

    def feed_data(self, data: dict) -> None:
        self.lq, self.gt = data["lq"], data["gt"]

    def test(self) -> None:
        self.output = self.gt - 2 * (self.gt - enlarged(self.lq))

    def get_current_visuals(self) -> dict[str, Tensor]:
        return {"lq": self.lq, "result": self.output, "gt": self.gt}


def enlarged(lq: Tensor) -> Tensor:
    return lq.repeat_interleave(2, 2).repeat_interleave(2, 3)


def run(folder: Path) -> None:
    options = SimpleNamespace(plain={"val": {"metrics": METRICS}}, folder=folder)
    summarise(Darkens(), [DataLoader(Pairs())], options)


def test_the_figures_are_means_of_all_images_and_the_picture_shows_six(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "info", said.append)
    run(tmp_path)
    before, after = (np.mean([20 * np.log10(255 / (k * (i + 1))) for i in range(8)]) for k in (1, 2))
    assert said[0] == (
        f"Validation of eight, 8 images:\n\t # psnr: blurred {before:.4f}, restored {after:.4f} ({after - before:+.4f})"
    )
    picture = cv2.imread(str(tmp_path / "comparison_eight.png"))[..., ::-1].astype(float)
    height, width = 10 + 4, 14 + 4  # with a white gap of 4 px
    assert picture.shape == (6 * height + 4, 3 * width + 4, 3)
    for row, index in enumerate((0, 1, 2, 4, 5, 7)):
        pair = {key: value[None] for key, value in Pairs()[index].items()}
        blurred = enlarged(pair["lq"])
        for column, image in enumerate((blurred, 2 * blurred - pair["gt"], pair["gt"])):
            shown = picture[row * height + 4 : (row + 1) * height, column * width + 4 : (column + 1) * width]
            assert np.abs(shown - 255 * image[0].permute(1, 2, 0).numpy()).max() < 1.01
    assert (picture[:4] == 255).all()


def test_a_picture_that_does_not_fit_on_the_disk_leaves_the_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "comparison_eight.png"
    file.write_bytes(b"earlier")
    with files_of_at_most(1000), pytest.raises(UserError, match=r"comparison_eight\.png: can't be written"):
        run(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(file.name, b"earlier")]
