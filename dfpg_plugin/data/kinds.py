"""Tell by a file's content whether it is a picture that can be read, and if not, why."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from dfpg_plugin.checks import UserError

# Pillow's names of the formats that OpenCV reads too
READABLE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "SUN", "TIFF", "WEBP")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")  # an iPhone's photographs, for example
UNKNOWN = "not of a kind that can be read"
SUBFILE_TYPE, IS_REDUCED = 254, 1  # TIFF's tag, and its bit for a page that is a smaller copy of another page


class SeveralPagesError(UserError):
    """A file holds several pictures, and none of them is the main one."""


@contextmanager
def open_head(file: str | Path | bytes) -> Iterator[PillowImage.Image]:
    """Open a picture, given as a path or as a file's content, without decoding its pixels.

    Pillow's warning about more than 89 megapixels is silenced, because photographs can be that large. Callers check the
    size. Raises Pillow's errors, such as DecompressionBombError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
        with PillowImage.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            yield image


def why_unreadable(path: Path) -> str | None:
    """Return why a file can't be read as a picture; None if it can. Only the head of the file is read."""
    if not path.is_file():  # opening a pipe would wait for its writer
        return "no file" if path.exists() else "a link to a missing file"
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if not head:
            return "empty"
        if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS:
            return "HEIC, which can't be read: convert it to JPEG or PNG"
        with open_head(path) as image:
            kind = image.format
    except PillowImage.DecompressionBombError:  # a picture; reading it will say that it is too large
        return None
    except UnidentifiedImageError:
        return UNKNOWN
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    except Exception:  # Pillow raises many kinds of error for a file that only begins like a picture
        return UNKNOWN
    return None if kind in READABLE else f"{kind}, which can't be read: convert it to PNG"


def other_pictures(image: PillowImage.Image, name: str) -> list[str]:
    """Return the size of every picture in a file but the first, the main one: ``["160x120 px"]`` for one preview.

    Cameras add previews and depth maps to a photograph (MPO). Programs add smaller copies (TIFF). Raises
    SeveralPagesError, naming ``name``, for any other pages or frames.
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
