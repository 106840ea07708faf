"""Tests that need a GPU: `pytest -m gpu`. Without one they are skipped, and say so."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: torch.cuda.is_available() is False")


@pytest.fixture(autouse=True)
def _as_it_was() -> None:
    """Put back the switches of torch that tests change, and forget what was compiled."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends], torch.backends.cudnn.benchmark
    torch._dynamo.reset()
    yield
    for backend, value in zip(backends, before[0], strict=True):
        backend.allow_tf32 = value
    torch.backends.cudnn.benchmark = before[1]
    torch.use_deterministic_algorithms(False)
