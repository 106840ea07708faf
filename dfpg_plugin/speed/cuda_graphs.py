"""Record the kernels of a GPU's computation once, then launch all of them together."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Result = tuple[dict[str, Tensor], dict[str, Tensor]]  # the terms of an update's loss, and other values for the log


class Recorder(Protocol):
    """An object that can record a computation."""

    def record(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Return a function that repeats the computation, and the result's tensors, which each repetition overwrites.

        Nothing is computed yet.
        """


class CudaRecorder:
    """Records CUDA graphs that share their memory. Replay them in the order in which they were recorded."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()

    def record(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record a computation as a CUDA graph. Raises the computation's error, such as for a value read by the CPU."""
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            # thread_local: other threads may go on, such as the one that pins the memory of the next batch
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                result = compute()
        except Exception as error:
            torch.cuda.set_stream(before)  # torch stays on the recording's stream if it can't end the recording
            if isinstance(error.__context__, Exception):  # the cause, which torch's own error does not name
                raise error.__context__ from None
            raise
        return graph.replay, result
