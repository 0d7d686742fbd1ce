"""Where appended events get their place: expected versions, repeated appends, positions.

One sequencer decides for one log, and only it: that is what makes positions gap-free and equal to
the order of commits. A batch of appends is decided in a :class:`Round`, which changes nothing until
the log has made its records durable and says so with :meth:`Sequencer.accept`. A round that could
not be stored is dropped.

**Appending the same events again.** An append whose event ids are those of an earlier append to
the same stream, in the same order, returns the earlier records; payloads are not compared. It is
noticed

* always, if the demand was ``Exactly(n)`` or ``NO_STREAM``: the stream's events after that version
  are looked at, however old they are;
* under ``ANY`` and ``STREAM_EXISTS`` as long as fewer than IDEMPOTENCY_WINDOW_EVENTS events were
  appended since, also if the log was closed and opened in between. After that it is a new append.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec.structs import force_setattr

from eventstore.canonical import leaf_hash
from eventstore.envelope import Document, NewEvent, RecordedEvent
from eventstore.errors import EventIdReused, WrongExpectedVersion
from eventstore.expected_version import Exactly, StreamState, matches
from eventstore.limits import IDEMPOTENCY_WINDOW_EVENTS, NAMES_CACHED_MAX
from eventstore.submission import Submission


class History(Protocol):
    """What a sequencer asks of the stored events."""

    def version(self, stream: str) -> int:
        """How many events the stream has."""
        ...

    def at_position(self, first: int, count: int) -> Sequence[RecordedEvent]:
        """The events at positions ``first`` to ``first + count - 1``."""
        ...

    def at_version(self, stream: str, first: int, count: int) -> Sequence[RecordedEvent]:
        """The stream's events from version ``first`` on, at most ``count``."""
        ...


class RecentIds:
    """Positions of the newest event ids: at least ``window`` of them, at most twice as many."""

    def __init__(self, window: int, newest: Iterable[tuple[str, int]]) -> None:
        self._window = window
        self._young: dict[str, int] = dict(newest)
        self._old: dict[str, int] = {}

    def position(self, event_id: str) -> int | None:
        """Where the event is, if it is among the remembered ones; positions begin at 1."""
        return self._young.get(event_id) or self._old.get(event_id)

    def add(self, positions: dict[str, int]) -> None:
        """Remember more ids."""
        self._young.update(positions)
        if len(self._young) >= self._window:
            self._old = self._young
            self._young = {}


class Sequencer:
    """Decides appends to one log.

    Args:
        history: The stored events.
        head: The last position that is stored.
        newest: Event ids with their positions, of the last ``window`` events.
        window: See the module's description.
    """

    def __init__(
        self,
        history: History,
        *,
        head: int,
        newest: Iterable[tuple[str, int]] = (),
        window: int = IDEMPOTENCY_WINDOW_EVENTS,
    ) -> None:
        self.head = head
        self.history = history
        self.ids = RecentIds(window, newest)
        self._versions: dict[str, int] = {}

    def begin(self, at_ns: int) -> "Round":
        """Start to decide a batch; its events are recorded at ``at_ns``."""
        return Round(self, at_ns)

    def accept(self, decided: "Round") -> None:
        """Take over a round whose records are durable now."""
        if len(self._versions) > NAMES_CACHED_MAX:
            self._versions.clear()
        self._versions.update(decided.versions)
        self.ids.add(decided.ids)
        self.head += len(decided.records)

    def version(self, stream: str) -> int:
        """The stored version of a stream."""
        version = self._versions.get(stream)
        return self.history.version(stream) if version is None else version


class Round:
    """One batch, being decided.

    Attributes:
        records: What is to be stored, in order of position.
        documents: What is to be stored with it, by digest.
        versions: The streams that it moves, with their new versions.
        ids: Positions by event id.
    """

    def __init__(self, sequencer: Sequencer, at_ns: int) -> None:
        self._sequencer = sequencer
        self._at_ns = at_ns
        self.records: list[RecordedEvent] = []
        self.documents: dict[str, Document] = {}
        self.versions: dict[str, int] = {}
        self.ids: dict[str, int] = {}

    def place(self, submission: Submission) -> tuple[RecordedEvent, ...]:
        """Give the events of one append their place, or find the place that they already have.

        Raises:
            WrongExpectedVersion: The stream is elsewhere. The round goes on without this append.
            EventIdReused: Some of the ids are known, but not as this append. Likewise.
        """
        repeated = self._find_repeated(submission)
        if repeated:
            return repeated
        stream = submission.stream
        actual = self.versions.get(stream)
        if actual is None:
            actual = self._sequencer.version(stream)
        if not matches(submission.expected, actual):
            repeated = self._find_old(submission)
            if repeated:
                return repeated
            raise WrongExpectedVersion(stream, submission.expected, actual)
        position = self._sequencer.head + len(self.records)
        placed = []
        for event, data in zip(submission.events, submission.payloads, strict=True):
            position += 1
            actual += 1
            placed.append(self._record(stream, event, data, position, actual))
        self.records += placed
        self.versions[stream] = actual
        return tuple(placed)

    def _record(
        self, stream: str, event: NewEvent, data: bytes, position: int, version: int
    ) -> RecordedEvent:
        self.ids[event.event_id] = position
        documents: tuple[str, ...] = ()
        if event.documents:
            documents = tuple(document.digest for document in event.documents)
            self.documents.update(zip(documents, event.documents, strict=True))
        record = RecordedEvent(
            position=position,
            stream=stream,
            version=version,
            type=event.type,
            event_id=event.event_id,
            recorded_at_ns=self._at_ns,
            correlation_id=event.correlation_id,
            causation=event.causation,
            actor=event.actor,
            data=data,
            documents=documents,
            leaf_hash=b"",
        )
        # Nobody has seen it yet: to make it once more with its hash would take as long again.
        force_setattr(record, "leaf_hash", leaf_hash(record))
        return record

    def _find_repeated(self, submission: Submission) -> tuple[RecordedEvent, ...]:
        for index, event in enumerate(submission.events):
            event_id = event.event_id
            position = self.ids.get(event_id) or self._sequencer.ids.position(event_id)
            if position is not None:
                # Earlier events of the same append may have left the window already.
                found = self._at_position(position - index, len(submission.events))
                if not _is_same(submission, found):
                    raise EventIdReused(event_id, position)
                return found
        return ()

    def _at_position(self, first: int, count: int) -> tuple[RecordedEvent, ...]:
        stored = self._sequencer.head
        if first < 1:
            return ()
        if first > stored:
            begin = first - stored - 1
            return tuple(self.records[begin : begin + count])
        return tuple(self._sequencer.history.at_position(first, count))

    def _find_old(self, submission: Submission) -> tuple[RecordedEvent, ...]:
        match submission.expected:
            case Exactly(version=version):
                after = version
            case StreamState.NO_STREAM:
                after = 0
            case _:
                return ()
        count = len(submission.events)
        history = self._sequencer.history
        found = tuple(history.at_version(submission.stream, after + 1, count))
        return found if _is_same(submission, found) else ()


def _is_same(submission: Submission, found: Sequence[RecordedEvent]) -> bool:
    return [(submission.stream, event.event_id) for event in submission.events] == [
        (record.stream, record.event_id) for record in found
    ]
