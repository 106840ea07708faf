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
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from dfpg_plugin.checks import UserError

CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")  # under which files keep weights
UNFINISHED = re.compile(r"\..{0,50}\.[0-9a-f]{8}\.dfpg-tmp(\.\w+)?", re.DOTALL)  # a name while a file is written
MOST_OF_A_NAME = 50  # characters of a file's name in that: file systems hold 255 bytes


def load_pytorch(path: str | Path) -> object:
    """Load a PyTorch file to the CPU with ``weights_only``, so that nothing in it is executed.

    The checksums inside the file are compared, which torch does not do. Raises UserError, naming the file, if it is
    missing, damaged or holds more than tensors and plain values.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is another")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds of error for other files than its own
        reason = str(error).strip().split("\n")[0][:120]
        raise UserError(f"{path} is not a readable PyTorch file ({type(error).__name__}: {reason}).") from error


def state_dict_of(path: str | Path, content: object) -> dict[str, Tensor]:
    """Return ``content`` as names and tensors. Raises UserError, saying what is there, if it holds anything else."""
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        found = type(content).__name__
        if isinstance(content, Mapping):
            found += f" with the keys {', '.join([*map(str, content)][:6])}"
        raise UserError(f"{path} holds no weights: expected names and tensors, found {found}.")
    return {str(key): value for key, value in content.items()}


def load_weights(path: str | Path, keys: Sequence[str | None]) -> tuple[dict[str, Tensor], str | None]:
    """Return the weights under the first of ``keys`` that a PyTorch file has, and this key: None for bare weights.

    Raises UserError, naming the file, if it holds no weights, or weights that are not finite real numbers.
    """
    content = load_pytorch(path)
    found = None
    if isinstance(content, Mapping):
        found = next((key for key in keys if key is not None and isinstance(content.get(key), Mapping)), None)
        content = content if found is None else content[found]
    state = state_dict_of(path, content)
    if bad := [name for name, value in state.items() if value.is_complex() or not torch.isfinite(value).all()]:
        raise UserError(f"{path}: {len(bad)} of its weights are not finite real numbers, {bad[0]} first.")
    return state, found


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def save_whole(content: object, path: str | Path) -> None:
    """``torch.save`` through :func:`whole_file`."""
    with whole_file(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # raised by torch's zip writer if the disk is full
            raise OSError(str(error)) from error


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Give a temporary file to write, then flush it and rename it to ``path``. ``path`` is whole at every moment.

    Raises UserError, naming the file, if it can't be written. ``path`` then keeps its former content.
    """
    try:
        with new_file_beside(path) as (temporary, number):
            with open(temporary, "wb", opener=lambda *_: os.dup(number)) as file:
                yield file
                file.flush()
                os.fsync(number)
            os.replace(temporary, path)
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{path}: can't be written ({reason}). Make room or free the folder, then resume or try again."
        ) from error


@contextmanager
def new_file_beside(path: str | Path, suffix: str = "") -> Iterator[tuple[Path, int]]:
    """Give an empty, hidden file of a name that nothing has in the folder of ``path``, and its open descriptor.

    The name ends in ``suffix``. Whoever wants to keep the file renames it before the end, where it is removed. What a
    killed process has left in the folder is removed before. Raises OSError where no file can be made.
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
    """Make a new file with the mode of any new file, and lock it, which tells others that somebody writes it."""
    while True:
        new = path.with_name(f".{path.stem[:MOST_OF_A_NAME]}.{secrets.token_hex(4)}.dfpg-tmp{suffix}")
        with suppress(FileExistsError):
            number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(number, fcntl.LOCK_EX)
            if os.fstat(number).st_nlink:  # else another process has removed the file before it was locked
                return new, number
            os.close(number)


@cache
def _remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing in a folder, once a process; what somebody still writes is locked."""
    with suppress(OSError):  # writing says what is wrong with the folder
        for path in [path for path in folder.iterdir() if UNFINISHED.fullmatch(path.name)]:
            with suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def read_json(path: Path) -> dict:
    """Return the object in a JSON file. Raises UserError, naming the file, if it is damaged or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}). Restore or remove it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object, found {type(content).__name__}. Restore or remove it.")
    return content
