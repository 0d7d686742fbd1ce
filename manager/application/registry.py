"""Every sandbox that lives, and which of them a launch or a signal belongs to."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventstore import EventLog, RecordedEvent
from manager.application.live_sandbox import STREAM_PREFIX, LiveSandbox
from manager.application.ports import Ids


class Registry:
    """Sandboxes by id. Deleted ones are forgotten here and found again in the log."""

    def __init__(self, log: EventLog, ids: Ids) -> None:
        self._log = log
        self._ids = ids
        self._live: dict[str, LiveSandbox] = {}
        self._borrowers: Counter[str] = Counter()
        self._owners: dict[str, str] = {}

    async def load(self) -> None:
        """Replay the whole log.

        Raises:
            EventStoreError: The log cannot be read.
            UnknownEventType: An event is from a newer program; the text names it.
        """
        async for record in self._log.read():
            if record.stream.startswith(STREAM_PREFIX):
                self._replay(record)
        for sandbox_id in list(self._live):
            self.drop_if_gone(sandbox_id)

    def _replay(self, record: RecordedEvent) -> None:
        sandbox_id = record.stream.removeprefix(STREAM_PREFIX)
        if sandbox_id not in self._live:
            self._live[sandbox_id] = self._new(sandbox_id)
        self._live[sandbox_id].replay(record)

    def get(self, sandbox_id: str) -> LiveSandbox | None:
        """The sandbox, if it lives."""
        sandbox = self._live.get(sandbox_id)
        return sandbox if sandbox is not None and sandbox.lives else None

    def all(self) -> dict[str, LiveSandbox]:
        """Every live sandbox by id, in order of creation."""
        return {key: sandbox for key, sandbox in self._live.items() if sandbox.lives}

    @asynccontextmanager
    async def borrow(self, sandbox_id: str) -> AsyncIterator[LiveSandbox]:
        """The sandbox, read from its stream if it is not live (never created, or deleted).

        While anybody has borrowed it there is only this one object for it; afterwards it stays if
        it lives.
        """
        sandbox = self._live.get(sandbox_id)
        if sandbox is None:
            found = self._new(sandbox_id)
            async for record in self._log.read(STREAM_PREFIX + sandbox_id):
                found.replay(record)
            sandbox = self._live.setdefault(sandbox_id, found)
        self._borrowers[sandbox_id] += 1
        try:
            yield sandbox
        finally:
            self._borrowers[sandbox_id] -= 1
            self.drop_if_gone(sandbox_id)

    def drop_if_gone(self, sandbox_id: str) -> None:
        """Drop a sandbox that is deleted or never came to be, unless somebody has borrowed it."""
        sandbox = self._live.get(sandbox_id)
        if sandbox is None or self._borrowers[sandbox_id] or sandbox.lives:
            return
        del self._live[sandbox_id]
        del self._borrowers[sandbox_id]
        self._owners = {key: owner for key, owner in self._owners.items() if owner != sandbox_id}

    def owner(self, key: str) -> LiveSandbox | None:
        """The sandbox that a launch id or kill id belongs to."""
        return self._live.get(self._owners.get(key, ""))

    def _new(self, sandbox_id: str) -> LiveSandbox:
        def note(key: str) -> None:
            self._owners[key] = sandbox_id

        return LiveSandbox(sandbox_id, self._log, self._ids, note)
