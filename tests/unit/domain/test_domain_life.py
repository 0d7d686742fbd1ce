"""Given, when, then: everything but the rules of a start."""

from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.decide_report import decide_report
from manager.domain.evolve import fold
from manager.domain.exit_status import Exited, Signaled
from manager.domain.query import start_answer
from manager.domain.state import Failure, Sandbox
from tests.unit.domain.builders import (
    CREATED,
    DELETED,
    DELETING,
    DESTROYED,
    DESTROYING,
    DIRECTORY,
    ENGINE,
    FAILED,
    FILE,
    LOST,
    ROOT_EXITED,
    RUNNING,
    SANDBOX,
    STARTED,
    STARTING,
    STDIO,
    STOPPED,
    TTY,
    WAITING,
    a_process,
    a_request,
    a_spec,
    create,
    fd,
    history,
    kill,
    launched,
    new,
    reports_destroyed,
    reports_exited,
    reports_failed,
    reports_lost,
    reports_started,
    start,
)

ID_RULE = "1 to 128 characters of A-Z a-z 0-9 _ . + -, the first of them a letter, digit or _"
NOT_YET = "not supported by sandtrail yet"
PHASES = (
    "absent created started restoringUnstarted restoringStarted restoreFailed restored stopped "
    "deleted"
).split()


def in_phase(phase: Any, *commands: c.Command) -> Sandbox:
    return replace(history(*(commands or WAITING)), phase=phase)


def refusal(state: Sandbox, command: c.Command) -> str:
    """The text of the one refusal that the command leaves; nothing else may change."""
    (event,) = decide(state, command)
    error = getattr(event, "error", "")
    assert error, event
    assert fold((event,), state) == state
    return str(error)


# --- create a sandbox ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "when", "text"),
    [
        (
            (),
            create(a_request("x", request_id="r" * 129), sandbox_id="x"),
            "RequestID must have at most 128 characters, but has 129",
        ),
        ((), create(sandbox_id="../x"), f'invalid sandbox ID "../x": want {ID_RULE}'),
        ((), create(sandbox_id=""), f'invalid sandbox ID "": want {ID_RULE}'),
        (CREATED, create(), 'sandbox "s1" already exists'),
        (DELETING, create(), 'sandbox "s1" already exists'),
        (ROOT_EXITED, create(), 'sandbox "s1" already exists'),
        (
            (),
            create(requested_cid="other"),
            'the root container\'s ID is the sandbox\'s, "s1", but CID is "other"',
        ),
        ((), create(spec=None), "start arguments missing spec"),
        ((), create(a_request(SANDBOX, conf=None)), "start arguments missing config"),
        ((), create(spec=a_spec(process=None)), "start arguments missing process in spec"),
        (
            (),
            create(a_request(SANDBOX, spec_bytes=8 * 1024 * 1024 + 1)),
            "start arguments spec must have at most 8388608 bytes, but has 8388609",
        ),
        (
            (),
            create(a_request(SANDBOX, files=STDIO)),
            "start arguments must contain at least 4 FDs, but only got 3",
        ),
        ((), create(tty=FILE), "TTY file must be a terminal, but is a regular file"),
        (
            (),
            create(tty=fd("terminal", "r")),
            "TTY file must be open for reading and writing, but its access mode is r",
        ),
        (
            (),
            create(
                a_request(SANDBOX, files=(DIRECTORY,)),
                a_spec(process=a_process(terminal=True)),
            ),
            "terminal enabled but no TTY provided. Did you set --console-socket on create?",
        ),
        ((), create(hold_error="the worker is gone"), "the worker is gone"),
        (
            (),
            create(spec=a_spec(process=a_process(args=[])), hold_error="the worker is gone"),
            "creating new process: process args must name a program",
        ),
    ],
)
def test_create_refused(given: Any, when: c.CreateSandbox, text: str) -> None:
    state = history(*given)
    assert decide(state, when) == (
        e.SandboxCreateRejected(
            sandbox=when.sandbox_id,
            request=when.request,
            engine=ENGINE,
            error=text,
            tty=when.tty,
            requested_cid=when.requested_cid,
        ),
    )
    assert refusal(state, when) == text


