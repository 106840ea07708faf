"""Record what a GPU computes, and launch all of its kernels at once from then on."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Result = tuple[dict[str, Tensor], dict[str, Tensor]]  # the terms of an update's loss, and what else is logged


class Recorder(Protocol):
    """What can record a computation."""

    def record(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Return what computes it again, into the same tensors, and its result. Nothing is computed yet."""


class CudaRecorder:
    """Records CUDA graphs that share their memory; they have to be replayed in the order of the recording."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()

    def record(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record a computation as a CUDA graph. Raises what the computation raises, as where it needs the host."""
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            # other threads, which pin the next batch's memory, may go on meanwhile
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                result = compute()
        except Exception as error:
            torch.cuda.set_stream(before)  # torch leaves the recording's where it can't end it
            if isinstance(error.__context__, Exception):  # the cause, of which torch only says that there is one
                raise error.__context__ from None
            raise
        return graph.replay, result
