"""A file that remembers how far somebody has read a log."""

from pathlib import Path
from typing import Final

from msgspec import Struct

from eventstore import RecordedEvent
from eventstore.whole_file import replace_whole

BYTES_MAX: Final = 1000


class CursorUnknown(Exception):  # noqa: N818 - nothing is broken
    """The file names no event of this log; the message says what to do."""


class Cursor(Struct, frozen=True, kw_only=True):
    """The last event that was read: where it is, and its id, as another log has others there."""

    position: int
    event_id: str


def load_cursor(path: Path) -> Cursor | None:
    """Read a cursor; ``None`` if there is no such file yet.

    Raises:
        CursorUnknown: It is no cursor.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    position, _, event_id = text.strip().partition(" ")
    if not (position.isascii() and position.isdigit() and event_id):
        raise CursorUnknown(f"{path} is no cursor file: remove it to begin anew")
    return Cursor(position=int(position), event_id=event_id)


def save_cursor(path: Path, record: RecordedEvent) -> None:
    """Remember an event as the last one read; the file is replaced at once, and durable.

    Raises:
        OSError: It cannot be written.
    """
    with replace_whole(path) as file:
        file.write(f"{record.position} {record.event_id}\n")
