"""Executed processes: what is refused, what is recorded, how they end."""

from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.capability_numbers import mask_of, names_of
from manager.domain.decide import decide
from manager.domain.effects import ExecuteProcess
from manager.domain.evolve import fold
from manager.domain.execution import EXECUTIONS_ALIVE_MAX, EXECUTIONS_REMEMBERED_MAX
from manager.domain.exit_status import Unknown
from manager.domain.process_rules import NO_ID
from manager.domain.query import PENDING, Ended, Refused
from manager.domain.query_exec import exec_answer, requested_execution, wait_pid_answer
from manager.domain.react import UNKNOWN_TO_WORKER, react, resume
from manager.domain.request import EngineFacts
from manager.domain.state import Sandbox
from tests.unit.domain import builders as b

EXITED = (*b.EXECUTED, b.reports_process_exited())
LOST = (*b.EXECUTED, b.reports_process_lost())
NULLS = {"guest_fds": (0, 1, 2), "files": b.STDIO}
FD_MAP = "creating fd map: "


def paused(state: Sandbox) -> Sandbox:
    containers = {**state.containers, "c1": replace(state.containers["c1"], status="paused")}
    return replace(state, containers=containers)


def the_error(state: Sandbox, command: c.Command) -> str:
    (event,) = decide(state, command)
    assert isinstance(event, e.ProcessExecRejected)
    assert event.container == "c1"
    return event.error


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b.STARTED, 'container "c1" not found'),
        (b.DESTROYED, 'container "c1" not found'),
        (b.WAITING, 'container "c1" not started'),
        (b.STARTING, 'container "c1" not started'),
        (b.FAILED, 'container "c1" not started'),
        (b.STOPPED, 'container "c1" has stopped'),
        (b.LOST, 'container "c1" has stopped'),
        (b.DESTROYING, 'container "c1" is being destroyed'),
    ],
)
def test_the_container_must_run(given: Any, text: str) -> None:
    assert the_error(b.history(*given), b.execute(env_error="asked later")) == text


def test_nothing_is_executed_in_a_paused_container() -> None:
    text = 'container "c1" is paused: resume it before a process is executed in it'
    assert the_error(paused(b.history(*b.RUNNING)), b.execute()) == text


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"env_error": "invalid variable: A", "guest_fds": (1,)},
            "resolving env: invalid variable: A",
        ),
        (
            {"guest_fds": (0, 1)},
            f"{FD_MAP}length of payload files does not match length of file descriptor array",
        ),
        (
            {"guest_fds": (0,), "files": (*b.STDIO, b.DIRECTORY)},
            f"{FD_MAP}length of payload files does not match length of file descriptor array",
        ),
        (
            {"guest_fds": (0, 1, -2), "files": b.STDIO},
            f"{FD_MAP}guest file descriptors must be 0 or greater",
        ),
        (
            {"guest_fds": (0, 1, 1024), "files": b.STDIO},
            f"{FD_MAP}guest file descriptors must be 1023 or less",
        ),
        (
            {"guest_fds": (1, 0, 1), "files": b.STDIO},
            f"{FD_MAP}guest file descriptors must differ, but are [1 0 1]",
        ),
        (
            {"guest_fds": (0,), "files": (b.DIRECTORY,)},
            f"{FD_MAP}stdin must be a pipe, a connected socket, a terminal, /dev/null "
            "or a regular file, but is an O_PATH descriptor",
        ),
        (
            {"guest_fds": (5,), "files": (b.DIRECTORY,)},
            f"{FD_MAP}guest file descriptor 5 must be a pipe, a connected socket, a terminal, "
            "/dev/null or a regular file, but is an O_PATH descriptor",
        ),
        (
            {"terminal": True, **NULLS},
            f"{FD_MAP}TTY file must be a terminal, but is a {b.STDIO[0].kind}",
        ),
        (
            {"terminal": True},
            f"{FD_MAP}a process on a terminal needs it as guest file descriptor 0",
        ),
        (
            {"guest_fds": (0, 1), "files": b.STDIO, "filename": "/bin/sh"},
            "process must either be started from a file or a filename, not both",
        ),
        (
            {"guest_fds": (0, 1), "files": b.STDIO},
            "executing a donated file is not supported by sandtrail: name a file of the container",
        ),
        ({"argv": ()}, "exec arguments must name a program"),
        ({"argv": ("",)}, "exec arguments must name a program"),
        ({"argv": ("a\0",)}, "exec arguments hold a NUL, which no argument can carry"),
        ({"uid": NO_ID}, "uid 4294967295 is no user: the kernel takes it for no change"),
        ({"gid": NO_ID}, "gid 4294967295 is no group: the kernel takes it for no change"),
        ({"extra_gids": (NO_ID,)}, "gid 4294967295 is no group: the kernel takes it for no change"),
        ({"cwd": "tmp"}, 'working directory must be absolute, but is "tmp"'),
    ],
)
def test_arguments(members: dict[str, Any], text: str) -> None:
    assert the_error(b.history(*b.RUNNING), b.execute(**members)) == text


