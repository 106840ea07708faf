"""Photographs keep what they have: size, depth, transparency, orientation, colour profile, and every other pixel."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from kit import files_of_at_most
from PIL import Image, ImageCms, ImageFile, ImageOps

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.pictures import Picture, encode_picture, write_picture
from dfpg_plugin.media.pillow_images import ICC
from dfpg_plugin.media.reading import decode_picture, read_picture

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NOISE = np.random.default_rng(0)


def stored(orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8))
    content = io.BytesIO()
    image.save(content, kind, exif=exif, icc_profile=PROFILE)
    return content.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_seen_upright_as_pillow_sees_it_and_kept(orientation: int) -> None:
    picture = decode_picture(stored(orientation), "p.png")
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(stored(orientation)))))
    np.testing.assert_allclose(picture.colours(), upright / 255, atol=1e-6)

    change, where = np.zeros(upright.shape, np.float32), np.zeros(upright.shape[:2], bool)
    where[2:6, 3:9], change[2:6, 3:9] = True, 50 / 255
    written = Image.open(io.BytesIO(encode_picture(picture.with_changes(change, where), ".png")))
    assert written.getexif().get(274, 1) == orientation
    assert written.info["icc_profile"] == PROFILE
    expected = upright.astype(int)
    expected[2:6, 3:9] = (expected[2:6, 3:9] + 50).clip(0, 255)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(written)), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_depth_transparency_and_all_other_pixels_are_kept(tmp_path: Path, dtype: type, shape: tuple) -> None:
    most = np.iinfo(dtype).max
    pixels = NOISE.integers(0, most, shape, endpoint=True).astype(dtype)
    cv2.imwrite(str(tmp_path / "in.png"), pixels)
    picture = read_picture(tmp_path / "in.png")
    where = np.zeros(shape[:2], bool)
    where[5:9, 5:9] = True
    write_picture(tmp_path / "out.png", picture.with_changes(np.full((20, 30, 3), -0.25, np.float32), where))
    out = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert (out.dtype, out.shape) == (pixels.dtype, pixels.shape)
    assert np.array_equal(out[~where], pixels[~where])
    seen = out[where][..., :3].astype(int) if len(shape) == 3 else out[where].astype(int)
    before = pixels[where][..., :3].astype(int) if len(shape) == 3 else pixels[where].astype(int)
    assert abs(seen - (before - 0.25 * most).clip(0)).max() <= 1
    if shape[2:] == (4,):
        assert np.array_equal(out[..., 3], pixels[..., 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_a_changed_pixel_is_the_nearest_number(dtype: type, shape: tuple) -> None:
    most = np.iinfo(dtype).max
    rng = np.random.default_rng(3)
    pixels = rng.integers(most // 4, 3 * most // 4, shape).astype(dtype)
    change = rng.uniform(-0.2, 0.2, (20, 30, 3)).astype(np.float32)  # RGB
    changed = Picture(pixels).with_changes(change, np.ones((20, 30), bool)).pixels
    added = most * change.astype(np.float64)
    if len(shape) == 2:
        exact = pixels + added.mean(axis=2)
    else:
        exact, changed = pixels[..., :3] + added[..., ::-1], changed[..., :3]
    assert np.abs(changed - exact).max() <= 0.5 + 1e-7 * most  # of float32's rounding


NO_PICTURES = {
    "empty": b"",
    "words": b"words",
    "cut": stored(1)[:200],
    "float": cv2.imencode(".tiff", np.ones((4, 4, 3), np.float32))[1].tobytes(),
}


@pytest.mark.parametrize("content", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_named(content: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.png: .*not an image"):
        decode_picture(content, "x.png")


def test_a_file_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "imdecodeWithMetadata")
    monkeypatch.delattr(ImageFile.ImageFile, "load")
    plain = io.BytesIO()
    Image.fromarray(np.zeros((24, 40), np.uint8)).save(plain, "PNG")
    for content in (stored(1), plain.getvalue()):
        with pytest.raises(UserError, match=r"x\.png: has 960 pixels, more than 900"):
            decode_picture(content, "x.png", 900)


def test_a_jpeg_can_not_hold_sixteen_bits() -> None:
    for suffix in (".jpg", ".webp", ".bmp"):
        with pytest.raises(UserError, match=rf"\{suffix} holds no 16 bits"):
            encode_picture(Picture(np.zeros((4, 4, 3), np.uint16)), suffix)
    for suffix in (".jpg", ".webp"):
        with pytest.raises(UserError, match=rf"\{suffix} does not keep transparency"):
            encode_picture(Picture(np.zeros((4, 4, 4), np.uint8)), suffix)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg", ".webp"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_between_any_kinds_it_stays_upright(kind: str, suffix: str, orientation: int) -> None:
    picture = decode_picture(stored(orientation, kind), "p")
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(stored(orientation, kind)))))
    assert np.abs(picture.colours() - upright / 255).mean() < 0.02
    written = ImageOps.exif_transpose(Image.open(io.BytesIO(encode_picture(picture, suffix))))
    assert np.abs(np.asarray(written).astype(int) - upright).mean() < (60 if suffix == ".jpg" else 3)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpegs_are_as_fine_as_pillows_of_quality_95(suffix: str) -> None:
    picture = Picture(np.random.default_rng(2).integers(0, 256, (24, 40, 3), np.uint8))
    expected = io.BytesIO()
    Image.fromarray(picture.array("rgb")).save(expected, "JPEG", quality=95)
    written = Image.open(io.BytesIO(encode_picture(picture, suffix)))
    assert written.quantization == Image.open(expected).quantization


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg", ".webp"])
def test_a_picture_that_does_not_fit_on_the_disk_leaves_the_earlier_one(tmp_path: Path, suffix: str) -> None:
    earlier, new = (Picture(NOISE.integers(0, 256, (height, 80, 3), np.uint8)) for height in (20, 60))
    path = tmp_path / f"face{suffix}"
    write_picture(path, earlier)
    before = path.read_bytes()
    with files_of_at_most(len(before)), pytest.raises(UserError, match=rf"face\{suffix}: can't be written"):
        write_picture(path, new)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(path.name, before)]


def test_several_pages_are_refused() -> None:
    pages = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (1, 2)]
    content = io.BytesIO()
    pages[0].save(content, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="several pages"):
        decode_picture(content.getvalue(), "x.tif")


def test_a_transparent_tiff_says_that_its_fourth_channel_is_transparency() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    content = encode_picture(Picture(pixels), ".tif")
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert file.pages[0].tags["ExtraSamples"].value == (2,)  # not multiplied into the colours
    np.testing.assert_array_equal(decode_picture(content, "a.tif").pixels, pixels)


def test_a_profile_that_a_jpeg_can_not_hold_is_the_reason_that_is_said(tmp_path: Path) -> None:
    picture = Picture(np.zeros((8, 8, 3), np.uint8), metadata=((ICC, bytes(200_000)),))
    with pytest.raises(UserError, match=r"a\.jpg: \.jpg holds no colour profile, EXIF or XMP of 200000 bytes"):
        write_picture(tmp_path / "a.jpg", picture)
    assert not list(tmp_path.iterdir())


def test_a_file_that_may_not_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"theirs")
    picture = Picture(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png: another run has written this file meanwhile"):
        write_picture(tmp_path / "a.png", picture, replace=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"theirs"]
    write_picture(tmp_path / "a.png", picture)
    write_picture(tmp_path / "b.png", picture, replace=False)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() != b"theirs"
