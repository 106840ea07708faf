"""Tell which files are videos, and choose the suffix of a restored video."""

from pathlib import Path

from dfpg_plugin.data.images import IMAGE_SUFFIXES
from dfpg_plugin.data.kinds import why_unreadable

KEPT_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v")  # a restored video keeps these
OTHER_SUFFIX = ".mkv"  # of all other restored videos: Matroska holds every kind of sound and subtitle
READ_ONLY_SUFFIXES = (".avi", ".mpg", ".mpeg", ".m2ts", ".3gp", ".3g2", ".wmv", ".asf", ".flv", ".ogv", ".vob", ".mxf")
VIDEO_SUFFIXES = (*KEPT_SUFFIXES, *READ_ONLY_SUFFIXES)  # without .ts and .mts, which TypeScript uses too
COMPANION = b"\x00\x05\x16\x07"  # first bytes of macOS's attribute files
VIDEO_SIGNATURES = {  # by their offset in the file
    0: (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01", b"\x06\x0e+4"),
    4: (b"moov", b"mdat", b"wide", b"free", b"skip"),
    8: (b"AVI ",),
}
STILL_BRANDS = (b"hei", b"hev", b"mif1", b"msf1", b"avif", b"avis")  # pictures whose files begin like an MP4
PACKETS = ((0, 188), (4, 192))  # a transport stream has a "G" at this offset, then once every so many bytes


def is_video(path: Path) -> bool:
    """Tell whether a file is read as a video. The suffix decides; if it is unknown, the first bytes decide."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix not in IMAGE_SUFFIXES and _starts_as_video(_start(path)))


def is_companion(path: Path) -> bool:
    """Tell whether macOS wrote a file about another file: ``._clip.mp4`` beside ``clip.mp4``. No picture, no video."""
    if not path.name.startswith("._"):
        return False
    start = _start(path)
    if start.startswith(COMPANION):
        return True
    beside = path.with_name(path.name[2:]).exists()
    return beside and not _starts_as_video(start) and why_unreadable(path) is not None


def suffix_of_result(path: Path) -> str:
    """Return the suffix of the restored video: ``.mp4`` stays ``.mp4``, ``.avi`` becomes ``.mkv``."""
    suffix = path.suffix.lower()
    return suffix if suffix in KEPT_SUFFIXES else OTHER_SUFFIX


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(600)
    except OSError:  # the file is then read as a picture, and the error says why that fails
        return b""


def _starts_as_video(start: bytes) -> bool:
    if start[4:8] == b"ftyp":
        return not start[8:12].startswith(STILL_BRANDS)
    if any(start[first::size][:3] == b"GGG" for first, size in PACKETS):
        return True
    return any(start.startswith(signatures, offset) for offset, signatures in VIDEO_SIGNATURES.items())
