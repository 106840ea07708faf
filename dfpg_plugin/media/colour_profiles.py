"""Colour profiles: which one belongs to a picture's pixels, and colours that become sRGB by theirs."""

import io

from PIL import Image as PillowImage
from PIL import ImageCms

SPACES = {"1": "GRAY", "L": "GRAY", "LA": "GRAY", "I": "GRAY", "I;16": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # else RGB
LENGTH = slice(0, 4)  # a profile's first bytes are its length
Notes = tuple[str, ...]


def profile_of(image: PillowImage.Image, mode: str) -> tuple[bytes | None, Notes]:
    """Return the profile that a picture carries, if any, and what is wrong where pixels of a mode can't have it."""
    content = image.info.get("icc_profile")
    if not content:
        return None, ()
    content = content[: int.from_bytes(content[LENGTH], "big")]  # some files pad it
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(content)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return None, ("its colour profile is damaged and was left out",)
    if space != SPACES.get(mode, "RGB"):
        return None, (f"its colour profile is for {space} and was left out",)
    return content, ()


def to_srgb(image: PillowImage.Image) -> tuple[PillowImage.Image, Notes]:
    """Return CMYK, LAB, YCbCr or HSV as RGB, and grey (L) as RGB, by the picture's profile where it has one."""
    profile, notes = profile_of(image, image.mode)
    source = ImageCms.createProfile("LAB") if image.mode == "LAB" else None
    if profile is not None:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    if source is not None:
        try:
            made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError as error:
            notes = (*notes, f"its colour profile can't be used ({error})")
        else:
            how = "" if profile is None else " by its colour profile"
            return made, (*notes, f"was {image.mode}: converted to sRGB{how}")  # type: ignore[return-value]
    return image.convert("RGB"), (*notes, f"was {image.mode}: converted to RGB without a colour profile")
