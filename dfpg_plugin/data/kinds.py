"""What a file is, by its content: which pictures can be read, and what the others are."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from dfpg_plugin.checks import UserError

# Pillow's names of what OpenCV reads, at least as far as Pillow does
READABLE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "SUN", "TIFF", "WEBP")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")  # of an iPhone's photographs, say
UNKNOWN = "not of a kind that can be read"
SUBFILE_TYPE, IS_REDUCED = 254, 1  # TIFF's tag and its bit of a page that is a smaller copy of another


class SeveralPagesError(UserError):
    """A file holds several pictures of equal rank: which one is meant is unknown."""


@contextmanager
def open_head(file: str | Path | bytes) -> Iterator[PillowImage.Image]:
    """Open a picture, a path or a file's content, and decode nothing yet.

    Pillow warns of more than 89 megapixels, which photographs have: who opens one looks at its size. Raises what Pillow
    raises, DecompressionBombError among it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
        with PillowImage.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            yield image


def why_unreadable(path: Path) -> str | None:
    """Return why a file can't be read as a picture, by its head; None where it can."""
    if not path.is_file():  # a pipe would be waited for
        return "no file" if path.exists() else "a link to what is not there"
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if not head:
            return "empty"
        if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS:
            return "HEIC, which can't be read: convert it to JPEG or PNG"
        with open_head(path) as image:
            kind = image.format
    except PillowImage.DecompressionBombError:  # a picture, and what is wrong is said when it is read
        return None
    except UnidentifiedImageError:
        return UNKNOWN
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    except Exception:  # Pillow raises a dozen kinds for what only begins like a picture
        return UNKNOWN
    return None if kind in READABLE else f"{kind}, which can't be read: convert it to PNG"


def other_pictures(image: PillowImage.Image, name: str) -> list[str]:
    """Return the sizes, such as ``160x120 px``, of what an opened file holds besides its main picture, the first one.

    Cameras add previews and depth to a photograph (MPO), programs smaller copies (TIFF). Raises
    SeveralPagesError, naming ``name``, for pages or frames that are none of these.
    """
    count = getattr(image, "n_frames", 1)
    others = []
    for i in range(1, count):
        image.seek(i)
        tags = getattr(image, "tag_v2", {})
        if image.format != "MPO" and not tags.get(SUBFILE_TYPE, 0) & IS_REDUCED:
            raise SeveralPagesError(f"{name}: has several pages or frames. Save them one by one.")
        others.append("{}x{} px".format(*image.size))
    if count > 1:
        image.seek(0)
    return others
