"""What clients ask of a busy node and what its worker reports, as scripts with a seed.

A script is one slot of the node: a long-lived sandbox in which containers come and go and which is
replaced by a new one in the end, or one short job after another.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from eventstore import Actor, Document
from manager.application.default_spec import default_spec
from manager.application.spec_body import masked_document
from manager.domain import commands as c
from manager.domain.exit_status import Exited, Signaled
from manager.domain.request import EngineFacts, FdFact, GoferMountConf, StartRequest
from manager.domain.spec import Spec, parse_spec_object
from manager.domain.state import Launched

SUBCONTAINERS = 9
SPECS = 200
REJECTED_SHARE = 0.05
LIVES_OF_A_SANDBOX_MAX = 60
ENGINE = EngineFacts(name="crun", version="1.8.1", lacks=("checkpoint",))
SIGTERM, SIGKILL, SIGHUP = 15, 9, 1
CONF = {
    "OCISeccomp": False,
    "EnableRaw": False,
    "FileAccess": 0,
    "FileAccessMounts": 1,
    "DirectFS": True,
    "Network": 0,
}


class Step(NamedTuple):
    """One call or report, for one sandbox."""

    sandbox_id: str
    command: c.Command
    actor: Actor | None = None
    documents: tuple[Document, ...] = ()


class Story:
    """What the scripts share: chance, ids, the clock, and how far the story has come.

    Attributes:
        closing: No new job begins, no sandbox is deleted any more.
        resting: No container of a long-lived sandbox is replaced any more.
    """

    def __init__(
        self, seed: int, new_id: Callable[[], str], clock: Callable[[], int], uid: int = 0
    ) -> None:
        self.random = random.Random(seed)
        self.new_id = new_id
        self.clock = clock
        self._uid = uid
        self.closing = False
        self.resting = False
        self._pid = 1_000
        self._specs = [self._spec(number) for number in range(SPECS)]

    def _spec(self, number: int) -> tuple[Spec, Document]:
        env = [f"SERVICE_{name}=value-{number}-{name}" for name in range(number % 12)]
        spec = default_spec(args=[f"/bin/service-{number}", "--serve"], env=env, readonly=True)
        return parse_spec_object(spec), masked_document(spec, b"key")

    def client(self) -> Actor:
        """Somebody who asks."""
        return Actor(uid=self._uid, gid=self._uid, pid=self.random.randrange(300, 400))

    def start(self, cid: str) -> tuple[StartRequest, Spec, tuple[Document, ...]]:
        """The arguments of a start."""
        spec, document = self.random.choice(self._specs)
        files = [
            FdFact(kind="fifo", access=access, device=14, inode=self.random.getrandbits(32))
            for access in ("r", "w", "w")
        ]
        tree = FdFact(
            kind="directory", access="path", device=66305, inode=self.random.getrandbits(32)
        )
        request = StartRequest(
            cid=cid,
            spec_digest=document.digest,
            spec_bytes=len(document.body),
            conf=dict(CONF),
            gofer_mount_confs=(GoferMountConf(lower=1, upper=1, size="64m"),),
            files=(*files, tree),
            request_id=self.new_id(),
        )
        return request, spec, (document,)

    def launched(self) -> Launched:
        """A process that nobody has seen before."""
        self._pid = 1_000 + (self._pid + 1) % 4_000_000
        return Launched(
            pid=self._pid,
            start_ticks=self.clock() // 10**7,
            pidfd_inode=self.random.getrandbits(40),
            boot_id="6f2d9a4e-8f8f-4a53-9d0c-2b7f0a1c9e11",
            engine=ENGINE.name,
            engine_version=ENGINE.version,
            started_at_ns=self.clock(),
        )


class SandboxScript:
    """The calls and reports of one sandbox."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._random = story.random
        self.id = f"pod-{story.random.getrandbits(40):010x}"
        self._actor = story.client()
        self._numbers = 0
        self.launches: dict[str, str] = {}
        """What was started and not yet destroyed: launch ids by cid."""

    def ask(self, command: c.ClientCommand, documents: tuple[Document, ...] = ()) -> Step:
        """A client's call."""
        return Step(self.id, command, self._actor, documents)

    def tell(self, report: c.Report) -> Step:
        """A report of the worker."""
        return Step(self.id, report)

    def create(self) -> Iterator[Step]:
        """The sandbox and its root container, running."""
        request, spec, documents = self._story.start(self.id)
        launch_id = self.launches[self.id] = self._story.new_id()
        command = c.CreateSandbox(
            sandbox_id=self.id,
            request=request,
            spec=spec,
            engine=ENGINE,
            launch_id=launch_id,
            engine_id=launch_id.replace("-", ""),
            hold_id=f"fds-{launch_id}",
        )
        yield self.ask(command, documents)
        yield self.ask(c.StartRoot(request_id=self._story.new_id()))
        yield self._started(launch_id)

    def run(self) -> Iterator[Step]:
        """One more container: created, started, running; tells nothing if it fails to start."""
        self._numbers += 1
        cid = f"{self.id}.{self._numbers}"
        yield from self._maybe_rejected(cid)
        yield self.ask(c.CreateSubcontainer(cid=cid, request_id=self._story.new_id()))
        request, spec, documents = self._story.start(cid)
        launch_id = self.launches[cid] = self._story.new_id()
        command = c.StartSubcontainer(
            request=request,
            spec=spec,
            engine=ENGINE,
            launch_id=launch_id,
            engine_id=launch_id.replace("-", ""),
        )
        yield self.ask(command, documents)
        yield self._started(launch_id)

    def _started(self, launch_id: str) -> Step:
        phases = {"mounts": 900, "create": 6_800, "start": 1_900}
        launched = self._story.launched()
        return self.tell(c.ReportStarted(launch_id=launch_id, launched=launched, phases_us=phases))

    def signal(self, cid: str, signo: int) -> Iterator[Step]:
        """A signal that is delivered."""
        kill_id = self._story.new_id()
        yield self.ask(
            c.Signal(
                cid=cid,
                signo=signo,
                pid=0,
                mode=0,
                kill_id=kill_id,
                request_id=self._story.new_id(),
            )
        )
        yield self.tell(c.ReportKilled(kill_id=kill_id))

    def exit(self, cid: str) -> Iterator[Step]:
        """The end of a container: its own, or by a signal."""
        code = self._random.choice((0, 0, 0, 1, 2, 137))
        exit_status: Exited | Signaled = Exited(code=code)
        if self._random.random() < 0.3:
            yield from self.signal(cid, SIGTERM)
            exit_status = Signaled(signal=SIGTERM)
        yield self._exited(cid, exit_status)

    def _exited(self, cid: str, exit_status: Exited | Signaled) -> Step:
        return self.tell(
            c.ReportExited(
                launch_id=self.launches[cid],
                exit=exit_status,
                source="waitid",
                exited_at_ns=self._story.clock(),
            )
        )

    def destroy(self, cid: str) -> Iterator[Step]:
        """Remove an ended container."""
        yield self.ask(c.DestroySubcontainer(cid=cid, request_id=self._story.new_id()))
        yield self.tell(c.ReportDestroyed(launch_id=self.launches.pop(cid)))

    def delete(self) -> Iterator[Step]:
        """Remove the sandbox with all that still runs in it."""
        yield self.ask(
            c.DeleteSandbox(sandbox_id=self.id, force=True, request_id=self._story.new_id())
        )
        for cid in sorted(self.launches):
            yield self._exited(cid, Signaled(signal=SIGKILL))
            yield self.tell(c.ReportDestroyed(launch_id=self.launches[cid]))
        self.launches.clear()

    def refused_signal(self) -> Step:
        """A call that leaves one event: nobody has that cid."""
        kill_id = self._story.new_id()
        return self.ask(c.Signal(cid="nobody", signo=SIGHUP, pid=0, mode=0, kill_id=kill_id))

    def _maybe_rejected(self, cid: str) -> Iterator[Step]:
        if self._random.random() >= REJECTED_SHARE:
            return
        request, spec, documents = self._story.start(cid)
        wrong: tuple[dict[str, Any], ...] = (
            {"conf": None},
            {"files": request.files[:2]},
            {"gofer_mount_confs": (GoferMountConf(lower=2, upper=0),)},
            {},
        )
        members = {name: getattr(request, name) for name in request.__struct_fields__}
        command = c.StartSubcontainer(
            request=StartRequest(**{**members, **self._random.choice(wrong)}),
            spec=spec,
            engine=ENGINE,
            launch_id=self._story.new_id(),
            engine_id="unused",
        )
        yield self.ask(command, documents)


