"""The log of a node on which a restore is refused, nine days after somebody changed the policy.

Alice runs ``web`` in the sandbox ``blue``, whose restores only warn. Nine days before the end Bob
prepares ``green``, the sandbox that is to take over, and has it enforce. In the last hour Alice
saves ``blue``, deletes it, and brings ``web`` back in ``green``, with another port and with files
of its own that can be written: that is refused, and ``web`` is down. Around it a runner's jobs come
and go.

Everything is decided by the rules and recorded by the store; only the clock and the callers are
made up.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from eventstore import Actor, SealPolicy, Signer, open_log
from manager.demo.deployment import ENGINE, SIGHUP, Deployment, service_spec
from manager.demo.node_story import ENGINE as JOB_ENGINE
from manager.demo.node_story import Step, Story, job
from manager.demo.scribe import Clock, Scribe
from manager.domain import commands as c
from manager.domain.checkpoint import ENFORCE, WARNING
from manager.domain.mark import MarkAdded
from manager.schema.node_events import ManagerStarted, NodeEvent, WorkerStarted
from manager.schema.state_seal import StateDigests, seal_state
from manager.schema.worker_facts import EngineReport, PidIdentity
from manager.version import __version__

EVENTS: Final = 1_000
MINUTE_NS: Final = 60 * 10**9
DAY_NS: Final = 24 * 60 * MINUTE_NS
BEGIN_NS: Final = 12 * DAY_NS
CRISIS_NS: Final = 42 * MINUTE_NS
"""How long before the end ``web`` is to move; BEGIN_NS: the log begins."""
ROUND_NS_MAX: Final = 20_000_000
JOB_NS_MAX: Final = 90 * 10**9
JOB_EVENTS_MAX: Final = 60
CRISIS_EVENTS: Final = 22
"""What the last hour takes: the move, and some signals to ``web`` that are refused."""
ALICE: Final = Actor(uid=1000, gid=1000, pid=2210)
BOB: Final = Actor(uid=1001, gid=1001, pid=3377)
ROTATION: Final = Actor(uid=998, gid=998, pid=871)
RUNNER_UID: Final = 1002
BOOT_ID: Final = "6f2d9a4e-8f8f-4a53-9d0c-2b7f0a1c9e11"
Told: TypeAlias = Step | tuple[NodeEvent, Actor | None]
"""A step of one sandbox, or a fact about the node with who asked for it."""


async def write_incident(path: Path, signer: Signer, *, seed: int, end_ns: int) -> None:
    """Write such a log, of EVENTS events.

    Args:
        path: A file that does not exist yet.
        signer: Seals it.
        seed: The same seed and end, the same events.
        end_ns: When the story ends, since 1970.

    Raises:
        EventStoreError: It cannot be written.
    """
    clock = Clock(end_ns - BEGIN_NS)
    scribes: list[Scribe] = []

    async def state(final: bool) -> tuple[str, ...]:
        if not final:
            return ()
        scribe = scribes[0]
        return (seal_state(scribe.events, StateDigests().of(scribe.live())).line(),)

    seal = SealPolicy(signer=signer, extensions=state)
    async with open_log(path, clock=clock, seal=seal) as log:
        scribe = Scribe(log, clock, seed, ROUND_NS_MAX)
        scribes.append(scribe)
        await _Teller(scribe, clock, seed, end_ns).tell()


class _Teller:
    """Tells the story, with what else happens on the node between its scenes."""

    def __init__(self, scribe: Scribe, clock: Clock, seed: int, end_ns: int) -> None:
        self._scribe = scribe
        self._clock = clock
        self._end_ns = end_ns
        self._story = Story(seed, scribe.new_id, clock, RUNNER_UID)
        old = service_spec("web", ["/bin/web", "--port=80"])
        new = service_spec("web", ["/bin/web", "--port=8080"], readonly=False)
        self._blue = Deployment(self._story, "blue", "web", old)
        self._green = Deployment(self._story, "green", "web", new)

    async def tell(self) -> None:
        """The whole story."""
        await self._play(self._node())
        await self._play(self._blue.create(ALICE, WARNING))
        await self._play(self._blue.start(ALICE, WARNING))
        for days, scene in (
            (11.2, self._moved("cache")),
            (9, self._policy()),
            (6.1, self._moved("queue")),
        ):
            await self._meanwhile(round(days * DAY_NS))
            await self._play(scene)
        await self._meanwhile(CRISIS_NS)
        image = self._blue.image()
        for minutes, scene in (
            (42, self._deploy()),
            (40, self._blue.save(ALICE, image)),
            (39, self._blue.delete(ALICE)),
            (38, self._green.restore(ALICE, WARNING, image)),
            (33, iter([self._green.register(ALICE, WARNING, image)])),
        ):
            await self._play_at(self._end_ns - minutes * MINUTE_NS, scene)
        await self._refused()

    def _node(self) -> Iterator[Told]:
        yield ManagerStarted(version=__version__, pid=860, boot_id=BOOT_ID, kernel="6.18.4"), None
        identity = PidIdentity(pid=866, start_ticks=2_204, pidfd_inode=41, boot_id=BOOT_ID)
        engines = tuple(
            EngineReport(name=each.name, works=True, version=each.version, lacks=each.lacks)
            for each in (JOB_ENGINE, ENGINE)
        )
        yield WorkerStarted(identity=identity, engines=engines, capabilities={}), None

    def _moved(self, name: str) -> Iterator[Told]:
        """A container that comes back with another argument, under a policy that only warns."""
        before = Deployment(self._story, f"{name}-1", name, service_spec(name, [f"/bin/{name}"]))
        yield from before.create(ALICE, WARNING)
        yield from before.start(ALICE, WARNING)
        image = before.image()
        yield from before.save(ALICE, image)
        yield from before.delete(ALICE)
        changed = service_spec(name, [f"/bin/{name}", "--verbose"])
        after = Deployment(self._story, f"{name}-2", name, changed)
        yield from after.create(ALICE, WARNING)
        yield from after.restore(ALICE, WARNING, image)
        yield from after.resumed()

    def _policy(self) -> Iterator[Told]:
        message = "restores have to be what was saved: green enforces it"
        yield MarkAdded(name="policy-enforce", message=message), BOB
        yield from self._green.create(BOB, ENFORCE)

    def _deploy(self) -> Iterator[Told]:
        message = "web 2.3: listens on 8080, writes to its own files"
        yield MarkAdded(name="deploy", message=message), ALICE

    async def _refused(self) -> None:
        """Whoever rotates the files of ``web`` goes on asking, as often as events are left."""
        left = EVENTS - self._scribe.events
        begin_ns = self._clock.now_ns
        for number in range(1, left + 1):
            command = c.Signal(
                cid="web", signo=SIGHUP, pid=0, mode=0, kill_id=self._scribe.new_id()
            )
            at_ns = begin_ns + (self._end_ns - begin_ns) * number // (left + 1)
            await self._play_at(at_ns, iter([Step("green", command, ROTATION)]))

    async def _meanwhile(self, before_end_ns: int) -> None:
        """Jobs, and ``web`` told to open its files anew, until so long before the end."""
        until_ns = self._end_ns - before_end_ns
        while (at_ns := self._due_ns()) < until_ns:
            self._clock.now_ns = max(self._clock.now_ns, at_ns)
            if self._scribe.events < EVENTS - CRISIS_EVENTS - JOB_EVENTS_MAX:
                await self._play(job(self._story), lasts_ns=JOB_NS_MAX)
            else:
                await self._play(self._blue.hang_up(ROTATION))
        self._clock.now_ns = max(self._clock.now_ns, until_ns)

    def _due_ns(self) -> int:
        """When the next event is due: they are spread evenly until the crisis."""
        span_ns = BEGIN_NS - CRISIS_NS
        share = self._scribe.events * span_ns // (EVENTS - CRISIS_EVENTS)
        return self._end_ns - BEGIN_NS + share

    async def _play_at(self, at_ns: int, scene: Iterator[Told]) -> None:
        self._clock.now_ns = max(self._clock.now_ns, at_ns)
        await self._play(scene)

    async def _play(self, scene: Iterator[Told], lasts_ns: int = 1) -> None:
        """Record a scene; what ends in it has run for up to ``lasts_ns``."""
        for told in scene:
            if isinstance(told, Step):
                if isinstance(told.command, c.ReportExited):
                    self._clock.now_ns += self._story.random.randrange(lasts_ns)
                self._scribe.take(told)
            else:
                await self._scribe.note(*told)
            await self._scribe.end_round()
