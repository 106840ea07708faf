"""Any of pyiqa's metrics of single images, with a ground truth or without one.

pyiqa (IQA-PyTorch) is optional and not for commercial use. Its code is under the PolyForm Noncommercial licence 1.0.0,
its weights are under CC BY-NC-SA 4.0 or their authors' licences. Nothing of pyiqa is part of this package.
"""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from types import ModuleType

import torch
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from torch import nn

from dfpg_plugin.checks import UserError, close_names
from dfpg_plugin.metrics.images import checked_pair, to_rgb_batch
from dfpg_plugin.metrics.weights import best_device
from dfpg_plugin.seeding import everything_seeded

NAME = "calculate_pyiqa"
FULL_REFERENCE = "FR"  # pyiqa's word for metrics with a ground truth
SET_METRICS = ("fid", "inception_score")  # parts of the names of pyiqa's metrics of whole sets
DOWNLOADS = ("urllib.Request", "socket.getaddrinfo")  # Python's audit events; their first argument is the address


@cache
def load_pyiqa(metric: str) -> nn.Module:
    """Return a metric of pyiqa with its weights from pyiqa's folder, loaded once a process.

    Raises UserError if pyiqa is missing, has no such metric of single images, or would download weights.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else Hugging Face's client asks its server even for files on disk
    pyiqa = _import_pyiqa()
    known = [name for name in pyiqa.list_models() if not any(part in name for part in SET_METRICS)]
    if metric not in known:
        raise UserError(
            f"{NAME}: metric: pyiqa {pyiqa.__version__} has no metric {metric!r} of single images."
            f"{close_names(str(metric), known)} `pyiqa -ls` lists all."
        )
    fetch = f"Fetch them once by `python -c \"import pyiqa; pyiqa.create_metric('{metric}')\"`."
    try:
        with everything_seeded(0, best_device()), _no_downloads(), redirect_stdout(StringIO()):
            network = pyiqa.create_metric(metric, device=best_device())
    except _DownloadRefused as refused:
        raise UserError(f"{NAME}: {metric} needs weights from {refused}; nothing is downloaded here. {fetch}") from None
    except ImportError as error:
        raise UserError(f"{NAME}: {metric} needs a package that is missing ({error}). Install it.") from error
    except Exception as error:  # pyiqa's networks raise many kinds of errors
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{NAME}: {metric} can't be loaded ({type(error).__name__}: {reason}). {fetch}") from error
    return network.requires_grad_(False)


def _import_pyiqa() -> ModuleType:
    try:
        pyiqa = importlib.import_module("pyiqa")
    except ImportError as error:
        raise UserError(
            f"{NAME}: pyiqa is missing ({error}). `pip install pyiqa` brings it, under licences that allow no "
            "commercial use (PolyForm Noncommercial 1.0.0; most weights CC BY-NC-SA 4.0)."
        ) from error
    importlib.import_module("pyiqa.utils").get_root_logger().setLevel(logging.WARNING)
    return pyiqa


@torch.no_grad()
def pyiqa_value(image: NDArray, reference: NDArray | None, network: nn.Module) -> float:
    """Return the value of a uint8 BGR image (H,W,3). Metrics that compare also need its ground truth.

    A metric that looks at random parts of an image looks at the same parts each time.
    """
    images = [image] if reference is None or network.metric_mode != FULL_REFERENCE else [image, reference]
    with everything_seeded(0, best_device()):  # pyiqa moves the images to its device
        return float(network(*(to_rgb_batch([i], torch.device("cpu")) for i in images)))


@METRIC_REGISTRY.register()
def calculate_pyiqa(
    img: NDArray,
    img2: NDArray | None = None,
    *,
    metric: str,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str = "higher",
) -> float:
    """Return pyiqa's ``metric``, one of ``pyiqa.list_models()``, as a metric of BasicSR's ``val.metrics``.

    ``better`` has to agree with pyiqa, because BasicSR chooses the best network by ``better``. Raises UserError if it
    does not, if a ground truth is needed and missing, and where :func:`load_pyiqa` does.
    """
    network = load_pyiqa(metric)
    own = "lower" if network.lower_better else "higher"
    if better != own:
        raise UserError(f"{NAME}: {metric} is better when {own}. Write `better: {own}`.")
    if img2 is None and network.metric_mode == FULL_REFERENCE:
        raise UserError(f"{NAME}: {metric} compares with a ground truth, and there is none.")
    first, second = checked_pair(NAME, img, img if img2 is None else img2, crop_border, input_order)
    return pyiqa_value(first, second, network)


class _DownloadRefused(BaseException):
    """A use of the network was refused. Code that catches every Exception and tries again misses a BaseException."""


_refusing = False


def _refuse(event: str, arguments: tuple) -> None:
    if _refusing and event in DOWNLOADS:
        raise _DownloadRefused(str(arguments[0]))


_add_hook_once = cache(sys.addaudithook)  # a hook can't be removed, and every further call would add another


@contextmanager
def _no_downloads() -> Iterator[None]:
    """Raise _DownloadRefused, naming the address, at any use of the network. pyiqa downloads through four libraries."""
    global _refusing
    _add_hook_once(_refuse)
    _refusing = True
    try:
        yield
    finally:
        _refusing = False
