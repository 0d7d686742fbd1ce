"""From events to effects, and back from a crash."""

from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.effects import DestroyLaunch, Effect, Launch, ReleaseHold, SendSignal
from manager.domain.evolve import evolve
from manager.domain.react import KEEPER_GONE, UNKNOWN_TO_WORKER, Resumption, holds, react, resume
from manager.domain.state import ABSENT
from tests.unit.domain.builders import (
    CREATED,
    DESTROYED,
    DESTROYING,
    DIRECTORY,
    EXECUTED,
    FAILED,
    LOST,
    ROOT_EXITED,
    RUNNING,
    SANDBOX,
    STARTED,
    STARTING,
    STOPPED,
    TTY,
    WAITING,
    a_process,
    a_request,
    a_spec,
    create,
    execute,
    history,
    kill,
    new,
    reports_destroyed,
    reports_executed,
    reports_exited,
    reports_failed,
    reports_lost,
    reports_started,
    start,
)

WITH_TERMINAL = a_spec(process=a_process(terminal=True))
TERMINAL_START = start(spec=WITH_TERMINAL, files=(DIRECTORY,))
TTY_WAITING = (*STARTED, new(files=(TTY,)))
TTY_ROOT = (
    create(a_request(SANDBOX, files=(DIRECTORY,)), WITH_TERMINAL, tty=TTY, tty_hold_id="T-root"),
)


BOTH_HOLDS = (ReleaseHold(hold_id="H-root"), ReleaseHold(hold_id="T-root"))


def effects_of(given: Any, command: c.Command) -> tuple[Effect, ...]:
    state, effects = history(*given), list[Effect]()
    for event in decide(state, command):
        effects += react(state, event)
        state = evolve(state, event)
    return tuple(effects)


def term(*, mode: int) -> SendSignal:
    return SendSignal(kill_id="K-1", launch_id="L-c1", signo=15, mode=mode)


def kill_all(launch_id: str) -> SendSignal:
    kill_id = f"sandbox-stopped-{launch_id}"
    return SendSignal(kill_id=kill_id, launch_id=launch_id, signo=9, mode=1, durable=False)


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        ((), create(), ()),
        (STARTED, new(files=(TTY,)), ()),
        (RUNNING, reports_exited(), ()),
        (RUNNING, kill(mode=0), (term(mode=0),)),
        (RUNNING, kill(mode=1), (term(mode=1),)),
        (RUNNING, c.DestroySubcontainer(cid="c1"), (DestroyLaunch(launch_id="L-c1"),)),
        (TTY_WAITING, c.DestroySubcontainer(cid="c1"), (ReleaseHold(hold_id="T-c1"),)),
        (WAITING, c.DestroySubcontainer(cid="c1"), ()),
        (TTY_ROOT, c.DestroySubcontainer(cid=SANDBOX), BOTH_HOLDS),
        (TTY_ROOT, c.DeleteSandbox(), BOTH_HOLDS),
        (
            (*CREATED, c.StartRoot()),
            reports_failed("root"),
            (ReleaseHold(hold_id="H-root"),),
        ),
        ((*TTY_WAITING, TERMINAL_START), reports_failed(), (ReleaseHold(hold_id="T-c1"),)),
        (STARTING, reports_failed(), ()),
        (
            TTY_ROOT,
            c.ReportHoldLost(cid=SANDBOX, reason="x"),
            BOTH_HOLDS,
        ),
        (RUNNING, reports_exited("root"), (kill_all("L-c1"),)),
        (RUNNING, reports_lost("root"), (kill_all("L-c1"),)),
        (STOPPED, reports_exited("root"), ()),
        (STARTING, reports_exited("root"), ()),
        ((*STARTING, reports_exited("root")), reports_started(), (kill_all("L-c1"),)),
        (STARTING, reports_started(), ()),
        (
            RUNNING,
            c.DeleteSandbox(force=True),
            (DestroyLaunch(launch_id="L-root"), DestroyLaunch(launch_id="L-c1")),
        ),
    ],
)
def test_effects(given: Any, when: c.Command, then: tuple[Effect, ...]) -> None:
    assert effects_of(given, when) == then


@pytest.mark.parametrize(("given", "tty"), [(CREATED, None), (TTY_ROOT, "T-root")])
def test_a_root_is_launched_from_what_is_held(given: Any, tty: str | None) -> None:
    intent = history(*given).containers[SANDBOX].intent
    assert intent is not None
    assert effects_of(given, c.StartRoot()) == (
        Launch(intent=intent, held_fds="H-root", held_tty=tty),
    )


