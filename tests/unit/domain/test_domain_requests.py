"""A call with a request id acts once; the same id again finds the recorded outcome."""

from typing import Any

import pytest

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.evolve import fold
from manager.domain.repeat import recorded
from manager.domain.state import RequestOutcome, Sandbox
from tests.unit.domain.builders import (
    CREATED,
    DESTROYED,
    DESTROYING,
    ENGINE,
    FAILED,
    ROOT_EXITED,
    RUNNING,
    SANDBOX,
    STARTED,
    STOPPED,
    WAITING,
    a_request,
    checkpoint,
    create,
    history,
    kill,
    new,
    reports_destroyed,
    reports_exited,
    reports_failed,
    reports_started,
    restore,
    restore_sub,
    start,
)

ID = "request-1"
R_SANDBOX = a_request(SANDBOX, request_id=ID)
R_C1 = a_request("c1", request_id=ID)
DONE = (True, "")


def restore_c1() -> c.RestoreSubcontainer:
    return c.RestoreSubcontainer(request=R_C1, spec=None, engine=ENGINE)


@pytest.mark.parametrize(
    ("given", "when", "method", "cid", "refused"),
    [
        ((), create(R_SANDBOX), "Create", SANDBOX, False),
        ((), create(R_SANDBOX, spec=None), "Create", SANDBOX, True),
        (CREATED, create(R_SANDBOX), "Create", SANDBOX, True),
        (CREATED, c.StartRoot(request_id=ID), "StartRoot", SANDBOX, False),
        (STARTED, c.StartRoot(request_id=ID), "StartRoot", SANDBOX, True),
        (STARTED, new(request_id=ID), "CreateSubcontainer", "c1", False),
        (WAITING, new(request_id=ID), "CreateSubcontainer", "c1", True),
        (WAITING, start(request=R_C1), "StartSubcontainer", "c1", False),
        (RUNNING, start(request=R_C1), "StartSubcontainer", "c1", True),
        (STARTED, restore_c1(), "RestoreSubcontainer", "c1", True),
        (STARTED, restore(request_id=ID), "Restore", SANDBOX, True),
        (
            WAITING,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            "DestroySubcontainer",
            "c1",
            False,
        ),
        (
            RUNNING,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            "DestroySubcontainer",
            "c1",
            False,
        ),
        (
            DESTROYING,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            "DestroySubcontainer",
            "c1",
            False,
        ),
        (
            DESTROYED,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            "DestroySubcontainer",
            "c1",
            False,
        ),
        (
            STARTED,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            "DestroySubcontainer",
            "c1",
            True,
        ),
        (RUNNING, kill(request_id=ID), "Signal", "c1", False),
        (WAITING, kill(request_id=ID), "Signal", "c1", True),
        (ROOT_EXITED, c.DeleteSandbox(request_id=ID), "Delete", SANDBOX, False),
        (STARTED, c.DeleteSandbox(request_id=ID), "Delete", SANDBOX, True),
        (
            (*ROOT_EXITED, c.DeleteSandbox()),
            c.DeleteSandbox(request_id=ID),
            "Delete",
            SANDBOX,
            False,
        ),
    ],
)
def test_the_same_call_again_leaves_nothing(
    given: Any, when: c.ClientCommand, method: str, cid: str, refused: bool
) -> None:
    state = history(*given)
    events = decide(state, when)
    assert events
    after = fold(events, state)
    outcome = after.requests[ID]
    assert (outcome.method, outcome.cid) == (method, cid)
    assert bool(outcome.error) == refused
    assert recorded(after, when) == outcome
    assert decide(after, when) == ()


