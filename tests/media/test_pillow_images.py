"""Colours and transparency of every kind: files and Pillow's images, and whose profile is carried."""

import io
import itertools
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import photo
from PIL import Image, ImageCms

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import encode_picture
from dfpg_plugin.media.reading import decode_picture
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import Settings

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGB = Image.fromarray(cv2.GaussianBlur(np.random.default_rng(0).integers(0, 180, (96, 120, 3), np.uint8), (0, 0), 2))
GREY16 = (np.arange(96 * 120).reshape(96, 120) * 5).astype(np.uint16)


def cmyk_profile() -> bytes:
    """A profile whose lightness is 100 less 50 for full cyan and 40 for full black, without any colour."""

    def table(values: bytes) -> bytes:
        return b"".join(values for _ in range(4))

    identity = bytes(range(256))
    nodes = b"".join(
        bytes([round(2.55 * (100 - 50 * c - 40 * k)), 128, 128]) for c, m, y, k in itertools.product((0, 1), repeat=4)
    )
    matrix = struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + table(identity) + nodes + 3 * identity
    lut += b"\0" * (-len(lut) % 4)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061), b"A2B0": lut}
    offset, directory, data = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        directory += name + struct.pack(">2I", offset + len(data), len(content))
        data += content
    head = bytearray(128)
    head[8:12], head[12:24], head[36:40] = b"\x02\x40\0\0", b"prtrCMYKLab ", b"acsp"
    head[68:80] = struct.pack(">3i", 63190, 65536, 54061)
    head[0:4] = struct.pack(">I", offset + len(data))
    return bytes(head) + struct.pack(">I", len(tags)) + directory + data


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def written(content: bytes, suffix: str = ".png") -> Image.Image:
    return Image.open(io.BytesIO(encode_picture(decode_picture(content, "x"), suffix)))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
@pytest.mark.parametrize(("ink", "lightness"), [((255, 0, 0, 0), 50), ((0, 0, 0, 255), 60), ((255, 90, 30, 0), 50)])
def test_cmyk_becomes_srgb_by_its_profile(kind: str, ink: tuple, lightness: float) -> None:
    content = file_of(Image.new("CMYK", (16, 16), ink), kind, icc_profile=cmyk_profile())
    luminance = ((lightness + 16) / 116) ** 3  # CIE's lightness, and sRGB's curve
    expected = 255 * (1.055 * luminance ** (1 / 2.4) - 0.055)
    result = written(content)
    assert result.mode == "RGB"
    assert np.abs(np.asarray(result).astype(float) - expected).max() <= 4
    assert "icc_profile" not in result.info
    assert decode_picture(content, "x").notes == ("was CMYK: converted to sRGB by its colour profile",)


def test_cmyk_without_a_profile_that_can_be_used_is_converted_and_said() -> None:
    made_up = SRGB[:16] + b"CMYK" + SRGB[20:]
    plain = file_of(RGB.convert("CMYK"), "TIFF")
    for options, said in (({}, 1), ({"icc_profile": made_up}, 2), ({"icc_profile": b"\0\0\0\x20" + 28 * b"x"}, 2)):
        picture = decode_picture(file_of(RGB.convert("CMYK"), "TIFF", **options), "x")
        assert picture.notes[-1] == "was CMYK: converted to RGB without a colour profile"
        assert len(picture.notes) == said
        np.testing.assert_array_equal(np.asarray(written(plain)), np.asarray(RGB.convert("CMYK").convert("RGB")))
        assert picture.metadata == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_that_is_the_picture_s_is_carried_and_another_is_not(kind: str) -> None:
    assert written(file_of(RGB, kind, icc_profile=SRGB)).info["icc_profile"] == SRGB
    assert written(file_of(RGB, kind, icc_profile=SRGB + 90_000 * b"\0")).info["icc_profile"] == SRGB
    for wrong, note in ((cmyk_profile(), "is for CMYK and was left out"), (b"\0\0\0\x04rubbish", "is damaged")):
        picture = decode_picture(file_of(RGB, kind, icc_profile=wrong), "x")
        assert any(note in said for said in picture.notes)
        assert "icc_profile" not in Image.open(io.BytesIO(encode_picture(picture, ".png"))).info


def test_grey_with_the_profile_of_colours_loses_it() -> None:
    picture = decode_picture(file_of(RGB.convert("L"), "JPEG", icc_profile=SRGB), "x")
    assert picture.notes == ("its colour profile is for RGB and was left out",)
    assert picture.metadata == ()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("LA", "TIFF"), ("LA", "PNG"), ("LA", "JPEG2000"), ("PA", "TIFF"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "TIFF")],
)
def test_transparency_of_a_file_is_kept(mode: str, kind: str) -> None:
    image = RGB.convert("RGBA")
    image.putalpha(Image.fromarray((np.arange(96 * 120).reshape(96, 120) % 2 * 255).astype(np.uint8)))
    if mode == "PA":
        made = RGB.quantize(16).convert("PA")
        made.putalpha(image.getchannel("A"))
    else:
        made = image.convert(mode) if mode != "P" else RGB.quantize(16)
    content = file_of(made, kind, **({"transparency": 3} if mode == "P" else {}))
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    assert (expected[..., 3] == 0).any()
    np.testing.assert_array_equal(np.asarray(written(content).convert("RGBA")), expected)


