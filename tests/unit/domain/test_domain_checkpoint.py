"""Making an image of a sandbox."""

from typing import Any

import pytest

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.checkpoint import ImageFacts
from manager.domain.decide import decide
from manager.domain.effects import SaveLaunches
from manager.domain.evolve import fold
from manager.domain.query import PENDING, Refused, checkpoint_answer
from manager.domain.react import MAY_BE_WHOLE, UNKNOWN_TO_WORKER, react, resume
from manager.domain.request import EngineFacts
from tests.unit.domain import builders as b

LACKING = EngineFacts(name="bwrap", lacks=("checkpoint",))
EXPLAINED = EngineFacts(
    name="crun",
    lacks=("checkpoint", "seccomp"),
    why_not={"checkpoint": "CRIU is not installed", "seccomp": "no"},
)
OTHERWISE = ImageFacts(digest="d", compression="zstd")
PIPE, READ_ONLY = b.fd("fifo", "w"), b.fd("regular", "r")
ON_TERMINAL = (
    *b.STARTED,
    b.new(files=(b.TTY,)),
    b.start(
        spec=b.a_spec(process=b.a_process(terminal=True)),
        request=b.a_request(files=(b.DIRECTORY,)),
    ),
    b.reports_started(),
)


@pytest.mark.parametrize(
    ("given", "command", "text"),
    [
        (b.RUNNING, b.checkpoint(files=()), "got 0 files, wanted 1"),
        (b.RUNNING, b.checkpoint(files_wanted=3), "got 1 files, wanted 3"),
        (b.RUNNING, b.checkpoint(files=(), files_wanted=0), "got 0 files, wanted 0"),
        (
            b.RUNNING,
            b.checkpoint(files=(PIPE,)),
            "checkpoint file must be a regular file that can be written, but is a fifo",
        ),
        (
            b.RUNNING,
            b.checkpoint(files=(READ_ONLY,)),
            "checkpoint file must be a regular file that can be written, but is open for 'r'",
        ),
        (
            b.CREATED,
            b.checkpoint(),
            "sandbox is not in started state, cannot checkpoint: state=created",
        ),
        (b.DELETING, b.checkpoint(), 'sandbox "s1" is being deleted'),
        (
            (*b.RUNNING, c.Pause(paused=True, pause_id="P", engine=b.ENGINE)),
            b.checkpoint(),
            "sandbox is paused, cannot checkpoint",
        ),
        (b.SAVING, b.checkpoint(), "sandbox is being checkpointed"),
        (b.RUNNING, b.checkpoint(engine=LACKING), "engine bwrap does not support checkpoint"),
        (
            b.RUNNING,
            b.checkpoint(engine=EXPLAINED),
            "engine crun does not support checkpoint: CRIU is not installed",
        ),
        (b.STARTING, b.checkpoint(), 'container "c1" is being started, cannot checkpoint'),
        (b.DESTROYING, b.checkpoint(), 'container "c1" is being destroyed, cannot checkpoint'),
        (ON_TERMINAL, b.checkpoint(), 'container "c1" has a terminal, cannot checkpoint'),
        (
            b.EXECUTED[:-1],
            b.checkpoint(),
            '"/bin/sh" is being executed in container "c1", cannot checkpoint',
        ),
        (
            b.CREATED,
            b.checkpoint(reserved_label="_timestamp", image=OTHERWISE),
            "statefile error: metadata invalid, can't start with _",
        ),
        (b.CREATED, b.checkpoint(image=OTHERWISE), "statefile error: flags set is invalid"),
        (b.RUNNING, b.checkpoint(files=(), image=OTHERWISE), "got 0 files, wanted 1"),
        (b.RUNNING, b.checkpoint(request_id="x" * 200), "RequestID must have at most"),
    ],
)
def test_what_is_refused(given: Any, command: c.Checkpoint, text: str) -> None:
    state = b.history(*given)
    (rejected,) = decide(state, command)
    assert isinstance(rejected, r.SandboxCheckpointRejected)
    assert rejected.error.startswith(text)
    assert rejected.compression == (command.image.compression if command.image else "none")
    assert rejected.reserved_label == command.reserved_label
    assert fold([rejected], state) == state


def test_a_refusal_is_remembered_under_its_id() -> None:
    command = b.checkpoint(files=(), request_id="r")
    state = b.history(*b.RUNNING, command)
    assert state.requests["r"].error == "got 0 files, wanted 1"
    assert decide(state, command) == ()


