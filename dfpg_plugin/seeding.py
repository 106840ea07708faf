"""Draw random numbers from a seed, and leave everybody else's as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def keeping_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Put torch's generators back at the end: that of the CPU, and that of ``device`` where it is a GPU."""
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        yield


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let torch draw from ``seed``, on the CPU and on ``device`` where it is a GPU; put the generators back at the end.

    ``torch.manual_seed`` would seed every GPU, and nobody would put those back.
    """
    with keeping_random_numbers(device):
        torch.default_generator.manual_seed(seed)
        if device is not None and device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def everything_seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let Python, NumPy and torch draw from ``seed``, which is below 2**32; put their generators back at the end."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        with seeded(seed, device):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
