"""Every sandbox that lives, and which of them a launch or a signal belongs to."""

from eventstore import EventLog, RecordedEvent
from manager.application.live_sandbox import STREAM_PREFIX, LiveSandbox
from manager.application.ports import Ids


class Registry:
    """Sandboxes by id. Deleted ones are forgotten here and found again in the log."""

    def __init__(self, log: EventLog, ids: Ids) -> None:
        self._log = log
        self._ids = ids
        self._live: dict[str, LiveSandbox] = {}
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
        for sandbox_id, sandbox in list(self._live.items()):
            if sandbox.state.phase in {"absent", "deleted"}:
                self.forget(sandbox_id)

    def _replay(self, record: RecordedEvent) -> None:
        sandbox_id = record.stream.removeprefix(STREAM_PREFIX)
        if sandbox_id not in self._live:
            self._live[sandbox_id] = self._new(sandbox_id)
        self._live[sandbox_id].replay(record)

    def get(self, sandbox_id: str) -> LiveSandbox | None:
        """The sandbox, if it is live."""
        return self._live.get(sandbox_id)

    def all(self) -> dict[str, LiveSandbox]:
        """Every live sandbox by id, in order of creation."""
        return dict(self._live)

    async def summon(self, sandbox_id: str) -> LiveSandbox:
        """The sandbox, read from its stream if it is not live (never created, or deleted)."""
        if sandbox_id in self._live:
            return self._live[sandbox_id]
        sandbox = self._new(sandbox_id)
        async for record in self._log.read(STREAM_PREFIX + sandbox_id):
            sandbox.replay(record)
        return self._live.setdefault(sandbox_id, sandbox)

    def forget(self, sandbox_id: str) -> None:
        """Drop a sandbox that is deleted or never came to be."""
        self._live.pop(sandbox_id, None)
        self._owners = {key: owner for key, owner in self._owners.items() if owner != sandbox_id}

    def owner(self, key: str) -> LiveSandbox | None:
        """The sandbox that a launch id or kill id belongs to."""
        return self._live.get(self._owners.get(key, ""))

    def _new(self, sandbox_id: str) -> LiveSandbox:
        def note(key: str) -> None:
            self._owners[key] = sandbox_id

        return LiveSandbox(sandbox_id, self._log, self._ids, note)
