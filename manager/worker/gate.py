"""Wait until the worker has put this process into its cgroup, then become an engine's command.

A program of its own, run by the worker: arguments are the descriptor of the gate (a byte opens it,
its end means that the worker is gone), the descriptors to place as `FROM:TO,…` or `-`, and the
command. Standard library only.
"""

import fcntl
import os
import signal
import sys
from typing import Final

FIRST_FREE_FD: Final = 1100
"""Descriptors wait up here, out of the way of the numbers that they are to have."""


def main() -> None:
    """Wait, place descriptors, become the command; comes back only if the worker is gone."""
    gate, placing = int(sys.argv[1]), sys.argv[2]
    if not os.read(gate, 1):
        return
    os.close(gate)
    pairs = [tuple(map(int, each.split(":"))) for each in placing.split(",") if each != "-"]
    aside = [
        (fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD), to) for source, to in pairs
    ]
    for source, _ in pairs:
        os.close(source)
    for source, to in aside:
        os.dup2(source, to)
    # Python ignores them; nobody else expects that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(sys.argv[3], sys.argv[3:])


if __name__ == "__main__":
    main()
