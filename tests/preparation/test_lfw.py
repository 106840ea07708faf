"""LFW as training faces: the framing, the split, archives and folders, what an interrupted run leaves."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.utils import get_root_logger

from dfpg_cli.main import main
from dfpg_plugin.checks import UserError
from dfpg_plugin.data.face_blur_dataset import FaceBlurDataset
from dfpg_plugin.preparation import face_folder
from dfpg_plugin.preparation.face_folder import FaceFormat
from dfpg_plugin.preparation.lfw import frame_lfw, prepare_lfw

PEOPLE = {"George_W_Bush": ("train", 3), "AJ_Lamas": ("test", 1), "Adolfo_Aguilar_Zinser": ("val", 2)}
PNG = FaceFormat()


def picture(seed: int, size: int = 250) -> np.ndarray:
    """A picture without any symmetry: smooth colours, brighter to the right, bluer to the bottom."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.uniform(0, 90, (size, size, 3)), (0, 0), 3)
    y, x = np.mgrid[0:size, 0:size] * (80 / size)
    return np.rint(noise + np.dstack([y, x / 2, x])).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of LFW's shape; its name is part of the archive's paths."""
    root = tmp_path / "lfw-deepfunneled"
    for seed, (person, (_, count)) in enumerate(PEOPLE.items()):
        (root / person).mkdir(parents=True)
        for n in range(1, count + 1):
            content = cv2.imencode(".jpg", picture(10 * seed + n))[1]
            (root / person / f"{person}_{n:04d}.jpg").write_bytes(content.tobytes())
    return root


def archive_of(folder: Path, name: str, mode: str) -> Path:
    path = folder.parent / name
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
        info = tarfile.TarInfo(f"{folder.name}/AJ_Lamas/._AJ_Lamas_0001.jpg")  # as macOS writes
        info.size = 4
        archive.addfile(info, io.BytesIO(b"junk"))
    return path


def files_of(target: Path) -> dict[str, bytes]:
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*.*") if p.is_file()}


def test_the_framing_is_an_average_over_areas_of_215_px() -> None:
    given = picture(5)
    part = given[11:226, 16:231].astype(np.float64)
    assert part.shape == (215, 215, 3)
    # pixel i of 160 covers [i, i + 1] * 215 / 160: the overlaps with the source's pixels, by hand
    edges = np.arange(161) * 215 / 160
    starts, ends = np.arange(215), np.arange(1, 216)
    share = np.minimum(edges[1:, None], ends).clip(0) - np.maximum(edges[:-1, None], starts)
    share = share.clip(0) * 160 / 215
    np.testing.assert_allclose(share.sum(axis=1), 1)
    expected = np.einsum("iy,yxc,jx->ijc", share, part, share)
    framed = frame_lfw(given)
    assert (framed.shape, framed.dtype) == ((160, 160, 3), np.uint8)
    assert np.abs(framed - expected).max() <= 0.51  # rounded
    ffhq = framed[16:144, 16:144]  # x 37 to 209, y 32 to 204
    assert ffhq.mean() == pytest.approx(given[32:204, 37:209].mean(), abs=0.3)


@pytest.mark.parametrize(("name", "mode"), [("lfw.tar", "w"), ("lfw.tgz", "w:gz"), (None, None)])
def test_archive_and_folder_give_the_same_faces_by_split_and_person(
    folder: Path, tmp_path: Path, name: str | None, mode: str | None
) -> None:
    source = folder if name is None else archive_of(folder, name, mode)
    target = tmp_path / "LFW"
    written = prepare_lfw(source, target, PNG)
    assert dict(written.faces) == {"train": 3, "val": 2, "test": 1}
    expected = {
        f"{split}/{person}/{person}_{n:04d}.png": frame_lfw(cv2.imread(str(folder / person / f"{person}_{n:04d}.jpg")))
        for person, (split, count) in PEOPLE.items()
        for n in range(1, count + 1)
    }
    files = files_of(target)
    manifest = json.loads(files.pop("manifest.json"))
    assert files.keys() == expected.keys()
    for file, face in expected.items():
        np.testing.assert_array_equal(cv2.imread(str(target / file)), face)
    entry = manifest["photographs"]["AJ_Lamas/AJ_Lamas_0001.jpg"]
    assert (entry["person"], entry["split"], entry["left_out"]) == ("AJ_Lamas", "test", [])
    assert entry["sha256"] == hashlib.sha256((folder / "AJ_Lamas" / "AJ_Lamas_0001.jpg").read_bytes()).hexdigest()
    pixels = expected["test/AJ_Lamas/AJ_Lamas_0001.png"].tobytes()
    assert entry["faces"] == {"test/AJ_Lamas/AJ_Lamas_0001.png": hashlib.sha256(pixels).hexdigest()}
    assert manifest["rows"] == [11, 226]


def test_the_training_set_reads_them(folder: Path, tmp_path: Path) -> None:
    prepare_lfw(folder, tmp_path / "LFW", PNG)
    data = FaceBlurDataset(
        {
            "name": "t", "phase": "train", "dataroot_gt": str(tmp_path / "LFW" / "train"), "crop": 128,
            "kernel_sizes": [0], "batch_size_per_gpu": 2,
        }
    )  # fmt: skip
    assert len(data) == 3
    assert data[0]["gt"].shape == (3, 128, 128)


@pytest.mark.parametrize("kind", ["webp", "jpg"])
def test_lossy_faces_are_close_and_better_with_more_quality(folder: Path, tmp_path: Path, kind: str) -> None:
    name = f"AJ_Lamas/AJ_Lamas_0001.{kind}"
    face = frame_lfw(cv2.imread(str(folder / "AJ_Lamas" / "AJ_Lamas_0001.jpg"))).astype(float)
    errors = []
    for quality in (30, None):
        target = tmp_path / str(quality)
        prepare_lfw(folder, target, FaceFormat(kind, quality))
        errors.append(np.abs(cv2.imread(str(target / "test" / name)) - face).mean())
    assert errors[1] < errors[0] < 8
    assert errors[1] < 4


def test_what_an_interrupted_run_wrote_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "a", tmp_path / "b"
    prepare_lfw(folder, whole, PNG)
    write, calls = face_folder._write, []

    def stop(*args: object) -> dict:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(face_folder, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_lfw(folder, broken, PNG)
    before = {p: p.stat().st_mtime_ns for p in broken.rglob("*.png")}
    assert len(before) == 3
    monkeypatch.setattr(face_folder, "_write", write)
    prepare_lfw(folder, broken, PNG)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert files_of(broken) == files_of(whole)


def test_a_lost_face_and_a_changed_picture_are_written_again(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "LFW"
    prepare_lfw(folder, target, PNG)
    (target / "test" / "AJ_Lamas" / "AJ_Lamas_0001.png").unlink()
    changed = folder / "George_W_Bush" / "George_W_Bush_0002.jpg"
    cv2.imwrite(str(changed), picture(99))
    before = files_of(target)
    prepare_lfw(folder, target, PNG)
    after = files_of(target)
    assert (target / "test" / "AJ_Lamas" / "AJ_Lamas_0001.png").exists()
    different = {name for name in before if before[name] != after[name]}
    assert different == {"train/George_W_Bush/George_W_Bush_0002.png", "manifest.json"}


def missing(folder: Path) -> Path:
    return folder / "nowhere.tar"


def no_archive(folder: Path) -> Path:
    (folder.parent / "x.tar").write_bytes(b"not an archive" * 100)
    return folder.parent / "x.tar"


def cut_off(folder: Path) -> Path:
    path = archive_of(folder, "cut.tgz", "w:gz")
    path.write_bytes(path.read_bytes()[:2000])
    return path


def cut_off_plain(folder: Path) -> Path:
    path = archive_of(folder, "cut.tar", "w")
    path.write_bytes(path.read_bytes()[:30_000])
    return path


def no_people(folder: Path) -> Path:
    for file in folder.rglob("*.jpg"):
        file.rename(folder / file.name)
    return folder


def other_size(folder: Path) -> Path:
    cv2.imwrite(str(folder / "AJ_Lamas" / "AJ_Lamas_0001.jpg"), picture(1, 249))
    return folder


def damaged(folder: Path) -> Path:
    (folder / "AJ_Lamas" / "AJ_Lamas_0001.jpg").write_bytes(b"no picture")
    return folder


def twice(folder: Path) -> Path:
    (folder / "Other").mkdir()
    cv2.imwrite(str(folder / "Other" / "AJ_Lamas_0001.jpg"), picture(1))
    return folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"--lfw: .*nowhere\.tar does not exist"),
        (no_archive, r"--lfw: .*x\.tar is not a readable \.tar or \.tgz"),
        (cut_off, r"--lfw: .*cut\.tgz is not a readable"),
        (cut_off_plain, r"--lfw: .*cut\.tar is not a readable"),
        (no_people, r"holds no picture Person/Person_0001\.jpg"),
        (other_size, r"AJ_Lamas_0001\.jpg has 249x249 px, LFW's pictures have 250x250"),
        (damaged, r"AJ_Lamas_0001\.jpg: not an image"),
        (twice, r"AJ_Lamas_0001\.jpg and Other/AJ_Lamas_0001\.jpg would be the same face"),
    ],
)
def test_a_source_that_is_not_lfw_is_named(folder: Path, tmp_path: Path, spoil: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare_lfw(spoil(folder), tmp_path / "LFW", PNG)


def test_other_targets_are_left_alone(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "LFW"
    with pytest.raises(UserError, match="is not empty, and this command did not make it"):
        prepare_lfw(folder, folder, PNG)
    prepare_lfw(folder, target, PNG)
    with pytest.raises(UserError, match=r"was made with other settings \(kind\)"):
        prepare_lfw(folder, target, FaceFormat("webp"))
    (folder / "AJ_Lamas" / "AJ_Lamas_0001.jpg").unlink()
    with pytest.raises(UserError, match=r"no longer there: AJ_Lamas/AJ_Lamas_0001\.jpg"):
        prepare_lfw(folder, target, PNG)


def test_the_command_says_how_many_and_refuses_flags_that_do_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "LFW"
    assert main(["prepare", "faces", str(target), "--lfw", str(folder)]) == 0
    assert capsys.readouterr().out == f"{target}: 6 faces (3 train, 2 val, 1 test)\n"
    for arguments, message in {
        ("--lfw", str(folder), "--quality", "90"): "--quality: PNG loses nothing",
        ("--lfw", str(folder), "--format", "webp", "--quality", "101"): "--quality: expected a whole number from 1",
        ("--split", "val", "--format", "webp"): "--format: has no effect on the demo's faces",
    }.items():
        assert main(["prepare", "faces", str(tmp_path / "other"), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("as_archive", [False, True])
def test_what_is_no_person_s_picture_is_logged(
    folder: Path, tmp_path: Path, as_archive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder
    if as_archive:
        source, expected = archive_of(folder, "lfw.tar", "w"), "lfw-deepfunneled/AJ_Lamas/._AJ_Lamas_0001.jpg"
    else:
        expected = "mine.jpg"
        (folder / expected).write_bytes(b"")
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    prepare_lfw(source, tmp_path / "faces", PNG)
    assert said == [f"{source}: 1 not used, because they are not pictures in a person's folder: {expected}"]
