"""Find and decode images in a folder, a list (BasicSR's meta-info file) or an LMDB, through BasicSR's file clients."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import lmdb
import numpy as np
from basicsr.utils import FileClient, get_root_logger
from numpy.typing import NDArray
from PIL import Image as PillowImage

from dfpg_plugin.checks import UserError, check_choice, check_file, check_folder
from dfpg_plugin.data.kinds import open_head, other_pictures, why_unreadable
from dfpg_plugin.data.naming import list_some

Image = NDArray[np.uint8]
# a file with another suffix is an image if its content says so
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm"),
    *(".webp", ".avif", ".gif", ".jp2"),
)
BACKENDS = ("disk", "lmdb")
JPEG_START = b"\xff\xd8"
OPAQUE = 255
MOST_PIXELS = 2**27  # 0.4 GB decoded; a tiny file could make OpenCV decode 2**30 pixels
CLIENT_KEY = "gt"  # BasicSR's LMDB client needs a name; any will do


@dataclass(frozen=True)
class ImageSource:
    """Images below ``root``. ``names`` are relative paths of files or, with the backend ``lmdb``, keys."""

    root: Path
    names: Sequence[str]
    backend: str = "disk"

    def where(self, name: str) -> str:
        """Return the path by which messages name an image."""
        return str(self.root / name)

    def open(self) -> FileClient:
        """Return the file client of this process. Raises UserError if the LMDB can't be opened."""
        try:
            return _client(self.backend, str(self.root))
        except lmdb.Error as error:
            raise UserError(f"{self.root}: not a readable LMDB ({error}). Write it again.") from error

    def read(self, name: str) -> Image:
        """Return an image as uint8 BGR (H,W,3). Raises UserError, naming the file, if it can't be read."""
        try:
            content = self.open().get(name if self.backend == "lmdb" else self.where(name), CLIENT_KEY)
        except UnicodeEncodeError as error:
            raise UserError(f"{self.root}: {name!r} can't be a key: it is not ASCII. Write the LMDB again.") from error
        except OSError as error:
            raise UserError(
                f"{self.where(name)}: can't be read ({error.strerror}). Restore it, or remove it from the data."
            ) from error
        if content is None:
            raise UserError(f"{self.root}: has no image {name!r}. Write the LMDB again.")
        return decode_image(content, self.where(name))


@cache
def _clients(root: str) -> dict[int, FileClient]:
    """Return the dict of an LMDB's clients by process id. A forked process can't use its parent's client."""
    return {}


def _client(backend: str, root: str) -> FileClient:
    if backend != "lmdb":
        return FileClient(backend)
    clients, process = _clients(root), os.getpid()
    if process not in clients:
        for inherited in clients.values():
            inherited.client._client[CLIENT_KEY].close()
        clients.clear()
        clients[process] = FileClient(backend, db_paths=[root], client_keys=[CLIENT_KEY])
    return clients[process]


def find_images(root: str | Path, backend: str = "disk", meta_info_file: str | None = None) -> ImageSource:
    """List the images of a folder and its subfolders, sorted by name, or the images of an LMDB.

    ``meta_info_file`` names the images to use and their order, one name on each line: ``name``, or ``name (h,w,c) 1``
    as BasicSR writes it. The default for an LMDB is its ``meta_info.txt``. Raises UserError for a missing folder or
    file, for another backend than ``disk`` and ``lmdb``, and if there is no image.
    """
    check_choice("io_backend: type", backend, BACKENDS)
    folder = check_folder("dataroot_gt", root)
    if backend == "lmdb":
        if not (folder / "data.mdb").is_file():
            raise UserError(f"dataroot_gt: {folder} is no LMDB (data.mdb is missing). Set dataroot_gt to one.")
        listed = _read_meta_info(check_file("meta_info_file", meta_info_file or folder / "meta_info.txt"))
        source = ImageSource(folder, [os.path.splitext(name)[0] for name in listed], backend)
        source.open()
        return source
    if (folder / "data.mdb").is_file():
        raise UserError(f"dataroot_gt: {folder} is an LMDB. Set io_backend: {{type: lmdb}}.")
    if meta_info_file is not None:
        return ImageSource(folder, _read_meta_info(check_file("meta_info_file", meta_info_file)))
    return ImageSource(folder, list_images(folder))


@dataclass(frozen=True)
class Listing:
    """The files below a folder, as paths relative to the folder."""

    names: list[str]  # files that can be used
    left_out: dict[str, str]  # other files, and folders (`hidden/`), with the reason

    def what_is_left_out(self) -> str:
        """Return the first files that are left out, with the reasons, for a message."""
        return list_some([f"{name} ({why})" for name, why in self.left_out.items()])


