"""Restoring a sandbox: order of checks, texts, and what follows from each outcome."""

from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.decide import decide
from manager.domain.effects import Launch, ReleaseHold, SendSignal
from manager.domain.evolve import fold
from manager.domain.evolve_restore import evolve_restore
from manager.domain.query import (
    PENDING,
    Refused,
    restore_answer,
    restore_failure,
    runtime_state,
    wait_answer,
)
from manager.domain.react import KEEPER_GONE, holds, react, resume
from manager.domain.request import EngineFacts, GoferMountConf
from manager.domain.state import Sandbox
from tests.unit.domain import builders as b

LACKING = EngineFacts(name="bwrap", version="0.11", lacks=("checkpoint",))
OTHER = EngineFacts(name="runsc", version="2")
TERMINAL = b.a_spec(process=b.a_process(terminal=True))


def errors(events: Any) -> list[str]:
    return [event.error for event in events if getattr(event, "error", "")]


def tags(events: Any) -> list[type]:
    return [type(event) for event in events]


# --- Restore -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "command", "text"),
    [
        ((), b.restore("root"), "cannot restore a container in state=absent"),
        (b.STARTED, b.restore("root"), "cannot restore a container in state=started"),
        (b.RESTORING, b.restore("root"), "cannot restore a container in state=restoringUnstarted"),
        (
            (*b.CREATED, c.StartRoot()),
            b.restore("root"),
            'root container "s1" is already being started',
        ),
        (
            (*b.CREATED, c.StartRoot(), c.DestroySubcontainer(cid="s1")),
            b.restore("root"),
            'sandbox "s1" is being deleted',
        ),
        (
            (*b.CREATED, c.ReportHoldLost(cid="s1", reason="reboot")),
            b.restore("root"),
            'the files donated for root container "s1" are lost: create it anew',
        ),
        (b.CREATED, b.restore("root", engine=LACKING), "engine bwrap does not support checkpoint"),
        (
            (
                b.create(
                    b.a_request("s1", files=(b.DIRECTORY,)),
                    TERMINAL,
                    tty=b.TTY,
                    tty_hold_id="T",
                ),
            ),
            b.restore("root"),
            "a container with a terminal cannot be restored",
        ),
        (
            (
                b.create(
                    b.a_request(
                        "s1",
                        files=(*b.STDIO, b.FILE, b.DIRECTORY),
                        is_rootfs_upper_tar_file_present=True,
                        gofer_mount_confs=(GoferMountConf(lower=1, upper=1),),
                    )
                ),
            ),
            b.restore("root"),
            "rootfs upper tar file is not supported during restore",
        ),
    ],
)
def test_a_restore_that_changes_nothing(given: Any, command: c.Restore, text: str) -> None:
    state = b.history(*given)
    events = decide(state, command)
    assert events == (e.RestoreRejected(error=text, files=command.files),)
    assert fold(events, state) == state


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"files": ()}, "at least one file must be passed to Restore"),
        ({"image_error": "statefile cannot be empty", "image": None}, "statefile cannot be empty"),
        (
            {"image": b.image("root", container_count=None)},
            "container count not present in state file",
        ),
        ({"image": b.image("root", container_count=0)}, "invalid container count value: 0"),
        (
            {"image": b.image("root", containers=None)},
            "container specs not found in metadata during restore",
        ),
        (
            {"image": b.image("root", container_count=2)},
            "the image says that it holds 2 containers, but has 1",
        ),
        ({"engine": OTHER}, "the image was made by engine crun, the sandbox runs on runsc"),
        (
            {"image": b.image("root", engine_version="1.0")},
            "crun version does not match across checkpoint restore, checkpoint: 1.0 current: 1.8",
        ),
        ({"hold_error": "the worker does not answer"}, "the worker does not answer"),
    ],
)
def test_an_image_that_is_none_ends_the_sandbox(members: Any, text: str) -> None:
    state = b.history(b.named_create())
    command = b.restore("root", request_id="r", **members)
    (failed,) = events = decide(state, command)
    assert isinstance(failed, r.SandboxRestoreFailed)
    assert (failed.error, failed.method) == (text, "Restore")
    after = fold(events, state)
    assert after.phase == "restoreFailed"
    assert restore_failure(after) == f"Restore failed: {text}"
    assert restore_answer(after) == Refused(text)
    assert wait_answer(after, "s1") == Refused(f"Restore failed: {text}")
    assert runtime_state(after, "s1") == 3
    assert after.requests["r"].error == text
    assert decide(after, command) == ()
    assert react(state, failed) == (ReleaseHold(hold_id="H-root"),)