def test_what_was_executed_ends_and_its_event_says_so() -> None:
    state = b.history(*b.EXECUTED, b.checkpoint())
    assert state.checkpointing is not None
    (exited,) = decide(state, b.reports_process_exited())
    assert isinstance(exited, e.ProcessExited)
    assert exited.checkpoint_id == state.checkpointing.checkpoint_id
    after = b.history(*b.EXECUTED, b.checkpoint(resume=True), b.reports_saved(resumed=True))
    (exited,) = decide(after, b.reports_process_exited())
    assert isinstance(exited, e.ProcessExited)
    assert not exited.checkpoint_id
    after = b.history(*b.EXECUTED, b.checkpoint(), b.reports_saved(resumed=False))
    (exited,) = decide(after, b.reports_process_exited())
    assert isinstance(exited, e.ProcessExited)
    assert exited.checkpoint_id == state.checkpointing.checkpoint_id


@pytest.mark.parametrize("resumed", [True, False])
def test_an_image_is_made(resumed: bool) -> None:
    state = b.history(*b.RUNNING, b.new("c2"), *b.SAVING[-1:])
    assert state.checkpointing is not None
    command = b.checkpoint(resume=resumed, request_id="r")
    state = b.history(*b.RUNNING, b.new("c2"))
    (requested,) = decide(state, command)
    assert react(state, requested) == (
        SaveLaunches(checkpoint_id="C-1", launch_ids=("L-root", "L-c1"), resume=resumed),
    )
    state = fold([requested], state)
    assert checkpoint_answer(state, 0) == PENDING
    revived = {"L-c1": b.launched(4242), "L-gone": b.launched()} if resumed else {}
    (saved,) = decide(state, b.reports_saved(resumed=resumed, revived=revived))
    assert isinstance(saved, r.SandboxCheckpointed)
    state = fold([saved], state)
    assert checkpoint_answer(state, 0) is None
    assert state.requests["r"].done
    assert decide(state, command) == ()
    found = state.containers["c1"].launched
    assert found is not None
    assert found.pid == (4242 if resumed else 100)
    exited, *rest = decide(state, b.reports_exited("root"))
    assert isinstance(exited, e.ContainerExited)
    assert exited.checkpoint_id == ("" if resumed else "C-1")
    assert [type(each) for each in rest] == [e.SandboxStopped]
    state = fold([exited], state)
    assert state.containers["s1"].checkpoint_id == exited.checkpoint_id


def test_an_image_is_not_made() -> None:
    state = b.history(*b.RUNNING, b.checkpoint(request_id="r"))
    failure = c.ReportSaveFailed(checkpoint_id="C-1", stage="write", reason="no space left")
    (failed,) = decide(state, failure)
    text = 'checkpointing sandbox "s1": write: no space left'
    assert isinstance(failed, r.SandboxCheckpointFailed)
    assert failed.error == text
    state = fold([failed], state)
    assert checkpoint_answer(state, 0) == Refused(text)
    assert state.requests["r"].error == text
    assert (state.phase, state.checkpoint_id) == ("started", "")
    assert decide(state, failure) == ()
    assert checkpoint_answer(state, 1) == PENDING


def test_a_sandbox_that_ends_meanwhile() -> None:
    state = b.history(*b.RUNNING, b.checkpoint(request_id="r"), b.reports_exited("root"))
    assert state.checkpointing is None
    assert state.requests["r"].error == "the sandbox has ended"
    assert checkpoint_answer(state, 0) == Refused("the sandbox has ended")


@pytest.mark.parametrize(
    ("given", "when", "text"),
    [
        (b.SAVING, c.Pause(paused=True, pause_id="P", engine=b.ENGINE), "cannot pause"),
        ((*b.SAVING, b.new("c2")), b.start("c2"), "cannot start subcontainer"),
        (b.SAVING, b.execute(), 'sandbox "s1" is being checkpointed'),
        (b.SAVING, b.kill(), "PID 0: sandbox is being checkpointed"),
    ],
)
def test_what_must_wait(given: Any, when: c.Command, text: str) -> None:
    (refused,) = decide(b.history(*given), when)
    assert text in getattr(refused, "error", "")


def test_after_a_crash() -> None:
    state = b.history(*b.SAVING)
    none = frozenset[str]()
    known = resume(
        state,
        launches=frozenset({"L-root", "L-c1"}),
        held=none,
        boot_id="b",
        saves=frozenset({"C-1"}),
    )
    assert known.reports == ()
    plan = resume(state, launches=frozenset({"L-root", "L-c1"}), held=none, boot_id="b")
    assert plan.reports == (
        c.ReportSaveFailed(
            checkpoint_id="C-1",
            stage="interrupted",
            reason=f"{UNKNOWN_TO_WORKER}; {MAY_BE_WHOLE}",
        ),
    )
