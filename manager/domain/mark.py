"""Marks: names that people give to points of the log.

They bear on no sandbox, and there is one rule: a name is given once, so that whoever wrote it down
finds the same point for ever.
"""

from typing import Final, TypeAlias

from msgspec import Struct

from manager.domain.gotext import quote
from manager.domain.ids import ID_RULE, REQUEST_ID_CHARS_MAX, is_valid_id

MESSAGE_CHARS_MAX: Final = 1000


class MarkAdded(Struct, frozen=True, kw_only=True, tag="mark.added"):
    """A point of the log has a name: the event at ``at``, or at 0 this one."""

    name: str
    at: int = 0
    message: str = ""
    request_id: str = ""


class MarkRejected(Struct, frozen=True, kw_only=True, tag="mark.rejected"):
    """A mark was refused. ``head`` was the last position then; a long message is cut."""

    name: str
    error: str
    head: int
    at: int = 0
    message: str = ""
    request_id: str = ""


MarkEvent: TypeAlias = MarkAdded | MarkRejected


class AddMark(Struct, frozen=True, kw_only=True):
    """A client wants a point to have a name; ``head`` is the last position that there is."""

    name: str
    head: int
    at: int = 0
    message: str = ""
    request_id: str = ""


class Marks(Struct, frozen=True, kw_only=True):
    """Every mark that was asked for.

    Attributes:
        places: The position that each name stands for.
        asked: What was answered, by request id.
    """

    places: dict[str, int] = {}
    asked: dict[str, MarkEvent] = {}


NO_MARKS: Final = Marks()


def after_mark(marks: Marks, event: MarkEvent, position: int) -> Marks:
    """Fold one event, which is at ``position``; of a name that comes again the first counts."""
    places, asked = marks.places, marks.asked
    if isinstance(event, MarkAdded):
        places = {event.name: event.at or position, **places}
    if event.request_id:
        asked = {event.request_id: event, **asked}
    return Marks(places=places, asked=asked)


def decide_mark(marks: Marks, command: AddMark) -> MarkEvent | None:
    """Give a point a name, or say why not; ``None`` if this very request was answered before."""
    before = marks.asked.get(command.request_id)
    if before is not None and before.name == command.name:
        return None
    if error := _problem(marks, command):
        return MarkRejected(
            name=command.name,
            error=error,
            head=command.head,
            at=command.at,
            message=command.message[: MESSAGE_CHARS_MAX + 1],
            request_id=command.request_id,
        )
    return MarkAdded(
        name=command.name,
        at=command.at,
        message=command.message,
        request_id=command.request_id,
    )


def _problem(marks: Marks, command: AddMark) -> str:
    name, request_id = quote(command.name), command.request_id
    if len(request_id) > REQUEST_ID_CHARS_MAX:
        return (
            f"RequestID must have at most {REQUEST_ID_CHARS_MAX} characters, "
            f"but has {len(request_id)}"
        )
    if request_id in marks.asked:
        used = quote(marks.asked[request_id].name)
        return f"RequestID {quote(request_id)} was used for Mark of {used} before"
    if not is_valid_id(command.name):
        return f"invalid mark {name}: want {ID_RULE}"
    if command.name in marks.places:
        return f"mark {name} already exists, at #{marks.places[command.name]}"
    if not 0 <= command.at <= command.head:
        return f"cannot mark #{command.at}: the log has #1 to #{command.head}"
    if len(command.message) > MESSAGE_CHARS_MAX:
        return f"the message of mark {name} is longer than {MESSAGE_CHARS_MAX} characters"
    return ""
