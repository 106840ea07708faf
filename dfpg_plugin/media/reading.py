"""Read photographs: by OpenCV, and those of colours or transparency that it loses by Pillow."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import MOST_PIXELS
from dfpg_plugin.data.kinds import open_head, other_pictures
from dfpg_plugin.media.colour_profiles import profile_of
from dfpg_plugin.media.pictures import DEPTHS, ORIENTATION, TURNS, Picture
from dfpg_plugin.media.pillow_images import ICC, read_pillow

EXIF, XMP = int(cv2.IMAGE_METADATA_EXIF), int(cv2.IMAGE_METADATA_XMP)
EXIF_START = b"Exif\0\0"  # of JPEG's alone
PILLOWS = ("CMYK", "LAB", "LA", "P", "PA")  # modes of which OpenCV loses transparency or colours
PNG_DEPTH, TIFF_DEPTH, DEEP = 24, 258, 16  # where files say how many bits they hold; Pillow reads most as 8
HIGH_DEPTH, TWELVE_BITS = 0x40, 0x20  # of AVIF's third byte of configuration: more than 8 bits, and more than 10
GAP = rb"(?:\s|#[^\n]*\n)+"
PNM_HEADER = re.compile(rb"P[2356]" + GAP + rb"\d+" + GAP + rb"\d+" + GAP + rb"(\d+)\s")


def read_picture(path: str | Path) -> Picture:
    """Read a photograph. Raises UserError, naming the file: none, damaged, too large, or not of 8 or 16 bits."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    return decode_picture(content, str(path))


def decode_picture(content: bytes, name: str, most: int = MOST_PIXELS) -> Picture:
    """Decode a file's content of at most ``most`` pixels; its notes say what was converted or left out.

    CMYK and LAB become sRGB by their colour profile. Of a camera's MPO the main picture is taken. Raises UserError,
    naming ``name``.
    """
    with _opened(content, name, most) as image:
        # both libraries have turned a TIFF already
        turned = 1 if image.format == "TIFF" else _orientation(image)
        exif = image.info.get("exif", b"").removeprefix(EXIF_START)  # a look at other pictures can lose it
        others = _others(image, name)
        try:
            picture = read_pillow(image) if _is_pillows(image, content) else _read_opencv(image, content, name)
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{name}: not an image that can be read, or damaged.") from error
    metadata = (*((kind, part) for kind, part in ((EXIF, exif),) if part), *picture.metadata)
    return replace(picture, orientation=turned, metadata=metadata, notes=(*picture.notes, *others))


@contextmanager
def _opened(content: bytes, name: str, most: int) -> Iterator[PillowImage.Image]:
    """Open a file; raise UserError for what is no picture, or has too many pixels, before they are decoded."""
    head = open_head(content)
    try:
        image = head.__enter__()
    except PillowImage.DecompressionBombError as error:
        raise UserError(f"{name}: has more than {most} pixels. Scale it down first.") from error
    except Exception as error:  # Pillow raises a dozen kinds
        raise UserError(f"{name}: not an image that can be read, or damaged.") from error
    try:
        width, height = image.size
        if width * height > most:
            raise UserError(f"{name}: has {width * height} pixels, more than {most}. Scale it down first.")
        yield image
    finally:
        head.__exit__(None, None, None)


def _is_pillows(image: PillowImage.Image, content: bytes) -> bool:
    """Tell whether OpenCV would lose something that Pillow keeps."""
    if image.format == "PNG" and content[PNG_DEPTH] == DEEP:
        return False
    if image.format == "TIFF":
        deep = DEEP in image.tag_v2.get(TIFF_DEPTH, ())  # type: ignore[attr-defined]
        return not deep and image.mode in (*PILLOWS, "RGBA")  # OpenCV darkens what is transparent
    return image.mode in PILLOWS or (image.mode in ("1", "L") and image.has_transparency_data)


def _others(image: PillowImage.Image, name: str) -> tuple[str, ...]:
    """Return a note of what a file holds besides its main picture; raise UserError for pages of equal rank."""
    try:
        others = other_pictures(image, name)
    except UserError:
        raise
    except Exception:  # a picture may be whole where what follows it is not
        with suppress(Exception):
            image.seek(0)
        return ("holds more than its main picture, which can't be read and was left out",)
    return (f"holds more than its main picture, which was left out: {', '.join(others)}",) if others else ()


def _orientation(image: PillowImage.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a picture may be whole where what is said of it is not
        return 1
    return found if found in TURNS else 1


def _most(image: PillowImage.Image, content: bytes, name: str) -> int | None:
    """Return the number that stands for white in a file of another depth than 8 or 16 bits; None for these.

    Raises UserError, naming ``name``, for JPEG 2000 of such a depth, of which OpenCV does not say what it does.
    """
    if image.format == "PPM":
        found = PNM_HEADER.match(content)
        most = int(found[1]) if found else None
        return None if most in (255, 65535) else most
    if image.format == "AVIF" and (place := content.find(b"av1C")) >= 0:
        flags = content[place + 6]
        return (4095 if flags & TWELVE_BITS else 1023) if flags & HIGH_DEPTH else None
    if image.format == "JPEG2000" and (place := content.find(b"\xff\x51")) >= 0:
        depth = (content[place + 40] & 0x7F) + 1
        if depth not in (8, 16):
            raise UserError(f"{name}: has {depth} bits, expected 8 or 16. Convert it to PNG.")
    return None


def _read_opencv(image: PillowImage.Image, content: bytes, name: str) -> Picture:
    try:
        pixels, kinds, parts = cv2.imdecodeWithMetadata(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UserError(f"{name}: not an image that can be read, or damaged.") from error
    if pixels is None:
        raise UserError(f"{name}: not an image that can be read, or damaged.")
    if pixels.dtype.name not in DEPTHS or pixels.shape[2:] not in ((), (3,), (4,)):
        raise UserError(f"{name}: has {pixels.dtype.name} pixels of shape {pixels.shape}, expected 8 or 16 bits.")
    if (most := _most(image, content, name)) is not None:  # OpenCV leaves numbers of other depths as they are
        whole = 255 if pixels.dtype == np.uint8 else 65535
        pixels = np.rint(pixels * (whole / most)).clip(0, whole).astype(pixels.dtype)
    # not OpenCV's profile: it takes an MPO's index for one, and cuts long ones
    profile, notes = profile_of(image, "L" if pixels.ndim == 2 else "RGB")
    metadata = [(kind, np.asarray(part).tobytes()) for kind, part in zip(kinds, parts, strict=True) if kind == XMP]
    return Picture(np.asarray(pixels), metadata=(*metadata, *([(ICC, profile)] if profile else [])), notes=notes)
