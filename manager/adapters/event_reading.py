"""The recorded events, read by a client itself from the file that the service writes."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Unpack

from eventstore import ReadOptions, RecordedEvent, open_log


async def read_events(
    path: Path, stream: str | None, *, follow: bool, **how: Unpack[ReadOptions]
) -> AsyncGenerator[RecordedEvent, None]:
    """Read a log through a connection of its own, which never writes.

    Args:
        path: The log's file.
        stream: Only this stream's events; all of them if None.
        follow: Go on with new events for ever; of ``how`` only ``after`` counts.
        **how: As :meth:`eventstore.EventLog.read` has it.

    Close the generator (``contextlib.aclosing``) if it may be left before its end.
    """
    async with open_log(path, read_only=True) as log:
        if not follow:
            async for record in log.read(stream, **how):
                yield record
            return
        async with log.subscribe(after=how.get("after", 0), stream=stream) as records:
            async for record in records:
                yield record