def test_an_engine_may_pass_no_other_descriptors() -> None:
    engine = EngineFacts(name="runsc", lacks=("exec-extra-files",))
    state = b.history(*b.RUNNING)
    command = b.execute(engine=engine, guest_fds=(0, 1, 3), files=b.STDIO)
    assert the_error(state, command) == (
        "runsc cannot give exec-extra-files: it passes no guest file descriptors but 0, 1 and 2"
    )
    for fine in (b.execute(engine=engine, **NULLS), b.execute(engine=engine)):
        assert isinstance(decide(state, fine)[0], e.ProcessExecAccepted)


def test_executed_processes_are_limited() -> None:
    many = [b.execute(exec_id=f"E-{number}") for number in range(EXECUTIONS_ALIVE_MAX)]
    state = b.history(*b.RUNNING, *many)
    assert the_error(state, b.execute(exec_id="E-new")) == (
        'container "c1" has 1024 executed processes that run, at most 1024 may'
    )


def test_the_oldest_that_have_ended_are_forgotten() -> None:
    state = b.history(*b.RUNNING, b.execute(exec_id="lives"))
    for number in range(EXECUTIONS_REMEMBERED_MAX + 3):
        exec_id = f"E-{number}"
        commands = (b.execute(exec_id=exec_id), b.reports_exec_failed(exec_id))
        state = b.history(*commands, state=state)
    known = state.containers["c1"].executions
    assert "lives" in known
    assert "E-0" not in known
    assert len(known) == EXECUTIONS_REMEMBERED_MAX + 2


def test_a_whole_life() -> None:
    state = b.history(*b.RUNNING)
    (accepted,) = decide(state, b.execute())
    assert react(state, accepted) == (ExecuteProcess(exec_id="E-1", launch_id="L-c1"),)
    state = b.history(*b.EXECUTING)
    assert exec_answer(state, "c1", "E-1") == PENDING
    state = b.history(*b.EXECUTED)
    assert exec_answer(state, "c1", "E-1") == 7
    assert wait_pid_answer(state, "c1", 7) == PENDING
    state = b.history(*EXITED)
    assert wait_pid_answer(state, "c1", 7) == Ended(768)
    assert wait_pid_answer(state, "c1", 7) == Ended(768)


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (
            b.reports_exec_failed(stage="exec", errno=2),
            'error finding executable "ls" in PATH [/a /b]: no such file or directory',
        ),
        (
            b.reports_exec_failed(stage="exec", errno=13),
            'error finding executable "ls" in PATH [/a /b]: permission denied',
        ),
        (b.reports_exec_failed(stage="exec", errno=8), "creating process: why"),
        (b.reports_exec_failed(stage="interrupted"), 'execution of "ls" was interrupted: why'),
        (b.reports_exec_failed(), "creating process: why"),
    ],
)
def test_failures_have_texts(report: c.ReportExecFailed, text: str) -> None:
    asked = b.execute(argv=("ls",), search_path=("/a", "/b"))
    state = b.history(*b.RUNNING, asked, report)
    assert exec_answer(state, "c1", "E-1") == Refused(text)
    assert decide(state, report) == ()


@pytest.mark.parametrize(
    ("given", "pid", "text"),
    [
        (b.RUNNING, 0, "PID (0) must be positive"),
        (b.STARTED, 7, 'waiting for PID 7: container "c1" not found'),
        (b.WAITING, 7, 'waiting for PID 7: container "c1" not started'),
        (b.RUNNING, 7, "waiting for PID 7: no such process"),
        (LOST, 7, "exit status of process 7 is lost: reboot"),
        (
            (
                *b.EXECUTED,
                b.reports_process_exited(exit_status=Unknown(reason="gone")),
            ),
            7,
            "exit status of process 7 is lost: gone",
        ),
        ((*EXITED, c.DestroySubcontainer(cid="c1"), b.reports_destroyed()), 7, None),
    ],
)
def test_waits_that_are_refused(given: Any, pid: int, text: str | None) -> None:
    text = text or f'waiting for PID {pid}: container "c1" not found'
    assert wait_pid_answer(b.history(*given), "c1", pid) == Refused(text)


def test_init_can_be_waited_for_by_its_number() -> None:
    assert wait_pid_answer(b.history(*b.RUNNING), b.SANDBOX, 1) == PENDING
    assert wait_pid_answer(b.history(*b.ROOT_EXITED), b.SANDBOX, 1) == Ended(768)


