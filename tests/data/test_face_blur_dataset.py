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


def test_stream_changes_with_epoch_and_seed() -> None:
    dataset = FaceBlurDataset(TRAIN)
    other_seed = FaceBlurDataset({**TRAIN, "seed": 4})
    first = dataset[EpochIndex(5, 0)]["lq"]
    assert torch.equal(first, dataset[EpochIndex(5, 0)]["lq"])
    assert not torch.equal(first, dataset[EpochIndex(5, 1)]["lq"])
    assert not torch.equal(first, other_seed[EpochIndex(5, 0)]["lq"])


def test_seed_defaults_to_the_one_that_was_set_for_training_only() -> None:
    options = {k: v for k, v in TRAIN.items() if k != "seed"}
    torch.manual_seed(3)
    assert torch.equal(FaceBlurDataset(options)[EpochIndex(5, 0)]["lq"], FaceBlurDataset(TRAIN)[EpochIndex(5, 0)]["lq"])
    fixed = FaceBlurDataset(VAL)[0]["lq"]
    torch.manual_seed(4)
    assert torch.equal(FaceBlurDataset(VAL)[0]["lq"], fixed)


def test_only_the_kernels_of_the_range_are_used(tmp_path: Path) -> None:
    stacks = {size: np.random.default_rng(size).random((5, size, size)) for size in (5, 9)}
    for size, stack in stacks.items():
        np.save(tmp_path / f"kernels{size}.npy", stack)
    options = {**TRAIN, "dataroot_kernels": str(tmp_path), "use_hflip": False, "gt_size": None, "noise_sigma": 0}
    for phase in ("train", "val"):
        dataset = FaceBlurDataset({**options, "phase": phase, "kernel_range": [1, 3]})
        for size, stack in stacks.items():
            wanted = stack[1:3] / stack[1:3].sum(axis=(1, 2), keepdims=True)
            np.testing.assert_allclose(dataset.kernels[size], wanted, rtol=1e-6)
    assert {size: len(kernels) for size, kernels in FaceBlurDataset(options).kernels.items()} == {5: 5, 9: 5}


def test_validation_pairs_are_fixed_whole_and_8_bit() -> None:
    dataset = FaceBlurDataset(VAL)
    assert len(dataset) == 40
    first, again = dataset[11], dataset[11]
    assert torch.equal(first["lq"], again["lq"])
    assert first["lq"].shape == first["gt"].shape == (3, 112, 92)
    levels = first["lq"] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    source = orl_faces("val")
    path = source.root / source.names[11]
    sharp = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(first["gt"], sharp)
    assert first["lq_path"] == "s34_2.png"
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
    plain = torch.from_numpy(cv2.imread(str(orl_faces("train").root / "s1/1.pgm"))).permute(2, 0, 1) / 255
    sharp, flipped = 0, 0
    for epoch in range(60):
        pair = dataset[EpochIndex(0, epoch, epoch)]
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


def faces_in(root: Path, count: int) -> dict:
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(root / f"{i}.png"), rng.integers(0, 256, (48, 48, 3), np.uint8))
    return {**TRAIN, "faces": None, "split": None, "dataroot_gt": str(root)}


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "truncated"])
def test_one_bad_file_is_named_once_and_replaced_alike_with_workers(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    options = faces_in(tmp_path, 8)
    path = tmp_path / "5.png"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    indices = [EpochIndex(i, epoch) for epoch in (0, 1) for i in range(8)]
    with caplog.at_level("WARNING", logger="basicsr"):
        alone = stream(DataLoader(FaceBlurDataset(options), 4, sampler=indices))
    assert [r.getMessage().count("5.png: not an image") for r in caplog.records] == [1]
    assert torch.equal(alone, stream(DataLoader(FaceBlurDataset(options), 4, sampler=indices, num_workers=2)))


def test_bad_files_past_the_share_end_the_run_with_its_name(tmp_path: Path) -> None:
    options = faces_in(tmp_path, 8)
    for i in (1, 2, 3):
        (tmp_path / f"{i}.png").write_bytes(b"text")
    loose = FaceBlurDataset({**options, "max_bad_share": 0.4})
    assert [sample["lq"].shape for sample in (loose[EpochIndex(i, 0)] for i in range(8))] == [(3, 40, 40)] * 8
    strict = FaceBlurDataset({**options, "max_bad_share": 0.25})
    with pytest.raises(UserError, match=r"3 of 8 images can't be used, more than max_bad_share: 0.25.*3\.png"):
        [strict[EpochIndex(i, 0)] for i in range(8)]


def test_small_training_images_count_as_bad_and_validation_refuses_at_once(tmp_path: Path) -> None:
    options = faces_in(tmp_path, 2)
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((1, 1, 3), np.uint8))
    dataset = FaceBlurDataset(options)
    assert dataset[EpochIndex(1, 0)]["gt_path"].endswith("0.png")
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 2 images"):
        dataset[EpochIndex(0, 0)]
    validation = {k: v for k, v in options.items() if k not in ("gt_size", "use_hflip")}
    with pytest.raises(UserError, match=r"0\.png: not an image"):
        FaceBlurDataset({**validation, "phase": "val"})[0]


