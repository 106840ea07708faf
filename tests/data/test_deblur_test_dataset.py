"""Published test sets: found in their folders, checked before anything runs, read exactly."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dfpg_plugin.checks import UserError
from dfpg_plugin.data import deblur_test_dataset
from dfpg_plugin.data.deblur_test_dataset import FaceDeblurTestDataset

ORIENTATION = 0x0112


def write(path: Path, height: int = 6, width: int = 5, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), image)
    return image


def build(**options: object) -> FaceDeblurTestDataset:
    return FaceDeblurTestDataset({"name": "set", "type": "FaceDeblurTestDataset", "phase": "test", **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two faces, 1 and 10, and four blurred ones."""
    root = tmp_path / "Test_data_X"
    for seed, face in enumerate(("1", "10")):
        write(root / "X_gt" / f"{face}.png", seed=seed)
        for kernel in ("01", "02"):
            write(root / "X_blur" / f"{face}_ker{kernel}_blur_k13.png", seed=10 + seed)
    return root


def test_samples_are_the_files_as_rgb_in_0_1(root: Path) -> None:
    sharp = write(root / "X_gt" / "10.png", seed=5)
    blurred = write(root / "X_blur" / "10_ker02_blur_k13.png", seed=6)
    dataset = build(dataroot=str(root))
    assert len(dataset) == 4
    assert dataset.has_gt
    (sample,) = [s for s in dataset if s["lq_path"].endswith("/10_ker02_blur_k13.png")]
    assert sample.keys() == {"lq", "gt", "lq_path", "gt_path"}
    assert sample["lq_path"] == str(root / "X_blur" / "10_ker02_blur_k13.png")
    assert sample["gt_path"] == str(root / "X_gt" / "10.png")
    for key, image in (("lq", blurred), ("gt", sharp)):
        assert sample[key].dtype == torch.float32
        assert sample[key].shape == (3, 6, 5)
        expected = image[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(sample[key].numpy(), expected)


@pytest.mark.parametrize(
    ("gt", "blur"), [("CelebA_gt", "CelebA_blur"), ("final_Helen_GT", "Final_Helen_Blur"), ("gt", "blur")]
)
def test_the_two_folders_are_found_by_their_endings(root: Path, gt: str, blur: str) -> None:
    (root / "X_gt").rename(root / gt)
    (root / "X_blur").rename(root / blur)
    (root / "__MACOSX").mkdir()
    (root / "gt_and_blur.txt").write_text("no folder")
    dataset = build(dataroot=str(root))
    assert [(Path(s["lq_path"]).parent.name, Path(s["gt_path"]).parent.name) for s in dataset] == [(blur, gt)] * 4
    two_roots = build(dataroot_lq=str(root / blur), dataroot_gt=str(root / gt))
    assert two_roots.paths == dataset.paths


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("other_GT", "whose name ends in gt, found X_gt, other_GT"),
        ("other_blur", "ends in blur, found X_blur, other_blur"),
    ],
)
def test_two_folders_of_one_ending_are_an_error(root: Path, folder: str, message: str) -> None:
    (root / folder).mkdir()
    with pytest.raises(UserError, match=f"^datasets: set: dataroot: .*{message}"):
        build(dataroot=str(root))


def test_a_dataroot_one_level_too_high_says_what_is_there(root: Path) -> None:
    with pytest.raises(UserError, match=r"ends in blur, found Test_data_X. Set dataroot to the folder above the two"):
        build(dataroot=str(root.parent))


def test_without_ground_truth_samples_are_blurred_alone(root: Path) -> None:
    dataset = build(dataroot_lq=str(root / "X_blur"))
    assert not dataset.has_gt
    assert len(dataset) == 4
    assert all(sample.keys() == {"lq", "lq_path"} for sample in dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs either dataroot"),
        ({"dataroot": "a", "dataroot_lq": "b"}, "needs either dataroot"),
        ({"dataroot_gt": "b"}, "needs either dataroot"),
        ({"dataroot": "a", "dataroot_gt": "b"}, "dataroot_gt goes with dataroot_lq"),
        ({"datarot": "a"}, "datasets: set: unknown key 'datarot'. Did you mean dataroot"),
        ({"dataroot": "a", "seed": 5}, "datasets: set: unknown key 'seed'"),
        ({"dataroot": "a", "gt_size": 5}, "datasets: set: unknown key 'gt_size'"),
        ({"dataroot": "nowhere"}, "datasets: set: dataroot: the folder nowhere does not exist"),
        ({"dataroot_lq": "nowhere"}, "datasets: set: dataroot_lq: the folder nowhere does not exist"),
        ({"dataroot_lq": ".", "dataroot_gt": "nowhere"}, "datasets: set: dataroot_gt: the folder nowhere"),
        (
            {"dataroot": "a", "io_backend": {"type": "lmdb"}},
            "io_backend: {'type': 'lmdb'} is not one of",
        ),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**options)


