"""Answers that leave no event: Wait, ContainerRuntimeState, how a start came out."""

from typing import Any

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.exit_status import (
    Exited,
    Signaled,
    Unknown,
    from_wait_status,
    to_shell_code,
    to_wait_status,
)
from manager.domain.gotext import quote, slice_text
from manager.domain.ids import is_valid_id
from manager.domain.query import (
    PENDING,
    Ended,
    Refused,
    is_destroyed,
    launch_to_end,
    runtime_state,
    start_answer,
    wait_answer,
)
from manager.domain.spec import Mount, parse_spec, parse_spec_object
from tests.unit.domain.builders import (
    CREATED,
    DESTROYED,
    DESTROYING,
    FAILED,
    LOST,
    RUNNING,
    STARTED,
    STARTING,
    STOPPED,
    WAITING,
    history,
    new,
    reports_destroyed,
    reports_exited,
    reports_lost,
    start,
)

NOT_FOUND = Refused('container "c1" not found')
NOT_STARTED = Refused('container "c1" not started')
UNKNOWN = reports_exited(exit_status=Unknown(reason="reboot"))


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ((), NOT_FOUND),
        (STARTED, NOT_FOUND),
        (WAITING, NOT_STARTED),
        (STARTING, PENDING),
        (RUNNING, PENDING),
        (DESTROYING, PENDING),
        (FAILED, NOT_STARTED),
        (STOPPED, Ended(768)),
        ((*RUNNING, reports_exited(exit_status=Signaled(signal=9))), Ended(9)),
        ((*RUNNING, reports_exited(exit_status=Signaled(signal=11, core=True))), Ended(139)),
        ((*RUNNING, UNKNOWN), Refused('exit status of container "c1" is lost: reboot')),
        (LOST, Refused('container "c1" is lost: reboot')),
        ((*STARTING, reports_lost(ran=True)), Refused('container "c1" is lost: reboot')),
        (DESTROYED, Ended(768)),
        (
            (*LOST, c.DestroySubcontainer(cid="c1"), reports_destroyed()),
            Refused('container "c1" is lost: reboot'),
        ),
        ((*WAITING, c.DestroySubcontainer(cid="c1")), NOT_FOUND),
        ((*DESTROYED, new()), NOT_STARTED),
        ((*STOPPED, c.DeleteSandbox(force=True)), Ended(768)),
    ],
)
def test_wait(given: Any, answer: Any) -> None:
    state = history(*given)
    assert wait_answer(state, "c1") == answer
    assert wait_answer(state, "c1") == answer


@pytest.mark.parametrize(
    ("phase", "given", "answer"),
    [
        ("restoringUnstarted", STARTED, PENDING),
        ("restoringUnstarted", WAITING, PENDING),
        ("restoringUnstarted", STOPPED, Ended(768)),
        (
            "restoringStarted",
            WAITING,
            Refused(
                'could not find init process of restored container "c1" in state "restoringStarted"'
            ),
        ),
        (
            "restored",
            WAITING,
            Refused('could not find init process of restored container "c1" in state "restored"'),
        ),
        ("restored", FAILED, NOT_STARTED),
        ("restored", STARTED, NOT_FOUND),
        ("restored", RUNNING, PENDING),
        ("restoreFailed", WAITING, NOT_STARTED),
    ],
)
def test_wait_around_a_restore(phase: Any, given: Any, answer: Any) -> None:
    assert wait_answer(replace(history(*given), phase=phase), "c1") == answer


@pytest.mark.parametrize(
    ("given", "phase", "number"),
    [
        (STARTED, None, 3),
        (WAITING, None, 1),
        (STARTING, None, 1),
        (RUNNING, None, 2),
        (DESTROYING, None, 2),
        (STOPPED, None, 3),
        (FAILED, None, 3),
        (LOST, None, 3),
        (DESTROYED, None, 3),
        ((*DESTROYED, new()), None, 1),
        ((*FAILED, c.DestroySubcontainer(cid="c1"), reports_destroyed(), new()), None, 1),
        (WAITING, "restoreFailed", 3),
        (STARTING, "restoreFailed", 3),
        (RUNNING, "restoreFailed", 2),
        (WAITING, "restored", 1),
    ],
)
def test_runtime_state(given: Any, phase: Any, number: int) -> None:
    state = history(*given)
    state = replace(state, phase=phase or state.phase)
    assert runtime_state(state, "c1") == number


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (STARTED, Refused("the start has been superseded")),
        (STARTING, PENDING),
        (RUNNING, None),
        (STOPPED, None),
        (FAILED, Refused("creating process: why")),
        ((*FAILED, start(launch_id="L-2")), Refused("the start has been superseded")),
        (
            (*STARTING, c.DestroySubcontainer(cid="c1"), reports_destroyed()),
            Refused('container "c1" was destroyed while it was being started'),
        ),
    ],
)
def test_start_answer(given: Any, answer: Any) -> None:
    assert start_answer(history(*given), "c1", "L-c1") == answer


