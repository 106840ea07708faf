"""Reading motion blur kernels: MSPL's, Xia's and Shen's files, and NumPy's; nothing in them is executed."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import walk
from dfpg_plugin.data.kernels import Kernels

MAX_OF = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # what 1 is in a PNG
MATLAB_NAME = re.compile(r"blurs_k\d+|kernels?")


def read_kernels(
    folder: str | Path, sizes: list[int], kernel_range: tuple[int, int] | None = None
) -> dict[int, Kernels]:
    """Read every kernel file below a folder; return float32 (N,k,k) of each wanted size k, each kernel of sum 1.

    ``.mat`` with ``blurs_k13`` (k,k,N) as MSPL's, with ``kernel`` (k,k) as Shen's; 16-bit grey ``.png`` as Xia's
    (``kernel13_0.png``); ``.npy`` and ``.npz`` with (k,k) or (N,k,k). In the order of the names, numbers by value;
    ``kernel_range`` keeps those from its first number to before its second, of each size. Raises UserError, naming the
    file, for a kernel that is not square, odd, finite, non-negative and of positive sum, and for a size that is not
    there.
    """
    root = check_folder("dataroot_kernels", folder)
    found: dict[int, list[NDArray]] = {}
    files = (p for p in walk(root) if p.suffix.lower() in READERS and not p.name.startswith("."))
    for path in sorted(files, key=_by_number):
        for stack in _read_stacks(path):
            if stack.shape[1] in sizes:
                found.setdefault(stack.shape[1], []).append(stack)
    missing = [size for size in sizes if size not in found]
    if missing:
        raise UserError(
            f"dataroot_kernels: no kernel of {missing} px in {root} (looked in {', '.join(READERS)} files). "
            "Change kernel_sizes, or make kernels: basicsr prepare kernels."
        )
    start, stop = kernel_range or (0, None)
    kernels = {size: np.concatenate(found[size])[start:stop].astype(np.float32) for size in sizes}
    for size in sizes:
        if len(kernels[size]) == 0:
            raise UserError(f"kernel_range: {list(kernel_range or ())} leaves no kernel of {size} px in {root}.")
    return kernels


def read_kernel_file(path: Path) -> Kernels:
    """Read the one array of a kernel file as float32 (N,k,k); raise UserError as :func:`read_kernels` does."""
    return _read_stacks(path)[0].astype(np.float32)


def _read_stacks(path: Path) -> list[NDArray[np.float64]]:
    return [_check(path, array) for array in READERS[path.suffix.lower()](path)]


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sort ``kernel13_10`` after ``kernel13_9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _check(path: Path, stack: NDArray) -> NDArray[np.float64]:
    """Return (N,k,k) kernels of sum 1; raise UserError, naming the file, where they are not kernels."""
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or stack.shape[1] % 2 == 0 or len(stack) == 0:
        shape = "x".join(str(n) for n in stack.shape)
        raise UserError(f"{path}: expected square kernels of odd size, found an array of {shape}. Remove the file.")
    stack = stack.astype(np.float64)
    sums = stack.sum(axis=(1, 2), keepdims=True)
    good = np.isfinite(stack).all(axis=(1, 2)) & (stack.min(axis=(1, 2)) >= 0) & (sums[:, 0, 0] > 0)
    if not good.all():
        number = int(np.argmin(good))
        raise UserError(
            f"{path}: kernel {number} of {len(stack)} holds negative or no finite values, or only 0. Remove it."
        )
    return stack / sums


def _stacked(array: NDArray, last: bool) -> NDArray:
    """Return (k,k), (N,k,k) or (k,k,N) as (N,k,k); where all sides are equal, ``last`` says that N is the last."""
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3 and array.shape[0] == array.shape[1] and (last or array.shape[1] != array.shape[2]):
        return np.moveaxis(array, -1, 0)
    return array


def _read_mat(path: Path) -> list[NDArray]:
    import h5py

    try:
        # MATLAB's version 7.3 is HDF5
        arrays = _read_hdf5(path) if h5py.is_hdf5(path) else _read_matlab5(path)
    except Exception as error:  # SciPy and h5py raise what comes
        raise UserError(f"{path}: not a readable .mat file ({type(error).__name__}: {error}). Remove it.") from error
    names = [key for key, value in arrays.items() if MATLAB_NAME.fullmatch(key) and _is_numeric(value)]
    if len(names) != 1:
        raise UserError(
            f"{path}: expected one array called blurs_k13 (or another size) or kernel, found {', '.join(arrays)}."
        )
    return [_stacked(np.asarray(arrays[names[0]]), last=True)]


def _read_matlab5(path: Path) -> dict[str, NDArray]:
    from scipy.io import loadmat

    return {key: value for key, value in loadmat(path).items() if not key.startswith("__")}


def _read_hdf5(path: Path) -> dict[str, NDArray]:
    import h5py

    with h5py.File(path, "r") as file:
        # MATLAB stores its dimensions in reverse
        return {key: np.asarray(value).T for key, value in file.items() if isinstance(value, h5py.Dataset)}


def _read_numpy(path: Path) -> list[NDArray]:
    try:
        if path.suffix.lower() == ".npy":
            arrays = [np.load(path, allow_pickle=False)]
        else:
            with np.load(path, allow_pickle=False) as content:
                arrays = list(content.values())
    except Exception as error:  # a damaged zip raises another kind than a damaged array
        raise UserError(f"{path}: not a readable NumPy file ({type(error).__name__}: {error}). Remove it.") from error
    if not all(map(_is_numeric, arrays)):
        raise UserError(f"{path}: expected real numbers, found {', '.join(str(a.dtype) for a in arrays)}. Remove it.")
    return [_stacked(array, last=False) for array in arrays]


def _read_png(path: Path) -> list[NDArray]:
    content = np.fromfile(path, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if image is None or image.ndim != 2:
        what = "not an image, or damaged" if image is None else "not grey"
        raise UserError(f"{path}: {what}; expected a grey 16-bit kernel. Remove it.")
    return [image[None] / MAX_OF[image.dtype]]


def _is_numeric(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "fiu"


READERS: dict[str, Callable[[Path], list[NDArray]]] = {
    ".mat": _read_mat,
    ".png": _read_png,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
}
