"""Find the weights and the device of networks that measure. The weights are neither shipped nor downloaded."""

from pathlib import Path
from urllib.parse import urlparse

import torch

from dfpg_plugin.checks import UserError


def default_file(url: str, folder: Path) -> Path:
    """Return the path in ``folder`` that a download of ``url`` would have."""
    return folder / Path(urlparse(url).path).name


def find_weights(metric: str, path: str | None, url: str, folder: Path) -> Path:
    """Return ``path``, or the file of ``url`` in ``folder`` if ``path`` is None.

    Raises UserError, naming the file and the URL, if the file is missing.
    """
    file = default_file(url, folder) if path is None else Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{metric}: {file} does not exist. Download {url} to it, or set `weights` to where it is.")
    return file


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
