"""Compare the sizes of blurred and sharp images by the headers of their files, without decoding the pixels."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from PIL import ExifTags

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import read_image
from dfpg_plugin.data.kinds import open_head
from dfpg_plugin.data.naming import list_some

UPRIGHT = 1
Size = tuple[int, int]  # width, height


def fits(lq: Size, gt: Size, scale: int = 1) -> bool:
    """Tell whether ``gt`` is ``scale`` times ``lq``. Up to ``scale`` - 1 px more fit too: 257 px for 64 px, scale 4."""
    return (gt[0] // scale, gt[1] // scale) == lq


def check_sizes(pairs: Sequence[tuple[Path, Path | None]], scale: int = 1) -> None:
    """Raise UserError, naming the files, for files that are no images and for pairs of different sizes."""
    sizes: dict[Path, Size] = {}
    unusable: dict[Path, UserError] = {}
    # no threads: they would wait for Python's lock and take four times as long
    for path in dict.fromkeys(chain.from_iterable(pairs)):
        if path is not None:
            try:
                sizes[path] = _header_size(path) or read_image(path).shape[1::-1]
            except UserError as error:
                unusable[path] = error
    if unusable:
        first = next(iter(unusable.values()))
        raise UserError(f"can't be used: {list_some([path.name for path in unusable])}. The first: {first}")
    differing = [
        f"{lq.name} ({describe_size(sizes[lq])}) and {gt.name} ({describe_size(sizes[gt])})"
        for lq, gt in pairs
        if gt is not None and not fits(sizes[lq], sizes[gt], scale)
    ]
    if differing:
        expected = "" if scale == 1 else f" for scale: {scale}"
        raise UserError(
            f"pairs of different sizes{expected} ({len(differing)}): {list_some(differing)}. Replace one of each, or "
            "remove both."
        )


def describe_size(size: Size) -> str:
    """Return a size as messages show it: ``92x112 px``."""
    return f"{size[0]}x{size[1]} px"


def _header_size(path: Path) -> Size | None:
    """Return the size by the header; None for a rotated image or an unknown header, because these need decoding."""
    try:
        with open_head(path) as image:
            has_exif = "exif" in image.info or image.format == "TIFF"
            if has_exif and image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT:
                return None
            return image.size
    except Exception:  # Pillow raises many kinds of error; OpenCV decides whether the file can be read
        return None
