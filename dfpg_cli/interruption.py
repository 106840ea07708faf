"""SIGTERM, which batch systems and `kill` send, ends a command as Ctrl-C does."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dfpg_plugin.training.signals import REPEAT_SECONDS


class TerminatedError(KeyboardInterrupt):
    """SIGTERM has come: whoever ends well by Ctrl-C ends well by it too."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise TerminatedError at SIGTERM; put the earlier handler back when it is left.

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
