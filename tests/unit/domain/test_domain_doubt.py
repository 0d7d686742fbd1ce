"""A log that is older than what was done since: nothing under way in it is said to have failed."""

from typing import Any

import pytest

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.effects import DestroyLaunch, FreezeLaunches
from manager.domain.evolve import fold
from manager.domain.query import Refused, start_answer, wait_answer
from manager.domain.query_exec import exec_answer
from manager.domain.react import AS_RECORDED, MAY_BE_WHOLE, REBOOTED, Resumption, resume
from manager.domain.request import EngineFacts
from manager.domain.state import Sandbox
from tests.unit.domain import builders as b

DOUBT = "the log was restored"
NOBODY = frozenset[str]()
BOTH = frozenset({"L-root", "L-c1"})


def plan_for(
    state: Sandbox, launches: frozenset[str] = NOBODY, boot_id: str = "b", **how: Any
) -> Resumption:
    return resume(state, launches=launches, held=NOBODY, boot_id=boot_id, doubt=DOUBT, **how)


def settled(state: Sandbox, plan: Resumption) -> Sandbox:
    for report in plan.reports:
        state = fold(decide(state, report), state)
    return state


@pytest.mark.parametrize(
    ("given", "known", "reports"),
    [
        (b.STARTING, "L-root", (c.ReportLost(launch_id="L-c1", reason=DOUBT, doubtful=True),)),
        (b.STARTING, "L-root L-c1", ()),
        (
            (*b.CREATED, c.StartRoot()),
            "",
            (c.ReportLost(launch_id="L-root", reason=DOUBT, doubtful=True),),
        ),
        (b.RUNNING, "L-root", (c.ReportLost(launch_id="L-c1", reason=DOUBT),)),
        (b.CREATED, "", (c.ReportHoldLost(cid=b.SANDBOX, reason=DOUBT),)),
        (
            (*b.RUNNING, b.kill()),
            "L-root L-c1",
            (c.ReportKilled(kill_id="K-1", untold=DOUBT),),
        ),
        (
            (*b.EXECUTED, b.execute(exec_id="E-2")),
            "L-root L-c1",
            (
                c.ReportProcessLost(exec_id="E-1", reason=DOUBT),
                c.ReportProcessLost(exec_id="E-2", reason=DOUBT, doubtful=True),
            ),
        ),
        (
            (*b.RUNNING, b.checkpoint()),
            "L-root L-c1",
            (
                c.ReportSaveFailed(
                    checkpoint_id="C-1", stage="interrupted", reason=f"{DOUBT}; {MAY_BE_WHOLE}"
                ),
            ),
        ),
    ],
)
def test_what_the_worker_does_not_know_may_have_happened(
    given: Any, known: str, reports: Any
) -> None:
    plan = plan_for(b.history(*given), frozenset(known.split()))
    assert plan.reports == reports


def test_what_ran_under_another_boot_is_lost_by_that() -> None:
    plan = plan_for(b.history(*b.STARTED), boot_id="another")
    assert plan.reports == (c.ReportLost(launch_id="L-root", reason=REBOOTED),)


def test_a_destroy_is_told_after_what_it_ended() -> None:
    state = b.history(*b.STARTING, c.DestroySubcontainer(cid="c1"))
    plan = plan_for(state, frozenset({"L-root"}))
    assert [type(each) for each in plan.reports] == [c.ReportLost, c.ReportDestroyed]
    kinds = [type(event) for event in decide(state, plan.reports[0])]
    assert kinds == [e.ContainerLost]
    assert settled(state, plan).containers["c1"].status == "destroyed"
    assert DestroyLaunch(launch_id="L-c1") in plan_for(state, BOTH).effects


@pytest.mark.parametrize("cid", ["c1", "root"])
def test_who_asked_for_a_start_is_told_that_nobody_knows(cid: str) -> None:
    before = b.history(*b.CREATED, c.StartRoot(request_id="r"))
    if cid == "c1":
        before = b.history(*b.STARTED, b.new(), b.start(request_id="r"))
    name = b.SANDBOX if cid == "root" else cid
    after = settled(before, plan_for(before, frozenset({"L-root"} if cid == "c1" else ())))
    text = f'container "{name}" is lost: {DOUBT}'
    assert after.containers[name].status == "lost"
    assert start_answer(after, name, f"L-{cid}") == Refused(text)
    assert wait_answer(after, name) == Refused(text)
    assert (after.requests["r"].done, after.requests["r"].error) == (True, text)
    assert after.phase == ("started" if cid == "c1" else "stopped")


def test_what_is_on_record_to_have_started_is_not_doubted() -> None:
    report = c.ReportLost(launch_id="L-c1", reason="why", doubtful=True)
    (lost,) = decide(b.history(*b.RUNNING), report)
    assert lost == e.ContainerLost(container="c1", launch_id="L-c1", reason="why")


def test_who_asked_for_a_process_is_told_that_nobody_knows() -> None:
    before = b.history(*b.RUNNING, b.execute(request_id="r"))
    after = settled(before, plan_for(before, BOTH))
    text = f"the process is lost: {DOUBT}"
    assert exec_answer(after, "c1", "E-1") == Refused(text)
    assert after.requests["r"].error == text


def test_who_sent_a_signal_is_told_that_nobody_knows() -> None:
    before = b.history(*b.RUNNING, b.kill(request_id="r"))
    after = settled(before, plan_for(before, BOTH))
    assert after.signals == {}
    assert after.requests["r"].error == (
        'signaling process in container "c1" PID 0: '
        f"nobody can tell whether it was delivered: {DOUBT}"
    )


@pytest.mark.parametrize("paused", [True, False])
def test_what_runs_is_made_what_the_log_says(paused: bool) -> None:
    asked = c.Pause(paused=True, pause_id="P-1", engine=EngineFacts(name="crun"))
    pause = (asked, c.ReportFrozen(pause_id="P-1")) if paused else ()
    state = b.history(*b.RUNNING, *pause)
    assert state.paused is paused
    pause_id = f"{AS_RECORDED}{b.SANDBOX}"
    known = frozenset({"L-root", "L-c1", "L-other"})
    freeze = FreezeLaunches(pause_id=pause_id, launch_ids=("L-c1", "L-root"), frozen=paused)
    assert plan_for(state, known).effects == (freeze,)
    assert plan_for(state).effects == ()
