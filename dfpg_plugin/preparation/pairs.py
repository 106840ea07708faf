"""`basicsr prepare pairs`: write a fixed set of blurred faces in the published layout, under published names."""

import hashlib
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
from dfpg_plugin.files import whole_file
from dfpg_plugin.preparation.manifest import MANIFEST_SECONDS, open_target, write_manifest


@dataclass(frozen=True)
class PairSettings:
    """The settings of a set of pairs."""

    sizes: tuple[int, ...]  # px, sides of the kernels
    kernels_per_size: int  # blurred pictures of each face and size
    seed: int  # for the choice of kernels
    first_id: int = 1  # kernel number in the first file name: 1, 11 and 21 in MSPL's three sets
    crop: int | None = None  # px: the largest central square is resized to this side; default: no resizing
    suffix: str = ""  # appended to the published name, such as `_random`
    kernel_range: tuple[int, int] | None = None  # (start, stop) within the kernels of each size; default: all
    cut: int | None = None  # px: the central square of this side is cut out first; default: the whole face
    limit: int | None = None  # number of faces, evenly spread over the sorted names; default: all


def prepare_pairs(faces: Path, kernels: Path, target: Path, settings: PairSettings) -> int:
    """Blur every image below ``faces`` with kernels chosen for it; return the number of blurred pictures.

    ``target`` holds ``{target.name}_gt``, ``{target.name}_blur`` and ``manifest.json`` with the settings, the SHA-256
    of the kernels and the SHA-256 of each picture's pixels. The pictures are made as MSPL's: padded by reflection, no
    noise, rounded to 8 bits. The blur is computed in float64 in a fixed order, so every machine writes the same pixels.
    The seed, the kernel's size and the face's name decide which kernels blur a face. Pictures of an interrupted run are
    kept, unless their face has changed. Raises UserError, naming the file, for damaged images, equal names, sizes
    without enough kernels, and a target that holds anything else, such as faces that are gone.
    """
    check_positive("--per-size", settings.kernels_per_size)
    names = _pick_evenly(list_images(faces), settings.limit)
    check_stems(names, "would be written under the same name")
    stacks = read_kernels(kernels, list(settings.sizes), settings.kernel_range)
    _check_counts(stacks, settings.kernels_per_size)
    facts = {**_as_json(settings), "kernels": _hashes(stacks)}
    pictures = open_target(target, facts, "pictures")
    gt_folder, blur_folder = target / f"{target.name}_gt", target / f"{target.name}_blur"
    make_folder("target", gt_folder)
    make_folder("target", blur_folder)
    _check_gone(target, pictures, names)
    total = len(names) * len(settings.sizes) * settings.kernels_per_size
    written = time.monotonic()
    try:
        with tqdm(total=total, desc=target.name, unit="image") as progress:
            for name in names:
                face, stem = _read_face(faces / name, settings), Path(name).stem
                choices = list(_choose_kernels(stem, stacks, settings))
                gt = gt_folder / f"{stem}.png"
                if pictures.get(_key(gt), {}).get("sha256") != _sha256(face) or not gt.exists():
                    for file, _, _ in choices:  # a blurred picture of the old face is made again
                        pictures.pop(_key(blur_folder / file), None)
                    _write(gt, face, pictures)
                for file, kernel, number in choices:
                    path = blur_folder / file
                    if not path.exists() or _key(path) not in pictures:
                        _write(path, _blur_face(face, kernel), pictures, kernel=number)
                    progress.update()
                if time.monotonic() - written > MANIFEST_SECONDS:
                    write_manifest(target, facts, "pictures", pictures)
                    written = time.monotonic()
    finally:
        write_manifest(target, facts, "pictures", pictures)
    return total


def _pick_evenly(names: list[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(names):
        return names
    return [names[i * len(names) // limit] for i in range(limit)]


def _as_json(settings: PairSettings) -> dict:
    """Return the settings as JSON reads them back, with lists instead of tuples."""
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


def _choose_kernels(
    stem: str, stacks: dict[int, Kernels], settings: PairSettings
) -> Iterator[tuple[str, NDArray[np.float64], int]]:
    """Yield (file name, kernel, number among all kernels of the size) for each blurred picture of a face."""
    start, _ = settings.kernel_range or (0, None)
    key = int.from_bytes(hashlib.sha256(os.fsencode(stem)).digest()[:8], "big")
    for size in settings.sizes:
        stack = stacks[size]
        rng = np.random.default_rng([settings.seed, size, key])
        for i, chosen in enumerate(rng.choice(len(stack), settings.kernels_per_size, replace=False).tolist()):
            kernel = stack[chosen].astype(np.float64)
            name = blurred_name(stem, settings.first_id + i, size, settings.suffix)
            yield name, kernel / kernel.sum(), start + chosen


def _read_face(path: Path, settings: PairSettings) -> Image:
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


def _blur_face(face: Image, kernel: NDArray[np.float64]) -> Image:
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
