"""Giving points of the log names.

Who decides must know all marks that there are, and several may ask at once. No lock keeps them
apart: the append demands that nobody wrote to the node's stream since it was read.
"""

from eventstore import EventStoreError, Exactly, WrongExpectedVersion
from manager.application.errors import CallRefused, NotRecorded
from manager.application.node import Node
from manager.domain.mark import (
    NO_MARKS,
    AddMark,
    MarkEvent,
    MarkRejected,
    Marks,
    after_mark,
    decide_mark,
)
from manager.schema.marks import MARK_TYPES, mark_event
from manager.schema.node_events import NODE_STREAM, encode_node_event
from manager.schema.node_fold import Origin


class Marker:
    """Makes marks in a node's log.

    Args:
        node: Whose log.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    async def add(
        self, name: str, origin: Origin, *, at: int = 0, message: str = "", request_id: str = ""
    ) -> int:
        """Give a point a name.

        Args:
            name: Like an id; a name is given once.
            origin: Who asks.
            at: The position; 0 for that of the mark itself.
            message: What for.
            request_id: The same one again is answered from the log.

        Returns:
            The position that the name stands for.

        Raises:
            CallRefused: The text is in the log as ``mark.rejected``.
            NotRecorded: The log cannot be read, or refused.
        """
        while True:
            version, head, marks = await self._read()
            command = AddMark(
                name=name,
                at=at,
                message=message,
                request_id=request_id,
                head=head,
            )
            event = decide_mark(marks, command)
            if event is None:
                return _answer(marks, marks.asked[request_id])
            try:
                position = await self._record(event, origin, version)
            except NotRecorded as error:
                if not isinstance(error.__cause__, WrongExpectedVersion):
                    raise
            else:
                return _answer(after_mark(marks, event, position), event)

    async def _read(self) -> tuple[int, int, Marks]:
        """The version of the node's stream, the log's head, and the marks by then."""
        log, version, marks = self._node.ports.log, 0, NO_MARKS
        try:
            head = await log.head()
            async for record in log.read(NODE_STREAM, backwards=True, limit=1):
                version = record.version
            async for record in log.read(NODE_STREAM, types=MARK_TYPES):
                event = mark_event(record)
                if event is not None and record.version <= version:
                    marks = after_mark(marks, event, record.position)
        except EventStoreError as error:
            raise NotRecorded(str(error)) from error
        return version, head, marks

    async def _record(self, event: MarkEvent, origin: Origin, version: int) -> int:
        tag, data = encode_node_event(event)
        with self._node.recording.watched():
            record = await self._node.record(tag, data, origin, expected=Exactly(version))
        return record.position


def _answer(marks: Marks, event: MarkEvent) -> int:
    if isinstance(event, MarkRejected):
        raise CallRefused(event.error)
    return marks.places[event.name]
