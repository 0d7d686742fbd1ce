"""Which stretch of a log was looked at, told in one line."""

from manager.terminal.table import full_time
from replay.trail import Trail, Window


async def window_line(trail: Trail, window: Window) -> str:
    """The window's positions, and when its first and its last event were recorded.

    Raises:
        EventStoreError: The log cannot be read.
    """
    if not window.count:
        head = await trail.head()
        if not head:
            return "window: empty, for the log is"
        last = full_time((await trail.as_of(head)).time_ns)
        return f"window: empty, no event is in it; the log has #1 to #{head}, until {last}"
    first, last = [
        full_time((await trail.as_of(position)).time_ns) for position in (window.first, window.last)
    ]
    return f"window: #{window.first} to #{window.last}, {first} to {last}"
