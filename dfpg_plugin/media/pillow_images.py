"""Convert Pillow's images of every mode to pictures, and back."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.colour_profiles import Notes, profile_of, to_srgb
from dfpg_plugin.media.pictures import ORIENTATION, TURNS, Picture, swap_red_and_blue

# for some modes of Pillow: a mode that holds the same picture
SIMPLER = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "I;16B": "I;16", "I;16L": "I;16", "I;16N": "I;16"}
OTHER_COLOURS = ("CMYK", "LAB", "YCbCr", "HSV")
ICC = int(cv2.IMAGE_METADATA_ICCP)
UINT16_MAX = np.iinfo(np.uint16).max


def simplified(image: PillowImage.Image) -> tuple[PillowImage.Image, Notes]:
    """Return an image that looks the same, of mode L, LA, RGB, RGBA or I;16, and notes on what was converted.

    Raises UserError for values of unknown range: mode F, and mode I with values outside of 0 to 65535.
    """
    mode = image.mode
    if mode in OTHER_COLOURS:
        return to_srgb(image)
    if mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB"), ()
    if mode == "1" and image.has_transparency_data:
        return image.convert("RGBA").convert("LA"), ()
    if mode in ("L", "RGB") and image.has_transparency_data:  # one colour means transparent
        return image.convert(f"{mode}A"), ()
    if mode == "I" or mode.startswith("I;16"):
        return _sixteen_bits(image), ()
    if mode == "F":
        raise UserError("image: of mode F, whose range is unknown. Convert it to L or I;16.")
    return image.convert(SIMPLER.get(mode, mode)), ()


def pixels_of(image: PillowImage.Image) -> NDArray:
    """Return the pixels of a :func:`simplified` image: (H,W), (H,W,3) BGR or (H,W,4) BGRA. LA becomes BGRA."""
    return swap_red_and_blue(np.asarray(image.convert("RGBA") if image.mode == "LA" else image))


def restore_image(image: PillowImage.Image, restore: Callable[[Picture], Picture]) -> PillowImage.Image:
    """Return the restored image. The modes L, LA, RGB, RGBA, I;16 and I stay the same.

    Other modes can't hold the result and change: 1 to L; P and PA to RGB, or to RGBA if they are transparent; CMYK,
    LAB, YCbCr and HSV to RGB, by their profile if they have one. L and RGB with one transparent colour become LA and
    RGBA. EXIF's orientation, a profile that still fits and the rest of ``info`` are kept. Raises UserError as
    :func:`simplified` does.
    """
    image.load()
    shown, _ = simplified(image)
    base = shown.getchannel("L") if shown.mode == "LA" else shown
    orientation = image.getexif().get(ORIENTATION, 1)
    picture = Picture(pixels_of(base), orientation if orientation in TURNS else 1)
    pixels = restore(picture).pixels
    if image.mode == "I":
        pixels = pixels.astype(np.int32)
    restored = PillowImage.fromarray(swap_red_and_blue(pixels))
    if shown.mode == "LA":
        restored.putalpha(shown.getchannel("A"))
    restored.info = dict(image.info)
    if shown.mode != image.mode:
        restored.info.pop("transparency", None)
    if profile_of(image, restored.mode)[0] is None:
        restored.info.pop("icc_profile", None)
    return restored


def read_pillow(image: PillowImage.Image) -> Picture:
    """Return an opened file's pixels with the profile that fits them. Raises Pillow's errors for damaged files."""
    image.load()
    shown, notes = simplified(image)
    if shown.mode == "LA" and image.info.get("icc_profile"):  # LA is stored as BGRA, which a grey profile does not fit
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
    if values.min() < 0 or values.max() > UINT16_MAX:
        raise UserError(f"image: of mode I with values outside of 0 to {UINT16_MAX}. Convert it to I;16.")
    return PillowImage.fromarray(values.astype(np.uint16))