def test_create_checks_in_order() -> None:
    """Each command breaks two neighbouring rules."""
    taken = history(*CREATED)
    assert "invalid sandbox ID" in refusal(taken, create(sandbox_id="."))
    assert "already exists" in refusal(taken, create(requested_cid="x"))
    assert "the root container's ID" in refusal(history(), create(requested_cid="x", spec=None))
    few = a_request(SANDBOX, files=())
    assert "at least 4 FDs" in refusal(history(), create(few, tty=FILE))
    bad = a_spec(process=a_process(capabilities={"ambient": ["X"]}))
    assert "TTY file must be" in refusal(history(), create(spec=bad, tty=FILE))


@pytest.mark.parametrize("requested", ["", SANDBOX])
def test_create(requested: str) -> None:
    (event,) = decide(history(), create(requested_cid=requested))
    assert isinstance(event, e.SandboxCreated)
    assert (event.sandbox, event.hold_id, event.tty, event.tty_hold_id) == (
        SANDBOX,
        "H-root",
        None,
        "",
    )
    state = fold((event,))
    assert (state.id, state.phase) == (SANDBOX, "created")
    root = state.containers[SANDBOX]
    assert (root.status, root.fds_hold, root.tty_hold) == ("creating", "H-root", None)


def test_create_with_a_terminal() -> None:
    command = create(
        a_request(SANDBOX, files=(DIRECTORY,)),
        a_spec(process=a_process(terminal=True)),
        tty=TTY,
        tty_hold_id="T-root",
    )
    state = history(command)
    assert state.containers[SANDBOX].tty_hold == "T-root"


def test_the_id_of_a_deleted_sandbox_may_be_used_again() -> None:
    again = create(launch_id="L-again", hold_id="H-again")
    state = history(*DELETED, again)
    assert state.phase == "created"
    assert list(state.containers) == [SANDBOX]
    assert state.containers[SANDBOX].fds_hold == "H-again"


# --- start the root ------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "created"])
def test_start_root_wants_the_created_state(phase: str) -> None:
    assert refusal(in_phase(phase), c.StartRoot()) == (
        f"sandbox is not in created state, cannot start root container: state={phase}"
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            (*CREATED, c.StartRoot()),
            'root container "s1" is already being started',
        ),
        (
            (*CREATED, c.StartRoot(), c.DeleteSandbox(force=True)),
            'sandbox "s1" is being deleted',
        ),
        (
            (*CREATED, c.StartRoot(), c.DestroySubcontainer(cid=SANDBOX)),
            'sandbox "s1" is being deleted',
        ),
        (
            (*CREATED, c.ReportHoldLost(cid=SANDBOX, reason="reboot")),
            'the files donated for root container "s1" are lost: create it anew',
        ),
        (
            (*CREATED, c.DestroySubcontainer(cid=SANDBOX)),
            "sandbox is not in created state, cannot start root container: state=stopped",
        ),
        (
            (*CREATED, c.StartRoot(), reports_failed("root")),
            "sandbox is not in created state, cannot start root container: state=stopped",
        ),
        (
            (),
            "sandbox is not in created state, cannot start root container: state=absent",
        ),
    ],
)
def test_start_root_refused(given: Any, text: str) -> None:
    state = history(*given)
    assert refusal(state, c.StartRoot()) == text
    assert decide(state, c.StartRoot()) == (e.SandboxStartRejected(error=text),)


def test_start_root() -> None:
    state = history(*CREATED)
    events = decide(state, c.StartRoot())
    assert events == (e.SandboxStartRequested(launch_id="L-root"),)
    state = fold(events, state)
    assert (state.phase, state.containers[SANDBOX].status) == ("created", "starting")
    events = decide(state, reports_started("root"))
    assert events == (e.SandboxStarted(launch_id="L-root", launched=launched()),)
    state = fold(events, state)
    root = state.containers[SANDBOX]
    assert (state.phase, root.status, root.fds_hold) == ("started", "running", None)


