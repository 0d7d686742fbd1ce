"""One job on a log's file, on the caller's thread, that leaves nothing beside it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from eventstore.errors import EventStoreError, LogCorrupt, StoreBusy
from eventstore.sqlite.connection import configure_reader, in_our_terms
from eventstore.sqlite.schema import check_schema
from eventstore.sqlite.source import OPEN_TRIES_MAX, Source, reading_source

T = TypeVar("T")


def read_log_file(path: str, job: Callable[[sqlite3.Connection], T]) -> T:
    """Do a job on a log that does not change under it but by appends.

    If a writer comes or goes where that matters, the job is done again from its beginning.

    Raises:
        LogNotFound: No such file.
        LogUnusable: It cannot be read.
        StoreBusy: Writers come and go, or hold it. Try again.
    """
    for _ in range(OPEN_TRIES_MAX):
        with reading_source(path) as source:
            try:
                with _opened(path, source) as raw:
                    result = job(raw)
            except EventStoreError:
                if source.is_current():
                    raise
            else:
                if source.is_current():
                    return result
    raise StoreBusy(path)


@contextmanager
def _opened(path: str, source: Source) -> Iterator[sqlite3.Connection]:
    try:
        with (
            in_our_terms(path),
            closing(sqlite3.connect(source.uri, uri=True, isolation_level=None)) as raw,
        ):
            configure_reader(raw)
            check_schema(raw, path)
            yield raw
    except (ValueError, TypeError) as error:
        # What a damaged file has SQLite say need not even be text.
        raise LogCorrupt(path, f"holds what no log can: {error}") from error