def test_a_single_container_is_restored_at_once() -> None:
    state = b.history(b.named_create())
    begun, validated = decide(state, b.restore("root", request_id="r"))
    assert isinstance(begun, r.RestoreBegun)
    assert begun.root_intent.engine_id == "e-root"
    assert validated == r.RestoreValidated(restore_id="R-1", policy=2, verdict="same")
    waiting = fold([begun], state)
    assert holds(waiting) == {"H-root", "I-1"}
    (launch,) = react(waiting, validated)
    assert launch == Launch(
        intent=begun.root_intent, held_fds="H-root", held_image="I-1", image_name="root"
    )
    state = fold([validated], waiting)
    assert (state.phase, state.containers["s1"].status) == ("restoringStarted", "starting")
    assert restore_answer(state) == PENDING
    assert not state.requests["r"].done
    events = decide(state, b.reports_started("root"))
    assert tags(events) == [e.ContainerStarted, r.SandboxRestored]
    assert react(fold(events[:1], state), events[1]) == (ReleaseHold(hold_id="I-1"),)
    state = fold(events, state)
    assert (state.phase, restore_answer(state)) == ("restored", None)
    assert state.requests["r"].done
    assert state.savings_ns == (1000, 5000 - 5)
    assert holds(state) == frozenset()


def test_saved_is_what_was_used_less_what_the_restore_took() -> None:
    taken = {"root": 100, "c1": 20, "c2": 3}
    reports = [b.reports_started(cid, cpu_ns=cpu_ns) for cid, cpu_ns in taken.items()]
    assert b.history(*b.TRIGGERED, *reports).savings_ns[0] == 1000 - 123
    ended = b.history(*b.TRIGGERED, *reports[:2], b.reports_exited("c2"))
    assert ended.savings_ns[0] == 1000 - 120


def test_in_the_background_the_answer_comes_before_the_end() -> None:
    command = b.restore("root", request_id="r", background=True)
    state = b.history(b.named_create(), command)
    assert state.phase == "restoringStarted"
    assert state.requests["r"].done
    assert restore_answer(state) == PENDING
    given = (b.named_create(), b.restore("root", "one", request_id="r", background=True))
    state = b.history(*given, b.new(), b.restore_sub(images=("root", "one"), request_id="s"))
    assert state.phase == "restoringStarted"
    assert state.requests["s"].done
    failed = b.history(b.reports_failed("root", stage="restore"), state=state)
    assert failed.phase == "restoreFailed"
    assert restore_failure(failed) == "RestoreSubcontainer failed: failed to load kernel: why"


def test_what_differs_is_refused_by_the_policy() -> None:
    create = b.named_create(request=b.a_request("s1", conf={"RestoreSpecValidation": 2}))
    command = b.restore("root", spec_object=b.spec_object("root", root={"readonly": True}))
    events = decide(b.history(create), command)
    assert tags(events) == [r.RestoreBegun, r.RestoreValidated, r.SandboxRestoreFailed]
    text = (
        "failed to handle restore spec validation: failed to validate restore spec: failed to "
        'validate spec for container "root": "Root.Readonly" does not match across checkpoint '
        'restore for container: "root", checkpoint false restore true'
    )
    assert errors(events) == [text, text]
    assert events[1].verdict == "differs"
    after = b.history(create, command)
    assert after.phase == "restoreFailed"
    assert restore_failure(after) == f"Restore failed: {text}"


@pytest.mark.parametrize(
    ("policy", "text"),
    [(0, ""), (1, ""), (3, "invalid option for restore spec validation 3")],
)
def test_other_policies(policy: int, text: str) -> None:
    create = b.named_create(request=b.a_request("s1", conf={"RestoreSpecValidation": policy}))
    command = b.restore("root", spec_object=b.spec_object("root", root={"readonly": True}))
    validated = decide(b.history(create), command)[1]
    assert isinstance(validated, r.RestoreValidated)
    assert (validated.verdict, validated.policy, len(validated.mismatches)) == (
        "differs",
        policy,
        1,
    )
    wrapped = f"failed to handle restore spec validation: {text}" if text else ""
    assert validated.error == wrapped


def test_a_policy_that_is_no_number_is_the_default() -> None:
    create = b.named_create(request=b.a_request("s1", conf={"RestoreSpecValidation": "no"}))
    begun = decide(b.history(create), b.restore("root"))[0]
    assert isinstance(begun, r.RestoreBegun)
    assert begun.policy == 2


