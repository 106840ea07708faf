"""`basicsr prepare kernels`: synthesise kernels in MSPL's layout. Machines agree on the values to 1e-5."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from scipy.io import savemat
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from dfpg_plugin import __version__
from dfpg_plugin.checks import UserError, check_choice, make_folder
from dfpg_plugin.data.kernel_files import READERS, read_kernel_file
from dfpg_plugin.data.kernels import METHODS, Kernels, check_size, synthesise_kernels
from dfpg_plugin.files import read_json, whole_file

MANIFEST = "kernels.json"
NUM_SHOWN = 16  # kernels of each size on the contact sheet
ENLARGE = 3  # px of the contact sheet for each cell of a kernel


def prepare_kernels(
    folder: Path, sizes: Sequence[int], count: int, seed: int, method: str, workers: int = 0
) -> dict[int, str]:
    """Write a file for each size, ``kernels.json`` and ``contact_sheet.jpg``. Return the :func:`checksum` of each size.

    The file of 13 px is ``blur_k13.mat`` and holds ``blurs_k13`` (13,13,count). Kernel n of a size depends only on
    (seed, size, n) and ``method``, so a larger ``count`` begins with the same kernels. Finished sizes are kept. A size
    that was interrupted begins anew. Raises UserError if the folder holds kernels of other settings, or changed ones.
    """
    check_choice("--method", method, METHODS)
    settings = {"method": method, "seed": seed, "count": count, "dfpg_plugin": __version__}
    make_folder("folder", folder)
    for size in sizes:
        check_size(size)
    done = _read_manifest(folder, settings)
    _write_manifest(folder, settings, done)
    for size in sizes:
        if str(size) not in done:
            kernels = _synthesise(size, count, seed, method, workers)
            with whole_file(_file(folder, size)) as file:
                savemat(file, {f"blurs_k{size}": np.moveaxis(kernels, 0, -1)}, do_compression=True)
            done[str(size)] = checksum(kernels)
            _write_manifest(folder, settings, done)
    _save_contact_sheet(folder, sizes)
    return {size: done[str(size)] for size in sizes}


def checksum(kernels: Kernels) -> str:
    """Return the SHA-256 of kernels rounded to 1e-5. The rounding makes the SHA-256 the same on every machine."""
    return hashlib.sha256(np.rint(kernels.astype(np.float64) * 1e5).astype("<i4").tobytes()).hexdigest()


def _read_manifest(folder: Path, settings: dict) -> dict[str, str]:
    path = folder / MANIFEST
    if not path.exists():
        if any(file.suffix in READERS for file in folder.iterdir()):
            raise UserError(f"{folder}: holds kernels that this command did not make. Name another folder.")
        return {}
    manifest = read_json(path)
    different = {key: manifest.get(key) for key in settings if manifest.get(key) != settings[key]}
    if different:
        raise UserError(f"{folder}: holds kernels of other settings, {different}. Name another folder.")
    done = {size: sha256 for size, sha256 in manifest["sha256"].items() if _file(folder, size).exists()}
    for size, expected in done.items():
        if checksum(read_kernel_file(_file(folder, size))) != expected:
            raise UserError(f"{_file(folder, size)}: is not what {MANIFEST} says. Remove it, then try again.")
    return done


def _write_manifest(folder: Path, settings: dict, done: dict[str, str]) -> None:
    with whole_file(folder / MANIFEST) as file:
        file.write(json.dumps({**settings, "sha256": done}, indent=1).encode())


def _file(folder: Path, size: int | str) -> Path:
    return folder / f"blur_k{size}.mat"


def _synthesise(size: int, count: int, seed: int, method: str, workers: int) -> Kernels:
    task, numbers = partial(_synthesise_one, size=size, seed=seed, method=method), range(count)
    with Pool(workers) if workers else nullcontext() as pool:
        kernels = map(task, numbers) if pool is None else pool.imap(task, numbers, chunksize=16)
        return np.stack(list(tqdm(kernels, desc=f"{size} px", unit="kernel", total=count)))


def _synthesise_one(number: int, *, size: int, seed: int, method: str) -> Kernels:
    return synthesise_kernels(size, 1, np.random.default_rng([seed, size, number]), method)[0]


def _save_contact_sheet(folder: Path, sizes: Sequence[int]) -> None:
    """Save a picture of the first kernels of each size, one row per size. The maximum of each kernel is white."""
    largest = max(sizes)
    cells = []
    for size in sizes:
        kernels = read_kernel_file(_file(folder, size))
        shown = np.zeros((NUM_SHOWN, size, size))
        for number, kernel in enumerate(kernels[:NUM_SHOWN]):
            shown[number] = kernel / kernel.max()
        cells += [np.pad(kernel, (largest - size) // 2) for kernel in shown]
    picture = torch.from_numpy(np.stack(cells)).float()[:, None]
    picture = picture.repeat_interleave(ENLARGE, 2).repeat_interleave(ENLARGE, 3)
    with whole_file(folder / "contact_sheet.jpg") as file:
        save_image(make_grid(picture, nrow=NUM_SHOWN, padding=1, pad_value=0.5), file, format="jpeg")