def test_a_root_that_never_ran_stops_the_sandbox() -> None:
    state = history(*CREATED, c.StartRoot())
    events = decide(state, reports_failed("root"))
    failure = Failure(error="starting sandbox: creating process: why", stage="create", reason="why")
    assert events == (e.SandboxStartFailed(launch_id="L-root", failure=failure),)
    state = fold(events, state)
    assert (state.phase, state.containers[SANDBOX].status) == ("stopped", "failed")


# --- create a subcontainer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "when", "text"),
    [
        (
            WAITING,
            new("c2", request_id="r" * 129, files=(TTY, TTY)),
            "RequestID must have at most 128 characters, but has 129",
        ),
        (
            WAITING,
            new("../x", files=(TTY, TTY)),
            "start arguments must have at most 1 files for TTY",
        ),
        (STARTED, new("", files=(FILE,)), f'invalid container ID "": want {ID_RULE}'),
        (STARTED, new("a" * 129), f'invalid container ID "{"a" * 129}": want {ID_RULE}'),
        (WAITING, new(files=(FILE,)), 'container "c1" already exists'),
        (WAITING, new(SANDBOX), 'container "s1" already exists'),
        (DESTROYING, new(), 'container "c1" already exists'),
        (
            ROOT_EXITED,
            new("c2", files=(FILE,)),
            "TTY file must be a terminal, but is a regular file",
        ),
        (
            STARTED,
            new("c2", files=(fd("terminal", "w"),)),
            "TTY file must be open for reading and writing, but its access mode is w",
        ),
        (
            ROOT_EXITED,
            new("c2", hold_error="no"),
            "sandbox has ended, cannot create subcontainer: state=stopped",
        ),
        (
            DELETED,
            new("c2"),
            "sandbox has ended, cannot create subcontainer: state=deleted",
        ),
        ((), new("c2"), "sandbox has ended, cannot create subcontainer: state=absent"),
        (DELETING, new("c2", hold_error="no"), 'sandbox "s1" is being deleted'),
        (STARTED, new("c2", hold_error="the worker is gone"), "the worker is gone"),
    ],
)
def test_create_subcontainer_refused(given: Any, when: c.CreateSubcontainer, text: str) -> None:
    state = history(*given)
    assert decide(state, when) == (
        e.ContainerCreateRejected(
            container=when.cid, error=text, files=when.files, request_id=when.request_id
        ),
    )
    assert refusal(state, when) == text


def test_an_ended_sandbox_that_is_being_deleted_is_called_ended() -> None:
    state = replace(history(*ROOT_EXITED), deleting=True)
    assert "sandbox has ended" in refusal(state, new("c2"))


@pytest.mark.parametrize(
    "phase",
    ["created", "started", "restoringUnstarted", "restoringStarted", "restoreFailed", "restored"],
)
def test_create_subcontainer_asks_for_no_state(phase: str) -> None:
    state = in_phase(phase, *STARTED)
    events = decide(state, new(files=(TTY,)))
    assert events == (e.ContainerCreated(container="c1", tty=TTY, hold_id="T-c1"),)
    assert fold(events, state).containers["c1"].tty_hold == "T-c1"


def test_a_destroyed_cid_may_be_created_again() -> None:
    state = history(*DESTROYED, new())
    assert state.containers["c1"].status == "creating"
    assert state.containers["c1"].exit is None


# --- start a subcontainer: states ----------------------------------------------------------------


@pytest.mark.parametrize(
    "phase",
    ["absent", "created", "restoringStarted", "restoreFailed", "stopped", "deleted"],
)
def test_start_wants_a_started_sandbox(phase: str) -> None:
    assert refusal(in_phase(phase), start()) == (
        f"sandbox is not in started state, cannot start subcontainer: state={phase}"
    )


