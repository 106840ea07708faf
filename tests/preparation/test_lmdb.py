"""An LMDB holds the folder's very pixels, for BasicSR and for this package, and is whole or not there."""

import multiprocessing
import os
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
from basicsr.data import build_dataset
from PIL import ExifTags, Image

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import find_images, read_image
from dfpg_plugin.preparation import lmdb as module
from dfpg_plugin.preparation.lmdb import write_lmdb

RNG = np.random.default_rng(0)


def picture(mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(RNG.integers(0, 256, (10, 12, 3), dtype=np.uint8))
    return image.convert(mode)


def folder_of(path: Path, count: int) -> Path:
    path.mkdir(parents=True)
    for i in range(count):
        picture().save(path / f"{i:03d}.png")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "faces.lmdb"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the images that BasicSR's worker has encoded."""
    keys: list[str] = []
    worker = module.read_img_worker

    def counting(path: str, key: str, level: int) -> tuple:
        keys.append(key)
        return worker(path, key, level)

    monkeypatch.setattr(module, "read_img_worker", counting)
    return keys


def interrupt_at(monkeypatch: pytest.MonkeyPatch, wanted: str, how: object) -> None:
    worker = module.read_img_worker

    def stopping(path: str, key: str, level: int) -> tuple:
        if key == wanted:
            how()
        return worker(path, key, level)

    monkeypatch.setattr(module, "read_img_worker", stopping)


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def assert_holds(target: Path, source: Path, names: list[str]) -> None:
    with lmdb.open(str(target), readonly=True, lock=False) as env, env.begin() as txn:
        keys = [key.decode() for key in txn.cursor().iternext(values=False)]
    images = find_images(target, "lmdb")
    assert keys == sorted(images.names)
    assert list(images.names) == [str(Path(name).with_suffix("")) for name in names]
    for key, name in zip(images.names, names, strict=True):
        assert np.array_equal(images.read(key), read_image(source / name)), name


def test_pixels_keys_and_meta_info_of_every_kind(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    (source / "b (1)").mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture().save(source / "a.jpg", exif=exif)
    picture("L").save(source / "b (1)" / "grey.png")
    picture("CMYK").save(source / "cmyk.tif")
    picture("P").save(source / "palette.png")
    picture("RGBA").save(source / "opaque.webp", lossless=True)
    Image.fromarray(RNG.integers(0, 65536, (10, 12)).astype(np.uint16)).save(source / "z16.png")
    (source / "notes.txt").write_text("no image")
    assert write_lmdb(source, target, compress_level=3) == 6
    assert_holds(target, source, ["a.jpg", "b (1)/grey.png", "cmyk.tif", "opaque.webp", "palette.png", "z16.png"])
    lines = (target / "meta_info.txt").read_text().splitlines()
    assert lines[:3] == ["a.png (12,10,3) 3", "b (1)/grey.png (10,12,1) 3", "cmyk.png (10,12,4) 3"]
    assert lines[4:] == ["palette.png (10,12,3) 3", "z16.png (10,12,1) 3"]
    assert sorted(p.name for p in target.iterdir()) == ["data.mdb", "lock.mdb", "meta_info.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces.lmdb", "source"]


def test_basicsr_reads_pairs_from_it(tmp_path: Path) -> None:
    folders = {kind: folder_of(tmp_path / kind, 3) for kind in ("gt", "lq")}
    for kind, folder in folders.items():
        write_lmdb(folder, tmp_path / f"{kind}.lmdb")
    opt = {
        "name": "pairs", "type": "PairedImageDataset", "phase": "val", "scale": 1,
        "dataroot_gt": str(tmp_path / "gt.lmdb"), "dataroot_lq": str(tmp_path / "lq.lmdb"),
        "io_backend": {"type": "lmdb"},
    }  # fmt: skip
    dataset = build_dataset(opt)
    assert len(dataset) == 3
    for i in range(3):
        for kind, folder in folders.items():
            expected = read_image(folder / f"{i:03d}.png")[..., ::-1].transpose(2, 0, 1)
            assert np.array_equal((dataset[i][kind].numpy() * 255).round(), expected)


def test_ctrl_c_leaves_no_target_and_nothing_is_read_twice(
    tmp_path: Path, target: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "source", 7)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "004", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            write_lmdb(source, target)
    assert encoded == ["000", "001", "002", "003"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".faces.partial.lmdb", "source"]
    encoded.clear()
    assert write_lmdb(source, target) == 7
    assert encoded == ["004", "005", "006"]
    assert_holds(target, source, [f"{i:03d}.png" for i in range(7)])


def test_a_kill_leaves_what_was_committed(
    tmp_path: Path, target: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "source", 7)
    monkeypatch.setattr(module, "BATCH", 2)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "005", lambda: os._exit(9))
        process = multiprocessing.get_context("fork").Process(target=write_lmdb, args=(source, target))
        process.start()
        process.join(60)
    assert process.exitcode == 9
    assert not target.exists()
    assert write_lmdb(source, target) == 7
    assert encoded == ["004", "005", "006"]  # 004 was not committed
    assert_holds(target, source, [f"{i:03d}.png" for i in range(7)])


def test_resuming_follows_what_has_changed(
    tmp_path: Path, target: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "source", 4)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "003", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            write_lmdb(source, target)
    (source / "000.png").unlink()
    time.sleep(0.01)
    picture().save(source / "001.png")
    encoded.clear()
    assert write_lmdb(source, target) == 3
    assert encoded == ["001", "003"]
    assert_holds(target, source, ["001.png", "002.png", "003.png"])


def test_another_folder_of_the_same_names_starts_anew(tmp_path: Path, target: Path, encoded: list[str]) -> None:
    first, second = folder_of(tmp_path / "first", 3), folder_of(tmp_path / "second", 3)
    names = [f"{i:03d}.bmp" for i in range(3)]
    for folder in (first, second):
        for name in names:
            (folder / name).with_suffix(".png").unlink()
            picture().save(folder / name)
            os.utime(folder / name, (1, 1))  # of the same size and time
    (first / "002.bmp").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 3 images"):
        write_lmdb(first, target)
    write_lmdb(second, target)
    assert_holds(target, second, names)


def test_damaged_images_are_named_after_all_others_are_written(
    tmp_path: Path, target: Path, encoded: list[str]
) -> None:
    source = folder_of(tmp_path / "source", 24)
    damaged = [source / f"{i:03d}.png" for i in range(1, 23)]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"22 of 24 images can't be used: 001.png, .*, 020.png and 2 more\. Replace"):
        write_lmdb(source, target)
    assert not target.exists()
    assert encoded == ["000", "023"]
    for path in damaged:
        path.unlink()
    assert write_lmdb(source, target) == 2
    assert encoded == ["000", "023"]
    assert_holds(target, source, ["000.png", "023.png"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "a.jpg"], "a.jpg and a.png differ in the extension only"),
        (["ä.png"], "ä.png are not ASCII"),
        (["v1.0/a.png", "b.c.png"], "b.c.png, v1.0/a.png have a dot"),
        ([" a.png"], " a.png begin or end with a blank"),
        (["a\nb.png"], "a\nb.png begin or end with a blank, or hold a control character"),
        ([f"{'d' * 200}/{'e' * 200}/{'f' * 200}.png"], "are longer than LMDB's 511 bytes"),
    ],
)
def test_impossible_keys_are_refused_before_anything_is_written(
    tmp_path: Path, target: Path, names: list[str], message: str
) -> None:
    for name in names:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / "source" / name)
    with pytest.raises(UserError) as error:
        write_lmdb(tmp_path / "source", target)
    assert message in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_the_longest_key_is_written(tmp_path: Path, target: Path) -> None:
    name = "/".join(["d" * 200, "e" * 200, "f" * 109])  # 511 bytes
    (tmp_path / "source" / name).parent.mkdir(parents=True)
    picture().save(tmp_path / "source" / f"{name}.png")
    write_lmdb(tmp_path / "source", target)
    assert_holds(target, tmp_path / "source", [f"{name}.png"])