@pytest.mark.parametrize(
    ("given", "when", "outcomes", "expected"),
    [
        (CREATED, c.StartRoot(request_id=ID), (reports_started("root"),), DONE),
        (
            CREATED,
            c.StartRoot(request_id=ID),
            (reports_failed("root"),),
            (True, "starting sandbox: creating process: why"),
        ),
        (CREATED, c.StartRoot(request_id=ID), (reports_exited("root"),), DONE),
        (WAITING, start(request=R_C1), (reports_started(),), DONE),
        (WAITING, start(request=R_C1), (reports_exited(),), DONE),
        (WAITING, start(request=R_C1), (reports_failed(),), (True, "creating process: why")),
        (
            WAITING,
            start(request=R_C1),
            (c.DestroySubcontainer(cid="c1"), reports_destroyed()),
            (True, 'container "c1" was destroyed while it was being started'),
        ),
        (RUNNING, kill(request_id=ID), (c.ReportKilled(kill_id="K-1"),), DONE),
        (
            STOPPED,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            (reports_destroyed(),),
            DONE,
        ),
        (DESTROYING, c.DestroySubcontainer(cid="c1", request_id=ID), (reports_destroyed(),), DONE),
        (
            DESTROYING,
            c.DestroySubcontainer(cid="c1", request_id=ID),
            (c.DestroySubcontainer(cid="c1", request_id="other"), reports_destroyed()),
            DONE,
        ),
        (ROOT_EXITED, c.DeleteSandbox(request_id=ID), (reports_destroyed("root"),), DONE),
        (
            (*ROOT_EXITED, c.DeleteSandbox(request_id="first")),
            c.DeleteSandbox(request_id=ID),
            (reports_destroyed("root"),),
            DONE,
        ),
    ],
)
def test_a_call_that_is_under_way_is_settled_by_its_outcome(
    given: Any, when: c.ClientCommand, outcomes: Any, expected: tuple[bool, str]
) -> None:
    state = history(*given, when)
    assert not state.requests[ID].done
    state = history(*outcomes, state=state)
    assert (state.requests[ID].done, state.requests[ID].error) == expected
    assert all(outcome.done for outcome in state.requests.values())


def test_an_id_of_another_call_is_refused_and_keeps_its_outcome() -> None:
    state = history(*WAITING, new("c2", request_id=ID))
    for command in (
        create(R_SANDBOX),
        c.StartRoot(request_id=ID),
        new("c3", request_id=ID),
        start(request=R_C1),
        restore_c1(),
        restore(request_id=ID),
        c.DestroySubcontainer(cid="c2", request_id=ID),
        c.DestroySubcontainer(cid="unknown", request_id=ID),
        kill("c2", pid=-1, request_id=ID),
        c.DeleteSandbox(request_id=ID),
    ):
        (event,) = decide(state, command)
        text = f'RequestID "{ID}" was used for CreateSubcontainer of "c2" before'
        assert getattr(event, "error", "") == text
        assert fold((event,), state) == state


def test_an_id_that_is_too_long_is_refused_and_not_remembered() -> None:
    long = "r" * 129
    state = history(*WAITING)
    for command in (
        create(a_request(SANDBOX, request_id=long)),
        c.StartRoot(request_id=long),
        new(request_id=long),
        start(request=a_request(request_id=long)),
        restore_sub(request_id=long),
        restore(request_id=long),
        checkpoint(request_id=long),
        c.DestroySubcontainer(cid="c1", request_id=long),
        kill(request_id=long),
        c.DeleteSandbox(request_id=long),
    ):
        (event,) = decide(state, command)
        text = "RequestID must have at most 128 characters, but has 129"
        assert getattr(event, "error", "") == text
        assert fold((event,), state) == state
    assert history(new("c2", request_id="r" * 128), state=state).requests


def test_a_destroy_that_is_repeated_does_not_end_a_new_container() -> None:
    repeated = c.DestroySubcontainer(cid="c1", request_id=ID)
    state = history(*DESTROYED, repeated, new())
    assert decide(state, repeated) == ()
    assert state.containers["c1"].status == "creating"


def test_a_delete_that_is_repeated_does_not_end_a_new_sandbox() -> None:
    again = create(launch_id="L-2", hold_id="H-2")
    state = history(
        *ROOT_EXITED,
        *(c.DeleteSandbox(), c.DeleteSandbox(request_id=ID), reports_destroyed("root"), again),
    )
    assert decide(state, c.DeleteSandbox(request_id=ID)) == ()
    assert state.phase == "created"


def test_reports_and_calls_without_an_id_are_never_on_record() -> None:
    state = Sandbox(requests={"": RequestOutcome(method="", cid="", done=True)})
    assert recorded(Sandbox(), reports_started()) is None
    assert recorded(state, c.StartRoot()) is None
    failed = history(*FAILED)
    assert failed.requests == {}


def test_an_event_with_a_known_id_does_not_rewrite_its_outcome() -> None:
    state = history(*CREATED, c.StartRoot(request_id=ID), reports_started("root"))
    late = e.SandboxStartRejected(error="no", request_id=ID)
    assert fold((late,), state).requests[ID].error == ""
