"""A training's reaction to signals: stop on SIGTERM (SLURM's preemption) or SIGINT (Ctrl-C), save on SIGUSR1."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import distributed

STOPPING = (signal.SIGTERM, signal.SIGINT)
SAVING = signal.SIGUSR1
REPEAT_SECONDS = 5.0  # `timeout`, batch systems and terminals repeat a stopping signal within this time
STANDARD_ERROR = 2


class StoppedBySignalError(Exception):
    """A signal has stopped the training, and a checkpoint is saved.

    ``status``: the exit status that a shell gives for the signal, such as 143 for SIGTERM.
    """

    def __init__(self, number: int, current_iter: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after iteration {current_iter}, which is saved")
        self.status = 128 + number


class Requests:
    """What signals have asked a training to do."""

    def __init__(self) -> None:
        self.stop = 0  # the number of the signal that stops all processes, or 0; set by `agree` alone
        self.save = 0  # 1 if all processes save a checkpoint after this iteration
        self.own_stop = self.own_save = 0  # the same for the signals to this process, which may come at any moment
        self.asked: float | None = None  # time.monotonic() at this process's first stopping signal
        self.told = False  # whether the log says that the training is about to stop
        # gloo works on the CPU, so that no process waits for a GPU
        self.group: Any = distributed.new_group(backend="gloo") if distributed.is_initialized() else None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Note a signal. The training acts on it only after the iteration.

        SIGTERM and SIGINT change nothing within REPEAT_SECONDS of the first of them. Later, each of them ends the
        process at once.
        """
        del frame
        if number == SAVING:
            self.own_save = 1
        elif self.asked is None:
            self.own_stop = number
            self.asked = time.monotonic()
            with suppress(OSError):  # not the log: Python's streams can't write a record inside of another one
                os.write(STANDARD_ERROR, f"basicsr: {explanation(number)}\n".encode())
        elif time.monotonic() - self.asked > REPEAT_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def tell(self) -> None:
        """Log once that the training is about to stop. Call this where no other log record is being written."""
        number = self.stop or self.own_stop
        if number and not self.told:
            self.told = True
            get_root_logger().info(explanation(number))

    def agree(self) -> None:
        """Share the requests of each process with all. All processes have to save and stop after the same iteration.

        A signal that comes during the call counts at the next call.
        """
        stop, save = self.own_stop, self.own_save
        self.own_save = 0
        if self.group is not None:
            requests = torch.tensor([stop, save])
            distributed.all_reduce(requests, distributed.ReduceOp.MAX, self.group)
            stop, save = requests.tolist()
        self.stop, self.save = stop, save


def explanation(number: int) -> str:
    """Return what a stopping signal does, in one line."""
    return (
        f"{signal.Signals(number).name}: the iteration is finished and saved, then the training ends. A second "
        f"signal after {REPEAT_SECONDS:g} s ends it at once."
    )


@contextmanager
def listening() -> Iterator[Requests]:
    """Note SIGTERM, SIGINT and SIGUSR1 in the yielded requests. Put the earlier handlers back at the end.

    After a stop, the three signals are ignored instead. The run is saved then, and the process ends, but a signal may
    be repeated. Python removes its own handlers while it ends, so a signal that is not ignored would kill the process.
    """
    requests = Requests()
    before = {number: signal.signal(number, requests.note) for number in (*STOPPING, SAVING)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if requests.stop else handler)


class WorkerSignals:
    """How data workers treat signals: they ignore them until the training is over.

    A signal can reach every process, but only the main process decides. A worker that a signal ends would look to
    torch like a failure of the training.
    """

    def __init__(self) -> None:
        self.over = RawValue("b", 0)  # 1 after the training; shared with the workers

    def start_worker(self, worker: int) -> None:
        """Set the signal handlers of a new data worker. The worker needs no seed, since each sample has its own."""
        del worker
        signal.signal(SAVING, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.over.value:  # then Python has sent SIGTERM: at its exit it ends the workers and waits for them
            os._exit(0)


@contextmanager
def worker_signals() -> Iterator[WorkerSignals]:
    """Yield the signal handling of data workers. SIGTERM ends these workers only after the context."""
    signals = WorkerSignals()
    try:
        yield signals
    finally:
        signals.over.value = 1
