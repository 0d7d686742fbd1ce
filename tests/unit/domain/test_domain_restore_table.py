"""RestoreSubcontainer as gVisor decides it: each row's text to the letter, and which row wins.

Source: gVisor runsc/boot/controller.go, as behaviour. What an error means for the sandbox is
another matter, see docs/deviations.md.
"""

from typing import Any, Final

import pytest
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.decide import decide
from manager.domain.evolve import fold
from tests.unit.domain import builders as b

PARKED: Final = (*b.PARKED, b.new("c2"))
DEVICE_DIRECTORY: Final = {"is_dev_io_file_present": True}
FILESTORES: Final = {"num_gofer_filestore_fds": 2}
UPPER_TAR: Final = {"is_rootfs_upper_tar_file_present": True}
TERMINAL: Final = {"spec_object": {"process": b.a_process(terminal=True)}}
NO_SPEC, NO_CONF = "start arguments missing spec", "start arguments missing config"
NO_CID = "start argument missing container ID"
TAR = "rootfs upper tar file is not supported during restore"
FOUR_BUT_THREE = "restore arguments must contain at least 4 FDs, but only got 3"
NAME = 'container "one" already restored'
CID = 'container CID "c1" already belongs to container "one"'


def asked(cid: str = "c2", name: str = "two", **members: Any) -> c.RestoreSubcontainer:
    return b.restore_sub(cid, name, **members)


def without_spec(command: c.RestoreSubcontainer) -> c.RestoreSubcontainer:
    return replace(command, spec=None)


ROWS: Final = [
    # Each breaks the rule that it is named after and the next one.
    (without_spec(asked(conf=None)), NO_SPEC),
    (asked("", conf=None), NO_CONF),
    (asked("", **UPPER_TAR), NO_CID),
    (asked(files=b.STDIO, **UPPER_TAR), TAR),
    (asked("c1", "one", files=b.STDIO), FOUR_BUT_THREE),
    (asked("c1", "one"), NAME),
    (asked("c2", "one"), NAME),
    (asked("c1", "two"), CID),
]
COUNTS: Final = [
    (b.STDIO[:1], {}, "at least 4 FDs, but only got 1"),
    ((), {}, "at least 4 FDs, but only got 0"),
    (b.STDIO, DEVICE_DIRECTORY, "at least 5 FDs, but only got 3"),
    (b.STDIO, FILESTORES, "at least 6 FDs, but only got 3"),
    (b.STDIO, {**FILESTORES, **DEVICE_DIRECTORY}, "at least 7 FDs, but only got 3"),
    ((), TERMINAL, "at least 1 FDs, but only got 0"),
]


@pytest.mark.parametrize(("command", "text"), ROWS)
def test_a_row(command: c.RestoreSubcontainer, text: str) -> None:
    state = b.history(*PARKED)
    (rejected,) = decide(state, command)
    assert rejected == e.ContainerRestoreRejected(
        container=command.request.cid, request=command.request, error=text
    )
    assert fold([rejected], state) == state


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        ((), "absent"),
        (b.CREATED, "created"),
        (b.STARTED, "started"),
        (b.TRIGGERED, "restoringStarted"),
        (b.RESTORED, "restored"),
        (b.DELETED, "deleted"),
    ],
)
def test_the_state_comes_first(given: Any, phase: str) -> None:
    text = f"sandbox is not being restored, cannot restore subcontainer: state={phase}"
    for command, _ in ROWS:
        (rejected,) = decide(b.history(*given), command)
        assert isinstance(rejected, e.ContainerRestoreRejected)
        assert rejected.error == text


@pytest.mark.parametrize(("files", "members", "text"), COUNTS)
def test_how_many_descriptors_it_takes(files: Any, members: Any, text: str) -> None:
    (rejected,) = decide(b.history(*PARKED), asked(files=files, **members))
    assert isinstance(rejected, e.ContainerRestoreRejected)
    assert rejected.error == f"restore arguments must contain {text}"


def test_the_last_rows_are_no_errors() -> None:
    state = b.history(*b.RESTORING, b.new(), b.new("c2"))
    (parked,) = decide(state, b.restore_sub())
    assert isinstance(parked, r.ContainerRestoreAccepted)
    assert (parked.registered, parked.total) == (2, 3)
    accepted, validated = decide(fold([parked], state), asked())
    assert isinstance(accepted, r.ContainerRestoreAccepted)
    assert isinstance(validated, r.RestoreValidated)
    assert (accepted.registered, accepted.total, validated.error) == (3, 3, "")


def test_a_start_is_decided_by_the_same_table() -> None:
    state = b.history(*PARKED)
    for command, text in ROWS:
        start = c.StartSubcontainer(
            request=command.request,
            spec=command.spec,
            engine=command.engine,
            launch_id=command.launch_id,
            engine_id="e",
            hold_id=command.hold_id,
            spec_object=command.spec_object,
            image_specs=command.image_specs,
        )
        *_, last = decide(state, start)
        assert getattr(last, "error", None) == text