@pytest.mark.parametrize("phase", ["started", "restored"])
def test_start(phase: str) -> None:
    state = in_phase(phase)
    (event,) = decide(state, start())
    assert isinstance(event, e.ContainerStartAccepted)
    assert fold((event,), state).containers["c1"].status == "starting"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (STARTED, 'trying to start a deleted container "c1"'),
        (DESTROYED, 'trying to start a deleted container "c1"'),
        (DESTROYING, 'container "c1" is being destroyed'),
        (STARTING, 'container "c1" is already started'),
        (RUNNING, 'container "c1" is already started'),
        (LOST, 'container "c1" is already started'),
        (DELETING, 'sandbox "s1" is being deleted'),
    ],
)
def test_start_refused(given: Any, text: str) -> None:
    assert refusal(history(*given), start()) == text


def test_the_root_is_not_started_as_a_subcontainer() -> None:
    assert refusal(history(*STARTED), start(SANDBOX)) == 'container "s1" is already started'


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"spec": None}, "start arguments missing spec"),
        ({"request": a_request(conf=None)}, "start arguments missing config"),
        ({"spec": a_spec(process=None)}, "start arguments missing process in spec"),
        ({"request": a_request("")}, "start argument missing container ID"),
    ],
)
def test_arguments_are_checked_before_a_start_is_translated(members: Any, text: str) -> None:
    assert refusal(in_phase("restoringUnstarted"), start(**members)) == text


# --- signal --------------------------------------------------------------------------------------

ONE = 'signaling process in container "c1" PID 0: '
GROUP = "signaling process group 7: "
FOREGROUND = 'signaling foreground process group in container "c1" PID 0: '
ALL = 'signaling all processes in container "c1": '


@pytest.mark.parametrize(
    ("given", "when", "text"),
    [
        (RUNNING, kill(pid=-1, mode=1), "PID (-1) must be positive"),
        (RUNNING, kill(pid=-1, mode=9), "PID (-1) must be positive"),
        (STARTED, kill(pid=7, mode=1), "PID (7) cannot be set when signaling all processes"),
        (STARTED, kill(mode=3), "PGID must be set when signaling a process group"),
        (STARTED, kill(pid=7, mode=3), f"{GROUP}no such process group with PGID 7"),
        (WAITING, kill(pid=7, mode=3), f"{GROUP}no such process group with PGID 7"),
        (RUNNING, kill(pid=7, mode=3, signo=65), f"{GROUP}invalid argument"),
        (
            STARTED,
            kill(mode=2),
            f'{FOREGROUND}no thread group found: container "c1" not found',
        ),
        (WAITING, kill(mode=2), f'{FOREGROUND}container "c1" not started'),
        (RUNNING, kill(mode=2, signo=65), f"{FOREGROUND}invalid argument"),
        (STARTED, kill(mode=4), "unknown signal delivery mode 4"),
        (STARTED, kill(mode=-1), "unknown signal delivery mode -1"),
        (STARTED, kill(signo=99), f"{ONE}no such process with PID 0"),
        (
            STARTED,
            kill(pid=7),
            'signaling process in container "c1" PID 7: no such process with PID 7',
        ),
        (WAITING, kill(), f"{ONE}no such process with PID 0"),
        (STARTING, kill(), f"{ONE}no such process with PID 0"),
        (FAILED, kill(), f"{ONE}no such process with PID 0"),
        (DESTROYED, kill(), f"{ONE}no such process with PID 0"),
        (
            RUNNING,
            kill(pid=7, signo=99),
            'signaling process in container "c1" PID 7: invalid argument',
        ),
        (STOPPED, kill(signo=99), f"{ONE}no such process"),
        (LOST, kill(), f"{ONE}no such process"),
        (RUNNING, kill(signo=65), f"{ONE}invalid argument"),
        (RUNNING, kill(signo=-1), f"{ONE}invalid argument"),
        (STARTED, kill(mode=1, signo=99), 'container "c1" not found'),
        (DESTROYED, kill(mode=1), 'container "c1" not found'),
        (WAITING, kill(mode=1, signo=99), 'container "c1" not started'),
        (STARTING, kill(mode=1), 'container "c1" not started'),
        (FAILED, kill(mode=1), 'container "c1" not started'),
        (RUNNING, kill(mode=1, signo=65), f"{ALL}invalid argument"),
    ],
)
def test_signal_refused(given: Any, when: c.Signal, text: str) -> None:
    state = history(*given)
    assert decide(state, when) == (
        e.ContainerSignalRejected(
            container="c1", signo=when.signo, pid=when.pid, mode=when.mode, error=text
        ),
    )
    assert refusal(state, when) == text


