"""Pairs in folders: BasicSR's samples, in a fixed order, with what is damaged named."""

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import get_root_logger
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.face_pair_dataset import FacePairDataset
from dfpg_plugin.data.stream import EpochIndex

NAMES = ["c", "a", "d", "b"]


@pytest.fixture
def options(tmp_path: Path) -> dict:
    rng = np.random.default_rng(0)
    for folder in ("lq", "gt"):
        (tmp_path / folder).mkdir()
        for name in NAMES:
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), rng.integers(0, 256, (40, 36, 3), np.uint8))
    return {
        "name": "p", "phase": "train", "scale": 1, "dataroot_gt": str(tmp_path / "gt"), "seed": 1,
        "dataroot_lq": str(tmp_path / "lq"), "gt_size": 16, "use_hflip": True, "use_rot": False,
    }  # fmt: skip


def test_the_order_is_that_of_the_names(options: dict) -> None:
    assert [Path(p["gt_path"]).stem for p in FacePairDataset(options).paths] == sorted(NAMES)


def test_validation_samples_are_basicsrs(options: dict) -> None:
    options["phase"] = "val"
    ours = {s["gt_path"]: s for s in FacePairDataset(options)}
    theirs = PairedImageDataset({**options, "io_backend": {"type": "disk"}})
    for i in range(4):
        sample = theirs[i]
        assert torch.equal(ours[sample["gt_path"]]["lq"], sample["lq"])
        assert torch.equal(ours[sample["gt_path"]]["gt"], sample["gt"])


def test_crops_depend_on_seed_epoch_and_index(options: dict) -> None:
    dataset = FacePairDataset(options)
    crop = dataset[EpochIndex(1, 0)]["lq"]
    assert torch.equal(crop, dataset[EpochIndex(1, 0)]["lq"])
    assert not torch.equal(crop, dataset[EpochIndex(1, 1)]["lq"])
    assert not torch.equal(crop, FacePairDataset({**options, "seed": 2})[EpochIndex(1, 0)]["lq"])


def test_the_crops_of_each_image_are_others_whatever_was_read_before(options: dict, tmp_path: Path) -> None:
    """Of images that are all one, the crop alone tells whether its place was drawn anew."""
    for folder in ("lq", "gt"):
        image = cv2.imread(str(tmp_path / folder / "a.png"))
        for name in NAMES:
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), image)
    dataset = FacePairDataset({**options, "use_hflip": False})
    first = [dataset[EpochIndex(index, 0)]["lq"] for index in range(4)]
    for index in (2, 0, 3, 1):
        assert torch.equal(dataset[EpochIndex(index, 0)]["lq"], first[index])
    assert not any(torch.equal(one, other) for one, other in combinations(first, 2))


def test_under_basicsrs_sampler_crops_change_each_epoch_with_workers(options: dict) -> None:
    loader = DataLoader(FacePairDataset(options), batch_size=4, num_workers=2)
    epochs = [next(iter(loader))["lq"] for _ in range(3)]
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_damaged_file_is_named(options: dict, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lq" / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"lq/a.png and .*gt/a.png: not a usable pair"):
        FacePairDataset(options)[0]


@pytest.mark.parametrize("key", ["gt_size", "use_rot", "dataroot_lq"])
def test_missing_options_are_named(options: dict, key: str) -> None:
    del options[key]
    with pytest.raises(UserError, match=f"needs the key '{key}'"):
        FacePairDataset(options)


def test_sizes_that_differ_are_named(options: dict, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "lq" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(UserError, match=r"lq/a.png and .*gt/a.png.*is not 1x multiplication of LQ \(20, 20\)\)"):
        FacePairDataset(options)[0]


@pytest.mark.parametrize("phase", ["val", "test"])
@pytest.mark.parametrize("shape", [(20, 18), (40, 35), (41, 36), (80, 72)])
def test_a_ground_truth_of_another_size_is_not_cut_to_fit(
    options: dict, tmp_path: Path, phase: str, shape: tuple
) -> None:
    cv2.imwrite(str(tmp_path / "gt" / "b.png"), np.zeros((*shape, 3), np.uint8))
    message = rf"pairs of different sizes \(1\): b.png \(36x40 px\) and b.png \({shape[1]}x{shape[0]} px\)"
    with pytest.raises(UserError, match=message):
        FacePairDataset({**options, "phase": phase})


def test_the_rest_of_a_division_by_the_scale_is_left_out(options: dict, tmp_path: Path) -> None:
    for name in NAMES:
        cv2.imwrite(str(tmp_path / "gt" / f"{name}.png"), np.zeros((81, 72, 3), np.uint8))
    dataset = FacePairDataset({**options, "phase": "test", "scale": 2})
    assert dataset[0]["gt"].shape == (3, 80, 72)
    cv2.imwrite(str(tmp_path / "gt" / "b.png"), np.zeros((82, 72, 3), np.uint8))
    with pytest.raises(UserError, match=r"pairs of different sizes for scale: 2 \(1\): b.png"):
        FacePairDataset({**options, "phase": "test", "scale": 2})


def test_a_ground_truth_of_another_size_in_an_lmdb_is_named(options: dict, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gt" / "b.png"), np.zeros((80, 72, 3), np.uint8))
    for folder in ("lq", "gt"):
        names = [f"{name}.png" for name in sorted(NAMES)]
        root = str(tmp_path / f"{folder}.lmdb")
        make_lmdb_from_imgs(str(tmp_path / folder), root, names, sorted(NAMES), map_size=2**24)
        options[f"dataroot_{folder}"] = root
    dataset = FacePairDataset({**options, "phase": "test", "io_backend": {"type": "lmdb"}})
    assert dataset[0]["gt"].shape == (3, 40, 36)
    with pytest.raises(UserError, match=r"^b and b: not a usable pair.*36x40 px and 72x80 px"):
        dataset[1]


def test_files_in_no_pair_are_logged(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gt" / "deep").mkdir()
    (tmp_path / "gt" / "a.png").rename(tmp_path / "gt" / "deep" / "a.png")
    (tmp_path / "lq" / "a.png").rename(tmp_path / "lq" / ".a.png")
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    FacePairDataset(options)
    assert said == [
        f"{tmp_path / folder}: 1 not used, in no pair: {name}"
        for folder, name in (("lq", ".a.png"), ("gt", "deep/a.png"))
    ]
