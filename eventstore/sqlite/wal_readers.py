"""Which processes are in a log's WAL: by the locks that SQLite's readers hold on the -shm."""

import os
from typing import Final

from eventstore.sqlite.source import SHM_SUFFIX

LOCKS: Final = "/proc/locks"
READ_LOCKS: Final = range(123, 128)
"""Bytes of the -shm that readers lock. Source: sqlite.org/walformat.html, section 2.3."""


def wal_readers(path: str) -> tuple[int, ...]:
    """Pids of other processes that read the log at this moment, as far as that can be seen."""
    try:
        found = os.stat(path + SHM_SUFFIX)
        with open(LOCKS, encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return ()
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = {pid for line in lines if (pid := _reader(line.split(), inode)) is not None}
    return tuple(sorted(pids - {os.getpid()}))


def _reader(words: list[str], inode: str) -> int | None:
    # 1: POSIX  ADVISORY  READ 4711 fe:00:1234 124 124
    # Source: proc_locks(5).
    if len(words) != 8 or words[1] != "POSIX" or words[5] != inode or words[3] != "READ":
        return None
    first, pid = int(words[6]), int(words[4])
    return pid if pid > 0 and first in READ_LOCKS else None
