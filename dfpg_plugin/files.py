"""Read tensors from files that need not be trusted, and write files that are whole at every moment."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path, PurePath
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dfpg_plugin.checks import UserError

SHIPPED = Path(str(resources.files("dfpg_plugin"))) / "weights" / "dfpgnet_lfw.safetensors"  # the package's own network
CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")  # keys for the weights in a file
# the name of a file that is being written, such as .net_g_8.0a1b2c3d.dfpg-tmp
UNFINISHED = re.compile(r"\..{0,50}\.[0-9a-f]{8}\.dfpg-tmp(\.\w+)?", re.DOTALL)
LONGEST_STEM = 50  # characters of the final name that such a name repeats: file systems hold names of 255 bytes


def load_pytorch(path: str | Path) -> object:
    """Load a PyTorch file to the CPU. Nothing in the file is executed (``weights_only``).

    The checksums inside the file are verified; torch does not verify them. Raises UserError, naming the file, if the
    file is missing, is damaged, or holds more than tensors and plain values.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {damaged} does not fit")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds of error for files that are not its own
        reason = str(error).strip().split("\n")[0][:120]
        raise UserError(f"{path} is not a readable PyTorch file ({type(error).__name__}: {reason}).") from error


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors and metadata. Raises UserError, naming the file, if the file can't be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}).") from error


def weights_file(name: str) -> Path:
    """Return the file that ``path: pretrain_network_*`` names. ``shipped`` names this package's network."""
    return SHIPPED if name == "shipped" else Path(name).expanduser()


def is_safetensors(path: str | Path) -> bool:
    """Return whether a file's name says that its format is safetensors."""
    return Path(path).suffix == ".safetensors"


def state_dict_of(path: str | Path, content: object) -> dict[str, Tensor]:
    """Return ``content`` as names and tensors. Raises UserError, saying what was found, for any other content."""
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        found = type(content).__name__
        if isinstance(content, Mapping):
            found += f" with the keys {', '.join([*map(str, content)][:6])}"
        raise UserError(f"{path} holds no weights: expected names and tensors, found {found}.")
    return {str(key): value for key, value in content.items()}


def load_weights(path: str | Path, keys: Sequence[str | None]) -> tuple[dict[str, Tensor], str | None]:
    """Return the weights under the first of ``keys`` that a PyTorch file has, and that key.

    Without such a key, return the whole file as weights, and None. A safetensors file has no such keys. Raises
    UserError, naming the file, if the file holds no weights, or weights that are not finite real numbers.
    """
    content, found = read_safetensors(path)[0] if is_safetensors(path) else load_pytorch(path), None
    if isinstance(content, Mapping):
        found = next((key for key in keys if key is not None and isinstance(content.get(key), Mapping)), None)
        if found is not None:
            content = content[found]
    state = state_dict_of(path, content)
    check_finite(path, state)
    return state, found


def check_finite(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError, naming the file and a weight, for weights that are not finite real numbers."""
    if bad := [name for name, value in state.items() if value.is_complex() or not _is_finite(value)]:
        raise UserError(f"{path}: {len(bad)} of its weights are not finite real numbers, {bad[0]} first.")


def _is_finite(value: Tensor) -> bool:
    as_known = value.float() if value.is_floating_point() else value  # torch.isfinite knows no 8-bit floats
    return bool(torch.isfinite(as_known).all())


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def save_whole(content: object, path: str | Path) -> None:
    """Write ``content`` by ``torch.save``, completely or not at all. Raises UserError as :func:`whole_file`."""
    with whole_file(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # raised by torch's zip writer if the disk is full
            raise OSError(str(error)) from error


class TakenError(UserError):
    """A file that may not be replaced is there."""


@contextmanager
def whole_file(path: str | Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Give a temporary file to write, then flush and rename the file to ``path``. ``path`` is whole at every moment.

    Raises UserError, naming ``path``, if the file can't be written, and TakenError if ``path`` is there and may not be
    replaced. ``path`` then keeps its former content.
    """
    with write_errors_explained(path), new_file_beside(path) as (temporary, number):
        with open(temporary, "wb", opener=lambda *_: os.dup(number)) as file:
            yield file
            file.flush()
            os.fsync(number)
        put_in_place(temporary, Path(path), replace)


def put_in_place(temporary: Path, path: Path, replace: bool) -> None:
    """Rename a whole file to ``path``. Raises TakenError if ``path`` is there and may not be replaced, and OSError."""
    if replace:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, a link never takes the place of a file
    except OSError:  # the file is there, or the file system has no links
        if path.exists():
            raise TakenError(f"{path}: another run has written this file meanwhile. Choose another folder.") from None
        os.rename(temporary, path)


@contextmanager
def write_errors_explained(path: str | Path, then: str = "resume or try again") -> Iterator[None]:
    """Turn an OSError into a UserError that names ``path``, the reason, and what to do ``then``, after making room."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).strip().split("\n")[0]
        raise UserError(f"{path}: can't be written ({reason}). Make room or free the folder, then {then}.") from error


@contextmanager
def new_file_beside(path: str | Path, suffix: str = "") -> Iterator[tuple[Path, int]]:
    """Give a new, empty, hidden file in the folder of ``path``, and the open descriptor of this file.

    The file's name ends in ``suffix``. At the end the file is removed, unless the caller has renamed it. A process's
    first call for a folder removes the files that killed processes left there. Raises OSError if no file can be made.
    """
    path = Path(path)
    _remove_unfinished(path.parent.absolute())
    temporary, number = _new_file(path, suffix)
    try:
        yield temporary, number
    finally:
        with suppress(OSError):
            temporary.unlink()
        os.close(number)


def _new_file(path: Path, suffix: str) -> tuple[Path, int]:
    """Make a new file with the usual mode, and lock the file. The lock tells other processes that it is in use."""
    while True:
        new = path.with_name(f".{path.stem[:LONGEST_STEM]}.{secrets.token_hex(4)}.dfpg-tmp{suffix}")
        with suppress(FileExistsError):
            number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(number, fcntl.LOCK_EX)
            if os.fstat(number).st_nlink:  # 0: another process removed the file before the file was locked
                return new, number
            os.close(number)


@cache
def _remove_unfinished(folder: Path) -> None:
    """Remove the files that killed processes left in a folder, once per process. Files in use are locked and stay."""
    with suppress(OSError):  # the writing that follows says what is wrong with the folder
        for path in [path for path in folder.iterdir() if UNFINISHED.fullmatch(path.name)]:
            with suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def read_json(path: Path) -> dict:
    """Return the object in a JSON file. Raises UserError, naming the file, if the file holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}). Restore or remove it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {type(content).__name__}. Restore or remove it.")
    return content


def flat_stem(name: str) -> str:
    """Return a relative path without its extension as one name: ``s33/1.pgm`` gives ``s33_1``."""
    return PurePath(name).with_suffix("").as_posix().replace("/", "_")


def name_of_image(lq_path: str, options: Mapping) -> str:
    """Return the name of a blurred face in results: the stem of its file, or its whole key in an LMDB.

    ``options``: the data set's. A key may have folders: ``s33/1`` gives ``s33_1``.
    """
    backend = options.get("io_backend") or {}
    is_key = backend.get("type") == "lmdb" or "db_paths" in backend  # BasicSR's data sets remove `type` when they read
    return flat_stem(lq_path) if is_key else PurePath(lq_path).stem
