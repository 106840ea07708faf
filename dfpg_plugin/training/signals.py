"""What a running training does on a signal: SLURM's preemption, Ctrl-C, a wish for a checkpoint."""

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
ONE_WISH = 5.0  # seconds; `timeout`, batch systems and terminals send a stopping signal more than once
STANDARD_ERROR = 2


class StoppedBySignalError(Exception):
    """The training was asked to end, and has saved a checkpoint. ``status``: the exit status that shells give."""

    def __init__(self, number: int, current_iter: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after iteration {current_iter}, which is saved")
        self.status = 128 + number


class Requests:
    """What was asked for since the last iteration."""

    def __init__(self) -> None:
        self.stop = 0  # the number of the signal after which all processes stop; set by `agree` alone
        self.save = 0
        self.wished_stop = self.wished_save = 0  # by signals to this process, which may come at any moment
        self.asked: float | None = None  # when this process got its first stopping signal, by the monotonic clock
        self.told = False
        # gloo, for nobody has to wait for a GPU
        self.group: Any = distributed.new_group(backend="gloo") if distributed.is_initialized() else None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the iteration is finished first.

        A stopping signal that comes within ONE_WISH seconds of the first one, of either kind, is the same wish. A later
        one ends the process at once.
        """
        del frame
        if number == SAVING:
            self.wished_save = 1
        elif self.asked is None:
            self.wished_stop = number
            self.asked = time.monotonic()
            with suppress(OSError):  # a log record could interrupt another one, which Python's streams don't allow
                os.write(STANDARD_ERROR, f"basicsr: {explanation(number)}\n".encode())
        elif time.monotonic() - self.asked > ONE_WISH:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def tell(self) -> None:
        """Log once that the training is about to stop. Call it between iterations, where no record is being written."""
        number = self.stop or self.wished_stop
        if number and not self.told:
            self.told = True
            get_root_logger().info(explanation(number))

    def agree(self) -> None:
        """Make the wishes of any process those of all: they have to save and stop after the same iteration.

        A signal that comes meanwhile counts at the next call.
        """
        stop, save = self.wished_stop, self.wished_save
        self.wished_save = 0
        if self.group is not None:
            wishes = torch.tensor([stop, save])
            distributed.all_reduce(wishes, distributed.ReduceOp.MAX, self.group)
            stop, save = wishes.tolist()
        self.stop, self.save = stop, save


def explanation(number: int) -> str:
    """Return what a stopping signal does, in one line."""
    return (
        f"{signal.Signals(number).name}: the iteration is finished and saved, then the training ends. A second "
        f"signal after {ONE_WISH:g} s ends it at once."
    )


@contextmanager
def listening() -> Iterator[Requests]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of ending by them; put the earlier handlers back when it is left.

    After a stop they are ignored instead. The run is saved then and the process ends, and a signal may still be
    repeated. Python takes its own handlers away while it ends, so that only ignored signals do not end it by force.
    """
    requests = Requests()
    before = {number: signal.signal(number, requests.note) for number in (*STOPPING, SAVING)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if requests.stop else handler)


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
