"""One sandbox while the manager runs: its folded state, and the only way to change it.

A command is decided, recorded, folded and acted upon under one lock, in this order, so that the
events of a sandbox are in the order of their decisions and no effect precedes its intent.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import anyio
from msgspec import Struct

from eventstore import (
    NO_STREAM,
    Actor,
    Document,
    EventLog,
    EventStoreError,
    Exactly,
    NewEvent,
    RecordedEvent,
)
from manager.application.errors import NotRecorded
from manager.application.ports import Ids
from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.effects import Effect
from manager.domain.events import Event
from manager.domain.evolve import evolve
from manager.domain.react import react
from manager.domain.state import ABSENT, Sandbox
from manager.schema.events import decode_event, encode_event

STREAM_PREFIX: Final = "sandbox-"

T = TypeVar("T")


class Origin(Struct, frozen=True, kw_only=True):
    """Who asked, and which request an event belongs to."""

    correlation_id: str
    actor: Actor | None = None
    causation: int | None = None


Perform = Callable[[Effect], Awaitable[c.Report | None]]
"""Carry out one effect; a report tells that it cannot be carried out."""


class Expectation:
    """An event that somebody waits for."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._arrived = anyio.Event()

    def fulfil(self, event: Event) -> None:
        """Hand the event over."""
        self._event = event
        self._arrived.set()

    async def wait(self) -> Event:
        """Wait for the event. Cancellation: safe."""
        await self._arrived.wait()
        if self._event is None:
            raise AssertionError("an expectation is fulfilled before it is announced")
        return self._event


class LiveSandbox:
    """State, version and waiters of one sandbox.

    Args:
        sandbox_id: Its id; the stream is ``sandbox-<id>``.
        log: Where events go.
        ids: Where event ids come from.
        note: Told every launch id and kill id before its effect begins, so that whatever the
            worker says of it finds its way here.
    """

    def __init__(
        self, sandbox_id: str, log: EventLog, ids: Ids, note: Callable[[str], None]
    ) -> None:
        self.state: Sandbox = ABSENT
        self.version = 0
        self._stream = STREAM_PREFIX + sandbox_id
        self._log = log
        self._ids = ids
        self._note = note
        self._lock = anyio.Lock()
        self._changed = anyio.Event()
        self._intents: dict[str, Origin] = {}
        self._expected: dict[str, Expectation] = {}

    @property
    def lives(self) -> bool:
        """Whether the sandbox exists: created, and not yet deleted."""
        return self.state.phase not in {"absent", "deleted"}

    def replay(self, record: RecordedEvent) -> None:
        """Fold one record of this sandbox's stream."""
        event = decode_event(record.type, record.data)
        self.state = evolve(self.state, event)
        self.version = record.version
        self._remember(event, record)

    async def handle(
        self,
        command: c.Command,
        origin: Origin,
        perform: Perform,
        *,
        documents: Sequence[Document] = (),
        prepare: Callable[[Sequence[Event]], Awaitable[c.Command]] | None = None,
    ) -> tuple[Event, ...]:
        """Decide, record, fold, act.

        Args:
            command: What is asked or reported.
            origin: Whom the events belong to.
            perform: Carries out effects, called in order while the sandbox is locked.
            documents: Bodies that the events name by digest.
            prepare: Called with the events of an accepted decision before they are recorded, for
                what must be safe first; the command that it returns is decided instead.

        Returns:
            The events, durable by now; none if the log already held the answer.

        Raises:
            NotRecorded: The log refused. Nothing was changed and nothing was done.

        Cancellation: shielded; a cancelled caller finds the command carried out or not begun.
        """
        with anyio.CancelScope(shield=True):
            async with self._lock:
                events = decide(self.state, command)
                if prepare is not None and events:
                    events = decide(self.state, await prepare(events))
                reports = await self._record(events, origin, perform, documents)
                while reports:
                    report = reports.pop(0)
                    follow = decide(self.state, report)
                    reports += await self._record(follow, self.origin_of(report, origin), perform)
        return events

    async def until(self, answer: Callable[[Sandbox], T | None]) -> T:
        """Wait until the state gives an answer that is not ``None``.

        Cancellation: safe.
        """
        while (found := answer(self.state)) is None:
            await self._changed.wait()
        return found

    @contextmanager
    def expect_signal(self, kill_id: str) -> Iterator[Expectation]:
        """Be given the event that tells how a signal came out; enter before it is sent."""
        self._expected[kill_id] = Expectation()
        try:
            yield self._expected[kill_id]
        finally:
            del self._expected[kill_id]

    def origin_of(self, report: c.Command, default: Origin) -> Origin:
        """The request that a report of the worker answers, as far as the log tells."""
        key = getattr(report, "launch_id", None) or getattr(report, "kill_id", None)
        return self._intents.get(key, default) if key else default

    async def _record(
        self,
        events: Sequence[Event],
        origin: Origin,
        perform: Perform,
        documents: Sequence[Document] = (),
    ) -> list[c.Report]:
        if not events:
            return []
        new = [self._new_event(event, origin, documents) for event in events]
        expected = Exactly(self.version) if self.version else NO_STREAM
        try:
            records = await self._log.append(self._stream, new, expected=expected)
        except EventStoreError as error:
            raise NotRecorded(str(error)) from error
        effects: list[Effect] = []
        for event, record in zip(events, records, strict=True):
            effects += react(self.state, event)
            self.state = evolve(self.state, event)
            self.version = record.version
            self._remember(event, record)
            self._fulfil(event)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        reports = [await perform(effect) for effect in effects]
        return [report for report in reports if report is not None]

    def _fulfil(self, event: Event) -> None:
        if isinstance(event, (e.ContainerSignalSent, e.ContainerSignalRejected)):
            expectation = self._expected.get(event.kill_id)
            if expectation is not None:
                expectation.fulfil(event)

    def _new_event(self, event: Event, origin: Origin, documents: Sequence[Document]) -> NewEvent:
        tag, data = encode_event(event)
        return NewEvent(
            type=tag,
            data=data,
            event_id=self._ids.new_id(),
            correlation_id=origin.correlation_id,
            causation=origin.causation,
            actor=origin.actor,
            documents=tuple(documents),
        )

    def _remember(self, event: Event, record: RecordedEvent) -> None:
        """Note which request an intent came from: its outcome belongs to the same one."""
        key = intent_key(event)
        if key:
            self._note(key)
        if key and record.correlation_id is not None:
            self._intents[key] = Origin(
                correlation_id=record.correlation_id,
                actor=record.actor,
                causation=record.position,
            )
        elif isinstance(event, (e.ContainerDestroyed, e.SandboxDeleted)):
            alive = {
                found.intent.launch_id
                for found in self.state.containers.values()
                if found.intent is not None and found.exists
            } | self.state.signals.keys()
            self._intents = {key: self._intents[key] for key in self._intents.keys() & alive}


def intent_key(event: Event) -> str:
    """The launch id or kill id of an event that announces an effect, else an empty string."""
    match event:
        case e.SandboxStartRequested(launch_id=key) | e.ContainerDestroyRequested(launch_id=key):
            return key
        case e.ContainerStartAccepted(intent=intent) | e.SandboxCreated(intent=intent):
            return intent.launch_id
        case e.ContainerSignalRequested(kill_id=key):
            return key
        case _:
            return ""
