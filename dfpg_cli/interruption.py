"""Let SIGTERM end a command as Ctrl-C does. Batch systems and `kill` send SIGTERM."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dfpg_plugin.training.signals import REPEAT_SECONDS


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received. Code that handles Ctrl-C handles this error too, because it is a KeyboardInterrupt."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise TerminatedError at SIGTERM inside the ``with`` block. Put the earlier handler back at its end.

    A signal within REPEAT_SECONDS of the first one changes nothing, and does not disturb what is written at the end.
    """
    asked: list[float] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        if not asked or now - asked[0] > REPEAT_SECONDS:
            asked.append(now)
            raise TerminatedError

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