def test_a_host_network_is_not_ours() -> None:
    command = b.restore("root", image=b.image("root", network="host"))
    text = "checkpoint created with host networking cannot be restored with none networking"
    assert errors(decide(b.history(b.named_create()), command)) == [text, text]


def test_a_name_that_the_image_does_not_have() -> None:
    create = b.named_create("stranger", request=b.a_request("s1"))
    events = decide(b.history(create), b.restore("root", spec_object=b.spec_object("stranger")))
    absent = (
        "failed to handle restore spec validation: failed to validate restore spec: "
        'checkpoint image does not contain spec for container: "stranger"'
    )
    assert errors(events) == [absent, absent]
    lenient = b.named_create(
        "stranger", request=b.a_request("s1", conf={"RestoreSpecValidation": 0})
    )
    events = decide(b.history(lenient), b.restore("root"))
    text = 'unable to remap task with CID "s1" (name: "stranger"). Available names: [root]'
    assert errors(events) == [text, text]


# --- RestoreSubcontainer -------------------------------------------------------------------------


@pytest.mark.parametrize("given", [(), b.CREATED, b.STARTED, b.TRIGGERED, b.RESTORED])
def test_it_wants_a_restore_that_waits(given: Any) -> None:
    state = b.history(*given)
    command = b.restore_sub()
    text = f"sandbox is not being restored, cannot restore subcontainer: state={state.phase}"
    (rejected,) = decide(state, command)
    assert rejected == e.ContainerRestoreRejected(
        container="c1", request=command.request, error=text
    )


WAITING = (*b.RESTORING, b.new())
TAR = {
    "files": (*b.STDIO, b.FILE, b.DIRECTORY),
    "is_rootfs_upper_tar_file_present": True,
}


@pytest.mark.parametrize(
    ("given", "command", "text"),
    [
        (
            WAITING,
            replace(b.restore_sub(), spec=None),
            "start arguments missing spec",
        ),
        (WAITING, b.restore_sub(conf=None), "start arguments missing config"),
        (
            WAITING,
            b.restore_sub(**TAR),
            "rootfs upper tar file is not supported during restore",
        ),
        (
            WAITING,
            b.restore_sub(files=b.STDIO),
            "restore arguments must contain at least 4 FDs, but only got 3",
        ),
        (
            WAITING,
            b.restore_sub(
                files=(b.DIRECTORY,), spec_object={"process": b.a_process(terminal=True)}
            ),
            "a container with a terminal cannot be restored",
        ),
        (b.RESTORING, b.restore_sub(), 'trying to restore a deleted container "c1"'),
        (
            WAITING,
            b.restore_sub(files=(b.FILE, *b.STDIO, b.DIRECTORY)),
            "importing fds: ",
        ),
        (WAITING, b.restore_sub(files=(*b.STDIO, b.FILE)), "failed to setupFS: "),
        (b.PARKED, b.restore_sub(), 'container "one" already restored'),
        (
            (*b.PARKED, b.new("c2")),
            b.restore_sub("c2", "one"),
            'container "one" already restored',
        ),
        (
            b.PARKED,
            b.restore_sub("c1", "two"),
            'container CID "c1" already belongs to container "one"',
        ),
        (WAITING, replace(b.restore_sub(), hold_error="no worker"), "no worker"),
        (WAITING, b.restore_sub(request_id="x" * 200), "RequestID must have at most"),
    ],
)
def test_an_error_in_one_registration_is_its_own(
    given: Any, command: c.RestoreSubcontainer, text: str
) -> None:
    state = b.history(*given)
    (rejected,) = decide(state, command)
    assert isinstance(rejected, e.ContainerRestoreRejected)
    assert rejected.error.startswith(text)
    after = fold([rejected], state)
    assert (after.phase, after.restore) == ("restoringUnstarted", state.restore)


def test_nothing_is_registered_in_a_sandbox_that_goes() -> None:
    state = replace(b.history(*WAITING), deleting=True)
    assert errors(decide(state, b.restore_sub())) == ['sandbox "s1" is being deleted']


def test_a_sandbox_that_is_not_restored_is_not_waited_for() -> None:
    text = "sandbox is not being restored, cannot wait for restore: state=started"
    assert restore_answer(b.history(*b.STARTED)) == Refused(text)


