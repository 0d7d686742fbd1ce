"""The core under any events and any commands."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.decide import decide
from manager.domain.evolve import evolve, fold
from manager.domain.exit_status import Exited, Signaled, from_wait_status, to_wait_status
from manager.domain.payload import LaunchPlan
from manager.domain.payload_rules import check_counts, plan_payload
from manager.domain.query import runtime_state, start_answer, wait_answer
from manager.domain.react import holds, react, resume
from manager.domain.repeat import recorded
from manager.domain.request import GoferMountConf
from manager.domain.state import ABSENT, Sandbox
from manager.schema.codec import EventCodec
from manager.schema.events import EVENT_TYPES, decode_event, encode_event
from manager.schema.node_events import (
    NODE_EVENT_TYPES,
    decode_node_event,
    encode_node_event,
)
from tests.property.domain_invariants import check_invariants
from tests.property.domain_strategies import any_of, struct
from tests.unit.domain import builders as b

ANY_EVENT = any_of(e.Event)
SETTINGS = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

CIDS = st.sampled_from([*["c1"] * 6, *["c2"] * 3, "s1", "s1", "c3", "", "../x"])
LAUNCHES = st.integers(0, 5).map("pick-{}".format)
EXECS = st.integers(0, 3).map("pick-{}".format)
KILLS = st.integers(0, 2).map("pick-{}".format)
REQUEST_IDS = st.sampled_from(["", "", "r-1", "r-2", "r-3", "r-4"])
FILES = st.sampled_from([(), b.STDIO, (*b.STDIO, b.DIRECTORY), (*b.STDIO, b.FILE)])
SPECS = st.sampled_from(
    [
        None,
        b.a_spec(),
        b.a_spec(process=None),
        b.a_spec(process=b.a_process(terminal=True)),
        b.a_spec(linux={"namespaces": [{"type": "pid", "path": "/p"}]}),
        b.a_spec(annotations={"io.kubernetes.cri.container-name": "web"}),
    ]
)


@st.composite
def commands(draw: st.DrawFn) -> c.Command:
    """A command about one of few containers; mostly good ones, so that histories grow."""
    cid, launch_id = draw(CIDS), draw(LAUNCHES)
    request_id = draw(REQUEST_IDS)
    request = b.a_request(cid, files=draw(FILES), request_id=request_id)
    if draw(st.booleans()):
        request = b.a_request(cid, request_id=request_id)
    spec = b.a_spec() if draw(st.booleans()) else draw(SPECS)
    kind = draw(st.sampled_from([*get_args(c.ClientCommand), *get_args(c.Report)]))
    made: dict[type, Any] = {
        c.CreateSandbox: lambda: b.create(
            msgspec.structs.replace(request, cid="s1"), spec, launch_id=launch_id
        ),
        c.StartRoot: lambda: c.StartRoot(request_id=request_id),
        c.CreateSubcontainer: lambda: b.new(
            cid, request_id=request_id, files=draw(st.sampled_from([(), (b.TTY,), (b.FILE,)]))
        ),
        c.StartSubcontainer: lambda: b.start(cid, spec, request, launch_id=launch_id),
        c.RestoreSubcontainer: lambda: b.restore_sub(
            cid, draw(st.sampled_from(["one", "two", "other", ""])), request_id=request_id
        ),
        c.Restore: lambda: b.restore(
            *draw(st.sampled_from([(), ("root",), ("root", "one"), ("root", "one", "two")])),
            request_id=request_id,
        ),
        c.Checkpoint: lambda: b.checkpoint(
            resume=draw(st.booleans()), checkpoint_id=draw(KILLS), request_id=request_id
        ),
        c.ReportSaved: lambda: b.reports_saved(resumed=draw(st.booleans())),
        c.ReportSaveFailed: lambda: c.ReportSaveFailed(
            checkpoint_id=draw(KILLS), stage="save", reason="why"
        ),
        c.ReportImageLost: lambda: c.ReportImageLost(restore_id="R-1", reason="why"),
        c.DestroySubcontainer: lambda: c.DestroySubcontainer(cid=cid, request_id=request_id),
        c.Signal: lambda: b.kill(
            cid,
            draw(st.sampled_from([0, 9, 15, 99])),
            mode=draw(st.sampled_from([0, 0, 1, 1, 2, 4])),
            kill_id=draw(KILLS),
            request_id=request_id,
        ),
        c.Pause: lambda: c.Pause(
            paused=draw(st.booleans()), pause_id=draw(KILLS), engine=b.ENGINE, request_id=request_id
        ),
        c.DeleteSandbox: lambda: c.DeleteSandbox(force=draw(st.booleans()), request_id=request_id),
        c.Execute: lambda: b.execute(cid, draw(EXECS), request_id=request_id),
        c.ReportExecuted: lambda: b.reports_executed(draw(EXECS)),
        c.ReportExecFailed: lambda: b.reports_exec_failed(draw(EXECS)),
        c.ReportProcessExited: lambda: b.reports_process_exited(draw(EXECS)),
        c.ReportProcessLost: lambda: b.reports_process_lost(draw(EXECS)),
        c.ReportStarted: lambda: c.ReportStarted(launch_id=launch_id, launched=b.launched()),
        c.ReportStartFailed: lambda: c.ReportStartFailed(
            launch_id=launch_id, stage="create", reason="why"
        ),
        c.ReportExited: lambda: c.ReportExited(
            launch_id=launch_id, exit=Exited(code=0), source="waitid", exited_at_ns=1
        ),
        c.ReportKilled: lambda: c.ReportKilled(
            kill_id=draw(KILLS), errno=draw(st.sampled_from([None, 3]))
        ),
        c.ReportFrozen: lambda: c.ReportFrozen(
            pause_id=draw(KILLS), error=draw(st.sampled_from(["", "why"]))
        ),
        c.ReportDestroyed: lambda: c.ReportDestroyed(launch_id=launch_id),
        c.ReportLost: lambda: c.ReportLost(
            launch_id=launch_id, reason="why", ran=draw(st.booleans())
        ),
        c.ReportHoldLost: lambda: c.ReportHoldLost(cid=cid, reason="why"),
    }
    found: c.Command = made[kind]()
    return found


def adapted(  # noqa: C901, PLR0912 - one arm a command
    command: c.Command, state: Sandbox, number: int
) -> c.Command:
    """The command with ids as they come: new ones for what begins, known ones for reports."""
    match command:
        case c.CreateSandbox() | c.StartSubcontainer():
            return msgspec.structs.replace(command, launch_id=f"L-{number}")
        case c.Signal():
            return msgspec.structs.replace(command, kill_id=f"K-{number}")
        case c.Pause():
            return msgspec.structs.replace(command, pause_id=f"P-{number}")
        case c.ReportFrozen(pause_id=pick):
            known = [] if state.pausing is None else [state.pausing.pause_id]
            return msgspec.structs.replace(command, pause_id=_picked(pick, known))
        case c.Checkpoint():
            return msgspec.structs.replace(command, checkpoint_id=f"C-{number}")
        case c.Restore():
            return msgspec.structs.replace(command, restore_id="R-1")
        case c.RestoreSubcontainer():
            return msgspec.structs.replace(command, launch_id=f"L-{number}")
        case c.ReportSaved() | c.ReportSaveFailed():
            saving = [] if state.checkpointing is None else [state.checkpointing.checkpoint_id]
            return msgspec.structs.replace(command, checkpoint_id=_picked("pick-0", saving))
        case c.Execute():
            return msgspec.structs.replace(command, exec_id=f"E-{number}")
        case (
            c.ReportExecuted(exec_id=pick)
            | c.ReportExecFailed(exec_id=pick)
            | c.ReportProcessExited(exec_id=pick)
            | c.ReportProcessLost(exec_id=pick)
        ):
            executions = [each for f in state.containers.values() for each in f.executions]
            return msgspec.structs.replace(command, exec_id=_picked(pick, executions))
        case c.ReportKilled(kill_id=pick):
            return msgspec.structs.replace(command, kill_id=_picked(pick, [*state.signals]))
        case (
            c.ReportStarted(launch_id=pick)
            | c.ReportStartFailed(launch_id=pick)
            | c.ReportExited(launch_id=pick)
            | c.ReportDestroyed(launch_id=pick)
            | c.ReportLost(launch_id=pick)
        ):
            containers = state.containers.values()
            known = [found.intent.launch_id for found in containers if found.intent is not None]
            return msgspec.structs.replace(command, launch_id=_picked(pick, [*known, "L-none"]))
        case _:
            return command


def _picked(pick: str, known: list[str]) -> str:
    return known[int(pick.removeprefix("pick-")) % len(known)] if known else pick


def play(*commands_: c.Command, state: Sandbox = ABSENT) -> Sandbox:
    """The state after these commands, their ids adapted."""
    for number, command in enumerate(commands_):
        state = fold(decide(state, adapted(command, state, number)), state)
    return state


GROWN = st.sampled_from(
    [
        (),
        b.CREATED,
        b.STARTED,
        b.WAITING,
        b.STARTING,
        b.RUNNING,
        b.STOPPED,
        b.RESTORING,
        b.PARKED,
        b.TRIGGERED,
        b.RESTORED,
        b.SAVING,
    ]
)
HISTORIES = st.lists(commands(), min_size=5, max_size=25)


@SETTINGS
@given(st.lists(ANY_EVENT, max_size=8))
def test_fold_takes_any_events_in_any_order(events: list[e.Event]) -> None:
    state = fold(events)
    assert msgspec.json.decode(msgspec.json.encode(state), type=Sandbox) == state
    for event in events:
        react(state, event)
    resume(state, launches=frozenset({"L-1"}), held=frozenset({"H-1"}), boot_id="b")
    for cid in ("s1", "c1", "c2"):
        wait_answer(state, cid)
        runtime_state(state, cid)
        start_answer(state, cid, "L-1")


@SETTINGS
@given(st.lists(ANY_EVENT, max_size=8), st.integers(0, 8))
def test_fold_of_a_prefix_and_then_the_rest_is_fold_of_all(events: list[e.Event], at: int) -> None:
    assert fold(events[at:], fold(events[:at])) == fold(events)


@SETTINGS
@given(st.lists(ANY_EVENT, max_size=6), commands())
def test_decide_answers_in_any_state(events: list[e.Event], command: c.Command) -> None:
    state = fold(events)
    answer = decide(state, command)
    assert isinstance(answer, tuple)
    fold(answer, state)


@settings(SETTINGS, max_examples=400)
@given(GROWN, HISTORIES)
def test_histories_of_commands(grown: tuple[c.Command, ...], history: list[c.Command]) -> None:
    state, log = ABSENT, list[e.Event]()
    for number, drawn in enumerate((*grown, *history)):
        command = drawn if number < len(grown) else adapted(drawn, state, number)
        events = decide(state, command)
        assert decide(state, command) == events
        after = fold(events, state)
        check_invariants(after)
        if isinstance(command, get_args(c.ClientCommand)):
            _check_answer(state, command, events, after)
        else:
            assert decide(after, command) == ()
        log += [decode_event(*encode_event(event)) for event in events]
        state = after
    assert fold(log) == state


def _check_answer(
    state: Sandbox, command: c.Command, events: tuple[e.Event, ...], after: Sandbox
) -> None:
    """A refusal is one event that changes nothing else; an id makes the call act once."""
    errors = [getattr(event, "error", "") for event in events]
    if after.phase == "restoreFailed" != state.phase:
        assert isinstance(events[-1], r.SandboxRestoreFailed)
    elif any(errors):
        translated = events[1:] if isinstance(events[0], e.ContainerStartTranslated) else events
        assert len(translated) == 1
        assert msgspec.structs.replace(after, requests=state.requests) == state
    if recorded(after, command) is not None:
        assert decide(after, command) == ()


@settings(SETTINGS, max_examples=300)
@given(GROWN, HISTORIES, st.data())
def test_every_state_can_be_left_after_the_worker_is_gone(
    grown: tuple[c.Command, ...], history: list[c.Command], data: st.DataObject
) -> None:
    """Settle with a worker that knows nothing, then delete: nothing may be left open."""
    state = play(*history, state=b.history(*grown))
    held = frozenset(data.draw(st.sets(st.sampled_from(sorted(holds(state)) or ["none"]))))
    plan = resume(state, launches=frozenset(), held=held, boot_id="b")
    state = b.history(*plan.reports, state=state)
    check_invariants(state)
    assert state.signals == {}
    assert state.checkpointing is None
    assert state.phase not in {"restoringUnstarted", "restoringStarted"} or held == holds(state)
    statuses = {found.status for found in state.containers.values() if found.cid != "s1"}
    assert not statuses & {"starting", "running", "paused"}
    assert not any(found.destroying for found in state.containers.values())
    state = b.history(c.DeleteSandbox(force=True), state=state)
    plan = resume(state, launches=frozenset(), held=frozenset(), boot_id="b")
    state = b.history(*plan.reports, state=state)
    check_invariants(state)
    assert state.phase in {"deleted", "absent"}


@pytest.mark.parametrize("tag", sorted(EVENT_TYPES))
def test_events_survive_the_log(tag: str) -> None:
    _round_trip(tag, EVENT_TYPES[tag], encode_event, decode_event)


@pytest.mark.parametrize("tag", sorted(NODE_EVENT_TYPES))
def test_node_events_survive_the_log(tag: str) -> None:
    _round_trip(tag, NODE_EVENT_TYPES[tag], encode_node_event, decode_node_event)


def _round_trip(tag: str, kind: type, encode: Any, decode: Any) -> None:
    @settings(SETTINGS, max_examples=20)
    @given(struct(kind))
    def round_trip(event: Any) -> None:
        found, data = encode(event)
        assert found == tag
        assert decode(found, data) == event
        assert msgspec.json.encode(event) == b'{"type":"%s"%s%s' % (
            tag.encode(),
            b"," if data != b"{}" else b"",
            data[1:],
        )

    round_trip()


@SETTINGS
@given(st.integers(0, 0xFFFF))
def test_wait_statuses(raw: int) -> None:
    status = from_wait_status(raw)
    if isinstance(status, Exited):
        assert 0 <= status.code <= 255
    else:
        assert isinstance(status, Signaled)
        assert to_wait_status(status) == raw & 0xFF
    assert from_wait_status(to_wait_status(status)) == status


@settings(SETTINGS, max_examples=300)
@given(st.data())
def test_every_descriptor_gets_one_part(data: st.DataObject) -> None:
    """Whatever the flags and layers: a plan that is made names each descriptor exactly once."""
    uppers = st.sampled_from([0, 1, 2, 3])
    lowers = st.sampled_from([0, 1])
    root = GoferMountConf(lower=1, upper=data.draw(uppers))
    confs = [root] + [
        GoferMountConf(lower=data.draw(lowers), upper=data.draw(uppers))
        for _ in range(data.draw(st.integers(0, 4)))
    ]
    terminal, dev = data.draw(st.booleans()), data.draw(st.booleans())
    tar = data.draw(st.booleans()) and root.upper != 0
    stores = sum(conf.upper in {2, 3} for conf in confs)
    gofers = sum(conf.lower != 0 for conf in confs)
    files = (
        *(() if terminal else b.STDIO),
        *(b.DIRECTORY,) * (stores + dev),
        *(b.FILE,) * tar,
        *(b.DIRECTORY,) * gofers,
    )
    request = b.a_request(
        files=files,
        num_gofer_filestore_fds=stores,
        is_dev_io_file_present=dev,
        is_rootfs_upper_tar_file_present=tar,
        gofer_mount_confs=tuple(confs),
    )
    spec = b.a_spec(
        process=b.a_process(terminal=terminal),
        mounts=[b.bind(f"/m{number}") for number in range(len(confs) - 1)],
    )
    assert check_counts(request, spec) == ""
    plan = plan_payload(request, spec)
    if any((conf.lower, conf.upper) == (0, 0) for conf in confs):
        assert isinstance(plan, str)
        return
    assert isinstance(plan, LaunchPlan)
    layers = [plan.root, *(mount.layer for mount in plan.mounts)]
    used = [*(plan.stdio or ()), plan.dev_fd, plan.upper_tar_fd]
    used += [index for layer in layers for index in (layer.lower_fd, layer.filestore_fd)]
    assert sorted(index for index in used if index is not None) == list(range(len(files)))


def test_the_strategies_reach_every_event() -> None:
    codec: EventCodec[Any] = EventCodec(e.Event)
    assert set(codec.types.values()) == set(get_args(e.Event))
    assert evolve(ABSENT, e.SandboxDeleted()).phase == "deleted"
