"""The keeper, told of many processes at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from manager.kernel.pidfd import open_pidfd
from manager.worker.keeping import Keeping
from manager.worker.loop import Loop
from manager.worker.processes import Processes

MANY = 600
"""More than the kernel takes for a reader that does not read."""


@pytest.fixture
def processes() -> Iterator[Processes]:
    before = signal.getsignal(signal.SIGCHLD)
    with contextlib.closing(Loop()) as loop, contextlib.closing(Processes(loop)) as children:
        yield children
    signal.signal(signal.SIGCHLD, before)


def test_a_keeper_that_is_slow_is_waited_for(processes: Processes, tmp_path: Path) -> None:
    first = Keeping(tmp_path, processes)
    assert first.open() == {}
    with open_pidfd(os.getpid()) as handle:
        for number in range(MANY):  # it has not even begun to listen
            first.keep(f"launch-{number}", handle)
    second = Keeping(tmp_path, processes)
    kept = second.open()
    assert len(kept) == MANY
    for name, pidfd in kept.items():
        pidfd.close()
        second.drop(name)
    second.close()
    first.close()
