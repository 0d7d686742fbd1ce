"""Logs of chosen histories: commands that are decided by the rules and recorded as a service would.

The story has three sandboxes that are restored from an image, each of one subcontainer whose spec
is another than the image's: one under the policy "warning", one under "enforce", one ignoring it.
"""

from pathlib import Path
from typing import Any, Self

import msgspec

from eventstore import ANY, Actor, Document, NewEvent, SealPolicy, load_signer, open_log
from manager.domain import commands as c
from manager.domain.checkpoint import ENFORCE, IGNORE, WARNING, ImageEntry, ImageFacts
from manager.domain.decide import decide
from manager.domain.exit_status import Signaled
from manager.domain.request import EngineFacts, FdFact, StartRequest
from manager.domain.spec import parse_spec_object
from manager.domain.state import Launched
from manager.schema.events import encode_event
from manager.schema.image import ImageContainer, ImageMetadata, encode_metadata
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.schema.node_events import ManagerStarted, NodeEvent, WorkerStarted, encode_node_event
from manager.schema.node_fold import STREAM_PREFIX, UNKNOWN, FoldedSandbox, Origin
from manager.schema.worker import EngineReport, PidIdentity
from tests.unit.domain import builders as b

RUNSC = EngineFacts(name="runsc", version="1")
BWRAP = EngineFacts(name="bwrap", version="0.11", lacks=("checkpoint", "pause", "overlay"))
FIRST_NS = 1_767_225_600 * 10**9
STEP_NS = 1_000_000
SECRET = "hunter2"
POLICIES = {"lenient": WARNING, "strict": ENFORCE, "blind": IGNORE}


class Historian:
    """Decides, records and folds, one command after the other, a millisecond apart."""

    def __init__(self, root: Path) -> None:
        self.now_ns = FIRST_NS
        self._root = root
        self._folded: dict[str, FoldedSandbox] = {}
        self._requests = 0

    async def __aenter__(self) -> Self:
        self._root.mkdir(exist_ok=True)
        (self._root / SEAL_KEY_FILE).parent.mkdir(exist_ok=True)
        signer = load_signer(self._root / SEAL_KEY_FILE)
        self._opened = open_log(
            self._root / LOG_FILE, seal=SealPolicy(signer=signer), clock=lambda: self.now_ns
        )
        self.log = await self._opened.__aenter__()
        return self

    async def __aexit__(self, *how: object) -> None:
        await self._opened.__aexit__(*how)

    async def note(self, event: NodeEvent) -> None:
        tag, data = encode_node_event(event)
        await self.log.append("node", [NewEvent(type=tag, data=data)], expected=ANY)

    async def take(
        self, sandbox_id: str, *commands: c.Command, documents: tuple[Document, ...] = ()
    ) -> None:
        for command in commands:
            self.now_ns += STEP_NS
            folded = self._folded.get(sandbox_id, UNKNOWN)
            events = decide(folded.state, command)
            origin = self._origin(folded, command)
            new = [
                NewEvent(
                    type=tag,
                    data=data,
                    correlation_id=origin.correlation_id,
                    causation=origin.causation,
                    actor=origin.actor,
                    documents=documents,
                )
                for tag, data in map(encode_event, events)
            ]
            if not new:
                continue
            stored = await self.log.append(STREAM_PREFIX + sandbox_id, new, expected=ANY)
            for event, record in zip(events, stored, strict=True):
                folded = folded.after(event, record)
            self._folded[sandbox_id] = folded

    def _origin(self, folded: FoldedSandbox, command: c.Command) -> Origin:
        key = getattr(command, "launch_id", "") or getattr(command, "kill_id", "")
        self._requests += 1
        fresh = Origin(
            correlation_id=f"request-{self._requests}", actor=Actor(uid=0, gid=0, pid=4411)
        )
        return folded.origins.get(key, fresh)


def engine_report(facts: EngineFacts) -> EngineReport:
    return EngineReport(name=facts.name, works=True, version=facts.version, lacks=facts.lacks)


def document(body: Any) -> Document:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Document(media_type="application/json", body=raw)


