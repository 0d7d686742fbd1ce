"""Whether a log and a worker have the same past.

What a worker does not know of has come to its end on record, or has never begun: it forgets nothing
before the log has it. That holds only for the log that it was told of, up to where it was told.
"""

from typing import Final

from eventstore import EventLog
from manager.domain.react import REBOOTED
from manager.schema import worker as w

RESTORED: Final = "the log is older than what was done since: it was restored from a copy"
NO_TRACE: Final = "what the worker had noted is gone"


async def doubt_about(log: EventLog, welcome: w.Welcome) -> str:
    """Why nothing follows from what this worker does not know; empty if something does.

    Raises:
        EventStoreError: The log cannot be read.
    """
    mark = welcome.mark
    if mark is None:
        return NO_TRACE
    if not await _holds(log, mark):
        return RESTORED
    return "" if mark.boot_id == welcome.worker.boot_id else REBOOTED


async def _holds(log: EventLog, mark: w.LogMark) -> bool:
    async for record in log.read(after=mark.position - 1, until=mark.position):
        return record.leaf_hash == mark.leaf_hash
    return False
