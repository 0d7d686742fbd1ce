"""Any history of appends, repeats, races, cancellations and reopenings, against a list."""

import asyncio
import tempfile
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from eventstore import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    EventIdReused,
    EventLog,
    Exactly,
    ExpectedVersion,
    NewEvent,
    RecordedEvent,
    WrongExpectedVersion,
    leaf_hash,
    memory_log,
    open_log,
)
from tests.patience import PATIENCE_S

WINDOW = 6
STREAMS = ("a", "b", "c")

T = TypeVar("T")
Stored = tuple[str, str]
"""A stream and an event id: the model is a list of these."""

streams = st.sampled_from(STREAMS)
sizes = st.integers(1, 4)
demands = st.one_of(
    st.sampled_from([ANY, ANY, NO_STREAM, STREAM_EXISTS, "current", "current"]),
    st.builds(Exactly, st.integers(0, 6)),
)


class Append:
    """An append that was tried: it may be tried again."""

    def __init__(self, stream: str, ids: list[str], expected: ExpectedVersion) -> None:
        self.stream = stream
        self.ids = ids
        self.expected = expected
        self.tried_at = 0

    def events(self) -> list[NewEvent]:
        return [NewEvent(type=f"t{len(each) % 3}", data=b"{}", event_id=each) for each in self.ids]