def test_parked_and_the_last_one() -> None:
    state = b.history(*WAITING)
    (accepted,) = decide(state, b.restore_sub(request_id="r"))
    assert isinstance(accepted, r.ContainerRestoreAccepted)
    assert (accepted.registered, accepted.total) == (2, 3)
    assert accepted.intent.engine_id == "e-one"
    state = fold([accepted], state)
    assert (state.phase, state.requests["r"].done) == ("restoringUnstarted", True)
    assert holds(state) == {"H-root", "H-c1", "I-1"}
    assert wait_answer(state, "c1") == PENDING
    state = b.history(b.new("c2"), state=state)
    start = replace(
        b.start("c2", spec=b.parse_spec_object(b.spec_object("two")), request_id="r2"),
        hold_id="H-c2",
        spec_object=b.spec_object("two"),
        image_specs=b.specs_of("root", "one", "two"),
    )
    events = decide(state, start)
    assert tags(events) == [
        e.ContainerStartTranslated,
        r.ContainerRestoreAccepted,
        r.RestoreValidated,
    ]
    before, state = fold(events[:2], state), fold(events, state)
    launches = react(before, events[2])
    found = [(each.image_name, each.sandbox) for each in launches if isinstance(each, Launch)]
    assert found == [("root", None), ("one", "L-root"), ("two", "L-root")]
    assert not state.requests["r2"].done
    for cid in ("root", "c2"):
        state = b.history(b.reports_started(cid), state=state)
        assert (state.phase, state.requests["r2"].done) == ("restoringStarted", False)
    state = b.history(b.reports_started("c1"), state=state)
    assert (state.phase, state.requests["r2"].done) == ("restored", True)
    assert decide(state, start) == ()


def test_a_registration_can_be_taken_back() -> None:
    state = b.history(*b.PARKED, c.DestroySubcontainer(cid="c1"))
    assert state.restore is not None
    assert state.restore.registered == ("s1",)
    state = b.history(b.new(), b.restore_sub(), state=state)
    assert state.restore is not None
    assert state.restore.registered == ("s1", "c1")
    assert b.history(*b.PARKED, b.new("c2"), c.DestroySubcontainer(cid="c2")).restore == (
        b.history(*b.PARKED).restore
    )


def test_the_first_of_all_mismatches_is_the_answer() -> None:
    changed = b.spec_object("one", root={"readonly": True})
    state = b.history(*WAITING, b.restore_sub(spec_object=changed), b.new("c2"))
    events = decide(state, b.restore_sub("c2", "two", spec_object=b.spec_object("two", hooks={})))
    validated = events[1]
    assert isinstance(validated, r.RestoreValidated)
    assert [each.container for each in validated.mismatches] == ["one"]
    after = fold(events, state)
    assert restore_failure(after).startswith("RestoreSubcontainer failed: failed to handle")
    assert after.containers["c1"].status == "creating"
    assert wait_answer(after, "c1") == Refused(restore_failure(after))


def test_one_that_cannot_be_launched_ends_all() -> None:
    state = b.history(*b.TRIGGERED, b.reports_started("root"))
    events = decide(state, b.reports_failed("c1", stage="restore"))
    assert tags(events) == [e.ContainerStartFailed, r.SandboxRestoreFailed]
    assert errors(events) == ["failed to load kernel: why"]
    before, after = fold(events[:1], state), fold(events, state)
    assert after.phase == "restoreFailed"
    effects = react(before, events[1])
    assert [each.launch_id for each in effects if isinstance(each, SendSignal)] == ["L-root"]
    lost = decide(state, b.reports_lost("c1", ran=True))
    assert tags(lost) == [e.ContainerLost, r.SandboxRestoreFailed]
    assert errors(lost) == ['container "c1" is lost: reboot']
    assert ReleaseHold(hold_id="I-1") in effects
    # The third one starts nevertheless, and is ended.
    (started,) = decide(after, b.reports_started("c2"))
    assert [type(each) for each in react(after, started)] == [SendSignal]
    (exited,) = decide(fold([started], after), b.reports_exited("c2"))
    assert isinstance(exited, e.ContainerExited)
    (exited,) = decide(after, b.reports_exited("root"))
    assert fold([exited], after).phase == "restoreFailed"
    (failed,) = decide(after, b.reports_failed("c2"))
    assert isinstance(failed, e.ContainerStartFailed)


