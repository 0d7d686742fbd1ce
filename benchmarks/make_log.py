"""Makes a log as a busy node would have written it: every event decided and folded by the rules.

Long-lived sandboxes of ten containers each, in which containers come and go, and short jobs beside
them; some calls are refused, some programs fail, and now and then the manager is started anew. At
the end the jobs are done and LIVE containers run. The same seed gives the same log. Usage::

    python -m benchmarks.make_log PATH [--events N] [--live N] [--seed N] [--round-s SECONDS]
"""

import argparse
import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.node_story import SUBCONTAINERS, SandboxScript, Step, Story, jobs, services
from eventstore import ANY, NO_STREAM, EventLog, Exactly, NewEvent, RecordedEvent, open_log
from eventstore.event_id import RANDOM_BITS, make_event_id
from manager.domain.decide import decide
from manager.domain.events import Event
from manager.schema.events import encode_event
from manager.schema.node_events import ManagerStarted, NodeEvent, encode_node_event
from manager.schema.node_fold import STREAM_PREFIX, UNKNOWN, FoldedSandbox, Origin

JOBS_AT_ONCE = 32
NODE_RESTART_EVENTS = 50_000
CLOSING_EVENTS_PER_SLOT = 100
"""Events that a slot may need until what it has begun is whole."""
RESTING_EVENTS_PER_SANDBOX = 20
"""Events that a replacement of a container may still take."""
FIRST_NS = 1_767_225_600 * 10**9
ROUND_NS_MAX = 20_000_000


class Clock:
    """A clock that goes on only between rounds, so that a seed gives the same log."""

    def __init__(self) -> None:
        self.now_ns = FIRST_NS

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
        key = getattr(command, "launch_id", "") or getattr(command, "kill_id", "")
        known = folded.origins.get(key)
        return known or Origin(correlation_id=self.new_id(), actor=step.actor)

    async def note(self, event: NodeEvent) -> None:
        """Record a fact about the node."""
        tag, data = encode_node_event(event)
        new = NewEvent(type=tag, data=data, event_id=self.new_id(), correlation_id=self.new_id())
        await self._log.append("node", [new], expected=ANY)
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


async def make_log(
    path: Path, *, events: int, live: int, seed: int = 1, round_ns_max: int = ROUND_NS_MAX
) -> None:
    """Write a log of exactly so many events, at whose end so many containers run.

    Args:
        path: A file that does not exist yet.
        events: Enough to start that many containers, several times.
        live: A multiple of ten.
        seed: The same seed, the same log.
        round_ns_max: How far the clock may go on while each sandbox has at most one call.
    """
    sandboxes, rest = divmod(live, SUBCONTAINERS + 1)
    closing = events - CLOSING_EVENTS_PER_SLOT * (sandboxes + JOBS_AT_ONCE)
    if rest or closing < 0:
        raise ValueError(f"want live containers in tens and at least {events - closing} events")
    clock = Clock()
    async with open_log(path, clock=clock) as log:
        scribe = Scribe(log, clock, seed, round_ns_max)
        story = Story(seed, scribe.new_id, clock)
        running: dict[int, SandboxScript] = {}
        slots: list[Iterator[Step]] = [services(story, running, at) for at in range(sandboxes)]
        slots += [jobs(story) for _ in range(JOBS_AT_ONCE)]
        restart_at = 0
        while slots:
            if scribe.events >= restart_at:
                await scribe.note(ManagerStarted(version="0.1.0", pid=1, boot_id="b", kernel="6.1"))
                restart_at += NODE_RESTART_EVENTS
            story.closing = scribe.events >= closing
            story.resting = scribe.events >= events - RESTING_EVENTS_PER_SANDBOX * sandboxes
            slots = [slot for slot in slots if _advance(slot, scribe)]
            await scribe.end_round()
        while scribe.events < events:
            for script in list(running.values())[: events - scribe.events]:
                scribe.take(script.refused_signal())
            await scribe.end_round()


def _advance(slot: Iterator[Step], scribe: Scribe) -> bool:
    step = next(slot, None)
    if step is not None:
        scribe.take(step)
    return step is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round-s", type=float, default=ROUND_NS_MAX / 10**9)
    asked = parser.parse_args()
    began = time.perf_counter()
    made = make_log(
        asked.path,
        events=asked.events,
        live=asked.live,
        seed=asked.seed,
        round_ns_max=round(asked.round_s * 10**9),
    )
    asyncio.run(made)
    took = time.perf_counter() - began
    size = asked.path.stat().st_size
    print(f"{asked.events} events in {took:.1f} s, {size / asked.events:.0f} bytes each")


if __name__ == "__main__":
    main()
