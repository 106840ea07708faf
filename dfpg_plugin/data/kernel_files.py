"""Read motion blur kernels from files of MSPL, Xia and Shen, and from NumPy files. Nothing in a file is executed."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError, check_folder
from dfpg_plugin.data.images import walk
from dfpg_plugin.data.kernels import Kernels

PNG_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # the pixel value that means 1
MATLAB_NAME = re.compile(r"blurs_k\d+|kernels?")


def read_kernels(
    folder: str | Path, sizes: list[int], kernel_range: tuple[int, int] | None = None
) -> dict[int, Kernels]:
    """Read every kernel file below a folder. Return float32 (N,k,k) for each wanted size k; each kernel has sum 1.

    The files are MSPL's ``.mat`` with ``blurs_k13`` (k,k,N), Shen's ``.mat`` with ``kernel`` (k,k), Xia's 16-bit grey
    ``kernel13_0.png``, and ``.npy`` and ``.npz`` with (k,k) or (N,k,k). Files are sorted by name: ``kernel13_9`` comes
    before ``kernel13_10``. ``kernel_range`` (start, stop) keeps kernels start to stop - 1 of each size.
    Raises UserError, naming the file, unless each kernel is square, odd, finite and non-negative with a positive sum.
    Raises UserError for a size without kernels.
    """
    root = check_folder("dataroot_kernels", folder)
    found: dict[int, list[NDArray]] = {}
    files = [path for path in walk(root) if path.suffix.lower() in READERS and not path.name.startswith(".")]
    for path in sorted(files, key=_natural_order):
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
    """Read the first array of a kernel file as float32 (N,k,k). Raises UserError as :func:`read_kernels` does."""
    return _read_stacks(path)[0].astype(np.float32)


def _read_stacks(path: Path) -> list[NDArray[np.float64]]:
    return [_normalise(path, array) for array in READERS[path.suffix.lower()](path)]


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts ``kernel13_10`` after ``kernel13_9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _normalise(path: Path, stack: NDArray) -> NDArray[np.float64]:
    """Return kernels (N,k,k) scaled to sum 1. Raise UserError, naming the file, if the array holds no kernels."""
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or stack.shape[1] % 2 == 0 or len(stack) == 0:
        shape = "x".join(str(n) for n in stack.shape)
        raise UserError(f"{path}: expected square kernels of odd size, found an array of {shape}. Remove the file.")
    stack = stack.astype(np.float64)
    sums = stack.sum(axis=(1, 2), keepdims=True)
    is_finite = np.isfinite(stack).all(axis=(1, 2))
    good = is_finite & (stack.min(axis=(1, 2)) >= 0) & (sums[:, 0, 0] > 0)
    if not good.all():
        number = int(np.argmin(good))
        raise UserError(
            f"{path}: kernel {number} of {len(stack)} holds negative or infinite values, NaN, or only zeros. Remove it."
        )
    return stack / sums


def _as_stack(array: NDArray, count_last: bool) -> NDArray:
    """Return (k,k), (N,k,k) or (k,k,N) as (N,k,k). If N equals k, ``count_last`` tells whether N is the last axis."""
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3 and array.shape[0] == array.shape[1] and (count_last or array.shape[1] != array.shape[2]):
        return np.moveaxis(array, -1, 0)
    return array


def _read_mat(path: Path) -> list[NDArray]:
    import h5py

    try:
        # a .mat file of MATLAB 7.3 is an HDF5 file
        arrays = _read_hdf5(path) if h5py.is_hdf5(path) else _read_matlab5(path)
    except Exception as error:  # SciPy and h5py raise many kinds of error
        raise UserError(f"{path}: not a readable .mat file ({type(error).__name__}: {error}). Remove it.") from error
    names = [key for key, value in arrays.items() if MATLAB_NAME.fullmatch(key) and _is_numeric(value)]
    if len(names) != 1:
        raise UserError(
            f"{path}: expected one array called blurs_k13 (or another size) or kernel, found {', '.join(arrays)}."
        )
    return [_as_stack(np.asarray(arrays[names[0]]), count_last=True)]


def _read_matlab5(path: Path) -> dict[str, NDArray]:
    from scipy.io import loadmat

    return {key: value for key, value in loadmat(path).items() if not key.startswith("__")}


def _read_hdf5(path: Path) -> dict[str, NDArray]:
    import h5py

    with h5py.File(path, "r") as file:
        # MATLAB stores the dimensions in reverse order
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
    return [_as_stack(array, count_last=False) for array in arrays]


def _read_png(path: Path) -> list[NDArray]:
    content = np.fromfile(path, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if image is None or image.ndim != 2 or image.dtype not in PNG_WHITE:
        what = "not an image, or damaged" if image is None else "not grey" if image.ndim != 2 else f"of {image.dtype}"
        raise UserError(f"{path}: {what}; expected a grey 16-bit kernel. Remove it.")
    return [image[None] / PNG_WHITE[image.dtype]]


def _is_numeric(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "fiu"


READERS: dict[str, Callable[[Path], list[NDArray]]] = {
    ".mat": _read_mat,
    ".png": _read_png,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
}
