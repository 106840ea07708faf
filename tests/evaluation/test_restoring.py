"""What a model makes of the samples of a test set."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from torchvision.transforms.functional import normalize

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.restoring import restore, to_image, why_not_single_images


def model_of(kind: type, folder: Path) -> BaseModel:
    path, val = {"visualization": str(folder)}, {"metrics": {"psnr": {}}, "suffix": None}
    return kind({"name": "m", "num_gpu": 0, "dist": False, "is_train": False, "path": path, "val": val})


class SavesItsOwnWay(BaseModel):
    """As GFPGAN's: images in [-1,1], and noise."""

    def nondist_validation(self, dataloader, current_iter: str, tb_logger: None, save_img: bool) -> None:
        assert save_img
        assert self.opt["val"]["metrics"] is None
        for data in dataloader:
            get_root_logger().warning("once for each image")
            image = data["lq"] + 0.1 * torch.randn_like(data["lq"])
            name = Path(data["lq_path"][0]).stem
            folder = Path(self.opt["path"]["visualization"])
            imwrite(tensor2img(image, min_max=(-1, 1)), str(folder / dataloader.dataset.opt["name"] / f"{name}_m.png"))


class SavesAFilm(SavesItsOwnWay):
    """Two images of one sample."""

    def nondist_validation(self, dataloader, current_iter: str, tb_logger: None, save_img: bool) -> None:
        super().nondist_validation(dataloader, current_iter, tb_logger, save_img)
        cv2.imwrite(str(Path(self.opt["path"]["visualization"], "second.png")), np.zeros((2, 2, 3), np.uint8))


class Samples(list):
    """A data set that normalises as BasicSR's do."""

    opt = {"name": "faces", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 1.0]}  # noqa: RUF012


IMAGE = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)


def samples(mean: list[float], std: list[float]) -> Samples:
    tensor = torch.from_numpy(IMAGE[..., ::-1].copy()).permute(2, 0, 1) / 255
    return Samples([{"lq": normalize(tensor, mean, std), "lq_path": "a/b.png"}])


def test_normalised_images_are_those_that_were_read() -> None:
    normalised = samples(Samples.opt["mean"], Samples.opt["std"])
    np.testing.assert_array_equal(to_image(normalised[0]["lq"], Samples.opt), IMAGE)
    as_they_are = samples([0.0] * 3, [1.0] * 3)
    np.testing.assert_array_equal(to_image(as_they_are[0]["lq"], {"name": "x", "mean": None}), IMAGE)


def test_a_model_with_its_own_validation_is_asked_for_what_it_saves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_root_logger(), "propagate", True)  # to caplog
    model, dataset = model_of(SavesItsOwnWay, tmp_path), samples([0.5] * 3, [0.5] * 3)
    before = json.dumps(model.opt)
    state = torch.get_rng_state()
    assert why_not_single_images(model, dataset) is None
    first, second = (restore(model, dataset, dataset.opt)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)  # though it draws noise
    assert 2 < np.abs(first.astype(float) - IMAGE).mean() < 20
    assert json.dumps(model.opt) == before
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)
    get_root_logger().warning("after it")
    assert "after it" in caplog.text
    assert "once for each image" not in caplog.text


class Inverts(SRModel):
    """One of BasicSR's kind, that notes its batches."""

    def __init__(self, opt: dict) -> None:
        BaseModel.__init__(self, opt)
        self.shapes: list[tuple[int, ...]] = []

    def test(self) -> None:
        self.shapes.append(tuple(self.lq.shape))
        self.output = 1 - self.lq


def test_samples_of_several_sizes_share_batches_and_come_back_in_their_order(tmp_path: Path) -> None:
    sizes = [(6, 9) if i in (1, 4) else (9, 5) for i in range(8)]
    images = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate(sizes)]
    tensors = [torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) / 255 for image in images]
    model = model_of(Inverts, tmp_path)
    restored = restore(model, [{"lq": tensor, "lq_path": "a.png"} for tensor in tensors], {})
    for image, result in zip(images, restored, strict=True):
        np.testing.assert_array_equal(result, 255 - image)
    assert model.shapes == [(4, 3, 9, 5), (2, 3, 9, 5), (2, 3, 6, 9)]  # at most four on a CPU


def test_a_model_of_films_is_left_to_its_own_way(tmp_path: Path) -> None:
    model, dataset = model_of(SavesAFilm, tmp_path), samples([0.5] * 3, [0.5] * 3)
    assert why_not_single_images(model, dataset) == "SavesAFilm saves 2 images of one sample."
    with pytest.raises(UserError, match="SavesAFilm saves 2 images of one sample"):
        restore(model, dataset, dataset.opt)
    assert model.opt["path"]["visualization"] == str(tmp_path)
