"""Write a folder of faces by split and person, with a manifest. `basicsr prepare faces` uses it for photographs."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dfpg_plugin import __version__
from dfpg_plugin.checks import UserError, check_choice, make_folder
from dfpg_plugin.data.images import Image
from dfpg_plugin.data.naming import list_some
from dfpg_plugin.data.people import SPLITS, split_of
from dfpg_plugin.files import whole_file
from dfpg_plugin.preparation.manifest import MANIFEST_SECONDS, open_target, write_manifest

FACE_SIDE = 160  # px, the side of every written face
FFHQ_SIDE = 128  # px, FFHQ's square in the middle of a face; the rest is a margin for random crops
QUALITY_FLAGS = {"png": None, "jpg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}
DEFAULT_QUALITY = 88


@dataclass(frozen=True)
class FaceFormat:
    """The file format of faces: ``png`` without loss, ``jpg`` or ``webp`` with a quality from 1 to 100."""

    kind: str = "png"
    quality: int | None = None  # default: 88; png has none

    def __post_init__(self) -> None:
        """Raise UserError for an unknown kind, a quality out of range, or a quality for ``png``."""
        check_choice("--format", self.kind, QUALITY_FLAGS)
        if self.kind == "png" and self.quality is not None:
            raise UserError("--quality: PNG loses nothing. Remove --quality, or set --format webp or jpg.")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality: expected a whole number from 1 to 100, got {self.quality}.")

    def encode(self, face: Image) -> bytes:
        """Return a file's content for a uint8 BGR face (H,W,3)."""
        flag = QUALITY_FLAGS[self.kind]
        options = [] if flag is None else [flag, self.quality or DEFAULT_QUALITY]
        return cv2.imencode(f".{self.kind}", face, options)[1].tobytes()


@dataclass(frozen=True)
class Photograph:
    """A photograph from which faces are cut."""

    name: str  # the path below the source, with slashes
    person: str  # decides the split, and names the folder
    content: bytes  # of the file


@dataclass
class Cut:
    """The faces of one photograph."""

    faces: dict[str, Image] = field(default_factory=dict)  # uint8 BGR (160,160,3) by file stem
    left_out: list[str] = field(default_factory=list)  # why faces, or the whole photograph, were not used


@dataclass
class Written:
    """The content of a finished target."""

    faces: Counter  # number by split
    left_out: dict[str, list[str]]  # reasons, by photograph


def write_faces(
    target: Path,
    photographs: Iterable[Photograph],
    names: list[str],
    cut: Callable[[Photograph], Cut],
    file_format: FaceFormat,
    settings: dict,
) -> Written:
    """Write photographs' faces as ``target/{split}/{person}/{stem}.png``. Return their number and what was left out.

    ``names`` are the names of all ``photographs``. ``manifest.json`` holds ``settings`` and an entry for each
    photograph: the SHA-256 of its file, person, split, the files of its faces, and the reasons for what was left out.
    Each file of a face has the SHA-256 of its pixels before encoding. Faces that an interrupted run has written are
    kept. A photograph that has changed since is cut again. Raises UserError, naming the target, if it was made with
    other settings, holds other files, or holds faces of photographs that are gone.
    """
    settings = {"dfpg_plugin": __version__, **settings, **asdict(file_format)}
    known = open_target(target, settings, "photographs")
    _check_gone(target, known, names)
    try:
        written = time.monotonic()
        for photograph in tqdm(photographs, desc=target.name, unit="image", total=len(names)):
            digest = hashlib.sha256(photograph.content).hexdigest()
            if not _is_done(target, known.get(photograph.name), digest):
                _remove(target, known.pop(photograph.name, {}))
                known[photograph.name] = {"sha256": digest, **_write(target, photograph, cut, file_format)}
            if time.monotonic() - written > MANIFEST_SECONDS:
                write_manifest(target, settings, "photographs", known)
                written = time.monotonic()
    finally:
        write_manifest(target, settings, "photographs", known)
    faces = Counter({split: 0 for split in SPLITS})
    for entry in known.values():
        faces[entry["split"]] += len(entry["faces"])
    return Written(faces, {name: entry["left_out"] for name, entry in known.items() if entry["left_out"]})


def _write(target: Path, photograph: Photograph, cut: Callable[[Photograph], Cut], file_format: FaceFormat) -> dict:
    """Write the faces of a photograph; return the manifest's entry."""
    found, split = cut(photograph), split_of(photograph.person)
    faces = {}
    for stem, face in found.faces.items():
        file = f"{split}/{photograph.person}/{stem}.{file_format.kind}"
        make_folder("target", (target / file).parent)
        with whole_file(target / file) as output:
            output.write(file_format.encode(face))
        faces[file] = hashlib.sha256(np.ascontiguousarray(face).tobytes()).hexdigest()
    return {"person": photograph.person, "split": split, "faces": faces, "left_out": found.left_out}


def _is_done(target: Path, entry: dict | None, digest: str) -> bool:
    return entry is not None and entry["sha256"] == digest and all((target / file).is_file() for file in entry["faces"])


def _remove(target: Path, entry: dict) -> None:
    """Remove the old faces of a photograph that has changed, because it may have fewer faces now."""
    for file in entry.get("faces", ()):
        with suppress(OSError):
            (target / file).unlink()


def _check_gone(target: Path, known: dict[str, dict], names: list[str]) -> None:
    if gone := sorted(known.keys() - set(names)):
        raise UserError(
            f"{target}: holds faces of photographs that are no longer there: {list_some(gone)}. Restore them, or name "
            "another folder."
        )
