"""A lock that lets only one process at a time write into a run's folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dfpg_plugin.checks import UserError, make_folder
from dfpg_plugin.files import write_errors_explained


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on the file ``.<name>.lock`` beside ``folder``. The system frees the lock if this process is killed.

    The file lies beside ``folder``, because ``folder`` may be renamed while the lock is held. Raises UserError if
    another process holds the lock, or if the file can't be written.
    """
    make_folder("path", folder.parent)
    file = folder.parent / f".{folder.name}.lock"
    with write_errors_explained(folder.parent, "start again, or elsewhere"):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            number = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            holder = f"process {number}" if number else "another process"
            raise UserError(
                f"{folder} is being written by {holder}. Wait for it or stop it, or set another name."
            ) from error
        with suppress(OSError):  # a full disk takes no number; the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
