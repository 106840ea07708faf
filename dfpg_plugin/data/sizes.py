"""Sizes of blurred and sharp images, compared by their files' headers before anything is decoded."""

from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import read_image
from dfpg_plugin.data.kinds import open_head
from dfpg_plugin.data.naming import list_some

UPRIGHT = 1
Size = tuple[int, int]  # width, height


def fits(lq: Size, gt: Size, scale: int = 1) -> bool:
    """Tell whether ``gt`` is ``scale`` times ``lq``; less than ``scale`` px more are the rest of a division."""
    return (gt[0] // scale, gt[1] // scale) == lq


def check_sizes(pairs: Sequence[tuple[Path, Path | None]], scale: int = 1) -> None:
    """Raise UserError, naming them, for files that are no images and for pairs of different sizes; decode none."""
    # one after the other: threads wait for each other's interpreter and take four times as long
    found = {path: _size_or_error(path) for path in dict.fromkeys(p for pair in pairs for p in pair if p is not None)}
    unusable = [(path, size) for path, size in found.items() if isinstance(size, UserError)]
    if unusable:
        raise UserError(f"can't be used: {list_some([path.name for path, _ in unusable])}. The first: {unusable[0][1]}")
    sizes = {path: size for path, size in found.items() if not isinstance(size, UserError)}
    differing = [
        f"{lq.name} ({in_words(sizes[lq])}) and {gt.name} ({in_words(sizes[gt])})"
        for lq, gt in pairs
        if gt is not None and not fits(sizes[lq], sizes[gt], scale)
    ]
    if differing:
        expected = "" if scale == 1 else f" for scale: {scale}"
        raise UserError(
            f"pairs of different sizes{expected} ({len(differing)}): {list_some(differing)}. Replace one of each, or "
            "remove both."
        )


def in_words(size: Size) -> str:
    """Return a size as messages say it: ``92x112 px``."""
    return f"{size[0]}x{size[1]} px"


def _size_or_error(path: Path) -> Size | UserError:
    try:
        return _header_size(path) or read_image(path).shape[1::-1]
    except UserError as error:
        return error


def _header_size(path: Path) -> Size | None:
    """Return the size; None where decoding has to tell: an unknown header, or one that says to rotate."""
    try:
        with open_head(path) as image:
            has_exif = "exif" in image.info or image.format == "TIFF"
            if has_exif and image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT:
                return None
            return image.size
    except Exception:  # Pillow raises what comes; OpenCV, which reads the pixels, has the last word
        return None