class LogMachine(RuleBasedStateMachine):
    """The log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: list[Stored] = []
        self.appends: list[Append] = []
        self.numbers = count(1)
        self.ticks = count(1)

    def opened(self) -> AbstractAsyncContextManager[EventLog]:
        return memory_log(clock=self.clock, window=WINDOW)

    def clock(self) -> int:
        """Jumps back and forth, as clocks do."""
        return next(self.ticks) * 7 % 12

    def run(self, awaited: Awaitable[T]) -> T:
        async def bounded() -> T:
            with anyio.fail_after(PATIENCE_S):
                return await awaited
            raise AssertionError("unreachable")

        return self.runner.run(bounded())

    @initialize()
    def open(self) -> None:
        self.context = self.opened()
        self.log: EventLog = self.runner.run(self.context.__aenter__())

    def teardown(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    # --- the model -------------------------------------------------------------------------------

    def ids_of(self, stream: str) -> list[str]:
        return [event_id for name, event_id in self.model if name == stream]

    def new_append(self, stream: str, size: int, demand: ExpectedVersion | str) -> Append:
        expected = Exactly(len(self.ids_of(stream))) if demand == "current" else demand
        append = Append(stream, [f"id-{next(self.numbers)}" for _ in range(size)], expected)
        self.appends.append(append)
        return append

    def accepts(self, append: Append) -> bool:
        actual = len(self.ids_of(append.stream))
        match append.expected:
            case Exactly(version=version):
                return version == actual
            case _ if append.expected is NO_STREAM:
                return actual == 0
            case _ if append.expected is STREAM_EXISTS:
                return actual > 0
        return True

    def stored_at(self, append: Append) -> int | None:
        """The position at which the append is stored, if it is."""
        wanted = [(append.stream, each) for each in append.ids]
        if wanted[0] not in self.model:
            return None
        first = self.model.index(wanted[0])
        assert self.model[first : first + len(wanted)] == wanted
        return first + 1

    def check_answer(self, append: Append, records: tuple[RecordedEvent, ...], first: int) -> None:
        assert [record.position for record in records] == list(
            range(first, first + len(append.ids))
        )
        assert [(record.stream, record.event_id) for record in records] == [
            (append.stream, each) for each in append.ids
        ]
        before = sum(stream == append.stream for stream, _ in self.model[: first - 1])
        assert [record.version for record in records] == list(
            range(before + 1, before + 1 + len(records))
        )
        assert all(record.leaf_hash == leaf_hash(record) for record in records)

    # --- what happens ----------------------------------------------------------------------------

    @rule(stream=streams, size=sizes, demand=demands)
    def append(self, stream: str, size: int, demand: ExpectedVersion | str) -> None:
        append = self.new_append(stream, size, demand)
        try:
            records = self.run(self.log.append(stream, append.events(), expected=append.expected))
        except WrongExpectedVersion:
            assert not self.accepts(append)
        else:
            assert self.accepts(append)
            first = len(self.model) + 1
            self.model += [(stream, each) for each in append.ids]
            self.check_answer(append, records, first)

    @precondition(lambda self: self.appends)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        append = data.draw(st.sampled_from(self.appends))
        first = self.stored_at(append)
        if first is None:
            return  # a rejected append may be accepted now: that is the rule above again
        numbered = isinstance(append.expected, Exactly) or append.expected is NO_STREAM
        remembered = len(self.model) - (first + len(append.ids) - 1) < WINDOW
        if not numbered and not remembered:
            return  # promised to nobody
        records = self.run(
            self.log.append(append.stream, append.events(), expected=append.expected)
        )
        self.check_answer(append, records, first)

    @precondition(lambda self: self.model)
    @rule(stream=streams, back=st.integers(1, WINDOW - 1))
    def reuse_an_id(self, stream: str, back: int) -> None:
        taken = self.model[-min(back, len(self.model))][1]
        events = [
            NewEvent(type="t", data=b"{}", event_id=f"id-{next(self.numbers)}"),
            NewEvent(type="t", data=b"{}", event_id=taken),
        ]
        with pytest.raises(EventIdReused, match=taken):
            self.run(self.log.append(stream, events, expected=ANY))

    @rule(work=st.lists(st.tuples(streams, sizes, demands), min_size=2, max_size=6))
    def race(self, work: list[tuple[str, int, ExpectedVersion | str]]) -> None:
        appends = [self.new_append(*each) for each in work]
        answers: dict[int, tuple[RecordedEvent, ...]] = {}

        async def one(number: int, append: Append) -> None:
            with suppress(WrongExpectedVersion):
                answers[number] = await self.log.append(
                    append.stream, append.events(), expected=append.expected
                )

        async def all_of_them() -> None:
            async with anyio.create_task_group() as tasks:
                for number, append in enumerate(appends):
                    tasks.start_soon(one, number, append)

        self.run(all_of_them())
        for number in sorted(answers, key=lambda number: answers[number][0].position):
            append = appends[number]
            assert self.accepts(append)
            first = len(self.model) + 1
            self.model += [(append.stream, each) for each in append.ids]
            self.check_answer(append, answers[number], first)

    @rule(stream=streams, size=sizes, steps=st.integers(0, 5), torn=st.booleans())
    def cancel(self, stream: str, size: int, steps: int, torn: bool) -> None:
        append = self.new_append(stream, size, "current")

        async def begin_and_cancel() -> None:
            async def one() -> None:
                await self.log.append(stream, append.events(), expected=append.expected)

            async with anyio.create_task_group() as tasks:
                task = asyncio.create_task(one())
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                if torn:
                    task.cancel()
                else:
                    tasks.cancel_scope.cancel()
                await asyncio.wait([task])

        self.run(begin_and_cancel())
        head = self.run(self.log.head())
        records = self.run(self.settled(append))
        assert head in (len(self.model), len(self.model) + size)
        first = len(self.model) + 1
        self.model += [(stream, each) for each in append.ids]
        self.check_answer(append, records, first)

    async def settled(self, append: Append) -> tuple[RecordedEvent, ...]:
        """What every caller does that lost an answer: ask again."""
        return await self.log.append(append.stream, append.events(), expected=append.expected)

    # --- what is seen ----------------------------------------------------------------------------

    @rule(
        stream=st.none() | streams, after=st.integers(-1, 30), limit=st.none() | st.integers(0, 9)
    )
    def read(self, stream: str | None, after: int, limit: int | None) -> None:
        async def collect() -> list[tuple[int, str]]:
            found = self.log.read(stream, after=after, limit=limit)
            return [(record.position, record.event_id) async for record in found]

        expected = [
            (position, event_id)
            for position, (name, event_id) in enumerate(self.model, start=1)
            if position > after and stream in (None, name)
        ]
        assert self.run(collect()) == expected[:limit]

    @rule(
        stream=st.none() | streams,
        after=st.integers(-1, 20),
        until=st.integers(-1, 30),
        limit=st.none() | st.integers(0, 9),
        backwards=st.booleans(),
        types=st.none() | st.sets(st.sampled_from(["t0", "t1", "t2", "unknown"])),
        times=st.tuples(st.none() | st.integers(0, 12), st.none() | st.integers(0, 12)),
    )
    def select(
        self,
        stream: str | None,
        after: int,
        until: int,
        limit: int | None,
        backwards: bool,
        types: set[str] | None,
        times: tuple[int | None, int | None],
    ) -> None:
        since, before = times

        async def collect() -> tuple[list[RecordedEvent], list[RecordedEvent]]:
            found = self.log.read(
                stream,
                after=after,
                until=until,
                limit=limit,
                backwards=backwards,
                types=types,
                since_ns=since,
                before_ns=before,
            )
            return [r async for r in self.log.read()], [r async for r in found]

        everything, found = self.run(collect())
        expected = [
            record
            for record in (reversed(everything) if backwards else everything)
            if stream in (None, record.stream)
            and after < record.position <= until
            and (types is None or record.type in types)
            and (since is None or record.recorded_at_ns >= since)
            and (before is None or record.recorded_at_ns < before)
        ]
        assert found == expected[:limit]

    @rule(
        stream=st.none() | streams,
        after=st.integers(0, 20),
        work=st.lists(st.tuples(streams, sizes), max_size=3),
    )
    def subscribe(self, stream: str | None, after: int, work: list[tuple[str, int]]) -> None:
        appends = [self.new_append(name, size, ANY) for name, size in work]
        stored = self.model + [(append.stream, each) for append in appends for each in append.ids]
        expected = [
            (position, event_id)
            for position, (name, event_id) in enumerate(stored, start=1)
            if position > after and stream in (None, name)
        ]

        async def follow() -> list[tuple[int, str]]:
            seen: list[tuple[int, str]] = []
            async with anyio.create_task_group() as tasks:

                async def write() -> None:
                    for append in appends:
                        await self.log.append(append.stream, append.events(), expected=ANY)

                tasks.start_soon(write)
                async with self.log.subscribe(after=after, stream=stream) as records:
                    while len(seen) < len(expected):
                        record = await anext(records)
                        seen.append((record.position, record.event_id))
            return seen

        assert self.run(follow()) == expected
        self.model = stored

    @invariant()
    def head_is_the_number_of_events(self) -> None:
        if hasattr(self, "log"):
            assert self.run(self.log.head()) == len(self.model)


class SqliteLogMachine(LogMachine):
    """The log in SQLite, which may also be closed and opened again."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="eventstore-")

    def opened(self) -> AbstractAsyncContextManager[EventLog]:
        path = Path(self.directory.name) / "events.db"
        return open_log(path, clock=self.clock, window=WINDOW)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        self.open()

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


TestMemoryLog = LogMachine.TestCase
TestMemoryLog.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSqliteLog = SqliteLogMachine.TestCase
TestSqliteLog.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
