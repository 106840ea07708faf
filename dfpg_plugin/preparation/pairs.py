"""`basicsr prepare pairs`: a fixed set of blurred faces in the published layout and naming."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dfpg_plugin.checks import UserError, check_positive, make_folder
from dfpg_plugin.data.degradation import GREY_LEVELS, blur
from dfpg_plugin.data.images import Image, list_images, read_image
from dfpg_plugin.data.kernel_files import read_kernels
from dfpg_plugin.data.kernels import Kernels
from dfpg_plugin.data.naming import blurred_name, check_stems, list_some
from dfpg_plugin.data.transforms import resize
from dfpg_plugin.files import read_json, whole_file

MANIFEST = "manifest.json"
MANIFEST_SECONDS = 30  # how much of an interrupted run is done again, at most; it grows too large to write every time


@dataclass(frozen=True)
class PairSettings:
    """What a set of pairs depends on, besides the faces and the kernels."""

    sizes: tuple[int, ...]  # px of the kernels
    kernels_per_size: int  # blurred pictures of each face and size
    seed: int  # of the choice of kernels
    first_id: int = 1  # number of the first kernel in the names: 1, 11 and 21 in MSPL's three sets
    crop: int | None = None  # px: the largest central square, resized to that; default: faces as they are
    suffix: str = ""  # after the published name
    kernel_range: tuple[int, int] | None = None  # which kernels of each size: from, to before; default: all
    cut: int | None = None  # px: the central square of this side, as it is; default: all of a face
    limit: int | None = None  # faces, evenly spread over their sorted names; default: all


def prepare_pairs(faces: Path, kernels: Path, target: Path, settings: PairSettings) -> int:
    """Blur every image below ``faces`` with its own choice of kernels; return how many blurred pictures there are.

    ``target`` becomes ``{target.name}_gt`` and ``{target.name}_blur``, as in MSPL's sets, beside ``manifest.json``:
    settings, kernels and the SHA-256 of every picture's pixels. As MSPL's: padding by reflection, no noise, rounded to
    8 bits. Blurred in float64 in a fixed order, so that every machine writes the same pixels. A face's kernels depend
    on the seed and its name. What an interrupted run has written is kept, unless a face has changed since. Raises
    UserError, naming the file, for damaged images, equal names, sizes that are not there or have too few kernels, and a
    target that holds something else, such as faces that are gone.
    """
    check_positive("--per-size", settings.kernels_per_size)
    names = _spread(list_images(faces), settings.limit)
    check_stems(names, "faces of the same name")
    stacks = read_kernels(kernels, list(settings.sizes), settings.kernel_range)
    _check_counts(stacks, settings.kernels_per_size)
    known = _start(target, {**_as_json(settings), "kernels": _hashes(stacks)})
    folders = {kind: target / f"{target.name}_{kind}" for kind in ("gt", "blur")}
    for folder in folders.values():
        make_folder("target", folder)
    pictures: dict[str, dict] = known.get("pictures", {})
    _check_gone(target, pictures, names)
    total = len(names) * len(settings.sizes) * settings.kernels_per_size
    written = time.monotonic()
    try:
        with tqdm(total=total, desc=target.name, unit="image") as progress:
            for name in names:
                face, stem = _face(faces / name, settings), Path(name).stem
                gt = folders["gt"] / f"{stem}.png"
                blurred = [
                    (folders["blur"] / f, kernel, source) for f, kernel, source in _choose(stem, stacks, settings)
                ]
                if pictures.get(_key(gt), {}).get("sha256") != _sha256(face) or not gt.exists():
                    for path, _, _ in blurred:  # they are those of another face
                        pictures.pop(_key(path), None)
                    _write(gt, face, pictures)
                for path, kernel, source in blurred:
                    if not path.exists() or _key(path) not in pictures:
                        _write(path, _blurred(face, kernel), pictures, kernel=source)
                    progress.update()
                if time.monotonic() - written > MANIFEST_SECONDS:
                    _write_manifest(target, {**known, "pictures": pictures})
                    written = time.monotonic()
    finally:
        _write_manifest(target, {**known, "pictures": pictures})
    return total


def _spread(names: list[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(names):
        return names
    return [names[i * len(names) // limit] for i in range(limit)]


def _as_json(settings: PairSettings) -> dict:
    """Return the settings as a manifest gives them back: lists instead of tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def _check_counts(stacks: dict[int, Kernels], wanted: int) -> None:
    for size, stack in stacks.items():
        if len(stack) < wanted:
            raise UserError(f"--per-size: {wanted} are more than the {len(stack)} kernels of {size} px.")


