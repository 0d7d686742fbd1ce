"""The contract of an event log; every implementation passes the same tests."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Unpack

from eventstore.envelope import Document, NewEvent, RecordedEvent
from eventstore.expected_version import ExpectedVersion
from eventstore.selection import ReadOptions


class EventLog(Protocol):
    """An append-only log of events in streams.

    Positions are the one kind of cursor: ``after`` is always a position of the whole log, with or
    without a stream, so a cursor kept from one kind of read is good for every other.

    May be used by any number of tasks of one event loop. Every method raises StoreClosed once the
    log's context has been left.
    """

    async def append(
        self, stream: str, events: Sequence[NewEvent], *, expected: ExpectedVersion
    ) -> tuple[RecordedEvent, ...]:
        """Append events to one stream, all or nothing; returns when they are durable.

        Args:
            stream: Target stream, made by its first event.
            events: 1 to APPEND_EVENTS_MAX events, oldest first.
            expected: Demand on the stream's version before the append.

        Returns:
            The records in the same order, positions and versions contiguous. If these event ids
            were appended to this stream before, the records of that time: a lost answer can be
            asked for again. How long that holds: :mod:`eventstore.sequencer`.

        Raises:
            WrongExpectedVersion: Somebody appended first. Read, decide again, retry.
            EventIdReused: Some of the ids belong to other events. Use new ids.
            InvalidAppend: Cannot be stored; LimitExceeded, EventTooLarge if it is too much.
            StoreBusy: Another program holds the file. Retry as is.
            StoreHeld: A reader in another program has kept a transaction open for so long that the
                WAL has grown too much. End that one; appends go on by themselves.
            StoreFull: No space. Make room, retry as is; nothing was stored, the log goes on.
            StorePoisoned: The disk failed. Close, open again, read what is there.
            LogReadOnly: The log was opened to be read.

        Cancellation: waiting for room in the queue (PENDING_BYTES_MAX) can be cancelled and leaves
        nothing; from then on the append is shielded. A task that is cancelled from outside anyio
        may leave earlier: its events are stored or not, whole; append the same ids again to know.
        """
        ...

    def read(
        self, stream: str | None = None, **how: Unpack[ReadOptions]
    ) -> AsyncIterator[RecordedEvent]:
        """Read events that were stored when the reading began, oldest first.

        Args:
            stream: Only this stream's events; all of them if absent. Unknown streams are empty.
            **how: What is absent leaves nothing out.

                - ``after``, ``until``: only events at higher positions of the log than the one,
                  and up to the other.
                - ``limit``: at most that many events.
                - ``backwards``: newest first; with ``limit=1`` the last event that fits.
                - ``types``: only events with one of these tags. Unknown tags find nothing.
                - ``since_ns``, ``before_ns``: only events whose ``recorded_at_ns`` is not before
                  the one, and before the other. It is a filter: events come in the order of
                  positions, and if the clock was set back those of another time may stand between.

        Raises:
            LogCorrupt: A position is missing, also if one that would not be returned. Stop, keep
                the file.

        Fetches READ_CHUNK_EVENTS at a time and holds nothing in between: it may be slow, or be
        abandoned, without keeping the writer or the file waiting.
        Cost: where the events lie is known by stream and position; types and times are looked for
        in all that lie there, READ_SCAN_EVENTS at a time, about 0.3 s for each million.
        Cancellation: safe; go on after the last position seen (backwards: ``until`` the one below).
        """
        ...

    def subscribe(
        self, *, after: int = 0, stream: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[RecordedEvent]]:
        """Read events and go on with new ones as they are stored, each exactly once, in order.

        Args:
            after: Only events at higher positions of the log: the last one that was dealt with.
            stream: Only this stream's events; all of them if absent.

        Returns:
            A context whose value yields records for ever. A slow subscriber reads from the file
            at its own pace and never holds up an append.

        Raises:
            LogCorrupt: A position is missing. Stop, keep the file.
            StoreClosed: The log was closed, from within the iteration.

        Cancellation: safe; subscribe again after the last position seen.
        """
        ...

    async def head(self) -> int:
        """The last position that is stored, 0 in an empty log."""
        ...

    async def document(self, digest: str) -> Document:
        """Get a document by its digest (``sha256:`` and 64 hexadecimal digits).

        Raises:
            DocumentNotFound: No event brought it.
            LogCorrupt: The stored body does not have that digest. Stop, keep the file.
        """
        ...
