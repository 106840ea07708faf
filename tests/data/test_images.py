"""Images of every kind: used correctly, or refused in one line that names the file."""

import errno
import os
import warnings
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.utils import get_root_logger
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import find_images, list_images, look_into, read_image


@pytest.fixture
def face() -> Image.Image:
    grid = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(grid).resize((64, 48), Image.Resampling.BICUBIC)


def bgr(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))[..., ::-1]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1"])
def test_modes_become_colours(tmp_path: Path, face: Image.Image, mode: str) -> None:
    image = face.convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), bgr(image))


def test_cmyk_becomes_colours(tmp_path: Path, face: Image.Image) -> None:
    face.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        difference = np.abs(read_image(tmp_path / "a.jpg").astype(int) - bgr(image))
    assert difference.max() <= 2


def test_16_bits_become_their_upper_8(tmp_path: Path) -> None:
    levels = np.arange(40 * 30 * 3, dtype=np.uint16).reshape(40, 30, 3) * 18
    cv2.imwrite(str(tmp_path / "a.png"), levels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), levels >> 8)


def test_transparent_pixels_are_refused(tmp_path: Path, face: Image.Image) -> None:
    image = face.convert("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 254))
    image.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is partly transparent"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_truncated_and_other_files_are_refused(tmp_path: Path, face: Image.Image, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    face.save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"a text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\{suffix}: not an image"):
            read_image(path)


def test_a_file_is_used_whatever_its_name_or_listed_with_the_reason(tmp_path: Path, face: Image.Image) -> None:
    (tmp_path / "b" / ".trash").mkdir(parents=True)
    kinds = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.avif": "AVIF", "d.gif": "GIF", "e.jp2": "JPEG2000", "f.HEIC": "JPEG",
             "b/g": "PNG", "b/h.PNG": "PNG", "i.dat": "TIFF", "j.tga": "TGA", "b/.trash/k.png": "PNG"}  # fmt: skip
    for name, kind in kinds.items():
        face.save(tmp_path / name, kind)
    for name, content in (
        ("b/._h.PNG", b""),
        ("notes.txt", b"x"),
        ("none", b""),
        ("IMG.heic", b"\0\0\0\x18ftypheic\0"),
    ):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.dat").symlink_to(tmp_path / "nowhere")
    found = look_into(tmp_path)
    assert found.names == ["a.jfif", "b.jpe", "b/g", "b/h.PNG", "c.avif", "d.gif", "e.jp2", "f.HEIC", "i.dat"]
    assert found.left_out == {
        "IMG.heic": "HEIC, which can't be read: convert it to JPEG or PNG",
        "b/._h.PNG": "hidden",
        "b/.trash/": "hidden",
        "gone.dat": "a link to a missing file",
        "j.tga": "TGA, which can't be read: convert it to PNG",
        "none": "empty",
        "notes.txt": "not of a kind that can be read",
    }
    for name in found.names:
        assert np.abs(read_image(tmp_path / name).astype(int) - bgr(face)).mean() < 20, name


def test_what_a_folder_holds_besides_images_is_logged(
    tmp_path: Path, face: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"no image in .*; left out: notes\.txt \(not of a kind that can be read\)\."):
        list_images(tmp_path)
    face.save(tmp_path / "a.png")
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    assert find_images(tmp_path).names == ["a.png"]
    assert said == [f"{tmp_path}: 1 not used: notes.txt (not of a kind that can be read)"]


def test_a_folder_that_can_not_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert look_into(tmp_path).left_out == {"locked/": "can't be read (Permission denied)"}


@pytest.mark.parametrize("size", [(10_000, 9_000), (13_000, 12_000)])
def test_megapixels_are_no_warning_and_too_many_are_one_line(tmp_path: Path, size: tuple) -> None:
    Image.new("1", size).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if size[0] * size[1] < 2**27:
            assert read_image(tmp_path / "large.png").shape == (size[1], size[0], 3)
        else:
            with pytest.raises(UserError, match=r"large\.png: has more than 134217728 pixels\. Scale it down"):
                read_image(tmp_path / "large.png")


def test_of_a_camera_s_mpo_the_main_picture_is_read_and_several_frames_are_refused(
    tmp_path: Path, face: Image.Image
) -> None:
    small = face.resize((16, 12))
    face.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small], quality=95)
    face.save(tmp_path / "plain.jpg", quality=95)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "plain.jpg"))
    for suffix in ("gif", "png", "webp", "tif"):
        face.save(tmp_path / f"b.{suffix}", save_all=True, append_images=[face.rotate(180)])
        with pytest.raises(UserError, match=rf"b\.{suffix}: has several pages or frames\. Save them one by one"):
            read_image(tmp_path / f"b.{suffix}")


def test_a_picture_beyond_pillows_limit_is_named(
    tmp_path: Path, face: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    face.save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(UserError, match=r"big\.png: has more than 134217728 pixels"):
        read_image(tmp_path / "big.png")


def test_linked_folders_are_searched_once(tmp_path: Path, face: Image.Image) -> None:
    (tmp_path / "elsewhere").mkdir()
    face.save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "celeba").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "faces")
    assert list_images(tmp_path / "faces") == ["celeba/a.png"]


def test_what_pillow_cant_read_is_judged_by_opencv(tmp_path: Path, face: Image.Image) -> None:
    long_text = PngInfo()
    long_text.add_text("comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    face.save(tmp_path / "whole.png", pnginfo=long_text)
    np.testing.assert_array_equal(read_image(tmp_path / "whole.png"), bgr(face))
    face.putalpha(99)
    face.save(tmp_path / "alpha.png", pnginfo=long_text)
    with pytest.raises(UserError, match=r"alpha\.png: is partly transparent"):
        read_image(tmp_path / "alpha.png")
    (tmp_path / "cut.pgm").write_bytes(b"P5\n92 x12\n255\n" + bytes(92 * 112))
    with pytest.raises(UserError, match=r"cut\.pgm: not an image"):
        read_image(tmp_path / "cut.pgm")


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_damaged_lmdb_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    (tmp_path / "meta_info.txt").write_text("0.png (64,64,3) 1\n")
    with pytest.raises(UserError, match="not a readable LMDB"):
        find_images(tmp_path, "lmdb")


def test_names_that_no_lmdb_can_hold_and_lists_that_are_no_text_are_named(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)):
        pass
    (tmp_path / "meta_info.txt").write_text("ä.png (64,64,3) 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="'ä' can't be a key"):
        find_images(tmp_path, "lmdb").read("ä")
    (tmp_path / "meta_info.txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        find_images(tmp_path, "lmdb")


def test_a_pipe_and_a_broken_link_are_left_out_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    found = look_into(tmp_path, also=lambda path: path.read_bytes() == b"film")
    assert found.names == []
    assert found.left_out == {"link.png": "a link to a missing file", "pipe": "no file", "pipe.png": "no file"}