def test_lab_becomes_srgb() -> None:
    lab = ImageCms.profileToProfile(
        RGB, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    result = np.asarray(written(file_of(lab, "TIFF"))).astype(int)
    assert np.abs(result - np.asarray(RGB)).max() <= 4


def test_a_photograph_of_a_camera_gives_its_main_picture_and_says_what_else_it_holds() -> None:
    content = file_of(RGB, "MPO", save_all=True, append_images=[RGB.resize((60, 48))], icc_profile=SRGB, quality=95)
    picture = decode_picture(content, "x")
    assert picture.notes == ("holds more than its main picture, which was left out: 60x48 px",)
    first = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(picture.pixels[..., ::-1], first)
    assert written(content).info["icc_profile"] == SRGB
    plain = file_of(RGB, "MPO", save_all=True, append_images=[RGB])
    assert decode_picture(plain, "x").metadata == ()  # the index of an MPO is no profile


def test_a_smaller_copy_in_a_tiff_is_no_second_page() -> None:
    content = io.BytesIO()
    small = RGB.resize((60, 48))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    RGB.save(content, "TIFF", save_all=True, append_images=[small])
    picture = decode_picture(content.getvalue(), "x")
    np.testing.assert_array_equal(picture.pixels[..., ::-1], np.asarray(RGB))
    assert picture.notes == ("holds more than its main picture, which was left out: 60x48 px",)


@pytest.fixture(scope="module")
def face() -> Image.Image:
    return Image.fromarray(photo()[20:270, 420:670, ::-1].copy()).resize((120, 120))


KEPT = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB",
        "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}  # fmt: skip


def made_of(face: Image.Image, mode: str) -> Image.Image:
    alpha = Image.fromarray((np.arange(120 * 120).reshape(120, 120) % 200 + 50).astype(np.uint8))
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(face, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    if mode in ("La", "RGBa"):
        return made_of(face, mode.upper()).convert(mode)
    image = face.quantize(32) if mode in ("P", "PA") else face.convert(mode)
    if mode == "PA":
        image = image.convert("PA")
    if mode in ("LA", "PA", "RGBA"):
        image.putalpha(alpha)
    return image


@pytest.mark.parametrize("mode", KEPT)
def test_images_of_every_mode_come_back_brighter_and_as_transparent_as_they_were(
    weights: str, face: Image.Image, mode: str
) -> None:
    image = made_of(face, mode)
    restored = DFPGRestorer(weights, settings=Settings(mode="aligned", recogniser=None)).restore(image)
    assert restored.mode == KEPT[mode]
    if mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        alpha = image.convert("LA" if mode == "La" else "RGBA").getchannel("A")
        assert np.array_equal(np.asarray(restored.getchannel("A")), np.asarray(alpha))
    shown = face if mode == "LAB" else image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGB")
    before, after = (np.asarray(i.convert("RGB")).astype(float) for i in (shown, restored))
    assert np.abs(after - np.minimum(before + 25.5, 255)).max() <= (5 if mode == "LAB" else 1.01)  # the network's tenth


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_of_an_image_are_kept(weights: str, mode: str) -> None:
    image = Image.fromarray(GREY16.astype(np.int32) if mode == "I" else GREY16)
    restored = DFPGRestorer(weights, settings=Settings(mode="aligned", recogniser=None)).restore(image)
    assert restored.mode == image.mode == mode
    assert np.abs(np.asarray(restored).astype(float) - np.minimum(GREY16 + 6553.5, 65535)).max() <= 2


def test_numbers_of_unknown_range_are_refused(weights: str) -> None:
    restorer = DFPGRestorer(weights, settings=Settings(mode="aligned", recogniser=None))
    with pytest.raises(UserError, match=r"mode F, whose range is unknown\. Convert it to L or I;16"):
        restorer.restore(RGB.convert("F"))
    with pytest.raises(UserError, match="mode I with values outside of 0 to 65535"):
        restorer.restore(Image.fromarray(np.full((8, 8), 70_000, np.int32)))


def test_an_image_keeps_its_orientation_and_profile(weights: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(photo()[..., ::-1], 1)))
    turned.save(tmp_path / "a.jpg", exif=exif, icc_profile=SRGB, quality=95)
    restorer = DFPGRestorer(weights, settings=Settings(recogniser=None))
    with Image.open(tmp_path / "a.jpg") as image:
        restored = restorer.restore(image)
    assert np.array_equal(np.asarray(restored)[..., ::-1], restorer.restore(tmp_path / "a.jpg"))
    assert (restored.getexif().get(274), restored.info["icc_profile"]) == (6, SRGB)
    assert (np.asarray(restored) != np.asarray(Image.open(tmp_path / "a.jpg"))).mean() > 0.05  # faces were found


@pytest.mark.parametrize(("mode", "expected"), [("RGB", "RGBA"), ("L", "LA"), ("P", "RGBA"), ("1", "LA")])
def test_one_colour_that_means_transparent_becomes_transparency(weights: str, mode: str, expected: str) -> None:
    image = RGB.quantize(16) if mode == "P" else RGB.convert(mode)
    values = np.asarray(image).reshape(96, 120, -1)
    image.info["transparency"] = image.getpixel((3, 3))
    restored = DFPGRestorer(weights, settings=Settings(mode="aligned", recogniser=None)).restore(image)
    assert restored.mode == expected
    is_meant = (values == values[3, 3]).all(axis=2)
    assert np.array_equal(np.asarray(restored.getchannel("A")), np.where(is_meant, 0, 255))
    assert "transparency" not in restored.info
