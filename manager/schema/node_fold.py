"""The fold of a whole node: what its log says of every sandbox that lives.

A manager opens with it, and snapshots keep it. A sandbox that is deleted leaves the fold: all that
its id can still be asked for is in its stream, and whoever needs that reads it there.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

from msgspec import Struct

from eventstore import Actor, RecordedEvent
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.events import Event
from manager.domain.evolve import evolve
from manager.domain.state import ABSENT, Sandbox
from manager.schema.codec import EventFormatError
from manager.schema.events import decode_event

STREAM_PREFIX: Final = "sandbox-"


class Origin(Struct, frozen=True, kw_only=True):
    """Who asked, and which request an event belongs to."""

    correlation_id: str
    actor: Actor | None = None
    causation: int | None = None


class FoldedSandbox(Struct, frozen=True, kw_only=True):
    """One sandbox, as its stream tells it up to a version.

    Attributes:
        version: Of the last event that is in it.
        state: The state.
        origins: Launch ids and kill ids of which more may be reported, with the request that they
            came from: what is reported belongs to the same one.
    """

    version: int = 0
    state: Sandbox = ABSENT
    origins: dict[str, Origin] = {}

    @property
    def lives(self) -> bool:
        """Whether the sandbox exists: created, and not yet deleted."""
        return self.state.phase not in {"absent", "deleted"}

    def effect_keys(self) -> set[str]:
        """Every id of a launch, a signal, an exec, a pause or an image that a worker may name."""
        launches = {
            found.intent.launch_id
            for found in self.state.containers.values()
            if found.intent is not None
        }
        executions = {
            exec_id for found in self.state.containers.values() for exec_id in found.executions
        }
        saves = {each.checkpoint_id for each in (self.state.checkpointing,) if each is not None}
        pauses = {each.pause_id for each in (self.state.pausing,) if each is not None}
        return launches | executions | saves | pauses | self.state.signals.keys()

    def after(self, event: Event, record: RecordedEvent) -> "FoldedSandbox":
        """Fold one more event; ``record`` is what the log has of it."""
        state = evolve(self.state, event)
        return FoldedSandbox(
            version=record.version,
            state=state,
            origins=_origins(self.origins, event, record),
        )


UNKNOWN: Final = FoldedSandbox()
"""A sandbox before the first event of its stream."""


class NodeFold:
    """Every sandbox that lives at one position of a log.

    Attributes:
        began_at: The position that it was begun with: a snapshot's, or 0.
        position: Of the last record that is in it, 0 before the first.
        live: The sandboxes by id, oldest first.
    """

    def __init__(self, position: int = 0, live: dict[str, FoldedSandbox] | None = None) -> None:
        self.began_at = position
        self.position = position
        self.live: dict[str, FoldedSandbox] = live or {}
        self._gone: dict[str, FoldedSandbox] = {}

    def apply(self, record: RecordedEvent, event: Event | None = None) -> None:
        """Fold the next record of the log, of whatever stream.

        Args:
            record: The record.
            event: What it says, if it was decoded already.

        Raises:
            EventFormatError: The event is of a newer program, or damaged; the text names it.
            LookupError: :meth:`lacks` the record's sandbox; see there.
        """
        if record.stream.startswith(STREAM_PREFIX):
            sandbox_id = record.stream[len(STREAM_PREFIX) :]
            folded = self.live.get(sandbox_id) or self._before(sandbox_id, record)
            after = folded.after(event or decode_record(record), record)
            self.put(sandbox_id, after)
        self.position = record.position

    def _before(self, sandbox_id: str, record: RecordedEvent) -> FoldedSandbox:
        if self.lacks(record):
            raise LookupError(f"{record.stream} was deleted: put() what its stream says first")
        return self._gone.pop(sandbox_id, UNKNOWN)

    def lacks(self, record: RecordedEvent) -> bool:
        """Whether a record continues a stream whose sandbox left the fold before it began.

        Then :meth:`put` what the stream said before that record.
        """
        if record.version == 1 or not record.stream.startswith(STREAM_PREFIX):
            return False
        sandbox_id = record.stream[len(STREAM_PREFIX) :]
        return sandbox_id not in self.live and sandbox_id not in self._gone

    def known(self, sandbox_id: str) -> FoldedSandbox:
        """A sandbox as the fold has it, also one that is deleted (as far as that matters)."""
        return self.live.get(sandbox_id) or self._gone.get(sandbox_id, UNKNOWN)

    def put(self, sandbox_id: str, folded: FoldedSandbox) -> None:
        """Take in a sandbox as its own stream tells it."""
        if folded.lives:
            self.live[sandbox_id] = folded
        else:
            self.live.pop(sandbox_id, None)
            self._gone[sandbox_id] = _essence(folded)


def decode_record(record: RecordedEvent) -> Event:
    """Read what the log has of an event.

    Raises:
        EventFormatError: As :meth:`EventCodec.decode`, with the position.
    """
    try:
        return decode_event(record.type, record.data)
    except EventFormatError as error:
        raise error.at(record.position) from None


def _essence(folded: FoldedSandbox) -> FoldedSandbox:
    """All of a deleted sandbox that a later one of the same id inherits: the answered requests."""
    state = folded.state
    kept = Sandbox(id=state.id, phase=state.phase, requests=state.requests)
    return FoldedSandbox(version=folded.version, state=kept)


def _origins(before: dict[str, Origin], event: Event, record: RecordedEvent) -> dict[str, Origin]:
    if isinstance(event, e.SandboxCreated):
        before = {}
    key = intent_key(event)
    if key and record.correlation_id is not None:
        origin = Origin(
            correlation_id=record.correlation_id, actor=record.actor, causation=record.position
        )
        return {**before, key: origin}
    settled_key = _settled_key.get(type(event))
    if settled_key is None or (settled := settled_key(event)) not in before:
        return before
    return {key: origin for key, origin in before.items() if key != settled}


_SETTLED_BY: Final[Mapping[type[Event], str]] = {
    e.ContainerSignalSent: "kill_id",
    e.ContainerSignalRejected: "kill_id",
    e.ProcessExited: "exec_id",
    e.ProcessExecFailed: "exec_id",
    e.SandboxPaused: "pause_id",
    e.SandboxResumed: "pause_id",
    e.SandboxPauseRejected: "pause_id",
    r.SandboxCheckpointed: "checkpoint_id",
    r.SandboxCheckpointFailed: "checkpoint_id",
    e.ContainerDestroyed: "launch_id",
    e.ContainerStartFailed: "launch_id",
    e.SandboxStartFailed: "launch_id",
}
"""Events after which nothing new can be reported of something, and the member that names it."""

_ANNOUNCED_BY: Final[Mapping[type[Event], str]] = {
    e.SandboxStartRequested: "launch_id",
    e.ContainerDestroyRequested: "launch_id",
    e.ContainerStartAccepted: "intent.launch_id",
    e.SandboxCreated: "intent.launch_id",
    r.ContainerRestoreAccepted: "intent.launch_id",
    r.RestoreBegun: "root_intent.launch_id",
    r.SandboxCheckpointRequested: "checkpoint_id",
    e.ContainerSignalRequested: "kill_id",
    e.ProcessExecAccepted: "exec_id",
    e.SandboxPauseRequested: "pause_id",
}
"""Events that announce an effect, and where they name it."""


def _key_getters(names: Mapping[type[Event], str]) -> dict[type[Event], Callable[[Event], str]]:
    return {kind: attrgetter(name) for kind, name in names.items()}


_settled_key: Final = _key_getters(_SETTLED_BY)
_announced_key: Final = _key_getters(_ANNOUNCED_BY)


def intent_key(event: Event) -> str:
    """The launch, kill or pause id of an event that announces an effect, else an empty string."""
    key = _announced_key.get(type(event))
    return key(event) if key is not None else ""
