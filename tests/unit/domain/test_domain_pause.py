"""Pausing and resuming: the rules, what follows, and what a crash leaves."""

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.effects import FreezeLaunches
from manager.domain.evolve import fold
from manager.domain.query import is_paused
from manager.domain.react import react, resume
from manager.domain.request import EngineFacts
from manager.domain.state import Sandbox
from tests.unit.domain import builders as b

PAUSE = c.Pause(paused=True, pause_id="P", engine=b.ENGINE)
RESUME = c.Pause(paused=False, pause_id="R", engine=b.ENGINE)
PAUSED = (PAUSE, c.ReportFrozen(pause_id="P"))
CREATED = b.history(b.create())
RUNNING = b.history(b.create(), c.StartRoot(), b.reports_started("root"))
WITH_TWO = b.history(b.new(), b.start(), b.reports_started(), state=RUNNING)


def then(state: Sandbox, *commands: c.Command) -> Sandbox:
    return b.history(*commands, state=state)


def test_a_pause_is_announced_done_for_all_and_recorded() -> None:
    (asked,) = decide(WITH_TWO, PAUSE)
    assert asked == e.SandboxPauseRequested(pause_id="P", paused=True)
    launches = ("L-root", WITH_TWO.containers["c1"].intent.launch_id)  # type: ignore[union-attr]  # it has started
    effect = FreezeLaunches(pause_id="P", launch_ids=launches, frozen=True)
    assert react(WITH_TWO, asked) == (effect,)
    events = decide(fold([asked], WITH_TWO), c.ReportFrozen(pause_id="P"))
    assert events == (
        e.ContainerPaused(container=b.SANDBOX),
        e.ContainerPaused(container="c1"),
        e.SandboxPaused(pause_id="P"),
    )
    paused = fold([asked, *events], WITH_TWO)
    assert (paused.paused, paused.pausing) == (True, None)
    assert {each.status for each in paused.containers.values()} == {"paused"}


def test_a_resume_undoes_it() -> None:
    again = then(WITH_TWO, *PAUSED, RESUME, c.ReportFrozen(pause_id="R"))
    assert again == WITH_TWO


@pytest.mark.parametrize(
    ("state", "command", "error"),
    [
        (CREATED, PAUSE, "sandbox is not in started state, cannot pause: state=created"),
        (CREATED, RESUME, "sandbox is not in started state, cannot resume: state=created"),
        (RUNNING, RESUME, f'sandbox "{b.SANDBOX}" is not paused'),
        (then(RUNNING, PAUSE), RESUME, 'sandbox "s1" is already being paused or resumed'),
        (
            RUNNING,
            replace(PAUSE, engine=EngineFacts(name="bwrap", lacks=("pause",))),
            "engine bwrap does not support pause",
        ),
    ],
)
def test_what_is_refused(state: Sandbox, command: c.Pause, error: str) -> None:
    assert decide(state, command) == (e.SandboxPauseRejected(paused=command.paused, error=error),)


def test_to_pause_what_is_paused_is_done_already() -> None:
    paused = then(RUNNING, *PAUSED)
    assert decide(paused, replace(PAUSE, pause_id="P2")) == ()
    named = replace(PAUSE, pause_id="P2", request_id="r2")
    assert decide(paused, named) == (e.SandboxPaused(pause_id="P2", request_id="r2"),)
    assert then(paused, named).requests["r2"].done


def test_a_pause_with_an_id_is_answered_from_the_log() -> None:
    named = replace(PAUSE, request_id="r")
    paused = then(RUNNING, named, c.ReportFrozen(pause_id="P"))
    assert paused.requests["r"].done
    assert decide(paused, named) == ()
    other = decide(paused, replace(RESUME, request_id="r"))
    assert isinstance(other[0], e.SandboxPauseRejected)


def test_a_pause_that_failed_leaves_all_as_it_was() -> None:
    failed = c.ReportFrozen(pause_id="P", error="too slow")
    asked = then(RUNNING, replace(PAUSE, request_id="r"))
    (rejected,) = decide(asked, failed)
    assert isinstance(rejected, e.SandboxPauseRejected)
    assert rejected.error == f'pausing sandbox "{b.SANDBOX}": too slow'
    left = fold([rejected], asked)
    assert (left.paused, left.pausing, left.requests["r"].error) == (False, None, rejected.error)
    stuck = then(RUNNING, *PAUSED, RESUME)
    (rejected,) = decide(stuck, replace(failed, pause_id="R"))
    assert isinstance(rejected, e.SandboxPauseRejected)
    assert rejected.error.startswith("resuming")
    assert fold([rejected], stuck).paused


@pytest.mark.parametrize("state", [RUNNING, then(RUNNING, PAUSE)])
def test_a_report_of_another_pause_says_nothing(state: Sandbox) -> None:
    assert decide(state, c.ReportFrozen(pause_id="other")) == ()


def test_nothing_starts_in_a_paused_sandbox() -> None:
    paused = then(RUNNING, *PAUSED, b.new())
    (rejected,) = decide(paused, b.start())
    assert isinstance(rejected, e.ContainerStartRejected)
    assert rejected.error == "sandbox is paused, cannot start subcontainer"


def test_a_paused_sandbox_whose_root_ends_is_not_paused_any_more() -> None:
    ended = then(RUNNING, *PAUSED, b.reports_exited("root"))
    assert (ended.phase, ended.paused) == ("stopped", False)


def test_a_pause_is_answered_by_the_end_of_its_sandbox() -> None:
    asked = then(RUNNING, replace(PAUSE, request_id="r"))
    ended = then(asked, b.reports_exited("root"))
    assert (ended.pausing, ended.requests["r"].error) == (None, "the sandbox has ended")
    assert decide(ended, c.ReportFrozen(pause_id="P")) == ()
    assert not is_paused(asked, "P")
    assert is_paused(ended, "P")


def test_a_pause_that_a_crash_cut_short_is_asked_for_again() -> None:
    resumption = resume(
        then(RUNNING, PAUSE), launches=frozenset({"L-root"}), held=frozenset(), boot_id="b"
    )
    effect = FreezeLaunches(pause_id="P", launch_ids=("L-root",), frozen=True)
    assert resumption.effects == (effect,)
