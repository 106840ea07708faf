"""Pillow's images of every mode as pictures, and back."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.colour_profiles import Notes, profile_of, to_srgb
from dfpg_plugin.media.pictures import ORIENTATION, TURNS, Picture, swap_red_and_blue

SIMPLER = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "I;16B": "I;16", "I;16L": "I;16", "I;16N": "I;16"}
OTHER_COLOURS = ("CMYK", "LAB", "YCbCr", "HSV")
ICC = int(cv2.IMAGE_METADATA_ICCP)
MOST = np.iinfo(np.uint16).max


def simplified(image: PillowImage.Image) -> tuple[PillowImage.Image, Notes]:
    """Return an image that looks the same, of mode L, LA, RGB, RGBA or I;16, and what had to be done to it.

    Raises UserError for numbers whose range is unknown: mode F, and mode I outside of 0 to 65535.
    """
    mode = image.mode
    if mode in OTHER_COLOURS:
        return to_srgb(image)
    if mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB"), ()
    if mode == "1" and image.has_transparency_data:
        return image.convert("RGBA").convert("LA"), ()
    if mode in ("L", "RGB") and image.has_transparency_data:  # one colour that means transparent
        return image.convert(f"{mode}A"), ()
    if mode == "I" or mode.startswith("I;16"):
        return _sixteen_bits(image), ()
    if mode == "F":
        raise UserError("image: of mode F, whose range is unknown. Convert it to L or I;16.")
    return image.convert(SIMPLER.get(mode, mode)), ()


def pixels_of(image: PillowImage.Image) -> NDArray:
    """Return the pixels of an image of :func:`simplified`, (H,W), (H,W,3) BGR or (H,W,4) BGRA; LA as BGRA."""
    return swap_red_and_blue(np.asarray(image.convert("RGBA") if image.mode == "LA" else image))


def restore_image(image: PillowImage.Image, restore: Callable[[Picture], Picture]) -> PillowImage.Image:
    """Restore an image: L, LA, RGB, RGBA, I;16 and I come back as they are.

    Modes that can't hold the result come back as the simplest that shows the same: 1 as L; P and PA as RGB, or RGBA
    where they are transparent; CMYK, LAB, YCbCr and HSV as RGB, by their profile. EXIF's orientation, profile and what
    else ``info`` holds are kept. Raises UserError as :func:`simplified` does.
    """
    image.load()
    shown, _ = simplified(image)
    base = shown.getchannel("L") if shown.mode == "LA" else shown
    orientation = image.getexif().get(ORIENTATION, 1)
    picture = Picture(pixels_of(base), orientation if orientation in TURNS else 1)
    pixels = restore(picture).pixels
    made = PillowImage.fromarray(swap_red_and_blue(pixels.astype(np.int32) if image.mode == "I" else pixels))
    if shown.mode == "LA":
        made.putalpha(shown.getchannel("A"))
    made.info = dict(image.info)
    if shown.mode != image.mode:
        made.info.pop("transparency", None)
    if profile_of(image, made.mode)[0] is None:
        made.info.pop("icc_profile", None)
    return made


def read_pillow(image: PillowImage.Image) -> Picture:
    """Return an opened file's pixels, and the profile that fits them. Raises what Pillow raises for damaged files."""
    image.load()
    shown, notes = simplified(image)
    if shown.mode == "LA" and image.info.get("icc_profile"):  # grey's profile does not fit the colours it is kept in
        alpha = shown.getchannel("A")
        grey = shown.getchannel("L")
        grey.info = dict(image.info)
        shown, notes = to_srgb(grey)
        shown.putalpha(alpha)
    profile = None
    if image.mode in ("P", "PA"):
        profile, notes = profile_of(image, shown.mode)
    return Picture(pixels_of(shown), metadata=((ICC, profile),) if profile else (), notes=notes)


def _sixteen_bits(image: PillowImage.Image) -> PillowImage.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > MOST:
        raise UserError(f"image: of mode I with values outside of 0 to {MOST}. Convert it to I;16.")
    return PillowImage.fromarray(values.astype(np.uint16))
