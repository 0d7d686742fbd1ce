"""Every event ever published: the page that lists them, and a log that must decode for ever."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import Struct

from manager.domain import events as e
from manager.domain import exit_status, payload, request, state
from manager.domain import restore_events as r
from manager.domain.checkpoint import ImageEntry, ImageFacts, Mismatch
from manager.domain.execution import CapabilityMasks, ExecRequest
from manager.domain.exit_status import Exited, Signaled, Unknown
from manager.domain.mark import MarkAdded, MarkRejected
from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.domain.request import EngineFacts, GoferMountConf, StartRequest
from manager.domain.state import Failure, LaunchIntent
from manager.schema import worker
from manager.schema.codec import tag_of
from manager.schema.events import EVENT_TYPES, decode_event, encode_event
from manager.schema.node_events import (
    NODE_EVENT_TYPES,
    ManagerStarted,
    ManagerStopped,
    RecoveryCompleted,
    WorkerLost,
    WorkerStarted,
    decode_node_event,
    encode_node_event,
)
from tests.unit.domain import builders as b

HERE = Path(__file__).parent
V1 = HERE / "events_v1.jsonl"
V1_LINES = V1.read_bytes().splitlines() if V1.exists() else []


class Line(Struct, frozen=True):
    """One line of a golden log: the columns that matter here."""

    stream: str
    type: str
    data: msgspec.Raw


# --- the golden log ------------------------------------------------------------------------------

REQUEST = StartRequest(
    cid="web",
    spec_digest="sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    spec_bytes=512,
    conf={"EnableRaw": False, "FileAccess": 0, "OverrideProcs": "", "DCache": -1},
    num_gofer_filestore_fds=1,
    is_dev_io_file_present=True,
    is_rootfs_upper_tar_file_present=True,
    gofer_mount_confs=(
        GoferMountConf(lower=1, upper=2),
        GoferMountConf(lower=1, upper=1, size="10M"),
    ),
    files=(*b.STDIO, b.DIRECTORY, b.DIRECTORY, b.FILE, b.DIRECTORY, b.DIRECTORY),
    request_id="request-1",
)
INTENT = LaunchIntent(
    launch_id="0198a6b2-1111-7000-8000-000000000001",
    engine_id="0123456789abcdef0123456789abcdef",
    engine="crun",
    engine_version="1.8.1",
    request=REQUEST,
    plan=LaunchPlan(
        stdio=(0, 1, 2),
        root=LayerPlan(lower="lisafs", lower_fd=6, upper="self", filestore_fd=3, readonly=True),
        mounts=(
            MountPlan(
                destination="/data",
                layer=LayerPlan(lower="lisafs", lower_fd=7, upper="memory", size="10M"),
                options=("rbind", "rw"),
            ),
        ),
        dev_fd=4,
        upper_tar_fd=5,
    ),
    name="web",
    joins_pid_namespace="s1",
    pid_namespace_path="/proc/99/ns/pid",
    executable="nginx",
    search_path=("/usr/sbin", "/bin"),
)
ENGINE = EngineFacts(name="crun", version="1.8.1", lacks=("erofs",))
FAILURE = Failure(
    error='error finding executable "nginx" in PATH [/usr/sbin /bin]: no such file or directory',
    stage="exec",
    reason="the program is not in the root filesystem",
    errno=2,
)
LAUNCH, KILL = INTENT.launch_id, "0198a6b2-1111-7000-8000-00000000000f"
EXEC = "0198a6b2-1111-7000-8000-000000000010"
EXEC_REQUEST = ExecRequest(
    cid="web",
    filename="/bin/sh",
    argv=("sh", "-c", "id"),
    env=("PATH=hmac-sha256:00112233445566778899aabbccddeeff",),
    cwd="/tmp",
    uid=1,
    gid=2,
    extra_gids=(3, 4),
    no_new_privileges=True,
    capabilities=CapabilityMasks(bounding=1, effective=2, inheritable=4, permitted=8, ambient=16),
    guest_fds=(0, 1, 2),
    files=b.STDIO,
    search_path=("/bin",),
    request_id="r",
)
CHECKPOINT = "0198a6b2-1111-7000-8000-000000000011"
IMAGE = b.image("web", "job")
MISMATCH = Mismatch(container="web", field="Terminal", error='"Terminal" does not match')
ERROR = 'container "web" is <already> started'

SANDBOX_EVENTS: tuple[e.Event, ...] = (
    e.SandboxCreateRejected(
        sandbox="s1", request=REQUEST, engine=ENGINE, error=ERROR, tty=b.TTY, requested_cid="x"
    ),
    e.SandboxCreated(sandbox="s1", intent=INTENT, hold_id="fds-1", tty=b.TTY, tty_hold_id="tty-1"),
    e.SandboxStartRejected(error=ERROR, request_id="r"),
    e.SandboxStartRequested(launch_id=LAUNCH, request_id="r"),
    e.SandboxStarted(launch_id=LAUNCH, launched=b.launched(), phases_us={"mounts": 1, "create": 2}),
    e.SandboxStartFailed(launch_id=LAUNCH, failure=FAILURE),
    e.ContainerCreated(container="web", tty=b.TTY, hold_id="tty-2", request_id="r"),
    e.ContainerCreateRejected(container="../x", error=ERROR, files=(b.TTY,), request_id="r"),
    e.ContainerStartAccepted(container="web", intent=INTENT),
    e.ContainerStartRejected(container="web", request=REQUEST, engine=ENGINE, error=ERROR),
    e.ContainerStartTranslated(container="web", request_id="r"),
    e.ContainerStarted(
        container="web", launch_id=LAUNCH, launched=b.launched(), phases_us={"mounts": 1}
    ),
    e.ContainerStartFailed(container="web", launch_id=LAUNCH, failure=FAILURE),
    e.ContainerExited(
        container="web",
        launch_id=LAUNCH,
        exit=Exited(code=3),
        source="waitid",
        exited_at_ns=1_790_000_000_000_000_001,
        started_at_ns=1_790_000_000_000_000_000,
    ),
    e.ContainerExited(
        container="web",
        launch_id=LAUNCH,
        exit=Signaled(signal=9, core=True),
        source="pidfd-info",
        exited_at_ns=2,
        oom=True,
    ),
    e.ContainerExited(
        container="web",
        launch_id=LAUNCH,
        exit=Exited(code=0),
        source="engine",
        exited_at_ns=4,
        checkpoint_id=CHECKPOINT,
    ),
    e.ContainerExited(
        container="web",
        launch_id=LAUNCH,
        exit=Unknown(reason="the kernel could not tell any more"),
        source="unknown",
        exited_at_ns=3,
    ),
    e.ContainerSignalRequested(
        container="web", kill_id=KILL, signo=15, pid=0, mode=1, request_id="r"
    ),
    e.ContainerSignalSent(container="web", kill_id=KILL, signo=15, request_id="r"),
    e.SandboxPauseRequested(pause_id=KILL, paused=True, request_id="r"),
    e.SandboxPauseRejected(paused=False, error='sandbox "web" is not paused', request_id="r"),
    e.ContainerPaused(container="web"),
    e.SandboxPaused(pause_id=KILL, request_id="r"),
    e.ContainerResumed(container="web"),
    e.SandboxResumed(pause_id=KILL, request_id="r"),
    e.ContainerSignalRejected(
        container="web", signo=15, pid=0, mode=1, error=ERROR, kill_id=KILL, request_id="r"
    ),
    e.ContainerDestroyRequested(container="web", launch_id=LAUNCH, request_id="r"),
    e.ContainerDestroyRejected(container="web", error=ERROR, request_id="r"),
    e.ContainerDestroyed(container="web", launch_id=LAUNCH, leftovers=("cgroup",), request_id="r"),
    e.ContainerLost(container="web", launch_id=LAUNCH, reason="the machine was rebooted"),
    e.ContainerHoldLost(container="web", reason="the machine was rebooted"),
    e.ProcessExecAccepted(container="web", exec_id=EXEC, launch_id=LAUNCH, request=EXEC_REQUEST),
    e.ProcessExecRejected(container="web", request=EXEC_REQUEST, error=ERROR),
    e.ProcessExecuted(container="web", exec_id=EXEC, pid=7, launched=b.launched()),
    e.ProcessExecFailed(container="web", exec_id=EXEC, failure=FAILURE),
    e.ProcessExited(
        container="web",
        exec_id=EXEC,
        pid=7,
        exit=Exited(code=3),
        source="waitid",
        exited_at_ns=1_790_000_000_000_000_002,
    ),
    e.ProcessLost(container="web", exec_id=EXEC, pid=7, reason="the machine was rebooted"),
    r.SandboxCheckpointRequested(
        checkpoint_id=CHECKPOINT, resume=True, image=IMAGE, file=b.FILE, request_id="r"
    ),
    r.SandboxCheckpointRejected(error=ERROR, files=(b.FILE,), request_id="r"),
    r.SandboxCheckpointed(
        checkpoint_id=CHECKPOINT,
        image_bytes=4096,
        digest="0" * 64,
        resumed=True,
        revived={LAUNCH: b.launched()},
        request_id="r",
    ),
    r.SandboxCheckpointFailed(
        checkpoint_id=CHECKPOINT, error=ERROR, revived={LAUNCH: b.launched()}, request_id="r"
    ),
    r.RestoreBegun(
        restore_id=CHECKPOINT,
        hold_id="image-1",
        image=IMAGE,
        total=2,
        policy=2,
        files=(b.FILE,),
        root_intent=INTENT,
        mismatches=(MISMATCH,),
        begun_at_ns=5,
        request_id="r",
    ),
    r.ContainerRestoreAccepted(
        container="web",
        intent=INTENT,
        hold_id="fds-1",
        registered=2,
        total=2,
        mismatches=(MISMATCH,),
    ),
    r.RestoreValidated(
        restore_id=CHECKPOINT, policy=2, verdict="differs", mismatches=(MISMATCH,), error=ERROR
    ),
    r.SandboxRestored(restore_id=CHECKPOINT, cpu_saved_ns=1, wall_saved_ns=-2),
    r.SandboxRestoreFailed(
        error=ERROR, method="Restore", files=(b.FILE,), image=IMAGE, request_id="r"
    ),
    e.RestoreRejected(error=ERROR, files=(b.FILE,), request_id="r"),
    e.ContainerRestoreRejected(container="web", request=REQUEST, error=ERROR),
    e.SandboxStopped(reason="its root container exited"),
    e.SandboxDeleteRejected(force=False, error=ERROR, request_id="r"),
    e.SandboxDeleteRequested(force=True, request_id="r"),
    e.SandboxDeleted(),
)
IDENTITY = worker.PidIdentity(pid=7, start_ticks=8, pidfd_inode=9, boot_id="boot")
NODE_EVENTS = (
    ManagerStarted(version="0.1.0", pid=6, boot_id="boot", kernel="6.1.0"),
    WorkerStarted(
        identity=IDENTITY,
        engines=(
            worker.EngineReport(
                name="crun", works=True, path="/usr/bin/crun", version="1.8.1", lacks=("erofs",)
            ),
            worker.EngineReport(name="runsc", works=False, problem="not installed"),
        ),
        capabilities={"exit-status": "waitid"},
    ),
    RecoveryCompleted(adopted=("L-1",), interrupted=("L-2",), lost=("L-3",)),
    WorkerLost(reason="its connection ended"),
    ManagerStopped(reason="asked to stop"),
    MarkAdded(name="deploy", at=3, message="v2 goes out", request_id="r"),
    MarkRejected(
        name="deploy",
        error='mark "deploy" already exists, at #3',
        head=9,
        at=4,
        message="again",
        request_id="s",
    ),
    SANDBOX_EVENTS[0],
)


def _todays_lines() -> list[bytes]:
    lines = [("sandbox-s1", *encode_event(event)) for event in SANDBOX_EVENTS]
    lines += [("node", *encode_node_event(event)) for event in NODE_EVENTS]
    return [
        msgspec.json.encode(Line(stream, tag, msgspec.Raw(data))) for stream, tag, data in lines
    ]


def test_todays_events_are_in_the_golden_log(golden: Callable[[str, str], None]) -> None:
    """Fails when an event or a member is added; what was published before always stays."""
    assert {tag_of(type(event)) for event in SANDBOX_EVENTS} == set(EVENT_TYPES)
    assert {tag_of(type(event)) for event in NODE_EVENTS} == set(NODE_EVENT_TYPES)
    added = [line for line in _todays_lines() if line not in V1_LINES]
    text = b"".join(line + b"\n" for line in (*V1_LINES, *added)).decode()
    golden("tests/golden/events_v1.jsonl", text)


@pytest.mark.parametrize("raw", V1_LINES, ids=range(len(V1_LINES)))
def test_published_events_decode_for_ever(raw: bytes) -> None:
    """What was written comes out again; an event of yesterday may have gained members."""
    line = msgspec.json.decode(raw, type=Line)
    data = bytes(line.data)
    if line.stream == "node":
        tag, again = encode_node_event(decode_node_event(line.type, data))
    else:
        tag, again = encode_event(decode_event(line.type, data))
    if raw in _todays_lines():
        assert (tag, again) == (line.type, data)
    assert _holds(msgspec.json.decode(again), msgspec.json.decode(data))


def _holds(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(name in whole and _holds(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_holds, whole, part))
    return bool(whole == part)


# --- the catalogue -------------------------------------------------------------------------------

VALUES = (
    *(StartRequest, request.FdFact, GoferMountConf, EngineFacts),
    *(LaunchIntent, payload.LaunchPlan, payload.LayerPlan, payload.MountPlan),
    *(state.Launched, state.Failure),
    *(ExecRequest, CapabilityMasks),
    *(ImageFacts, ImageEntry, Mismatch),
    *(exit_status.Exited, exit_status.Signaled, exit_status.Unknown),
    *(worker.PidIdentity, worker.EngineReport),
)
ALIASES: dict[Any, str] = {
    exit_status.ExitStatus: "Exited, Signaled or Unknown",
    request.ConfValue: "true, false, number, text or null",
}


def test_event_catalog(golden: Callable[[str, str], None]) -> None:
    golden("docs/event-catalog.md", "".join(_page()))


def test_every_value_of_an_event_is_described() -> None:
    named = {tag_of(kind) if kind in {Exited, Signaled, Unknown} else kind for kind in VALUES}
    assert len(named) == len(VALUES)
    kinds = {kind for event in _members() for kind in _structs_in(event)}
    assert kinds <= set(VALUES)


def _members() -> tuple[type[Struct], ...]:
    types: dict[str, type[Any]] = {**EVENT_TYPES, **NODE_EVENT_TYPES}
    return tuple(types.values())


def _structs_in(kind: Any) -> set[type[Struct]]:
    found: set[type[Struct]] = set()
    for hint in get_type_hints(kind).values():
        for each in _flat(hint):
            if isinstance(each, type) and issubclass(each, Struct):
                found |= {each} | _structs_in(each)
    return found


def _flat(hint: Any) -> list[Any]:
    return [each for part in get_args(hint) for each in _flat(part)] or [hint]


def _page() -> Iterable[str]:
    yield (
        "# Event catalogue\n\n"
        "Every event that the log may hold, version 1. Generated from the code: `make golden`.\n\n"
        "The tag stands in the column `type`, the members in the JSON object in the column `data`. "
        "A member with a default may be missing in an event that an older version wrote. Unknown "
        "members are ignored; an unknown tag stops a strict reader. A changed meaning is a new "
        "tag.\n"
    )
    yield "\n## Streams `sandbox-<id>`\n"
    yield from _events(EVENT_TYPES)
    yield (
        "\n## Stream `node`\n\n"
        "It also holds `sandbox.create_rejected` for ids that cannot name a stream.\n"
    )
    yield from _events(
        {tag: NODE_EVENT_TYPES[tag] for tag in NODE_EVENT_TYPES.keys() - EVENT_TYPES}
    )
    yield "\n## Values\n"
    for kind in VALUES:
        tag = kind.__struct_config__.tag
        title = f'{kind.__name__}, `"type": "{tag}"`' if isinstance(tag, str) else kind.__name__
        yield from _entry(title, kind)


def _events(types: Mapping[str, type[Any]]) -> Iterable[str]:
    order = [tag_of(kind) for kind in _members()]
    for tag in sorted(types, key=order.index):
        yield from _entry(f"`{tag}`", types[tag])


def _entry(title: str, kind: type[Struct]) -> Iterable[str]:
    yield f"\n### {title}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n"
    members = msgspec.structs.fields(kind)
    if not members:
        return
    yield "\n| member | kind | default |\n|---|---|---|\n"
    for member in members:
        yield f"| `{member.encode_name}` | {_name(member.type)} | {_default(member)} |\n"


def _default(member: Any) -> str:
    if member.required:
        return ""
    value = member.default
    if value is msgspec.NODEFAULT:
        value = member.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


def _name(hint: Any) -> str:
    if hint in ALIASES:
        return ALIASES[hint]
    plain = {str: "text", int: "number", bool: "true or false", type(None): "null"}
    if hint in plain:
        return plain[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_name(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)}: {', '.join(map(_name, arguments))}"
    if origin is dict:
        return f"object: {_name(arguments[0])} to {_name(arguments[1])}"
    if arguments and all(isinstance(each, str) for each in arguments):
        return " or ".join(f"`{each}`" for each in arguments)
    if arguments:
        return " or ".join(map(_name, arguments))
    return str(hint.__name__)
