"""Read photographs with OpenCV, or with Pillow if OpenCV would lose colours or transparency."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import MOST_PIXELS
from dfpg_plugin.data.kinds import open_head, other_pictures
from dfpg_plugin.media.colour_profiles import profile_of
from dfpg_plugin.media.pictures import DEPTHS, ORIENTATION, TURNS, Picture
from dfpg_plugin.media.pillow_images import ICC, UINT16_MAX, read_pillow

EXIF, XMP = int(cv2.IMAGE_METADATA_EXIF), int(cv2.IMAGE_METADATA_XMP)
EXIF_START = b"Exif\0\0"  # only JPEG's EXIF begins with this
PILLOW_MODES = ("CMYK", "LAB", "LA", "P", "PA")  # OpenCV loses transparency or colours of these modes
PNG_DEPTH, TIFF_DEPTH = 24, 258  # PNG's byte and TIFF's tag that hold the depth
PHOTOMETRIC, SAMPLES, PLANAR, EXTRA_SAMPLES = 262, 277, 284, 338  # TIFF's tags
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # values of PHOTOMETRIC
SEPARATE, PREMULTIPLIED = 2, 1  # values of PLANAR and EXTRA_SAMPLES
DEEP_BITS = 16
SRGB_GAMMA = 0.45455
KEPT_TEXTS = ("XML:com.adobe.xmp", "Raw profile type exif")  # XMP and EXIF in the place of a PNG's text
TIFF_WORDS = {270: "description", 315: "artist", 33432: "copyright"}  # tags that people write
HIGH_DEPTH, TWELVE_BITS = 0x40, 0x20  # flags of AVIF's depth: more than 8 bits, more than 10 bits
AVIF_FLAGS = 6  # from the name of AVIF's av1C box to the byte with these flags
# white space and comments between the numbers of a PNM's header
GAP = rb"(?:\s|#[^\n]*\n)+"
PNM_HEADER = re.compile(rb"P[2356]" + GAP + rb"\d+" + GAP + rb"\d+" + GAP + rb"(\d+)\s")


def read_picture(path: str | Path) -> Picture:
    """Read a photograph.

    Raises UserError, naming the file, if the file can't be read. Raises the errors of :func:`decode_picture`, too.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    return decode_picture(content, str(path))


def decode_picture(content: bytes, name: str, most: int = MOST_PIXELS) -> Picture:
    """Decode a file's content. The picture's notes say what was converted or left out.

    CMYK and LAB become sRGB by their colour profile. An MPO file of a camera is read as its main picture. Raises
    UserError, naming ``name``, for content that is no image, is damaged, has several pages or frames, or has more than
    ``most`` pixels.
    """
    with _opened(content, name, most) as image:
        # OpenCV and Pillow turn a TIFF upright while reading the TIFF
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        # EXIF is read before _note_others is called, because _note_others can lose EXIF
        exif = _exif(image).removeprefix(EXIF_START)
        notes = (*_note_lost(image), *_note_others(image, name))
        try:
            _refuse_deep_tiff(image, name)
            picture = read_pillow(image) if _needs_pillow(image, content) else _read_opencv(image, content, name)
        except UserError:
            raise
        except (OSError, SyntaxError, ValueError, cv2.error) as error:
            raise UserError(f"{name}: not an image that can be read, or damaged.") from error
    metadata = ((EXIF, exif), *picture.metadata) if exif else picture.metadata
    return replace(picture, orientation=orientation, metadata=metadata, notes=(*picture.notes, *notes))


@contextmanager
def _opened(content: bytes, name: str, most: int) -> Iterator[PillowImage.Image]:
    """Open a picture without decoding its pixels.

    Raise UserError, naming ``name``, for content that is no picture or has more than ``most`` pixels.
    """
    with ExitStack() as stack:
        try:
            image = stack.enter_context(open_head(content))
        except PillowImage.DecompressionBombError as error:
            raise UserError(f"{name}: has more than {most} pixels. Scale it down first.") from error
        except Exception as error:  # Pillow raises many kinds of error
            raise UserError(f"{name}: not an image that can be read, or damaged.") from error
        width, height = image.size
        if width * height > most:
            raise UserError(f"{name}: has {width * height} pixels, more than {most}. Scale it down first.")
        yield image


def _needs_pillow(image: PillowImage.Image, content: bytes) -> bool:
    """Tell whether OpenCV would lose something that Pillow keeps.

    16-bit PNG and TIFF files are left to OpenCV, because Pillow reads most 16-bit files as 8 bits.
    """
    if image.format == "PNG" and content[PNG_DEPTH] == DEEP_BITS:
        return False
    if image.format == "TIFF":
        deep = DEEP_BITS in image.tag_v2.get(TIFF_DEPTH, ())  # type: ignore[attr-defined]
        return not deep and image.mode in (*PILLOW_MODES, "RGBA")  # OpenCV darkens a TIFF's transparent pixels
    return image.mode in PILLOW_MODES or (image.mode in ("1", "L") and image.has_transparency_data)


def _refuse_deep_tiff(image: PillowImage.Image, name: str) -> None:
    """Raise UserError for a TIFF of 16 bits whose values OpenCV would take for others without a word."""
    if image.format != "TIFF" or DEEP_BITS not in image.tag_v2.get(TIFF_DEPTH, ()):  # type: ignore[attr-defined]
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    samples, photometric = tags.get(SAMPLES, 1), tags.get(PHOTOMETRIC, BLACK_IS_ZERO)
    if samples > 1 and tags.get(PLANAR) == SEPARATE:
        raise UserError(f"{name}: a TIFF of 16 bits with separate channels. Save it with interleaved channels.")
    grey = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and samples == 1
    if not grey and not (photometric == RGB and samples in (3, 4)):
        raise UserError(f"{name}: a TIFF of 16 bits with other colours than grey, RGB or RGBA. Convert it to one.")