def test_is_destroyed() -> None:
    assert is_destroyed(None)
    assert is_destroyed(history(*DESTROYED).containers["c1"])
    found = history(*DESTROYING).containers["c1"]
    assert found.intent is not None
    assert not is_destroyed(found, found.intent.launch_id)
    assert launch_to_end((), found) == found.intent.launch_id
    assert launch_to_end((), None) == ""
    event = e.ContainerDestroyRequested(container="c1", launch_id="L-now")
    assert launch_to_end((e.ContainerDestroyed(container="c1"), event), found) == "L-now"
    assert is_destroyed(found, "of an earlier container of that id")
    assert is_destroyed(history(*WAITING).containers["c1"], "L")


def test_the_root_has_a_launch_before_it_starts() -> None:
    state = history(*CREATED)
    found = state.by_launch("L-root")
    assert found is not None
    assert found.status == "creating"
    assert state.by_launch("L-other") is None


@pytest.mark.parametrize(
    ("raw", "status", "shell"),
    [
        (0, Exited(code=0), 0),
        (768, Exited(code=3), 3),
        (0xFF00, Exited(code=255), 255),
        (9, Signaled(signal=9), 137),
        (139, Signaled(signal=11, core=True), 139),
    ],
)
def test_wait_statuses(raw: int, status: Exited | Signaled, shell: int) -> None:
    assert from_wait_status(raw) == status
    assert to_wait_status(status) == raw
    assert to_shell_code(status) == shell


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ('"\\', r'"\"\\"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\0\x1f\x7f", r'"\x00\x1f\x7f"'),
        ("\x80\u00a0\u2028\ufeff", r'"\u0080\u00a0\u2028\ufeff"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("é世😀'", '"é世😀\'"'),
    ],
)
def test_quote_as_go_does(text: str, quoted: str) -> None:
    assert quote(text) == quoted


def test_slices_as_go_prints_them() -> None:
    assert slice_text([]) == "[]"
    assert slice_text([1, "b"]) == "[1 b]"


@pytest.mark.parametrize("text", ["a", "_", "0", "A.b+c-d_e", "a" * 128, "a..b"])
def test_ids(text: str) -> None:
    assert is_valid_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "+a",
        "a/b",
        "../x",
        "a b",
        "a\n",
        "a\0",
        "é",
        "\u0430",
        "a" * 129,
        "\uff11",
    ],
)
def test_ids_that_are_none(text: str) -> None:
    assert not is_valid_id(text)


@pytest.mark.parametrize(
    ("mount", "is_bind", "takes"),
    [
        (Mount(type="bind", source="/x"), True, True),
        (Mount(type="bind"), False, False),
        (Mount(type="none", source="/x", options=("ro", "rbind")), True, True),
        (Mount(type="none", source="/x", options=("bind",)), True, True),
        (Mount(type="none", options=("bind",)), False, False),
        (Mount(type="tmpfs", source="tmpfs"), False, False),
        (Mount(type="erofs"), False, True),
    ],
)
def test_which_mounts_take_a_configuration(mount: Mount, is_bind: bool, takes: bool) -> None:
    assert (mount.is_bind, mount.takes_gofer_conf) == (is_bind, takes)


def test_a_spec_is_the_same_from_text_and_from_an_object() -> None:
    text = b'{"process":{"args":["a"],"user":{"additionalGids":[1]}},"unknown":1}'
    spec = parse_spec(text)
    assert spec == parse_spec_object({"process": {"args": ["a"], "user": {"additionalGids": [1]}}})
    assert spec.process is not None
    assert spec.process.user.additional_gids == (1,)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b'{"process":1}', b'{"hostname":"\xff"}', b'{"x":' + b"[" * 100_000],
    ids=range(6),
)
def test_what_is_no_spec_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_spec(text)


def test_an_object_that_is_no_spec_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"\$\.process"):
        parse_spec_object({"process": 1})