def test_a_subcontainer_is_launched_into_the_sandbox() -> None:
    (event,) = decide(history(*WAITING), start())
    assert isinstance(event, e.ContainerStartAccepted)
    assert effects_of(WAITING, start()) == (
        Launch(intent=event.intent, sandbox="L-root", pid_namespace="L-root"),
    )


def test_a_subcontainer_joins_the_pid_namespace_of_another() -> None:
    spec = a_spec(linux={"namespaces": [{"type": "pid", "path": "/p"}]})
    given = (*WAITING, start(spec=spec), reports_started(), new("c2"))
    (launch,) = effects_of(given, start("c2", spec=spec))
    assert isinstance(launch, Launch)
    assert (launch.sandbox, launch.pid_namespace) == ("L-root", "L-c1")
    (launch,) = effects_of(WAITING, start(spec=spec))
    assert isinstance(launch, Launch)
    assert (launch.sandbox, launch.pid_namespace) == ("L-root", None)


def test_a_terminal_goes_to_a_process_that_wants_one() -> None:
    (launch,) = effects_of(TTY_WAITING, TERMINAL_START)
    assert isinstance(launch, Launch)
    assert launch.held_tty == "T-c1"


def test_a_terminal_that_the_process_does_not_want_is_closed() -> None:
    launch, release = effects_of(TTY_WAITING, start())
    assert isinstance(launch, Launch)
    assert launch.held_tty is None
    assert release == ReleaseHold(hold_id="T-c1")


def test_events_that_fit_no_container_have_no_effect() -> None:
    for event in (
        e.SandboxStartRequested(launch_id="L"),
        e.SandboxStartFailed(launch_id="L", failure=history(*FAILED).containers["c1"].failure),  # type: ignore[arg-type]  # it has failed
        e.ContainerSignalRequested(container="c", kill_id="K", signo=9, pid=0, mode=0),
        e.ContainerDestroyed(container="c"),
        e.SandboxStopped(reason=""),
    ):
        assert react(ABSENT, event) == ()


def test_a_launch_of_a_container_that_nobody_created() -> None:
    (event,) = decide(history(*WAITING), start())
    assert isinstance(event, e.ContainerStartAccepted)
    assert react(ABSENT, event) == (Launch(intent=event.intent),)


# --- resume --------------------------------------------------------------------------------------

NOBODY = frozenset[str]()
WHY = UNKNOWN_TO_WORKER


def interrupted(launch_id: str) -> c.Report:
    return c.ReportStartFailed(launch_id=launch_id, stage="interrupted", reason=WHY)


def lost(launch_id: str) -> c.Report:
    return c.ReportLost(launch_id=launch_id, reason=WHY)


@pytest.mark.parametrize(
    ("given", "launches", "held", "reports", "effects"),
    [
        ((), "", "", (), ()),
        (CREATED, "", "H-root", (), ()),
        (CREATED, "", "", (c.ReportHoldLost(cid=SANDBOX, reason=KEEPER_GONE),), ()),
        (TTY_ROOT, "", "H-root", (c.ReportHoldLost(cid=SANDBOX, reason=KEEPER_GONE),), ()),
        (TTY_ROOT, "", "H-root T-root", (), ()),
        ((*CREATED, c.StartRoot()), "L-root", "", (), ()),
        ((*CREATED, c.StartRoot()), "", "", (interrupted("L-root"),), ()),
        (STARTED, "L-root", "", (), ()),
        (STARTED, "", "", (lost("L-root"),), ()),
        (STARTING, "L-root", "", (interrupted("L-c1"),), ()),
        (STARTING, "L-root L-c1", "", (), ()),
        (RUNNING, "L-root", "", (lost("L-c1"),), ()),
        (RUNNING, "", "", (lost("L-root"), lost("L-c1")), ()),
        (STOPPED, "L-root", "", (), ()),
        (FAILED, "L-root", "", (), ()),
        (LOST, "L-root", "", (), ()),
        (DESTROYED, "L-root", "", (), ()),
        (WAITING, "L-root", "", (), ()),
        (TTY_WAITING, "L-root", "", (c.ReportHoldLost(cid="c1", reason=KEEPER_GONE),), ()),
        (TTY_WAITING, "L-root", "T-c1", (), ()),
        (DESTROYING, "L-root L-c1", "", (), (DestroyLaunch(launch_id="L-c1"),)),
        (DESTROYING, "L-root", "", (lost("L-c1"), reports_destroyed()), ()),
        ((*STOPPED, c.DestroySubcontainer(cid="c1")), "L-root", "", (reports_destroyed(),), ()),
        ((*RUNNING, reports_exited("root")), "L-c1", "", (), (kill_all("L-c1"),)),
        ((*RUNNING, reports_exited("root")), "", "", (lost("L-c1"),), ()),
        ((*STARTING, reports_exited("root")), "L-c1", "", (), ()),
        (ROOT_EXITED, "", "", (), ()),
        (
            (*RUNNING, kill(mode=1)),
            "L-root L-c1",
            "",
            (),
            (term(mode=1),),
        ),
        (
            (*RUNNING, kill()),
            "L-root",
            "",
            (lost("L-c1"), c.ReportKilled(kill_id="K-1", errno=3)),
            (),
        ),
    ],
)
def test_resume(given: Any, launches: str, held: str, reports: Any, effects: Any) -> None:
    state = history(*given)
    known, kept = frozenset(launches.split()), frozenset(held.split())
    plan = resume(state, launches=known, held=kept, boot_id="b")
    assert plan == Resumption(reports=reports, effects=effects)


