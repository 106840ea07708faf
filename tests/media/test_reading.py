"""Photographs of unusual depth, transparency and damage."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import encode_picture
from dfpg_plugin.media.reading import decode_picture, read_picture

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize("most", [15, 100, 255, 1023, 65535])
@pytest.mark.parametrize("kind", [b"P5", b"P6"], ids=["grey", "colours"])
def test_the_white_of_a_portable_map_is_the_greatest_number_that_it_names(kind: bytes, most: int) -> None:
    numbers = np.rint(RAMP * most).astype(">u2" if most > 255 else np.uint8)
    numbers = numbers[:, :6]
    pixels = numbers if kind == b"P5" else np.dstack([numbers, numbers[::-1], numbers[:, ::-1]]).astype(numbers.dtype)
    content = kind + b"\n# a comment 7\n6 8\n" + str(most).encode() + b"\n" + pixels.tobytes()
    read = decode_picture(content, "a.pnm").array("rgb")
    whole = np.iinfo(read.dtype).max
    assert whole == (255 if most < 256 else 65535)
    np.testing.assert_allclose(read / whole, pixels / most, atol=0.5 / whole + 1e-9)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_an_avif_of_any_depth_is_as_bright_as_it_was(bits: int) -> None:
    deep = np.kron(np.repeat(np.rint(RAMP * (2**bits - 1))[..., None], 3, axis=2), np.ones((8, 8, 1)))
    settings = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    written, data = cv2.imencode(".avif", deep.astype(np.uint8 if bits == 8 else np.uint16), settings)
    assert written
    read = decode_picture(data.tobytes(), "a.avif").pixels
    np.testing.assert_allclose(read / np.iinfo(read.dtype).max, deep / (2**bits - 1), atol=0.02)


def test_jpeg_2000_of_twelve_bits_is_refused() -> None:
    file = io.BytesIO()
    PillowImage.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file, "JPEG2000")
    content = bytearray(file.getvalue())
    assert decode_picture(bytes(content), "a.jp2").pixels.dtype == np.uint8
    content[content.find(b"\xff\x51") + 40] = 11  # of the first component: depth less 1
    with pytest.raises(UserError, match=r"^a\.jp2: has 12 bits, expected 8 or 16"):
        decode_picture(bytes(content), "a.jp2")


@pytest.mark.parametrize(("mode", "transparent"), [("L", 7), ("1", 0)])
def test_grey_of_which_one_level_is_transparent_keeps_its_transparency(mode: str, transparent: int) -> None:
    grey = PillowImage.fromarray(np.array([[transparent, 255]], np.uint8).repeat(4, 0)).convert(mode)
    file = io.BytesIO()
    grey.save(file, "PNG", transparency=transparent)
    read = decode_picture(file.getvalue(), "a.png").pixels
    assert read.shape == (4, 2, 4)
    np.testing.assert_array_equal(read[0, :, 3], [0, 255])


def test_a_photograph_whose_second_picture_is_cut_off_is_still_turned(tmp_path: Path) -> None:
    pictures = [PillowImage.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    pictures[0].save(tmp_path / "a.mpo", save_all=True, append_images=pictures[1:], exif=exif)
    whole = (tmp_path / "a.mpo").read_bytes()
    (tmp_path / "a.mpo").write_bytes(whole[: whole.rindex(b"\xff\xd8")])
    read = read_picture(tmp_path / "a.mpo")
    assert read.orientation == 6
    assert any(b"\x12\x01" in part or b"\x01\x12" in part for _, part in read.metadata)
    assert any("can't be read and was left out" in note for note in read.notes)


DEEP = np.rint(RAMP * 65535).astype(np.uint16)


def tiff(pixels: np.ndarray, **how: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **how)
    return file.getvalue()


def test_a_deep_tiff_whose_white_is_zero_is_no_negative() -> None:
    stored = tiff(65535 - DEEP, photometric="miniswhite")
    np.testing.assert_array_equal(decode_picture(stored, "a.tif").pixels, DEEP)


def test_a_deep_tiff_s_colours_are_not_darkened_by_their_transparency() -> None:
    colours = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]]).astype(np.float64)
    alpha = np.full((8, 8, 1), 32768)
    stored = np.dstack([np.rint(colours * (32768 / 65535)), alpha]).astype(np.uint16)
    read = decode_picture(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]), "a.tif").array("rgb")
    np.testing.assert_allclose(read[..., :3], colours, atol=1.01)
    plain = decode_picture(tiff(stored, photometric="rgb", extrasamples=["unassalpha"]), "a.tif").array("rgb")
    np.testing.assert_array_equal(plain, stored)


@pytest.mark.parametrize(
    ("channels", "how", "reason"),
    [
        (3, {"photometric": "rgb", "planarconfig": "separate"}, "separate channels. Save it with interleaved channels"),
        (4, {"photometric": "separated"}, "other colours than grey, RGB or RGBA"),
    ],
)
def test_deep_tiffs_that_would_be_misread_are_refused(channels: int, how: dict, reason: str) -> None:
    pixels = np.dstack([DEEP] * channels)
    if how.get("planarconfig"):
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    with pytest.raises(UserError, match=f"a.tif: a TIFF of 16 bits with {reason}"):
        decode_picture(tiff(pixels, **how), "a.tif")


def test_words_and_settings_that_no_result_keeps_are_said() -> None:
    words = PngInfo()
    words.add_text("Comment", "by me")
    words.add(b"gAMA", (100_000).to_bytes(4, "big"))
    file = io.BytesIO()
    PillowImage.new("RGB", (4, 4)).save(file, "PNG", pnginfo=words, dpi=(300, 300))
    (note,) = decode_picture(file.getvalue(), "a.png").notes
    assert note == (
        "its text (Comment); its gamma of 1, without which the picture looks different; its resolution (dpi): left out"
    )
    grey = io.BytesIO()
    PillowImage.fromarray(DEEP).save(grey, "PNG", transparency=0)
    assert decode_picture(grey.getvalue(), "a.png").notes == ("its colour that means transparent: left out",)
    scan = tiff(np.zeros((4, 4, 3), np.uint8), photometric="rgb", description="a scan", metadata=None)
    assert decode_picture(scan, "a.tif").notes == ("its description: left out",)
    plain = io.BytesIO()
    PillowImage.new("RGB", (4, 4)).save(plain, "PNG")
    assert decode_picture(plain.getvalue(), "a.png").notes == ()


def test_exif_that_older_programs_wrote_as_text_is_kept() -> None:
    exif = PillowImage.Exif()
    exif[274] = 6
    words = PngInfo()
    content = exif.tobytes()
    words.add_text("Raw profile type exif", f"\nexif\n{len(content):8d}\n{content.hex()}\n", zip=True)
    file = io.BytesIO()
    PillowImage.new("RGB", (4, 6)).save(file, "PNG", pnginfo=words)
    picture = decode_picture(file.getvalue(), "a.png")
    assert picture.orientation == 6
    with PillowImage.open(io.BytesIO(encode_picture(picture, ".png"))) as written:
        assert written.getexif()[274] == 6