def services(story: Story, running: dict[int, SandboxScript], slot: int) -> Iterator[Step]:
    """Long-lived sandboxes, one after the other; ends with one in ``running``, at full number."""
    while True:
        script = SandboxScript(story)
        yield from script.create()
        for _ in range(SUBCONTAINERS):
            yield from script.run()
        running[slot] = script
        lives = story.random.randrange(LIVES_OF_A_SANDBOX_MAX)
        while not story.resting and (story.closing or lives > 0):
            lives -= 1
            cid = story.random.choice([cid for cid in script.launches if cid != script.id])
            if story.random.random() < 0.3:
                yield from script.signal(cid, SIGHUP)
                continue
            yield from script.exit(cid)
            yield from script.destroy(cid)
            yield from script.run()
        if story.resting or story.closing:
            return
        del running[slot]
        yield from script.delete()


def jobs(story: Story) -> Iterator[Step]:
    """Short jobs, one after the other: a root container and up to three more."""
    while not story.closing:
        yield from job(story)


def job(story: Story) -> Iterator[Step]:
    """One short job, from its sandbox's creation to its end."""
    script = SandboxScript(story)
    yield from script.create()
    for _ in range(story.random.randrange(4)):
        yield from script.run()
    for cid in [cid for cid in script.launches if cid != script.id]:
        yield from script.exit(cid)
        yield from script.destroy(cid)
    yield from script.exit(script.id)
    yield from script.delete()
