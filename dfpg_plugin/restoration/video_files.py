"""Which files are videos, and as what kind of file they are written."""

from pathlib import Path

from dfpg_plugin.data.images import IMAGE_SUFFIXES
from dfpg_plugin.data.kinds import why_unreadable

WRITTEN = (".mp4", ".mov", ".mkv", ".webm", ".m4v")  # as what they are
INTO = ".mkv"  # all others: it holds every kind of sound and subtitle
READ = (
    ".avi", ".mpg", ".mpeg", ".m2ts", ".3gp", ".3g2", ".wmv", ".asf", ".flv", ".ogv", ".vob", ".mxf",
)  # fmt: skip
VIDEO_SUFFIXES = (*WRITTEN, *READ)  # .ts and .mts are TypeScript as well: their content decides
COMPANION = b"\x00\x05\x16\x07"  # how macOS's files of attributes start
STARTS = {  # where: with what
    0: (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01", b"\x06\x0e+4"),
    4: (b"moov", b"mdat", b"wide", b"free", b"skip"),
    8: (b"AVI ",),
}
STILL = (b"hei", b"hev", b"mif1", b"msf1", b"avif", b"avis")  # kinds of pictures in the same box as MP4
PACKETS = ((0, 188), (4, 192))  # first byte and size of a transport stream's packets, which start with "G"


def is_video(path: Path) -> bool:
    """Return whether a file is to be read as a video: by its suffix or, where that is unknown, by how it starts."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix not in IMAGE_SUFFIXES and _starts_as_video(_start(path)))


def is_companion(path: Path) -> bool:
    """Return whether a file is what macOS writes beside another one, ``._clip.mp4``: it holds no film or picture."""
    if not path.name.startswith("._"):
        return False
    start = _start(path)
    if start.startswith(COMPANION):
        return True
    beside = path.with_name(path.name[2:]).exists()
    return beside and not _starts_as_video(start) and why_unreadable(path) is not None


def suffix_of_result(path: Path) -> str:
    """Return the suffix of the file into which a video is restored."""
    suffix = path.suffix.lower()
    return suffix if suffix in WRITTEN else INTO


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(600)
    except OSError:  # reading it as a picture says why
        return b""


def _starts_as_video(start: bytes) -> bool:
    if start[4:8] == b"ftyp":
        return not start[8:12].startswith(STILL)
    packets = any(len(start) > first + 2 * size and start[first::size][:3] == b"GGG" for first, size in PACKETS)
    return packets or any(start[place:].startswith(some) for place, some in STARTS.items())