def test_the_target_must_be_new_and_end_in_lmdb(tmp_path: Path, target: Path) -> None:
    source = folder_of(tmp_path / "source", 1)
    with pytest.raises(UserError, match=r"faces: the name of the LMDB to write must end in \.lmdb"):
        write_lmdb(source, tmp_path / "faces")
    with pytest.raises(UserError, match=r"the folder .*nowhere does not exist"):
        write_lmdb(source, tmp_path / "nowhere" / "faces.lmdb")
    with pytest.raises(UserError, match=r"compress_level: 10 is not one of"):
        write_lmdb(source, target, compress_level=10)
    target.mkdir()
    with pytest.raises(UserError, match=r"faces\.lmdb is already there"):
        write_lmdb(source, target)
    assert list(target.iterdir()) == []


def test_a_full_disk_is_a_user_error_and_what_is_written_is_kept(
    tmp_path: Path, target: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_of(tmp_path / "source", 200)
    monkeypatch.setattr(module, "BATCH", 10)
    with monkeypatch.context() as patch:
        patch.setattr(module, "MAP_SIZE", 2**17)
        with pytest.raises(UserError, match=r"faces\.lmdb: can't be written, in \.faces\.partial\.lmdb .*MAP_FULL"):
            write_lmdb(source, target)
    before = len(encoded)
    assert 10 < before < 200
    assert write_lmdb(source, target) == 200
    assert len(encoded) <= 200 + 11
