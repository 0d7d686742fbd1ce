"""Writes made-up histories as a service writes true ones: decides, records and folds."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Final, NamedTuple

from eventstore import ANY, NO_STREAM, Actor, EventLog, Exactly, NewEvent, RecordedEvent
from eventstore.event_id import RANDOM_BITS, make_event_id
from manager.demo.node_story import Step
from manager.domain.decide import decide
from manager.domain.events import Event
from manager.schema.events import encode_event
from manager.schema.node_events import NODE_STREAM, NodeEvent, encode_node_event
from manager.schema.node_fold import STREAM_PREFIX, UNKNOWN, FoldedSandbox, Origin

EFFECT_IDS: Final = ("launch_id", "kill_id", "checkpoint_id")
"""What a report names: it belongs to the request that led to it."""
FIRST_NS: Final = 1_767_225_600 * 10**9


class Clock:
    """A clock that goes on only between rounds, so that a seed gives the same log."""

    def __init__(self, now_ns: int = FIRST_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        """Nanoseconds since 1970."""
        return self.now_ns


class Decided(NamedTuple):
    """What one step of a round led to."""

    sandbox_id: str
    events: tuple[Event, ...]
    new: list[NewEvent]


class Scribe:
    """Decides, records and folds; the appends of one round go into the log side by side."""

    def __init__(self, log: EventLog, clock: Clock, seed: int, round_ns_max: int) -> None:
        self.events = 0
        self._round_ns_max = round_ns_max
        self._log = log
        self._clock = clock
        self._random = random.Random(seed)
        self._folded: dict[str, FoldedSandbox] = {}
        self._steps: list[Decided] = []

    def new_id(self) -> str:
        """An id as the manager's, from the seed."""
        return make_event_id(self._clock.now_ns, self._random.getrandbits(RANDOM_BITS))

    def take(self, step: Step) -> None:
        """Decide one call or report; at most one for each sandbox in a round."""
        folded = self._folded.get(step.sandbox_id, UNKNOWN)
        events = decide(folded.state, step.command)
        origin = self._origin(step, folded)
        new = [
            NewEvent(
                type=tag,
                data=data,
                event_id=self.new_id(),
                correlation_id=origin.correlation_id,
                causation=origin.causation,
                actor=origin.actor,
                documents=step.documents,
            )
            for tag, data in map(encode_event, events)
        ]
        if new:
            self._steps.append(Decided(step.sandbox_id, events, new))
            self.events += len(new)

    def _origin(self, step: Step, folded: FoldedSandbox) -> Origin:
        command = step.command
        keys = (getattr(command, name, "") for name in EFFECT_IDS)
        known = folded.origins.get(next(filter(None, keys), ""))
        return known or Origin(correlation_id=self.new_id(), actor=step.actor)

    def live(self) -> list[tuple[str, FoldedSandbox]]:
        """Every sandbox that there is, as of the last round."""
        return list(self._folded.items())

    async def note(self, event: NodeEvent, actor: Actor | None = None) -> None:
        """Record a fact about the node."""
        tag, data = encode_node_event(event)
        new = NewEvent(
            type=tag,
            data=data,
            event_id=self.new_id(),
            correlation_id=self.new_id(),
            actor=actor,
        )
        await self._log.append(NODE_STREAM, [new], expected=ANY)
        self.events += 1

    async def end_round(self) -> None:
        """Make the round durable, and fold it."""
        steps, self._steps = self._steps, []
        appends = (self._append(step.sandbox_id, step.new) for step in steps)
        stored = await asyncio.gather(*appends)
        for records, (sandbox_id, events, _) in zip(stored, steps, strict=True):
            folded = self._folded.get(sandbox_id, UNKNOWN)
            for event, record in zip(events, records, strict=True):
                folded = folded.after(event, record)
            self._folded[sandbox_id] = folded
            if not folded.lives:
                del self._folded[sandbox_id]
        self._clock.now_ns += self._random.randrange(self._round_ns_max)

    def _append(
        self, sandbox_id: str, new: list[NewEvent]
    ) -> Coroutine[None, None, tuple[RecordedEvent, ...]]:
        version = self._folded.get(sandbox_id, UNKNOWN).version
        expected = Exactly(version) if version else NO_STREAM
        return self._log.append(STREAM_PREFIX + sandbox_id, new, expected=expected)
