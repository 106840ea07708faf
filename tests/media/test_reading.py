"""Photographs of unusual depth, transparency and damage."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError
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
