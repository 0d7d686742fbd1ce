"""One sandbox while the manager runs: its folded state, and the only way to change it.

A command is decided, recorded, folded and acted upon under one lock, in this order, so that the
events of a sandbox are in the order of their decisions and no effect precedes its intent.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import anyio

from eventstore import (
    NO_STREAM,
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
from manager.domain.react import Resumption, react
from manager.domain.state import Sandbox
from manager.kernel.fail_points import reached
from manager.schema.events import encode_event
from manager.schema.node_fold import (
    STREAM_PREFIX,
    UNKNOWN,
    FoldedSandbox,
    Origin,
    decode_record,
    intent_key,
)

T = TypeVar("T")


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

    @property
    def event(self) -> Event | None:
        """The event, if it has come."""
        return self._event

    async def wait(self) -> Event:
        """Wait for the event. Cancellation: safe."""
        await self._arrived.wait()
        if self._event is None:
            raise AssertionError("an expectation is fulfilled before it is announced")
        return self._event


class _Question(Generic[T]):
    """What somebody waits for the state to answer."""

    def __init__(self, answer: Callable[[Sandbox], T | None]) -> None:
        self.found: T | None = None
        self.answered = anyio.Event()
        self._answer = answer

    def put(self, state: Sandbox) -> bool:
        """Ask it of a state; whether there was an answer."""
        self.found = self._answer(state)
        if self.found is None:
            return False
        self.answered.set()
        return True


class LiveSandbox:
    """State, version and waiters of one sandbox.

    Args:
        sandbox_id: Its id; the stream is ``sandbox-<id>``.
        log: Where events go.
        ids: Where event ids come from.
        note: Told every record that is folded here, with the launch id or kill id that it
            announces, if any, before the effect begins: so that whatever the worker says of it
            finds its way here.

    Attributes:
        folded: What its stream says, up to the last event that is durable.
    """

    def __init__(
        self,
        sandbox_id: str,
        log: EventLog,
        ids: Ids,
        note: Callable[[RecordedEvent, str], None],
        folded: FoldedSandbox = UNKNOWN,
    ) -> None:
        self.folded = folded
        self._stream = STREAM_PREFIX + sandbox_id
        self._log = log
        self._ids = ids
        self._note = note
        self._lock = anyio.Lock()
        self._owed: list[c.Report] = []
        self._questions: list[_Question[Any]] = []
        self._expected: dict[str, Expectation] = {}

    @property
    def state(self) -> Sandbox:
        """The folded state."""
        return self.folded.state

    @property
    def version(self) -> int:
        """The stream's version, 0 before its first event."""
        return self.folded.version

    @property
    def lives(self) -> bool:
        """Whether the sandbox exists: created, and not yet deleted."""
        return self.folded.lives

    def replay(self, record: RecordedEvent) -> None:
        """Fold one record of this sandbox's stream."""
        self.folded = self.folded.after(decode_record(record), record)

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
            NotRecorded: The log refused. Nothing was changed and nothing was done. What could not
                be done of effects that were recorded before is no reason: see :meth:`take_owed`.

        Cancellation: shielded; a cancelled caller finds the command carried out or not begun.
        """
        with anyio.CancelScope(shield=True):
            async with self._lock:
                events = decide(self.state, command)
                if prepare is not None and events:
                    events = decide(self.state, await prepare(events))
                reports = await self._record(events, origin, perform, documents)
                try:
                    await self._take(reports, origin, perform)
                except NotRecorded:
                    self._owed += reports
        return events

    def take_owed(self) -> list[c.Report]:
        """What :meth:`handle` had to report of effects and the log refused: handle them later."""
        owed, self._owed = self._owed, []
        return owed

    async def settle(
        self, plan: Callable[[Sandbox], Resumption], origin: Origin, perform: Perform
    ) -> tuple[c.Report, ...]:
        """Settle what was under way when a connection to the worker was made.

        Nothing else happens to the sandbox meanwhile: whoever found no worker to carry an effect
        out has said so before, and whoever comes afterwards finds it settled.

        Args:
            plan: What to report and to repeat, according to the state.
            origin: Whom the events belong to that no request is known for.
            perform: As in :meth:`handle`.

        Returns:
            What was reported.

        Raises:
            NotRecorded: The log refused; what was settled until then is, the rest is not.

        Cancellation: as in :meth:`handle`.
        """
        with anyio.CancelScope(shield=True):
            async with self._lock:
                planned = plan(self.state)
                await self._take(list(planned.reports), origin, perform)
                for effect in planned.effects:
                    await perform(effect)
        return planned.reports

    async def _take(self, reports: list[c.Report], origin: Origin, perform: Perform) -> None:
        while reports:
            follow = decide(self.state, reports[0])
            origin_of = self.origin_of(reports[0], origin)
            reports += await self._record(follow, origin_of, perform)
            del reports[0]

    async def until(self, answer: Callable[[Sandbox], T | None]) -> T:
        """Wait until the state gives an answer that is not ``None``.

        Args:
            answer: Asked of every state in turn, until it answers; pure, and it must not raise.

        Cancellation: safe.
        """
        question = _Question(answer)
        if not question.put(self.state):
            self._questions.append(question)
            try:
                await question.answered.wait()
            finally:
                if question.found is None:
                    self._questions.remove(question)
        assert question.found is not None, "it was answered"
        return question.found

    @contextmanager
    def expect(self, key: str) -> Iterator[Expectation]:
        """Be given the event that tells how something came out; enter before it is asked for.

        Args:
            key: The kill id, exec id or pause id.
        """
        self._expected[key] = Expectation()
        try:
            yield self._expected[key]
        finally:
            del self._expected[key]

    def origin_of(self, report: c.Command, default: Origin) -> Origin:
        """The request that a report of the worker answers, as far as the log tells."""
        names = ("exec_id", "launch_id", "kill_id", "pause_id", "checkpoint_id")
        key = next((key for name in names if (key := getattr(report, name, ""))), "")
        return self.folded.origins.get(key, default) if key else default

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
        reached("append.begun")
        try:
            records = await self._log.append(self._stream, new, expected=expected)
        except EventStoreError as error:
            raise NotRecorded(str(error)) from error
        effects: list[Effect] = []
        for event, record in zip(events, records, strict=True):
            effects += react(self.state, event)
            self.folded = self.folded.after(event, record)
            self._note(record, intent_key(event))
            self._fulfil(event)
        if effects:
            reached("intent.appended")
        # Many may wait in one sandbox: to wake each, for it to ask again, would cost a turn each.
        self._questions = [each for each in self._questions if not each.put(self.state)]
        reports = [await perform(effect) for effect in effects]
        return [report for report in reports if report is not None]

    def _fulfil(self, event: Event) -> None:
        match event:
            case e.ContainerSignalSent(kill_id=key) | e.ContainerSignalRejected(kill_id=key):
                expectation = self._expected.get(key)
            case (
                e.ProcessExecuted(exec_id=key)
                | e.ProcessExecFailed(exec_id=key)
                | e.ProcessExited(exec_id=key)
                | e.ProcessLost(exec_id=key)
            ):
                expectation = self._expected.get(key)
            case (
                e.SandboxPaused(pause_id=key)
                | e.SandboxResumed(pause_id=key)
                | e.SandboxPauseRejected(pause_id=key)
            ):
                expectation = self._expected.get(key)
            case _:
                return
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