@pytest.mark.parametrize("signo", [0, 1, 9, 64])
@pytest.mark.parametrize(
    ("given", "mode"), [(RUNNING, 0), (RUNNING, 1), (STOPPED, 1), (LOST, 1), (DESTROYING, 0)]
)
def test_signal(given: Any, mode: int, signo: int) -> None:
    state = history(*given)
    events = decide(state, kill(signo=signo, mode=mode))
    assert events == (
        e.ContainerSignalRequested(container="c1", kill_id="K-1", signo=signo, pid=0, mode=mode),
    )
    state = fold(events, state)
    assert set(state.signals) == {"K-1"}
    sent = decide(state, c.ReportKilled(kill_id="K-1"))
    assert sent == (e.ContainerSignalSent(container="c1", kill_id="K-1", signo=signo),)
    assert fold(sent, state).signals == {}


@pytest.mark.parametrize(
    ("mode", "errno", "text"),
    [
        (0, 3, f"{ONE}no such process"),
        (1, 3, f"{ALL}no such process"),
        (0, 1, f"{ONE}the kernel refused with errno 1"),
    ],
)
def test_signal_that_could_not_be_delivered(mode: int, errno: int, text: str) -> None:
    state = history(*RUNNING, kill(mode=mode, request_id="r"))
    events = decide(state, c.ReportKilled(kill_id="K-1", errno=errno))
    assert events == (
        e.ContainerSignalRejected(
            container="c1",
            signo=15,
            pid=0,
            mode=mode,
            error=text,
            kill_id="K-1",
            request_id="r",
        ),
    )
    state = fold(events, state)
    assert state.signals == {}
    assert (state.requests["r"].done, state.requests["r"].error) == (True, text)


# --- destroy -------------------------------------------------------------------------------------


def test_destroy_of_the_unknown() -> None:
    text = 'container "c1" not found'
    assert refusal(history(*STARTED), c.DestroySubcontainer(cid="c1")) == text
    assert decide(history(*STARTED), c.DestroySubcontainer(cid="c1")) == (
        e.ContainerDestroyRejected(container="c1", error=text),
    )


@pytest.mark.parametrize(
    ("given", "then"),
    [
        (WAITING, (e.ContainerDestroyed(container="c1"),)),
        (STARTING, (e.ContainerDestroyRequested(container="c1", launch_id="L-c1"),)),
        (RUNNING, (e.ContainerDestroyRequested(container="c1", launch_id="L-c1"),)),
        (STOPPED, (e.ContainerDestroyRequested(container="c1", launch_id="L-c1"),)),
        (FAILED, (e.ContainerDestroyRequested(container="c1", launch_id="L-c1"),)),
        (LOST, (e.ContainerDestroyRequested(container="c1", launch_id="L-c1"),)),
        (DESTROYING, ()),
        (DESTROYED, ()),
    ],
)
def test_destroy(given: Any, then: tuple[e.Event, ...]) -> None:
    assert decide(history(*given), c.DestroySubcontainer(cid="c1")) == then


def test_destroying_a_root_that_never_ran_ends_the_sandbox() -> None:
    state = history(*CREATED)
    events = decide(state, c.DestroySubcontainer(cid=SANDBOX))
    reason = "its root container was destroyed"
    assert events == (
        e.ContainerDestroyed(container=SANDBOX),
        e.SandboxStopped(reason=reason),
    )
    assert history(c.DeleteSandbox(), state=fold(events, state)).phase == "deleted"


