"""Makes a log as a busy node would have written it: every event decided and folded by the rules.

Long-lived sandboxes of ten containers each, in which containers come and go, and short jobs beside
them; some calls are refused, some programs fail, and now and then the manager is started anew. At
the end the jobs are done and LIVE containers run. The same seed gives the same log. Usage::

    python -m benchmarks.make_log PATH [--events N] [--live N] [--seed N] [--round-s SECONDS]
"""

import argparse
import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from eventstore import open_log
from manager.demo.node_story import SUBCONTAINERS, SandboxScript, Step, Story, jobs, services
from manager.demo.scribe import Clock, Scribe
from manager.schema.node_events import ManagerStarted

JOBS_AT_ONCE = 32
NODE_RESTART_EVENTS = 50_000
CLOSING_EVENTS_PER_SLOT = 100
"""Events that a slot may need until what it has begun is whole."""
RESTING_EVENTS_PER_SANDBOX = 20
"""Events that a replacement of a container may still take."""
ROUND_NS_MAX = 20_000_000


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