def sizes_of(monkeypatch: pytest.MonkeyPatch, dataset: FaceBlurDataset, indices: list) -> list[int]:
    drawn = []
    draw = FaceBlurDataset._draw_size

    def note(self, step, rng):
        drawn.append(draw(self, step, rng))
        return drawn[-1]

    monkeypatch.setattr(FaceBlurDataset, "_draw_size", note)
    for index in indices:
        dataset[index]
    monkeypatch.setattr(FaceBlurDataset, "_draw_size", draw)
    return drawn


def test_a_step_has_one_blur_size_on_all_ranks_and_nine_come_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    from dfpg_plugin.training.stream import EpochSampler

    nine = {**TRAIN, "kernel_sizes": [0, 3, 5, 7, 9, 11, 13, 15, 17], "kernels_per_size": 1}
    dataset = FaceBlurDataset(nine)
    ranks = []
    for rank in (0, 1):
        sampler = EpochSampler(dataset, 2, rank, 1, 4)
        indices = []
        for epoch in range(9):
            sampler.set_position(epoch, 0)
            indices += list(sampler)
        ranks.append(np.reshape(sizes_of(monkeypatch, dataset, indices), (-1, 4)))
    assert (ranks[0] == ranks[0][:, :1]).all()
    np.testing.assert_array_equal(*ranks)
    counts = np.unique(ranks[0][:, 0], return_counts=True)[1]  # 360 steps, 40 expected of each
    assert len(counts) == 9
    assert ((counts - 40) ** 2 / 40).sum() < 26.1  # chi-square of 8 degrees of freedom, 0.1 %


def test_under_basicsrs_sampler_each_batch_has_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FaceBlurDataset({**TRAIN, "kernel_sizes": [3, 5, 7, 9], "batch_size_per_gpu": 5})
    drawn = np.reshape(sizes_of(monkeypatch, dataset, list(range(100))), (20, 5))
    assert (drawn == drawn[:, :1]).all()
    assert len(set(drawn[:, 0])) == 4


def test_with_workers_of_basicsrs_loader_each_batch_has_one_size() -> None:
    # of a grey face and a kernel that only moves it, only the noise is left: its deviation tells the size drawn
    dataset = FaceBlurDataset({**TRAIN, "kernel_sizes": [0, 9], "noise_sigma": 0.0, "batch_size_per_gpu": 4})
    is_sharp = []
    for batch in DataLoader(dataset, 4, num_workers=2, drop_last=True):
        equal = [torch.equal(lq, gt) for lq, gt in zip(batch["lq"], batch["gt"], strict=True)]
        assert len(set(equal)) == 1
        is_sharp.append(equal[0])
    assert set(is_sharp) == {True, False}


def test_images_of_several_sizes_need_a_crop(tmp_path: Path) -> None:
    options = {**faces_in(tmp_path, 3), "gt_size": None, "batch_size_per_gpu": 2}
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((48, 50, 3), np.uint8))
    dataset = FaceBlurDataset(options)
    assert dataset[EpochIndex(1, 0)]["gt"].shape == (3, 48, 48)
    with pytest.raises(UserError, match=r"2\.png: 50x48 px, but 48x48 px is the first image's size"):
        dataset._read(2)
    assert FaceBlurDataset({**options, "gt_size": 40})[EpochIndex(2, 0)]["gt"].shape == (3, 40, 40)


def test_each_image_may_have_a_size_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = FaceBlurDataset({**TRAIN, "kernel_sizes": [3, 5, 7, 9], "one_size_per_batch": False})
    assert len(set(sizes_of(monkeypatch, dataset, [EpochIndex(i, 0) for i in range(20)]))) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_an_lmdb_is_read_like_the_folder_it_was_made_of(tmp_path: Path, workers: int) -> None:
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    (tmp_path / "faces").mkdir()
    options = faces_in(tmp_path / "faces", 8)
    root = str(tmp_path / "faces.lmdb")
    names = [f"{i}.png" for i in range(8)]
    make_lmdb_from_imgs(str(tmp_path / "faces"), root, names, [n[:-4] for n in names], map_size=2**24)
    indices = [EpochIndex(i, 0) for i in range(8)]
    folder = stream(DataLoader(FaceBlurDataset(options), 4, sampler=indices))
    lmdb = FaceBlurDataset({**options, "dataroot_gt": root, "io_backend": {"type": "lmdb"}})
    lmdb[indices[0]]  # open here too, as by validation, which LMDB forbids in one process
    assert torch.equal(folder, stream(DataLoader(lmdb, 4, sampler=indices, num_workers=workers)))
    with pytest.raises(UserError, match="is an LMDB"):
        FaceBlurDataset({**options, "dataroot_gt": root})


