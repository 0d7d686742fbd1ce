"""Opening a log: what is taken, made, checked and set, in this order, and given back in reverse."""

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from eventstore.errors import LogInaccessible
from eventstore.limits import IDEMPOTENCY_WINDOW_EVENTS
from eventstore.log import EventLog
from eventstore.seal_policy import SealPolicy
from eventstore.sqlite.completeness import check_whole, move_wal
from eventstore.sqlite.connection import configure_writer, connect
from eventstore.sqlite.lock import WriterLock
from eventstore.sqlite.log import SqliteLog
from eventstore.sqlite.read_log import SqliteReadLog
from eventstore.sqlite.reads import LogReads
from eventstore.sqlite.schema import check_schema, create_schema, is_blank, migrate
from eventstore.sqlite.sealer import Sealer
from eventstore.sqlite.source import file_uri
from eventstore.sqlite.writer import LogWriter
from eventstore.whole_file import sync_names

LOG_FILE_MODE: Final = 0o600


@asynccontextmanager
async def open_log(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    clock: Callable[[], int] = time.time_ns,
    window: int = IDEMPOTENCY_WINDOW_EVENTS,
    seal: SealPolicy | None = None,
) -> AsyncIterator[EventLog]:
    """Open the log in an SQLite file, as an asynchronous context.

    Args:
        path: The file. To write, it is made with mode 0600 if it is missing; ``<path>.lock`` beside
            it is held by the one process that writes. Must be on a local file system. A log of an
            older program is brought up to date.
        read_only: Only read, in any process, also while another one writes; also a log of an older
            program, as it is, and also on media that cannot be written. Makes no file beside it.
        clock: Nanoseconds since 1970, for ``recorded_at_ns``.
        window: How many of the newest event ids are surely remembered, see
            :mod:`eventstore.sequencer`.
        seal: Sign what is stored, now and then and on leaving, with this key; a writer's business.
            Appends do not wait for it. Absent: what is stored before somebody seals it proves
            nothing.

    Raises:
        LogLocked: Another process writes to it; its pid is in the error. Stop it, or read only.
        LogNotFound: No such file (to read) or directory (to write).
        LogInaccessible: The operating system says no.
        NotALog: The file is something else; it was not changed.
        LogTooNew: A newer program wrote it. Use that.
        LogIncomplete: It was copied without its -wal. Copy both, or with
            :func:`eventstore.copy_log`.
        LogCorrupt: It is damaged. Keep the file, restore a copy.
        LogNotDurable: SQLite cannot keep its promises there. Use a local file system.
        StoreBusy: Another program holds a lock on the file. Try again.

    On leaving, appends that are queued are answered, then everything is closed, shielded from
    cancellation.
    """
    name = os.path.realpath(path)  # noqa: ASYNC240 - once, at start
    async with AsyncExitStack() as stack:
        if read_only:
            reads = await LogReads.open(name)
            stack.push_async_callback(reads.close)
            yield SqliteReadLog(name, reads)
            return
        yield await _open_to_write(name, clock, window, seal, stack)


async def _open_to_write(
    path: str,
    clock: Callable[[], int],
    window: int,
    seal: SealPolicy | None,
    stack: AsyncExitStack,
) -> SqliteLog:
    stack.callback(WriterLock.take(path).release)
    _make_file(path)
    connection = await connect(path, file_uri(path, "mode=rw"))
    stack.push_async_callback(connection.close)

    def set_up(raw: sqlite3.Connection) -> tuple[LogWriter, Sealer | None]:
        blank = is_blank(raw)
        if not blank:
            check_schema(raw, path)
            check_whole(raw, path)
        configure_writer(raw, path)
        if blank:
            create_schema(raw)
        migrate(raw)
        move_wal(raw)
        sealer = None if seal is None else Sealer(raw, path, seal.signer)
        return LogWriter(raw, path, window), sealer

    writer, sealer = await connection.run(set_up)
    reads = await LogReads.open(path)
    stack.push_async_callback(reads.close)
    log = SqliteLog(path, connection, writer, reads, clock)
    stack.push_async_callback(log.close)
    if seal is not None and sealer is not None:
        log.keep_sealed(seal, sealer)
    return log


def _make_file(path: str) -> None:
    """Make the file if it is missing, and its name durable."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, LOG_FILE_MODE)
    except FileExistsError:
        return
    except OSError as error:
        raise LogInaccessible(path, f"cannot be made: {error.strerror}") from error
    os.close(fd)
    sync_names(os.path.dirname(path))
