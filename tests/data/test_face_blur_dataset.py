"""Pairs of blurred and sharp faces: what is in them, and that they depend on seed, epoch and index alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.data.faces import orl_faces
from dfpg_plugin.data.stream import EpochIndex

TRAIN = {
    "name": "t", "type": "FaceBlurDataset", "phase": "train", "faces": "orl", "split": "train", "seed": 3,
    "kernel_sizes": [5, 9], "kernels_per_size": 4, "gt_size": 40, "use_hflip": True,
}  # fmt: skip
VAL = {
    "name": "v", "type": "FaceBlurDataset", "phase": "val", "faces": "orl", "split": "val",
    "kernel_sizes": [5, 9], "kernels_per_size": 4,
}  # fmt: skip


def stream(loader: DataLoader) -> torch.Tensor:
    return torch.cat([torch.cat([batch["lq"], batch["gt"]], 1) for batch in loader])


class TwoEpochs(torch.utils.data.Sampler):
    """Four samples in each of two epochs."""

    def __iter__(self):
        return iter([EpochIndex(i, epoch) for epoch in (0, 1) for i in (5, 1, 300, 7)])


@pytest.mark.parametrize("workers", [1, 2])
def test_stream_is_the_same_for_any_number_of_workers(workers: int) -> None:
    alone = stream(DataLoader(FaceBlurDataset(TRAIN), 2, sampler=TwoEpochs()))
    shared = stream(DataLoader(FaceBlurDataset(TRAIN), 2, sampler=TwoEpochs(), num_workers=workers))
    assert torch.equal(alone, shared)


def test_stream_changes_with_epoch_index_and_seed() -> None:
    dataset = FaceBlurDataset(TRAIN)
    other_seed = FaceBlurDataset({**TRAIN, "seed": 4})
    first = dataset[EpochIndex(5, 0)]["lq"]
    assert torch.equal(first, dataset[EpochIndex(5, 0)]["lq"])
    assert not torch.equal(first, dataset[EpochIndex(5, 1)]["lq"])
    assert not torch.equal(first, dataset[EpochIndex(6, 0)]["lq"])
    assert not torch.equal(first, other_seed[EpochIndex(5, 0)]["lq"])


def test_seed_defaults_to_the_one_that_was_set_for_training_only() -> None:
    options = {k: v for k, v in TRAIN.items() if k != "seed"}
    torch.manual_seed(3)
    assert torch.equal(FaceBlurDataset(options)[EpochIndex(5, 0)]["lq"], FaceBlurDataset(TRAIN)[EpochIndex(5, 0)]["lq"])
    fixed = FaceBlurDataset(VAL)[0]["lq"]
    torch.manual_seed(4)
    assert torch.equal(FaceBlurDataset(VAL)[0]["lq"], fixed)


def test_validation_pairs_are_fixed_whole_and_8_bit() -> None:
    dataset = FaceBlurDataset(VAL)
    assert len(dataset) == 40
    first, again = dataset[11], dataset[11]
    assert torch.equal(first["lq"], again["lq"])
    assert first["lq"].shape == first["gt"].shape == (3, 112, 92)
    levels = first["lq"] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    name, path = orl_faces("val")[11]
    sharp = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(first["gt"], sharp)
    assert first["lq_path"] == f"{name}.png"
    assert len({d["lq_path"] for d in dataset}) == 40


def test_blurred_face_is_the_sharp_one_convolved_with_one_of_the_kernels() -> None:
    dataset = FaceBlurDataset({**VAL, "noise_sigma": 0.0, "kernel_sizes": [9]})
    pair = dataset[0]
    gt = pair["gt"].permute(1, 2, 0).numpy()
    padded = np.pad(gt, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (9, 9))
    errors = [
        np.abs(np.einsum("hwij,ij->hw", windows, kernel[::-1, ::-1]) - pair["lq"][0].numpy()).max()
        for kernel in dataset.kernels[9]
    ]
    assert min(errors) < 0.6 / 255  # rounding to 8 bits
    assert sorted(errors)[1] > 2 / 255


def test_size_0_leaves_the_face_sharp_but_noisy() -> None:
    pair = FaceBlurDataset({**VAL, "kernel_sizes": [0]})[0]
    assert (pair["lq"] - pair["gt"]).std().item() * 255 == pytest.approx(2, rel=0.1)


def test_training_uses_every_kernel_size_and_flips() -> None:
    dataset = FaceBlurDataset({**TRAIN, "gt_size": None, "noise_sigma": 0.0, "kernel_sizes": [0, 9]})
    plain = torch.from_numpy(cv2.imread(str(orl_faces("train")[0][1]))).permute(2, 0, 1) / 255
    sharp, flipped = 0, 0
    for epoch in range(60):
        pair = dataset[EpochIndex(0, epoch)]
        sharp += torch.equal(pair["lq"], pair["gt"])
        flipped += torch.equal(pair["gt"], plain.flip(2))
    assert 15 < sharp < 45
    assert 15 < flipped < 45


def folder_of_faces(root: Path, size: int = 64) -> None:
    (root / "a" / "b").mkdir(parents=True)
    for name in ("z.png", "a/y.jpg", "a/b/x.bmp"):
        cv2.imwrite(str(root / name), np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))


def test_folders_are_searched_in_depth_and_sorted(tmp_path: Path) -> None:
    folder_of_faces(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = FaceBlurDataset({**VAL, "faces": None, "split": None, "dataroot_gt": str(tmp_path)})
    assert [pair["lq_path"] for pair in dataset] == ["a_b_x.png", "a_y.png", "z.png"]


def test_msplss_augmentation_gives_the_size_asked_for(tmp_path: Path) -> None:
    folder_of_faces(tmp_path)
    chain = {"resize": 48, "jitter": 0.5, "crop": 40, "resize_crop": 32, "rotation": 270, "gt_size": None}
    dataset = FaceBlurDataset({**TRAIN, **chain, "faces": None, "split": None, "dataroot_gt": str(tmp_path)})
    assert dataset[EpochIndex(0, 0)]["gt"].shape == (3, 32, 32)


def test_damaged_and_small_files_are_named(tmp_path: Path) -> None:
    folder_of_faces(tmp_path, size=32)
    dataset = FaceBlurDataset({**TRAIN, "faces": None, "split": None, "dataroot_gt": str(tmp_path)})
    with pytest.raises(UserError, match=r"x\.bmp: 32x32 px is too small for crops of 40 px"):
        dataset[0]
    (tmp_path / "z.png").write_bytes((tmp_path / "z.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"z\.png: not an image"):
        dataset[2]
    (tmp_path / "z.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"z\.png: not an image"):
        dataset[2]
    (tmp_path / "z.png").unlink()
    with pytest.raises(UserError, match=r"z\.png: can't be read"):
        dataset[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_hflips": True}, "unknown key 'use_hflips'. Did you mean use_hflip"),
        ({"faces": None}, "dataroot_gt"),
        ({"dataroot_gt": "x"}, "either dataroot_gt"),
        ({"faces": None, "dataroot_gt": "x"}, "split belongs to faces"),
        ({"io_backend": {"type": "lmdb"}}, "io_backend: type: 'lmdb'"),
        ({"faces": "orl2"}, "'orl2'"),
        ({"kernel_sizes": [9, 10]}, "kernel_sizes"),
        ({"kernel_sizes": []}, "kernel_sizes"),
        ({"split": None}, "split"),
    ],
)
def test_wrong_options_are_named(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FaceBlurDataset({**TRAIN, **change})


def test_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no image in {tmp_path}"):
        FaceBlurDataset({**VAL, "faces": None, "split": None, "dataroot_gt": str(tmp_path)})