def test_a_meta_info_file_names_the_images(tmp_path: Path) -> None:
    options = faces_in(tmp_path, 4)
    (tmp_path / "0.png").rename(tmp_path / "a face.png")
    (tmp_path / "list.txt").write_text("3.png (48,48,3) 1\na face.png (48,48,3) 1\n2.png\n")
    dataset = FaceBlurDataset({**options, "meta_info_file": str(tmp_path / "list.txt")})
    assert list(dataset.source.names) == ["3.png", "a face.png", "2.png"]
    assert dataset[EpochIndex(1, 0)]["lq_path"] == "a face.png"


def test_the_papers_chain_is_pinned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (160, 160)))
    chain = {"resize": 160, "jitter": 0.5, "crop": 140, "resize_crop": 40, "rotation": 270, "gt_size": None}
    dataset = FaceBlurDataset({**TRAIN, **chain, "faces": None, "split": None, "dataroot_gt": str(tmp_path)})
    samples = [dataset[EpochIndex(i, 2, i // 2)] for i in range(6)]
    means = [round(sample[key].mean().item(), 2) for sample in samples for key in ("lq", "gt")]
    assert means == pytest.approx(MEANS, abs=0.011)
    pixels = [round(sample[key][c, 20, 11].item(), 2) for sample in samples for key in ("lq", "gt") for c in (0, 2)]
    assert pixels == pytest.approx(PIXELS, abs=0.021)


PIXELS = [
    *(0.43, 0.33, 0.22, 0.17, 0.47, 0.41, 0.32, 0.55, 0.13, 0.38, 0.12, 0.37, 0.53, 0.31, 0.53, 0.33),
    *(0.45, 0.21, 0.49, 0.14, 0.16, 0.34, 0.15, 0.34),
]  # of a later run
MEANS = [0.52, 0.51, 0.33, 0.33, 0.3, 0.3, 0.3, 0.3, 0.36, 0.36, 0.29, 0.29]  # of the first run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_hflips": True}, "unknown key 'use_hflips'. Did you mean use_hflip"),
        ({"faces": None}, "dataroot_gt"),
        ({"dataroot_gt": "x"}, "either dataroot_gt"),
        ({"faces": None, "dataroot_gt": "x"}, "split belongs to faces"),
        ({"faces": None, "split": None, "dataroot_gt": ".", "io_backend": {"type": "s3"}}, "io_backend: type: 's3'"),
        ({"crop": 30, "gt_size": 40}, "gt_size: 40 px are more than the 30 px"),
        ({"jitter": [0.5, 0.5]}, "jitter"),
        ({"max_bad_share": 1.5}, "max_bad_share"),
        ({"faces": "orl2"}, "'orl2'"),
        ({"kernel_sizes": [9, 10]}, "kernel_sizes"),
        ({"kernel_sizes": []}, "kernel_sizes"),
        ({"split": None}, "split"),
        ({"crop": 0}, "crop: expected a whole number from 1, got 0"),
        ({"crop": -4}, "crop: expected a whole number from 1, got -4"),
        ({"gt_size": 0}, "gt_size: expected a whole number from 1"),
        ({"resize": "x"}, r"resize: expected a whole number from 1, got 'x'"),
        ({"kernels_per_size": 0}, "kernels_per_size: expected a whole number from 1"),
        ({"kernel_sizes": 13}, "kernel_sizes: expected a list of whole numbers from 0, got 13"),
        ({"noise_sigma": -1}, "noise_sigma: expected a number from 0"),
        ({"rotation": -30}, "rotation: expected a number from 0"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"faces": None, "split": None, "dataroot_gt": ".", "io_backend": "lmdb"}, "io_backend: expected {type: lmdb}"),
    ],
)
def test_wrong_options_are_named(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FaceBlurDataset({**TRAIN, **change})


def test_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no image in {tmp_path}"):
        FaceBlurDataset({**VAL, "faces": None, "split": None, "dataroot_gt": str(tmp_path)})


def test_one_bad_image_is_always_allowed_and_two_only_within_the_share(tmp_path: Path) -> None:
    options = faces_in(tmp_path, 20)
    (tmp_path / "3.png").write_bytes(b"")
    dataset = FaceBlurDataset({**options, "max_bad_share": 0.05})
    assert dataset[EpochIndex(dataset.source.names.index("3.png"), 0)]["lq_path"] != "3.png"
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 20 images can't be used, more than max_bad_share: 0\.05"):
        dataset[EpochIndex(dataset.source.names.index("7.png"), 0)]
    allowing = FaceBlurDataset({**options, "max_bad_share": 0.1})
    for name in ("3.png", "7.png"):
        allowing[EpochIndex(allowing.source.names.index(name), 0)]


def test_kernels_may_be_counted_from_the_end() -> None:
    options = FaceBlurDataset.Options.of_data_set("d", {**TRAIN, "kernel_range": [-50, -1]})
    assert options.kernel_range == (-50, -1)
