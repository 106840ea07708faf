"""SIGTERM, which batch systems and `kill` send, ends a command as Ctrl-C does."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dfpg_plugin.training.signals import ONE_WISH


class TerminatedError(KeyboardInterrupt):
    """SIGTERM has come: whoever ends well by Ctrl-C ends well by it too."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise TerminatedError at SIGTERM; put the earlier handler back when it is left.

    What comes within ONE_WISH seconds of the first is the same wish, and does not disturb what is written at the end.
    """
    asked: list[float] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        now = time.monotonic()
        if not asked or now - asked[0] > ONE_WISH:
            asked.append(now)
            raise TerminatedError

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
