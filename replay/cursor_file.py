"""A file that remembers how far somebody has read a log."""

import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from eventstore import RecordedEvent
from eventstore.whole_file import replace_whole, replaceable

BYTES_MAX: Final = 1000

SAVE_SECONDS: Final = 1.0
"""Least time between two savings: a reader that is killed is shown no more than that again."""


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
        OSError: It cannot be read, or is no file that a cursor could be kept in.
    """
    try:
        # Not the path itself: a pipe would have to be written to before it can be opened.
        with replaceable(path).open("rb") as file:
            text = file.read(BYTES_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    position, _, event_id = text.strip().partition(" ")
    if not (position.isascii() and position.isdigit() and event_id):
        raise CursorUnknown(f"{path} is no cursor file: remove it to begin anew")
    return Cursor(position=int(position), event_id=event_id)


class CursorKeeper:
    """Remembers the last event that somebody was shown: now and then, and when told to.

    Args:
        path: The file, which is replaced at once, and durable; nothing is kept without one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unsaved: RecordedEvent | None = None
        self._saved_at = -SAVE_SECONDS

    def shown(self, record: RecordedEvent) -> None:
        """Take note of an event that is out, all of it: it will not be shown again.

        Raises:
            OSError: The file cannot be written.
        """
        self._unsaved = record
        if self._path is not None and time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write down what is not yet.

        Raises:
            OSError: The file cannot be written.
        """
        if self._path is None or self._unsaved is None:
            return
        with replace_whole(self._path) as file:
            file.write(f"{self._unsaved.position} {self._unsaved.event_id}\n")
        self._unsaved, self._saved_at = None, time.monotonic()
