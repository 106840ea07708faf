"""Colour profiles: find the profile that fits a picture's pixels, and convert colours to sRGB."""

import io

from PIL import Image as PillowImage
from PIL import ImageCms

# a profile's colour space by Pillow's mode; RGB for other modes
SPACES = {"1": "GRAY", "L": "GRAY", "LA": "GRAY", "I": "GRAY", "I;16": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
LENGTH = slice(0, 4)  # the bytes of a profile that hold its length
Notes = tuple[str, ...]


def profile_of(image: PillowImage.Image, mode: str) -> tuple[bytes | None, Notes]:
    """Return a picture's profile, or None, and notes. A profile that does not fit pixels of ``mode`` is left out."""
    content = image.info.get("icc_profile")
    if not content:
        return None, ()
    content = content[: int.from_bytes(content[LENGTH], "big")]  # some files pad the profile
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(content)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return None, ("its colour profile is damaged and was left out",)
    if space != SPACES.get(mode, "RGB"):
        return None, (f"its colour profile is for {space} and was left out",)
    return content, ()


def to_srgb(image: PillowImage.Image) -> tuple[PillowImage.Image, Notes]:
    """Convert a picture of mode CMYK, LAB, YCbCr, HSV or L to RGB, by its profile if it has one; return notes too."""
    profile, notes = profile_of(image, image.mode)
    source = ImageCms.createProfile("LAB") if image.mode == "LAB" else None
    if profile is not None:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    if source is not None:
        try:
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError as error:
            notes = (*notes, f"its colour profile can't be used ({error})")
        else:
            how = "" if profile is None else " by its colour profile"
            return converted, (*notes, f"was {image.mode}: converted to sRGB{how}")  # type: ignore[return-value]
    return image.convert("RGB"), (*notes, f"was {image.mode}: converted to RGB without a colour profile")