def test_one_that_ends_at_once_was_restored_too() -> None:
    state = b.history(*b.TRIGGERED, b.reports_started("root"), b.reports_started("c2"))
    events = decide(state, b.reports_exited("c1"))
    assert tags(events) == [e.ContainerExited, r.SandboxRestored]
    state = b.history(*b.TRIGGERED)
    assert tags(decide(state, b.reports_exited("root"))) == [e.ContainerExited, e.SandboxStopped]


# --- after a crash -------------------------------------------------------------------------------

HELD = frozenset({"H-root", "H-c1", "H-c2", "I-1"})


def settled(state: Sandbox, held: frozenset[str], launches: frozenset[str] = frozenset()) -> Any:
    plan = resume(state, launches=launches, held=held, boot_id="boot")
    return plan, b.history(*plan.reports, state=state)


def test_what_waits_goes_on_waiting_if_all_is_still_held() -> None:
    state = b.history(*b.PARKED)
    plan, after = settled(state, HELD)
    assert (plan.reports, plan.effects, after) == ((), (), state)


@pytest.mark.parametrize(
    ("lost", "text"),
    [
        ("I-1", "RestoreSubcontainer failed: the image is lost"),
        (
            "H-c1",
            'RestoreSubcontainer failed: the files donated for container "c1" are lost',
        ),
        (
            "H-root",
            'RestoreSubcontainer failed: the files donated for container "s1" are lost',
        ),
    ],
)
def test_what_is_lost_ends_the_restore(lost: str, text: str) -> None:
    _, after = settled(b.history(*b.PARKED), HELD - {lost})
    assert (after.phase, restore_failure(after)) == ("restoreFailed", f"{text}: {KEEPER_GONE}")


def test_files_of_one_that_was_not_registered_yet() -> None:
    state = b.history(*b.RESTORING, b.new(files=(b.TTY,)))
    _, after = settled(state, HELD)
    assert after.phase == "restoringUnstarted"
    assert after.containers["c1"].tty_hold is None


def test_launches_that_never_went_out_are_repeated() -> None:
    state = b.history(*b.TRIGGERED)
    plan, after = settled(state, HELD, frozenset({"L-c1"}))
    assert after == state
    assert [each.image_name for each in plan.effects if isinstance(each, Launch)] == ["root", "two"]


def test_launches_that_cannot_be_repeated_end_the_restore() -> None:
    plan, after = settled(b.history(*b.TRIGGERED), frozenset())
    assert after.phase == "restoreFailed"
    assert plan.effects == ()
    assert decide(after, c.ReportImageLost(restore_id="R-1", reason="x")) == ()
    assert decide(b.history(*b.RESTORED), c.ReportImageLost(restore_id="R-0", reason="x")) == ()


def test_a_sandbox_that_ends_lets_the_image_go() -> None:
    state = b.history(*b.PARKED)
    stopped = decide(state, c.DestroySubcontainer(cid="s1"))
    assert tags(stopped) == [e.ContainerDestroyed, e.SandboxStopped]
    assert react(fold(stopped[:1], state), stopped[1]) == (ReleaseHold(hold_id="I-1"),)


@pytest.mark.parametrize("given", [b.RESTORING, b.PARKED])
def test_a_sandbox_deleted_while_it_is_restored_lets_the_image_go(given: Any) -> None:
    state = b.history(*given)
    *_, before_last, last = decide(state, c.DeleteSandbox(force=True))
    assert (type(before_last), last) == (e.ContainerDestroyed, e.SandboxDeleted())
    assert react(fold([before_last], state), last) == (ReleaseHold(hold_id="I-1"),)


def test_an_image_is_let_go_once() -> None:
    state = b.history(*b.PARKED, c.DestroySubcontainer(cid="s1"))
    deleted = decide(state, c.DeleteSandbox(force=True))[-1]
    assert react(state, deleted) == ()


def test_a_restored_sandbox_takes_more_containers() -> None:
    state = b.history(*b.RESTORED, b.new("c3"), b.start("c3"), b.reports_started("c3"))
    assert state.containers["c3"].status == "running"


def test_events_that_fit_nothing_change_nothing() -> None:
    state = b.history(*b.CREATED)
    accepted = decide(b.history(*WAITING), b.restore_sub())[0]
    assert fold([accepted], state) == state
    validated = r.RestoreValidated(restore_id="R-1", policy=2, verdict="same")
    assert fold([validated], state) == state
    assert react(state, validated) == ()


def test_an_event_of_another_kind_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        evolve_restore(b.history(), "no event")  # type: ignore[arg-type]  # which the test is about
