"""`basicsr prepare faces --lfw`: cut training faces in FFHQ's framing from Labeled Faces in the Wild."""

import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from basicsr.utils import get_root_logger

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.images import IMAGE_SUFFIXES, Image, decode_image, list_images
from dfpg_plugin.data.naming import check_stems, list_some
from dfpg_plugin.preparation.face_folder import FACE_SIDE, Cut, FaceFormat, Photograph, Written, write_faces

PICTURE_SIDE = 250  # px, the side of LFW's pictures
# FFHQ's square is 172 px wide, x 37 to 209, y 32 to 204: medians from dlib's landmarks on 197 deep funneled pictures.
# The square of 215 px below has the same middle. If it is scaled to 160 px, FFHQ's square is its central 128 px.
ROWS, COLUMNS = (11, 226), (16, 231)  # start, stop
SETTINGS = {"source": "lfw", "rows": list(ROWS), "columns": list(COLUMNS), "side": FACE_SIDE}
ARCHIVE_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error)  # raised by reading a damaged archive


def prepare_lfw(source: Path, target: Path, file_format: FaceFormat) -> Written:
    """Write LFW's faces of 160x160 px with :func:`write_faces`, and return its result.

    ``source`` is a folder, ``.tar`` or ``.tgz`` of LFW's deep funneled pictures, with ``Person/Person_0001.jpg`` at any
    depth. Raises UserError, naming the file, for a source that is missing, damaged or without pictures, for a picture
    that is not 250x250 px, and for pictures of the same name.
    """
    names, photographs = open_lfw(source)
    check_stems(names, "would be the same face")
    short_names = [_short(PurePosixPath(name)) for name in names]
    return write_faces(target, photographs, short_names, partial(_cut, source), file_format, SETTINGS)


def open_lfw(source: Path) -> tuple[list[str], Iterator[Photograph]]:
    """Return the paths of LFW's pictures in ``source``, a folder, ``.tar`` or ``.tgz``, and the pictures.

    Raises UserError for a source that is missing, damaged or without pictures.
    """
    source = source.expanduser()
    if source.is_dir():
        images = list_images(source)
        names = [name for name in images if "/" in name]
        _log_unused(source, [name for name in images if "/" not in name])
        photographs = _from_folder(source, names)
    elif source.is_file():
        names, photographs = _names_in(source), _from_archive(source)
    else:
        raise UserError(
            f"--lfw: {source} does not exist. Name the folder lfw-deepfunneled, or the .tar or .tgz of it; UMass "
            "distributes it, and Kaggle as jessicali9530/lfw-dataset."
        )
    if not names:
        raise UserError(f"--lfw: {source} holds no picture Person/Person_0001.jpg. Name LFW's folder or archive.")
    return names, photographs


def frame_lfw(picture: Image) -> Image:
    """Return rows 11 to 225 and columns 16 to 230 of a picture (250,250,3), scaled by area averages to (160,160,3).

    The central 128 px of the result are FFHQ's square.
    """
    part = picture[slice(*ROWS), slice(*COLUMNS)]
    return np.asarray(cv2.resize(part, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _cut(source: Path, photograph: Photograph) -> Cut:
    picture = decode_image(photograph.content, f"{source}: {photograph.name}")
    height, width = picture.shape[:2]
    if (height, width) != (PICTURE_SIDE, PICTURE_SIDE):
        raise UserError(
            f"{source}: {photograph.name} has {width}x{height} px, LFW's pictures have {PICTURE_SIDE}x{PICTURE_SIDE}. "
            "For other photographs: --photos."
        )
    return Cut({PurePosixPath(photograph.name).stem: frame_lfw(picture)})


def _short(path: PurePosixPath) -> str:
    """Return ``Person/Person_0001.jpg``, the same for a folder and for its archive."""
    return f"{path.parent.name}/{path.name}"


def _from_folder(source: Path, names: list[str]) -> Iterator[Photograph]:
    for name in names:
        try:
            content = (source / name).read_bytes()
        except OSError as error:
            raise UserError(f"{source / name}: can't be read ({error.strerror}). Restore it.") from error
        path = PurePosixPath(name)
        yield Photograph(_short(path), path.parent.name, content)


def _names_in(source: Path) -> list[str]:
    """Return the names of the pictures in persons' folders, in the order of the archive."""
    try:
        with tarfile.open(source) as archive:
            files = [member for member in archive if not member.isdir()]
    except ARCHIVE_ERRORS as error:
        raise _not_readable(source, error) from error
    names = [member.name for member in files if _is_picture(member)]
    _log_unused(source, [member.name for member in files if not _is_picture(member)])
    return names


def _log_unused(source: Path, left_out: list[str]) -> None:
    if left_out:
        text = f"{source}: {len(left_out)} not used, because they are not pictures in a person's folder"
        get_root_logger().warning(f"{text}: {list_some(left_out)}")


def _is_picture(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return (
        member.isfile()
        and path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")  # macOS's archives hold ._ files
        and path.parent.name not in ("", "..")
    )


def _from_archive(source: Path) -> Iterator[Photograph]:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if _is_picture(member) and (file := archive.extractfile(member)) is not None:
                    yield Photograph(_short(path), path.parent.name, file.read())
    except ARCHIVE_ERRORS as error:
        raise _not_readable(source, error) from error


def _not_readable(source: Path, error: Exception) -> UserError:
    return UserError(f"--lfw: {source} is not a readable .tar or .tgz ({error}). Fetch it again.")