@pytest.mark.parametrize(
    ("given", "cid", "before"),
    [
        (STOPPED, "c1", ()),
        (FAILED, "c1", ()),
        (LOST, "c1", ()),
        (
            RUNNING,
            "c1",
            (
                e.ContainerLost(
                    container="c1",
                    launch_id="L-c1",
                    reason="it was destroyed before anybody saw its exit status",
                ),
            ),
        ),
        (
            STARTING,
            "c1",
            (
                e.ContainerStartFailed(
                    container="c1",
                    launch_id="L-c1",
                    failure=Failure(
                        error='container "c1" was destroyed while it was being started',
                        stage="aborted",
                        reason="destroyed",
                    ),
                ),
            ),
        ),
    ],
)
def test_destroyed_leaves_nothing_open(given: Any, cid: str, before: tuple[e.Event, ...]) -> None:
    state = history(*given, c.DestroySubcontainer(cid=cid))
    gone = e.ContainerDestroyed(container=cid, launch_id=f"L-{cid}")
    assert decide(state, reports_destroyed(cid)) == (*before, gone)


def test_destroyed_settles_signals_under_way() -> None:
    state = history(
        *RUNNING,
        *(new("c2"), start("c2"), reports_started("c2")),
        kill(request_id="r"),
        kill("c2", kill_id="K-2"),
        reports_exited(),
    )
    events = decide(state, reports_destroyed())
    assert [type(event) for event in events] == [e.ContainerSignalRejected, e.ContainerDestroyed]
    assert getattr(events[0], "error", "") == f"{ONE}the container was destroyed"
    state = fold(events, state)
    assert set(state.signals) == {"K-2"}
    assert state.requests["r"].done
    assert decide(state, c.ReportKilled(kill_id="K-1")) == ()


@pytest.mark.parametrize(
    ("given", "types"),
    [
        (
            STARTED,
            (e.ContainerLost, e.ContainerDestroyed, e.SandboxStopped),
        ),
        (ROOT_EXITED, (e.ContainerDestroyed,)),
        (
            (*CREATED, c.StartRoot()),
            (e.SandboxStartFailed, e.ContainerDestroyed),
        ),
        (CREATED, (e.ContainerDestroyed, e.SandboxStopped)),
    ],
)
def test_a_destroyed_root_ends_the_sandbox(given: Any, types: tuple[type, ...]) -> None:
    state = history(*given)
    events = decide(state, reports_destroyed("root"))
    assert tuple(type(event) for event in events) == types
    assert fold(events, state).phase == "stopped"


# --- delete --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "when", "text"),
    [
        ((), c.DeleteSandbox(sandbox_id="s9"), 'sandbox "s9" not found'),
        (DELETED, c.DeleteSandbox(force=True), 'sandbox "s1" not found'),
        (
            STARTED,
            c.DeleteSandbox(),
            'sandbox "s1" has containers that are not stopped: ["s1"]',
        ),
        (
            RUNNING,
            c.DeleteSandbox(),
            'sandbox "s1" has containers that are not stopped: ["s1" "c1"]',
        ),
        (
            (*CREATED, c.StartRoot()),
            c.DeleteSandbox(),
            'sandbox "s1" has containers that are not stopped: ["s1"]',
        ),
        (
            CREATED,
            c.DeleteSandbox(request_id="r" * 129),
            "RequestID must have at most 128 characters, but has 129",
        ),
    ],
)
def test_delete_refused(given: Any, when: c.DeleteSandbox, text: str) -> None:
    state = history(*given)
    assert refusal(state, when) == text
    assert decide(state, when) == (
        e.SandboxDeleteRejected(force=when.force, error=text, request_id=when.request_id),
    )


def test_delete_of_what_never_ran_is_done_at_once() -> None:
    state = history(*CREATED, new(files=(TTY,)))
    assert decide(state, c.DeleteSandbox()) == (
        e.SandboxDeleteRequested(force=False),
        e.ContainerDestroyed(container=SANDBOX),
        e.ContainerDestroyed(container="c1"),
        e.SandboxDeleted(),
    )


