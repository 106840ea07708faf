"""Run code with a seed, and restore the random generators afterwards."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def keeping_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Restore torch's generators at the end: the CPU's, and that of ``device`` if ``device`` is a GPU."""
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let torch draw from ``seed`` on the CPU, and on ``device`` if ``device`` is a GPU; restore the generators.

    ``torch.manual_seed`` would seed every GPU, and only the generator of ``device`` is restored.
    """
    with keeping_random_numbers(device):
        torch.default_generator.manual_seed(seed)
        if device is not None and device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def everything_seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let Python, NumPy and torch draw from ``seed``, and restore their generators at the end.

    ``seed`` is from 0 to 2**32 - 1: NumPy takes no other.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        with seeded(seed, device):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
