"""Writing a log on its one writing connection; everything here runs on that connection's thread."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from eventstore.envelope import Document
from eventstore.errors import EventStoreError
from eventstore.group_commit import Outcome
from eventstore.sequencer import Round, Sequencer
from eventstore.sqlite.completeness import Moved, finish, move_wal
from eventstore.sqlite.reader import LogReader
from eventstore.sqlite.rows import INSERT, to_row
from eventstore.submission import Submission

INSERT_DOCUMENT: Final = (
    "INSERT INTO documents (digest, media_type, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
)


class LogWriter:
    """Makes batches of appends durable.

    Args:
        raw: The connection; nobody else writes to the log.
        path: The log's file.
        window: How many of the newest event ids are surely remembered.
    """

    def __init__(self, raw: sqlite3.Connection, path: str, window: int) -> None:
        self._raw = raw
        reader = LogReader(raw, path)
        self._streams = reader.streams
        self._types = reader.types
        self._sequencer = Sequencer(
            reader, head=reader.head(), newest=reader.newest_ids(window), window=window
        )

    @property
    def head(self) -> int:
        """The last position that is durable."""
        return self._sequencer.head

    def commit(self, batch: Sequence[Submission], at_ns: int) -> list[Outcome]:
        """Decide each append of a batch and store those that are accepted, in one transaction.

        Returns:
            One outcome for each append, in order.

        Raises:
            sqlite3.Error: Nothing of the batch was stored, or, if the disk failed, it is unknown.
        """
        decided = self._sequencer.begin(at_ns)
        outcomes: list[Outcome] = []
        for submission in batch:
            try:
                outcomes.append(decided.place(submission))
            except EventStoreError as error:
                outcomes.append(error)
        if decided.records:
            self._store(decided)
            self._sequencer.accept(decided)
        return outcomes

    def _store(self, decided: Round) -> None:
        self._raw.execute("BEGIN IMMEDIATE")
        try:
            streams = self._streams.intern(decided.versions)
            types = self._types.intern({record.type: None for record in decided.records})
            self._store_documents(decided.documents)
            self._raw.executemany(
                INSERT,
                [
                    to_row(record, streams[record.stream], types[record.type])
                    for record in decided.records
                ],
            )
            self._raw.execute("COMMIT")
        except BaseException:
            # On some errors, a full disk among them, SQLite has rolled back by itself already.
            # Source: sqlite.org/lang_transaction.html, section 3.
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
            raise

    def _store_documents(self, documents: dict[str, Document]) -> None:
        if documents:
            self._raw.executemany(
                INSERT_DOCUMENT,
                [(digest, each.media_type, each.body) for digest, each in documents.items()],
            )

    def checkpoint(self, before: Moved) -> Moved:
        """Move what readers allow from the WAL into the database file, waiting for nobody."""
        return move_wal(self._raw, held=before.held_bytes > 0)

    def finish(self) -> None:
        """Leave the file such that a copy of it is whole without its -wal."""
        finish(self._raw)
