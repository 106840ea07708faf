"""Files of another method, found by the blurred file's name, and what models of others make of an image."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from torchvision.transforms.functional import normalize

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.image_sources import RestoredFolder, restore, to_image, why_not_single_images


def write(folder: Path, names: dict[str, int]) -> None:
    folder.mkdir(exist_ok=True)
    for name, level in names.items():
        cv2.imwrite(str(folder / name), np.full((4, 4, 3), level, np.uint8))


def test_names_are_compared_whole(tmp_path: Path) -> None:
    """1 beside 10, and an image's suffix beside a name of the set that looks like one."""
    names = ["1", "10", "1_random", "2", "3"]
    write(tmp_path, {"1_x.png": 1, "10_x.png": 2, "1_random_x.jpg": 3, "2.png": 4, "2_x.png": 5})
    folder = RestoredFolder(str(tmp_path), "Set", [*names])
    assert folder.read("1").max() == 1
    assert folder.read("10").max() == 2
    assert folder.read("1_random").max() == 3
    assert folder.read("2").max() == 4  # the exact name goes first
    with pytest.raises(UserError, match=r"^missing$"):
        folder.read("3")


def test_a_folder_for_each_set_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    write(tmp_path, {"1.png": 1})
    write(tmp_path / "Set", {"1.png": 2, "2.png": 3})
    assert RestoredFolder(str(tmp_path), "Set", ["1"]).read("1").max() == 2
    assert said == []
    assert RestoredFolder(str(tmp_path), "Other", ["1"]).read("1").max() == 1
    assert said == [f"--images: 2 in folders below {tmp_path} are not used"]
    assert RestoredFolder(str(tmp_path), "Other", ["1"]).read("1").max() == 1
    write(tmp_path, {"1.jpg": 3})
    with pytest.raises(UserError, match=r"1\.jpg and 1\.png could both be the image of one name"):
        RestoredFolder(str(tmp_path), "Other", ["1"])


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


def test_a_model_of_films_is_left_to_its_own_way(tmp_path: Path) -> None:
    model, dataset = model_of(SavesAFilm, tmp_path), samples([0.5] * 3, [0.5] * 3)
    assert why_not_single_images(model, dataset) == "SavesAFilm saves 2 images of one sample."
    with pytest.raises(UserError, match="SavesAFilm saves 2 images of one sample"):
        restore(model, dataset, dataset.opt)
    assert model.opt["path"]["visualization"] == str(tmp_path)