def test_a_process_of_another_container_is_named() -> None:
    state = b.history(*b.EXECUTED)
    text = 'process 7 is part of a different container: "c1"'
    assert wait_pid_answer(state, b.SANDBOX, 7) == Refused(text)


def test_a_lost_process_may_be_found_again() -> None:
    assert wait_pid_answer(b.history(*LOST, b.reports_process_exited()), "c1", 7) == Ended(768)
    assert decide(b.history(*LOST), b.reports_process_lost()) == ()
    assert decide(b.history(*b.RUNNING), b.reports_process_lost()) == ()


def test_the_last_process_of_a_number_counts() -> None:
    again = (b.execute(exec_id="E-2"), b.reports_executed("E-2"))
    assert wait_pid_answer(b.history(*EXITED, *again), "c1", 7) == PENDING


def test_processes_have_numbers_of_their_own() -> None:
    again = (b.execute(exec_id="E-2"), b.reports_executed("E-2", pid=8))
    state = b.history(*EXITED, *again)
    assert wait_pid_answer(state, "c1", 7) == Ended(768)
    assert wait_pid_answer(state, "c1", 8) == PENDING


def test_destroy_says_what_became_of_all() -> None:
    given = (*b.EXECUTED, b.execute(exec_id="E-2"), c.DestroySubcontainer(cid="c1"))
    state = b.history(*given)
    events = decide(state, b.reports_destroyed())
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("ProcessLost") < kinds.index("ContainerDestroyed")
    assert kinds.index("ProcessExecFailed") < kinds.index("ContainerDestroyed")
    state = fold(events, state)
    assert exec_answer(state, "c1", "E-2") == Refused('container "c1" has stopped')
    assert exec_answer(state, "c9", "E-2") == Refused('container "c9" has stopped')


def test_a_crash_is_settled() -> None:
    state = b.history(*b.EXECUTED, b.execute(exec_id="E-2"), b.execute(exec_id="E-3"))
    launches = frozenset({"L-c1", "L-root"})
    executions = frozenset({"E-3"})
    plan = resume(state, launches=launches, held=frozenset(), boot_id="b", executions=executions)
    assert plan.reports == (
        c.ReportProcessLost(exec_id="E-1", reason=UNKNOWN_TO_WORKER),
        c.ReportExecFailed(exec_id="E-2", stage="interrupted", reason=UNKNOWN_TO_WORKER),
    )
    ended = fold(decide(state, b.reports_exec_failed("E-2")), state)
    assert len(resume(ended, launches=launches, held=frozenset(), boot_id="b").reports) == 2


def test_a_repeated_call_finds_its_process() -> None:
    asked = b.execute(request_id="r")
    state = b.history(*b.RUNNING, asked, b.reports_executed())
    assert decide(state, b.execute(exec_id="E-2", request_id="r")) == ()
    state = b.history(b.execute(exec_id="E-3", request_id="r3"), state=state)
    assert requested_execution(state, "c1", "r") == "E-1"
    assert requested_execution(state, "c1", "r3") == "E-3"
    assert requested_execution(state, "c1", "other") == ""
    assert requested_execution(state, "c9", "r") == ""


SIGNALS = [
    (b.kill(pid=7), "no-process", "", "no such process with PID 7"),
    (
        b.kill(mode=2),
        "no-process",
        "",
        'no thread group found: container "c1" not found',
    ),
    (b.kill(mode=2), "no-terminal", "", "no TTY attached"),
    (b.kill(mode=2), "unsupported", "", "crun cannot signal a process group"),
    (b.kill(pid=7, mode=3), "no-group", "", "no such process group with PGID 7"),
    (
        b.kill(pid=7, mode=3),
        "other-container",
        "L-root",
        'process group 7 does not belong to container "c1"',
    ),
    (
        b.kill(pid=7),
        "other-container",
        "L-root",
        f'process 7 belongs to a different container: "{b.SANDBOX}"',
    ),
    (b.kill(pid=7), "other-container", "L-?", 'process 7 belongs to a different container: ""'),
]


@pytest.mark.parametrize(("command", "why", "owner", "text"), SIGNALS)
def test_signals_that_found_nobody(command: c.Signal, why: str, owner: str, text: str) -> None:
    state = b.history(*b.RUNNING, command)
    report = c.ReportKilled(kill_id="K-1", errno=3, why=why, owner=owner)
    (event,) = decide(state, report)
    assert isinstance(event, e.ContainerSignalRejected)
    assert event.error.endswith(f": {text}")


def test_capability_numbers() -> None:
    assert names_of(0b100001 | 1 << 63) == ("CAP_CHOWN", "CAP_KILL")
    assert mask_of(("CAP_KILL", "CAP_NEW")) == 1 << 5
