"""Let SIGTERM end a command as Ctrl-C does. Batch systems and `kill` send SIGTERM."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dfpg_plugin.training.signals import ONE_WISH


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received. Code that handles Ctrl-C handles this error too, because it is a KeyboardInterrupt."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise TerminatedError at SIGTERM inside the ``with`` block. Put the earlier handler back at its end.

    A SIGTERM within ONE_WISH seconds of the first one is ignored, so that it does not disturb the report that is being
    written.
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