def test_delete_by_force_waits_for_the_worker() -> None:
    state = history(*RUNNING, new("c2"))
    events = decide(state, c.DeleteSandbox(force=True))
    assert events == (
        e.SandboxDeleteRequested(force=True),
        e.ContainerDestroyRequested(container=SANDBOX, launch_id="L-root"),
        e.ContainerDestroyRequested(container="c1", launch_id="L-c1"),
        e.ContainerDestroyed(container="c2"),
    )
    state = fold(events, state)
    state = history(reports_exited("root"), reports_destroyed("root"), state=state)
    assert (state.phase, state.deleting) == ("stopped", True)
    state = history(reports_exited(), state=state)
    assert decide(state, reports_destroyed()) == (
        e.ContainerDestroyed(container="c1", launch_id="L-c1"),
        e.SandboxDeleted(),
    )


def test_delete_waits_for_a_destroy_that_is_under_way() -> None:
    state = history(*ROOT_EXITED, c.DestroySubcontainer(cid=SANDBOX))
    events = decide(state, c.DeleteSandbox())
    assert events == (e.SandboxDeleteRequested(force=False),)
    state = fold(events, state)
    assert decide(state, c.DeleteSandbox()) == ()
    assert history(reports_destroyed("root"), state=state).phase == "deleted"


# --- reports -------------------------------------------------------------------------------------

NOT_FOUND_TEXT = (
    'error finding executable "/bin/true" in PATH [/bin /usr/bin]: no such file or directory'
)


@pytest.mark.parametrize(
    ("stage", "errno", "text"),
    [
        ("exec", 2, NOT_FOUND_TEXT),
        ("exec", 13, NOT_FOUND_TEXT.replace("no such file or directory", "permission denied")),
        ("exec", 8, "creating process: why"),
        ("mounts", 2, "failed to setupFS: mounting submounts: why"),
        ("tar", None, "failed to setupFS: creating mount namespace: why"),
        ("aborted", None, 'container "c1" was destroyed while it was being started'),
        ("interrupted", None, 'start of container "c1" was interrupted: why'),
        ("create", None, "creating process: why"),
        ("cgroup", 28, "creating process: why"),
        ("a stage of tomorrow", None, "creating process: why"),
    ],
)
def test_start_failed(stage: str, errno: int | None, text: str) -> None:
    state = history(*STARTING)
    failure = Failure(error=text, stage=stage, reason="why", errno=errno)
    events = decide(state, reports_failed(stage=stage, errno=errno))
    assert events == (e.ContainerStartFailed(container="c1", launch_id="L-c1", failure=failure),)
    found = fold(events, state).containers["c1"]
    assert (found.status, found.failure) == ("failed", failure)


@pytest.mark.parametrize(
    ("report", "news"),
    [
        (reports_started(), {"STARTING"}),
        (reports_failed(), {"STARTING"}),
        (reports_exited(), {"STARTING", "RUNNING", "DESTROYING", "LOST"}),
        (reports_lost(), {"STARTING", "RUNNING", "DESTROYING"}),
        (
            reports_destroyed(),
            {"STARTING", "RUNNING", "STOPPED", "FAILED", "LOST", "DESTROYING"},
        ),
        (c.ReportKilled(kill_id="K-9"), set()),
        (c.ReportHoldLost(cid="c1", reason="reboot"), set()),
        (c.ReportHoldLost(cid="c9", reason="reboot"), set()),
    ],
)
@pytest.mark.parametrize(
    "name",
    "STARTED WAITING STARTING RUNNING STOPPED FAILED LOST DESTROYING DESTROYED".split(),
)
def test_a_report_is_news_once(report: c.Report, news: set[str], name: str) -> None:
    state = history(*globals()[name])
    events = decide(state, report)
    assert bool(events) == (name in news)
    assert decide(fold(events, state), report) == ()


