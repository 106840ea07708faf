"""A folder of faces by split and person, with a manifest: what `basicsr prepare faces` writes of photographs."""

import hashlib
import json
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
from dfpg_plugin.files import read_json, whole_file

FACE_SIDE = 160  # px, of every face that is written
FFHQ_SIDE = 128  # px, of FFHQ's square in the middle of it; the rest is the margin of random crops
MANIFEST = "manifest.json"
MANIFEST_SECONDS = 30  # how much of an interrupted run is done again, at most
QUALITY_FLAGS = {"png": None, "jpg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}
DEFAULT_QUALITY = 88


@dataclass(frozen=True)
class FaceFormat:
    """How faces are stored: ``png`` without loss, ``jpg`` or ``webp`` with a quality from 1 to 100."""

    kind: str = "png"
    quality: int | None = None  # default: 88, and none for png

    def __post_init__(self) -> None:
        """Raise UserError for an unknown kind and a quality that does not belong to it."""
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
    """A photograph that faces are cut out of."""

    name: str  # its path below the source, with slashes
    person: str  # decides about the split, and names the folder
    content: bytes  # of its file


@dataclass
class Cut:
    """What a photograph gave."""

    faces: dict[str, Image] = field(default_factory=dict)  # uint8 BGR (160,160,3) by file stem
    left_out: list[str] = field(default_factory=list)  # why a face of it, or all of it, was not used


@dataclass
class Written:
    """What a target holds at the end."""

    faces: Counter  # by split
    left_out: dict[str, list[str]]  # reasons, by photograph


def write_faces(
    target: Path,
    photographs: Iterable[Photograph],
    names: list[str],
    cut: Callable[[Photograph], Cut],
    file_format: FaceFormat,
    settings: dict,
) -> Written:
    """Write the faces of photographs as ``target/{split}/{person}/{stem}.png`` and tell how many there are.

    ``names`` are those of all ``photographs``. ``manifest.json`` holds ``settings`` and, for every photograph, the
    SHA-256 of its file, person, split, the files of its faces with the SHA-256 of their pixels before they are encoded,
    and what was left out. What an interrupted run has written is kept; a photograph that has changed since is cut
    again. Raises UserError, naming the target, where it holds something else: other settings, files that this command
    did not write, faces of photographs that are gone.
    """
    settings = {"dfpg_plugin": __version__, **settings, **asdict(file_format)}
    known = _start(target, settings)
    _check_gone(target, known, names)
    try:
        written = time.monotonic()
        for photograph in tqdm(photographs, desc=target.name, unit="image", total=len(names)):
            digest = hashlib.sha256(photograph.content).hexdigest()
            if not _is_done(target, known.get(photograph.name), digest):
                _remove(target, known.pop(photograph.name, {}))
                known[photograph.name] = {"sha256": digest, **_write(target, photograph, cut, file_format)}
            if time.monotonic() - written > MANIFEST_SECONDS:
                _write_manifest(target, settings, known)
                written = time.monotonic()
    finally:
        _write_manifest(target, settings, known)
    faces = Counter({split: 0 for split in SPLITS})
    for entry in known.values():
        faces[entry["split"]] += len(entry["faces"])
    return Written(faces, {name: entry["left_out"] for name, entry in known.items() if entry["left_out"]})


def _write(target: Path, photograph: Photograph, cut: Callable[[Photograph], Cut], file_format: FaceFormat) -> dict:
    """Write a photograph's faces and return its entry in the manifest."""
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
    """Remove the faces of a photograph that has changed: it may hold fewer now."""
    for file in entry.get("faces", ()):
        with suppress(OSError):
            (target / file).unlink()


def _start(target: Path, settings: dict) -> dict[str, dict]:
    """Return the entries that the target's manifest holds; refuse other settings and other content."""
    path = target / MANIFEST
    make_folder("target", target)
    if not path.exists():
        if any(target.iterdir()):
            raise UserError(f"{target}: is not empty, and this command did not make it. Name another folder.")
        _write_manifest(target, settings, {})
        return {}
    manifest = read_json(path)
    changed = [key for key, value in settings.items() if manifest.get(key) != value]
    if changed and manifest.get("photographs"):
        raise UserError(f"{target}: was made with other settings ({', '.join(changed)}). Name another folder.")
    return manifest.get("photographs", {})


def _check_gone(target: Path, known: dict[str, dict], names: list[str]) -> None:
    if gone := sorted(known.keys() - set(names)):
        raise UserError(
            f"{target}: holds faces of photographs that are no longer there: {list_some(gone)}. Restore them, or name "
            "another folder."
        )


def _write_manifest(target: Path, settings: dict, known: dict[str, dict]) -> None:
    with whole_file(target / MANIFEST) as file:
        file.write(json.dumps({**settings, "photographs": known}, indent=1).encode())