def look_into(folder: Path, also: Callable[[Path], bool] = lambda _: False) -> Listing:
    """List every file below ``folder``, sorted, either as usable or as left out with a reason.

    A file is usable if it has an image's suffix, if ``also`` accepts it, or if its content is a picture. Hidden files
    are left out. A folder that is hidden or can't be read is listed as one entry, without its files.
    """
    names: list[str] = []
    left_out: dict[str, str] = {}

    def note(error: OSError) -> None:
        left_out[f"{Path(error.filename).relative_to(folder).as_posix()}/"] = f"can't be read ({error.strerror})"

    for path in walk(folder, note):
        name = path.relative_to(folder)
        if (hidden := _hidden_part(name)) is not None:
            left_out[hidden] = "hidden"
            continue
        # is_file comes first: opening a pipe would wait for its writer
        is_accepted = path.is_file() and (name.suffix.lower() in IMAGE_SUFFIXES or also(path))
        reason = None if is_accepted else why_unreadable(path)
        if reason is None:
            names.append(name.as_posix())
        else:
            left_out[name.as_posix()] = reason
    return Listing(sorted(names), dict(sorted(left_out.items())))


def look_for_images(folder: Path) -> Listing:
    """Return the listing of :func:`look_into`. Raise UserError if it has no image."""
    found = look_into(folder)
    if not found.names:
        rest = f"; left out: {found.what_is_left_out()}" if found.left_out else ""
        raise UserError(f"no image in {folder}{rest}. Set the path to the images.")
    return found


def list_images(folder: Path) -> list[str]:
    """Return the sorted relative paths of all images below ``folder``; log other files. Raise UserError without any."""
    found = look_for_images(folder)
    if found.left_out:
        get_root_logger().warning(f"{folder}: {len(found.left_out)} not used: {found.what_is_left_out()}")
    return found.names


def _hidden_part(name: Path) -> str | None:
    """Return a path up to its first hidden part, ``a/.b/`` for ``a/.b/c.png``; None if no part is hidden."""
    for i, part in enumerate(name.parts, start=1):
        if part.startswith("."):
            return Path(*name.parts[:i]).as_posix() + ("/" if i < len(name.parts) else "")
    return None


def walk(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield every file below ``folder``. Linked folders are followed, and each folder is visited once."""
    # BasicSR's scandir takes a hidden file for a folder
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=on_error):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
        else:
            seen.add(real)
            yield from (Path(root, file) for file in files)


def _read_meta_info(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"meta_info_file: {path} is not a text file in UTF-8. Write it again.") from error
    # the name may hold blanks; the shape and the compression level may be missing
    names = [re.sub(r"\s+\([\d,\s]+\)(\s+\d+)?$", "", line) for line in lines if line]
    if not names:
        raise UserError(f"meta_info_file: {path} names no image.")
    return names


def read_image(path: Path) -> Image:
    """Read an image file as uint8 BGR (H,W,3). Raises UserError, naming the file, if it can't be read."""
    return ImageSource(path.parent, [path.name]).read(path.name)


def decode_image(content: bytes, name: str) -> Image:
    """Decode an image file's content as uint8 BGR (H,W,3).

    Grey becomes three equal channels. 16 bits become the upper 8. CMYK and palettes become RGB colours. EXIF's rotation
    is applied. A camera's MPO gives its main picture. Raises UserError, naming ``name``, for content that is damaged,
    no image, too large, partly transparent, or of several pages or frames.
    """
    try:
        _check_head(content, name)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        transparent = image is not None and not content.startswith(JPEG_START) and is_transparent(content)
    except (cv2.error, PillowImage.DecompressionBombError) as error:
        raise UserError(f"{name}: has more than {MOST_PIXELS} pixels. Scale it down, or remove it.") from error
    if image is None:
        raise UserError(f"{name}: not an image that OpenCV can read, or damaged. Replace it, or remove it.")
    if transparent:
        raise UserError(f"{name}: is partly transparent. Flatten it onto a background, or remove it.")
    return np.asarray(image, np.uint8)


def _check_head(content: bytes, name: str) -> None:
    """Read a file's head. Raise PIL.Image.DecompressionBombError for too many pixels, UserError for several frames."""
    try:
        with open_head(content) as image:
            width, height = image.size
            other_pictures(image, name)
    except (PillowImage.DecompressionBombError, UserError):
        raise
    except Exception:  # decoding will tell what is wrong with the file
        return
    if width * height > MOST_PIXELS:
        raise PillowImage.DecompressionBombError


def is_transparent(content: bytes) -> bool:
    """Tell whether any pixel is not opaque. Raises PIL.Image.DecompressionBombError for too many pixels."""
    try:
        with open_head(content) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return False
            return np.asarray(image.convert("RGBA"))[..., 3].min() < OPAQUE
    except PillowImage.DecompressionBombError:
        raise
    except Exception:  # OpenCV may read a file that Pillow can't; Pillow comes first, as OpenCV fails for some palettes
        raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        return raw is not None and raw.shape[2:] == (4,) and bool(raw[..., 3].min() < np.iinfo(raw.dtype.name).max)