@pytest.mark.parametrize(
    ("given", "started_at"), [(RUNNING, 5), (STARTING, None), (LOST, 5)], ids=str
)
@pytest.mark.parametrize("status", [Exited(code=3), Signaled(signal=9)])
def test_exited(given: Any, started_at: int | None, status: Any) -> None:
    state = history(*given)
    events = decide(state, reports_exited(exit_status=status))
    assert events == (
        e.ContainerExited(
            container="c1",
            launch_id="L-c1",
            exit=status,
            source="waitid",
            exited_at_ns=9,
            started_at_ns=started_at,
        ),
    )
    found = fold(events, state).containers["c1"]
    assert (found.status, found.exit, found.exit_source) == ("stopped", status, "waitid")


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (reports_exited("root"), "its root container exited"),
        (reports_lost("root"), "its root container was lost"),
    ],
)
def test_the_sandbox_ends_with_its_root(report: c.Report, reason: str) -> None:
    events = decide(history(*STARTED), report)
    assert events[1:] == (e.SandboxStopped(reason=reason),)
    assert history(report, state=history(*STARTED)).phase == "stopped"


def test_a_late_exit_status_replaces_lost_and_stops_the_sandbox_once() -> None:
    state = history(*STARTED, reports_lost("root"))
    events = decide(state, reports_exited("root"))
    assert [type(event) for event in events] == [e.ContainerExited]


@pytest.mark.parametrize("cid", ["c1", "root"])
def test_what_is_lost_while_it_starts_has_failed(cid: str) -> None:
    state = history(*CREATED, c.StartRoot()) if cid == "root" else history(*STARTING)
    (event,) = decide(state, reports_lost(cid))
    assert isinstance(event, (e.ContainerStartFailed, e.SandboxStartFailed))
    assert event.failure.stage == "interrupted"


@pytest.mark.parametrize("cid", ["c1", "root"])
def test_what_ran_and_is_lost_before_that_was_told_has_not_failed(cid: str) -> None:
    before = history(*CREATED, c.StartRoot(request_id="r"))
    if cid == "c1":
        before = history(*STARTED, new(), start(request_id="r"))
    lost, *stopped = decide(before, reports_lost(cid, ran=True))
    name = SANDBOX if cid == "root" else cid
    assert lost == e.ContainerLost(container=name, launch_id=f"L-{cid}", reason="reboot")
    assert [type(each) for each in stopped] == ([e.SandboxStopped] if cid == "root" else [])
    after = fold((lost, *stopped), before)
    assert start_answer(after, name, f"L-{cid}") is None
    assert after.requests["r"].done
    found = after.containers[name]
    assert (found.status, found.loss, found.fds_hold) == ("lost", "reboot", None)


def test_a_lost_hold() -> None:
    state = history(*STARTED, new(files=(TTY,)))
    events = decide(state, c.ReportHoldLost(cid="c1", reason="reboot"))
    assert events == (e.ContainerHoldLost(container="c1", reason="reboot"),)
    state = fold(events, state)
    assert state.containers["c1"].tty_hold is None
    assert decide(state, c.ReportHoldLost(cid="c1", reason="reboot")) == ()


@pytest.mark.parametrize(
    ("status", "events"),
    [("creating", 1), ("starting", 0), ("stopped", 0)],
)
def test_only_a_container_that_waits_can_lose_its_hold(status: Any, events: int) -> None:
    state = history(*STARTED, new(files=(TTY,)))
    changed = replace(state.containers["c1"], status=status)
    state = replace(state, containers={**state.containers, "c1": changed})
    assert len(decide(state, c.ReportHoldLost(cid="c1", reason="x"))) == events


def test_what_is_neither_command_nor_event_is_a_mistake_of_the_caller() -> None:
    stranger: Any = object()
    with pytest.raises(AssertionError):
        decide(history(), stranger)
    with pytest.raises(AssertionError):
        decide_report(history(), stranger)
    with pytest.raises(AssertionError):
        fold((stranger,))