def image_of(specs: dict[str, dict[str, object]]) -> tuple[ImageFacts, Document]:
    metadata = ImageMetadata(
        sandtrail="0.1.0",
        engine=RUNSC.name,
        engine_version=RUNSC.version,
        container_count=len(specs),
        containers=tuple(
            ImageContainer(
                name=name,
                cid=f"old-{name}",
                engine_id=f"e-{name}",
                spec=msgspec.Raw(msgspec.json.encode(spec)),
                root=not number,
            )
            for number, (name, spec) in enumerate(specs.items())
        ),
    )
    found = document(encode_metadata(metadata))
    entries = tuple(
        ImageEntry(name=each.name, cid=each.cid, engine_id=each.engine_id, root=each.root)
        for each in metadata.containers or ()
    )
    facts = ImageFacts(
        digest=found.digest,
        engine=RUNSC.name,
        engine_version=RUNSC.version,
        container_count=len(specs),
        containers=entries,
    )
    return facts, found


def request_of(cid: str, body: Document, policy: int, **members: Any) -> StartRequest:
    return b.a_request(
        cid,
        spec_digest=body.digest,
        spec_bytes=len(body.body),
        conf={"RestoreSpecValidation": policy},
        **members,
    )


def running(pid: int) -> Launched:
    return Launched(
        pid=pid,
        start_ticks=1,
        pidfd_inode=2,
        boot_id="b",
        engine=RUNSC.name,
        engine_version=RUNSC.version,
        started_at_ns=FIRST_NS,
    )


async def restored(to: Historian, name: str, policy: int) -> None:
    """One sandbox: created, its image taken in, its subcontainer registered and launched."""
    root = b.spec_object("root")
    before = b.spec_object("web")
    now = b.spec_object("web", process=b.a_process(args=["/bin/true", "--port=8080"]))
    facts, metadata = image_of({"root": root, "web": before})
    root_body, body = document(root), document(now)
    await to.take(
        name,
        c.CreateSandbox(
            sandbox_id=name,
            request=request_of(name, root_body, policy),
            spec=parse_spec_object(root),
            engine=RUNSC,
            launch_id=f"L-{name}",
            engine_id=f"e-{name}",
            hold_id=f"H-{name}",
        ),
        documents=(root_body,),
    )
    await to.take(
        name,
        c.Restore(
            restore_id=f"R-{name}",
            engine=RUNSC,
            files=(FdFact(kind="regular", access="r", device=1, inode=9),),
            image=facts,
            hold_id=f"I-{name}",
            spec_object=root,
            image_specs={"root": root, "web": before},
            at_ns=to.now_ns,
        ),
        documents=(metadata,),
    )
    await to.take(name, c.CreateSubcontainer(cid="web"))
    await to.take(
        name,
        c.RestoreSubcontainer(
            request=request_of("web", body, policy),
            spec=parse_spec_object(now),
            engine=RUNSC,
            launch_id=f"L-{name}-web",
            hold_id=f"H-{name}-web",
            spec_object=now,
            image_specs={"root": root, "web": before},
        ),
        documents=(body,),
    )
    await to.take(
        name,
        c.ReportStarted(launch_id=f"L-{name}", launched=running(10)),
        c.ReportStarted(launch_id=f"L-{name}-web", launched=running(11)),
    )


async def write_story(root: Path) -> None:
    """The three sandboxes, then one that was killed, and one whose start was refused."""
    async with Historian(root) as to:
        await to.note(ManagerStarted(version="0.1.0", pid=1, boot_id="b", kernel="6.1"))
        identity = PidIdentity(pid=2, start_ticks=3, pidfd_inode=4, boot_id="b")
        engines = (engine_report(RUNSC), engine_report(BWRAP))
        await to.note(WorkerStarted(identity=identity, engines=engines, capabilities={}))
        for name, policy in POLICIES.items():
            await restored(to, name, policy)
        await to.take(
            "lenient",
            c.Signal(cid="web", signo=9, pid=0, mode=0, kill_id="K-1"),
            c.ReportKilled(kill_id="K-1"),
            c.ReportExited(
                launch_id="L-lenient-web",
                exit=Signaled(signal=9),
                source="waitid",
                exited_at_ns=to.now_ns,
            ),
            c.CreateSubcontainer(cid="late"),
        )
        paths = b.spec_object(
            "late", linux={"namespaces": [{"type": "network", "path": "/proc/1/ns/net"}]}
        )
        body = document(paths)
        await to.take(
            "lenient",
            c.StartSubcontainer(
                request=request_of("late", body, WARNING),
                spec=parse_spec_object(paths),
                engine=RUNSC,
                launch_id="L-late",
                engine_id="e-late",
            ),
            documents=(body,),
        )
