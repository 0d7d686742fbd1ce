"""SIGTERM and SIGINT, from when a stop would leave something to when it ends all in order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Let none come before :func:`hear_stop_signals`: one that is sent meanwhile waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_stop_signals() -> None:
    """Let them come, in this thread, now that there is who heeds them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