def _as_meant(pixels: NDArray, tags: Mapping[int, object]) -> NDArray:
    """Return a 16-bit TIFF's uint16 values with 0 as black and colours not multiplied by the transparency.

    OpenCV returns the values as they are stored.
    """
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        return UINT16_MAX - pixels
    extra = tags.get(EXTRA_SAMPLES, ())
    if pixels.shape[2:] == (4,) and PREMULTIPLIED in (extra if isinstance(extra, tuple) else (extra,)):
        alpha = np.maximum(pixels[..., 3:], 1) / UINT16_MAX
        colours = np.rint(pixels[..., :3] / alpha).clip(0, UINT16_MAX).astype(np.uint16)
        return np.concatenate([colours, pixels[..., 3:]], axis=2)
    return pixels


def _note_lost(image: PillowImage.Image) -> tuple[str, ...]:
    """Return a note if a file holds words or settings that no result keeps, or no note."""
    lost = []
    if image.format == "PNG":
        texts = {str(key) for key, value in image.info.items() if isinstance(value, str)}
        texts = {key for key in texts if not key.startswith(KEPT_TEXTS)}
        lost += [f"text ({', '.join(sorted(texts))})"] if texts else []
        gamma = image.info.get("gamma")
        has_profile = "srgb" in image.info or "icc_profile" in image.info
        if gamma is not None and not has_profile and abs(gamma - SRGB_GAMMA) > 0.01:
            lost.append(f"gamma of {gamma:g}, without which the picture looks different")
        if image.mode.startswith("I;16") and "transparency" in image.info:
            lost.append("colour that means transparent")
    if image.format == "TIFF":
        found = [word for tag, word in TIFF_WORDS.items() if tag in image.tag_v2]  # type: ignore[attr-defined]
        lost += [", ".join(found)] if found else []
    if image.format in ("PNG", "TIFF") and max(image.info.get("dpi", (0,))) > 1:
        lost.append("resolution (dpi)")
    return (f"its {'; its '.join(lost)}: left out",) if lost else ()


def _note_others(image: PillowImage.Image, name: str) -> tuple[str, ...]:
    """Return a note if a file holds other pictures than its main picture, or no note.

    Raise UserError, naming ``name``, for a file of several pages or frames.
    """
    try:
        others = other_pictures(image, name)
    except UserError:
        raise
    except Exception:  # the main picture may be whole although the other pictures are damaged
        with suppress(Exception):
            image.seek(0)
        return ("holds more than its main picture, which can't be read and was left out",)
    return (f"holds more than its main picture, which was left out: {', '.join(others)}",) if others else ()


def _exif(image: PillowImage.Image) -> bytes:
    """Return the file's EXIF, also that which older programs wrote as text into a PNG; b"" without."""
    found = image.info.get("exif", b"")
    if not found and image.format == "PNG":
        with suppress(Exception):  # the picture may be whole although its EXIF is damaged
            parsed = image.getexif()
            return parsed.tobytes() if parsed else b""
    return found


def _orientation(image: PillowImage.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # the picture may be whole although its EXIF is damaged
        return 1
    return found if found in TURNS else 1


def _white_value(image: PillowImage.Image, content: bytes, name: str) -> int | None:
    """Return the value of white, such as 1023 for 10 bits. Return None for a file of 8 or 16 bits.

    Raises UserError, naming ``name``, for a JPEG 2000 of another depth. OpenCV does not document how OpenCV scales the
    values of such a file.
    """
    if image.format == "PPM":
        found = PNM_HEADER.match(content)
        white = int(found[1]) if found else None
        return None if white in (255, 65535) else white
    if image.format == "AVIF" and (place := content.find(b"av1C")) >= 0:
        flags = content[place + AVIF_FLAGS]
        if not flags & HIGH_DEPTH:
            return None
        return 4095 if flags & TWELVE_BITS else 1023
    if image.format == "JPEG2000" and (place := content.find(b"\xff\x51")) >= 0:
        depth = (content[place + 40] & 0x7F) + 1
        if depth not in (8, 16):
            raise UserError(f"{name}: has {depth} bits, expected 8 or 16. Convert it to PNG.")
    return None


def _read_opencv(image: PillowImage.Image, content: bytes, name: str) -> Picture:
    pixels, kinds, parts = cv2.imdecodeWithMetadata(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UserError(f"{name}: not an image that can be read, or damaged.")
    if pixels.dtype.name not in DEPTHS or pixels.shape[2:] not in ((), (3,), (4,)):
        raise UserError(f"{name}: has {pixels.dtype.name} pixels of shape {pixels.shape}, expected 8 or 16 bits.")
    if image.format == "TIFF" and pixels.dtype == np.uint16:
        pixels = _as_meant(pixels, image.tag_v2)  # type: ignore[attr-defined]
    # OpenCV does not scale the values of a file that has neither 8 nor 16 bits
    if (white := _white_value(image, content, name)) is not None:
        full = 255 if pixels.dtype == np.uint8 else 65535
        pixels = np.rint(pixels * (full / white)).clip(0, full).astype(pixels.dtype)
    # the profile is Pillow's: OpenCV takes an MPO's index for a profile, and OpenCV cuts long profiles
    profile, notes = profile_of(image, "L" if pixels.ndim == 2 else "RGB")
    metadata = [(kind, np.asarray(part).tobytes()) for kind, part in zip(kinds, parts, strict=True) if kind == XMP]
    if profile:
        metadata.append((ICC, profile))
    return Picture(np.asarray(pixels), metadata=tuple(metadata), notes=notes)
