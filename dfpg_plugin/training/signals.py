"""What a running training does on a signal: SLURM's preemption, Ctrl-C, a wish for a checkpoint."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch import distributed

STOPPING = (signal.SIGTERM, signal.SIGINT)
SAVING = signal.SIGUSR1


class StoppedBySignalError(Exception):
    """The training was asked to end, and has saved a checkpoint. ``status``: the exit status that shells give."""

    def __init__(self, number: int, current_iter: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after iteration {current_iter}, which is saved")
        self.status = 128 + number


class Requests:
    """What was asked for since the last iteration."""

    def __init__(self) -> None:
        self.stop = 0  # the signal's number
        self.save = 0
        # gloo, for nobody has to wait for a GPU
        self.group: Any = distributed.new_group(backend="gloo") if distributed.is_initialized() else None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the iteration is finished first. A second one of those that stop ends the process at once."""
        del frame
        if number == SAVING:
            self.save = 1
        elif self.stop:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self.stop = number

    def agree(self) -> None:
        """Make the requests of any process those of all: they have to save and stop after the same iteration."""
        if self.group is not None:
            wishes = torch.tensor([self.stop, self.save])
            distributed.all_reduce(wishes, distributed.ReduceOp.MAX, self.group)
            self.stop, self.save = wishes.tolist()


@contextmanager
def listening() -> Iterator[Requests]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of ending by them."""
    requests = Requests()
    before = {number: signal.signal(number, requests.note) for number in (*STOPPING, SAVING)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class WorkerSignals:
    """What data workers do about signals, which reach every process: they leave them to the main one until it is over.

    torch takes a worker that a signal ends for a failure of the training.
    """

    def __init__(self) -> None:
        self.over = RawValue("b", 0)  # shared with the workers

    def start_worker(self, worker: int) -> None:
        """Start a data worker; its samples are seeded one by one."""
        del worker
        signal.signal(SAVING, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.over.value:  # then it is Python, which waits for the workers at its exit
            os._exit(0)


@contextmanager
def worker_signals() -> Iterator[WorkerSignals]:
    """Let the workers that are started inside end by SIGTERM only when it is left."""
    signals = WorkerSignals()
    try:
        yield signals
    finally:
        signals.over.value = 1
