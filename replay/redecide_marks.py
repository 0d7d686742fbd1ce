"""Deciding on marks once more: they bear on no sandbox, and have a state of their own."""

from eventstore import EventLog, RecordedEvent
from manager.domain.mark import (
    NO_MARKS,
    AddMark,
    MarkEvent,
    MarkRejected,
    after_mark,
    decide_mark,
)
from manager.schema.marks import MARK_TYPES, mark_event
from manager.schema.node_events import NODE_STREAM
from replay.rule_place import place_of


class MarksAgain:
    """The marks that a log has by the position that was come to."""

    def __init__(self) -> None:
        self._marks = NO_MARKS

    async def catch_up(self, log: EventLog, until: int) -> None:
        """Learn all marks up to a position.

        Raises:
            EventStoreError: The log cannot be read.
            EventFormatError: A mark is damaged; the text names it.
        """
        async for record in log.read(NODE_STREAM, until=until, types=MARK_TYPES):
            event = mark_event(record)
            if event is not None:
                self._marks = after_mark(self._marks, event, record.position)

    def decide(self, recorded: MarkEvent, record: RecordedEvent) -> tuple[MarkEvent | None, str]:
        """What the rules say today, ``None`` if they take it for answered, and their place."""
        command = AddMark(
            name=recorded.name,
            at=recorded.at,
            message=recorded.message,
            request_id=recorded.request_id,
            head=recorded.head if isinstance(recorded, MarkRejected) else record.position - 1,
        )
        marks, self._marks = self._marks, after_mark(self._marks, recorded, record.position)
        now = decide_mark(marks, command)
        if not isinstance(now, MarkRejected) or now == recorded:
            return now, ""
        return now, place_of(now.error, lambda: decide_mark(marks, command))