def _check_gone(target: Path, pictures: dict[str, dict], names: list[str]) -> None:
    stems = {Path(name).stem for name in names}
    gone = [key for key in pictures if key.startswith(f"{target.name}_gt/") and Path(key).stem not in stems]
    if gone:
        raise UserError(
            f"{target}: holds faces that are no longer there: {list_some(gone)}. Restore them, or name another folder."
        )


def _choose(
    stem: str, stacks: dict[int, Kernels], settings: PairSettings
) -> Iterator[tuple[str, NDArray[np.float64], int]]:
    """Yield (file name, kernel, its number among all kernels of its size) of every blurred picture of a face."""
    start, _ = settings.kernel_range or (0, None)
    key = int.from_bytes(hashlib.sha256(os.fsencode(stem)).digest()[:8], "big")
    for size in settings.sizes:
        stack = stacks[size]
        rng = np.random.default_rng([settings.seed, size, key])
        for i, chosen in enumerate(rng.choice(len(stack), settings.kernels_per_size, replace=False).tolist()):
            kernel = stack[chosen].astype(np.float64)
            name = blurred_name(stem, settings.first_id + i, size, settings.suffix)
            yield name, kernel / kernel.sum(), start + chosen


def _face(path: Path, settings: PairSettings) -> Image:
    image = read_image(path)
    if settings.cut is not None:
        _check_side(path, image, "--cut", settings.cut)
        image = _central(image, settings.cut)
    if settings.crop is not None:
        _check_side(path, image, "--crop", settings.crop)
        image = resize(_central(image, min(image.shape[:2])), settings.crop, "bicubic")
    return image


def _check_side(path: Path, image: Image, flag: str, side: int) -> None:
    if min(image.shape[:2]) < side:
        raise UserError(f"{path}: {image.shape[1]}x{image.shape[0]} px is less than {flag} {side}. Remove it.")


def _central(image: Image, side: int) -> Image:
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _blurred(face: Image, kernel: NDArray[np.float64]) -> Image:
    return np.clip(np.rint(blur(face / GREY_LEVELS, kernel) * GREY_LEVELS), 0, GREY_LEVELS).astype(np.uint8)


def _write(path: Path, image: Image, pictures: dict[str, dict], **facts: int) -> None:
    with whole_file(path) as file:
        file.write(cv2.imencode(".png", image)[1].tobytes())
    pictures[_key(path)] = {"sha256": _sha256(image), **facts}


def _sha256(image: Image) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def _key(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _hashes(stacks: dict[int, Kernels]) -> dict[str, str]:
    return {str(size): hashlib.sha256(stack.tobytes()).hexdigest() for size, stack in stacks.items()}


def _start(target: Path, settings: dict) -> dict:
    """Return the manifest so far; refuse a target of other settings or with other content."""
    path = target / MANIFEST
    if path.exists():
        known = read_json(path)
        if not known.get("pictures"):
            return settings
        changed = [key for key, value in settings.items() if known.get(key) != value]
        if changed:
            raise UserError(f"{target}: was made with other settings ({', '.join(changed)}). Name another folder.")
        return known
    if target.is_file():
        raise UserError(f"{target}: is a file. Name a folder.")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: is not empty, and this command did not make it. Name another folder.")
    make_folder("target", target)
    _write_manifest(target, settings)
    return settings


def _write_manifest(target: Path, manifest: dict) -> None:
    with whole_file(target / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode())
