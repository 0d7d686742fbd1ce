"""What an exported event says of where it is from."""

from pathlib import Path
from typing import Final

from eventstore import newest_note, read_checkpoint

UNSEALED: Final = "sandtrail/unsealed"
"""Stands for the name of a log that was never sealed."""


def origin_of(path: Path) -> str:
    """The name under which a log is sealed; nobody has checked whose it is.

    Raises:
        EventStoreError: The log cannot be read.
    """
    note = newest_note(path)
    return UNSEALED if note is None else read_checkpoint(note).origin