def test_missing_partners_are_named_with_their_folders(root: Path) -> None:
    (root / "X_gt" / "1.png").unlink()
    write(root / "X_gt" / "0.png")
    with pytest.raises(UserError) as error:
        build(dataroot=str(root))
    assert str(error.value) == (
        f"datasets: set: {root / 'X_blur'} and {root / 'X_gt'}: blurred files without ground truth (2): "
        "1_ker01_blur_k13.png, 1_ker02_blur_k13.png; ground truths without a blurred file (1): 0.png. "
        "Restore what is missing, or remove or rename these."
    )


@pytest.mark.parametrize("with_gt", [True, False])
@pytest.mark.parametrize("content", [b"", b"some text"])
def test_files_that_are_no_images_are_named_before_anything_runs(root: Path, content: bytes, with_gt: bool) -> None:
    for kernel in ("01", "02"):
        (root / "X_blur" / f"1_ker{kernel}_blur_k13.png").write_bytes(content)
    with pytest.raises(UserError) as error:
        build(**({"dataroot": str(root)} if with_gt else {"dataroot_lq": str(root / "X_blur")}))
    assert "can't be used: 1_ker01_blur_k13.png, 1_ker02_blur_k13.png. The first: " in str(error.value)
    assert "not an image that OpenCV can read" in str(error.value)
    assert "\n" not in str(error.value)


def test_pairs_of_different_sizes_are_named_before_anything_runs(root: Path) -> None:
    write(root / "X_blur" / "10_ker01_blur_k13.png", height=5, width=6)
    with pytest.raises(UserError) as error:
        build(dataroot=str(root))
    assert "pairs of different sizes (1): 10_ker01_blur_k13.png (6x5 px) and 10.png (5x6 px). " in str(error.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("upright", [True, False])
def test_sizes_are_compared_as_they_are_read(root: Path, suffix: str, upright: bool) -> None:
    """A file whose EXIF entry may turn it fits the size that it has when it is read, and no other."""
    (root / "X_gt" / "1.png").unlink()
    exif = Image.Exif()
    exif[ORIENTATION] = 1 if upright else 6
    turned = root / "X_gt" / f"1{suffix}"
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(turned, exif=exif)
    height, width = deblur_test_dataset.read_image(turned).shape[:2]
    if suffix == ".jpg":
        assert (height, width) == ((5, 6) if upright else (6, 5))
    for kernel in ("01", "02"):
        write(root / "X_blur" / f"1_ker{kernel}_blur_k13.png", height, width)
    for sample in build(dataroot=str(root)):
        assert sample["lq"].shape == sample["gt"].shape
    write(root / "X_blur" / "1_ker01_blur_k13.png", width, height)
    with pytest.raises(UserError, match=rf"1_ker01_blur_k13.png \({height}x{width} px\) and 1{suffix}"):
        build(dataroot=str(root))


def test_nothing_is_decoded_when_it_is_built(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "X_gt" / "1.jpg")
    (root / "X_gt" / "1.png").unlink()
    decoded = []
    monkeypatch.setattr(cv2, "imdecode", lambda *args: decoded.append(args))
    monkeypatch.setattr(Image.Image, "load", lambda *args: decoded.append(args))
    assert len(build(dataroot=str(root))) == 4
    assert decoded == []


@pytest.mark.parametrize(("folder", "name"), [("X_blur", "1_ker01_blur_k13"), ("X_gt", "1")])
def test_a_file_damaged_after_its_header_is_named_when_it_is_read(root: Path, folder: str, name: str) -> None:
    path = root / folder / f"{name}.png"
    path.write_bytes(path.read_bytes()[:80])
    dataset = build(dataroot=str(root))
    index = [lq.stem for lq, _ in dataset.paths].index("1_ker01_blur_k13")
    with pytest.raises(UserError, match=rf"{folder}/{name}.png: not an image that OpenCV can read, or damaged"):
        dataset[index]


def test_blurred_files_that_would_be_saved_under_one_name_are_an_error(root: Path) -> None:
    write(root / "X_blur" / "sub" / "1_ker01_blur_k13.png")
    with pytest.raises(UserError, match=r"1_ker01_blur_k13.png and sub/1_ker01_blur_k13.png would be saved under the"):
        build(dataroot_lq=str(root / "X_blur"))


def test_nested_folders_are_searched(root: Path) -> None:
    write(root / "X_blur" / "more" / "3_ker01_blur_k13.png")
    write(root / "X_gt" / "deep" / "er" / "3.png")
    dataset = build(dataroot=str(root))
    assert len(dataset) == 5
    assert (root / "X_blur" / "more" / "3_ker01_blur_k13.png", root / "X_gt/deep/er/3.png") in dataset.paths