@pytest.mark.parametrize(("given", "tty"), [(CREATED, None), (TTY_ROOT, "T-root")])
def test_a_root_whose_start_got_no_further_than_the_log_is_launched(
    given: Any, tty: str | None
) -> None:
    state = history(*given, c.StartRoot())
    intent = state.containers[SANDBOX].intent
    assert intent is not None
    again = Launch(intent=intent, held_fds="H-root", held_tty=tty)
    held = frozenset({"H-root", "T-root"})
    plan = resume(state, launches=NOBODY, held=held, boot_id="b")
    assert plan == Resumption(reports=(), effects=(again,))
    if tty is not None:
        plan = resume(state, launches=NOBODY, held=frozenset({"H-root"}), boot_id="b")
        assert plan == Resumption(reports=(interrupted("L-root"),), effects=())


def test_what_ran_before_a_reboot_is_lost_by_it() -> None:
    state = history(*EXECUTED)
    plan = resume(state, launches=NOBODY, held=NOBODY, boot_id="another")
    reason = "the machine was rebooted"
    assert plan.reports == (
        c.ReportLost(launch_id="L-root", reason=reason),
        c.ReportLost(launch_id="L-c1", reason=reason),
        c.ReportProcessLost(exec_id="E-1", reason=reason),
    )


def test_a_root_on_its_way_out_is_not_launched() -> None:
    state = history(*CREATED, c.StartRoot(), c.DeleteSandbox(force=True))
    plan = resume(state, launches=NOBODY, held=frozenset({"H-root"}), boot_id="b")
    assert plan.effects == ()
    assert history(*plan.reports, state=state).phase == "deleted"


def test_an_end_that_is_owed_comes_before_the_destroy() -> None:
    """The worker knows how a process ended, but nothing of its container any more."""
    state = history(
        *RUNNING,
        execute(),
        reports_executed(),
        reports_exited(),
        c.DestroySubcontainer(cid="c1"),
    )
    told = resume(state, launches=NOBODY, held=NOBODY, boot_id="b", executions=frozenset({"E-1"}))
    assert told.effects == (DestroyLaunch(launch_id="L-c1"),)
    assert not any(isinstance(report, c.ReportDestroyed) for report in told.reports)
    forgotten = resume(state, launches=NOBODY, held=NOBODY, boot_id="b")
    assert c.ReportDestroyed(launch_id="L-c1") in forgotten.reports


def test_a_signal_to_a_container_that_is_gone() -> None:
    state = history(*RUNNING, kill())
    gone = replace(state.containers["c1"], status="destroyed")
    state = replace(state, containers={**state.containers, "c1": gone})
    plan = resume(state, launches=frozenset({"L-root", "L-c1"}), held=NOBODY, boot_id="b")
    assert plan.reports == (c.ReportKilled(kill_id="K-1", errno=3),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (CREATED, {"H-root"}),
        (TTY_ROOT, {"H-root", "T-root"}),
        (STARTED, set()),
        (TTY_WAITING, {"T-c1"}),
        ((*TTY_WAITING, TERMINAL_START), {"T-c1"}),
        ((*TTY_WAITING, TERMINAL_START, reports_started()), set()),
        ((*TTY_WAITING, TERMINAL_START, reports_failed()), set()),
        ((*TTY_WAITING, TERMINAL_START, reports_exited()), set()),
        ((*CREATED, c.StartRoot(), reports_exited("root")), set()),
    ],
)
def test_holds(given: Any, expected: set[str]) -> None:
    assert holds(history(*given)) == expected
