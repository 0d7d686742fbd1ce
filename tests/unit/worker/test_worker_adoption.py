"""Whether a process is the one that was started: a pid alone says nothing."""

import os

import pytest
from msgspec.structs import replace

from manager.kernel import pidfd
from manager.schema.worker_facts import PidIdentity
from manager.worker.adoption import open_same_process

BOOT = "5c8f"


@pytest.fixture
def own() -> PidIdentity:
    with pidfd.open_pidfd(os.getpid()) as handle:
        inode = pidfd.inode(handle.number)
    ticks = pidfd.start_ticks(os.getpid())
    return PidIdentity(pid=os.getpid(), start_ticks=ticks, pidfd_inode=inode, boot_id=BOOT)


def test_the_same_process_is_found(own: PidIdentity) -> None:
    for identity in (own, replace(own, pidfd_inode=0)):
        found = open_same_process(identity, BOOT)
        assert found is not None
        found.close()


def test_whoever_has_its_pid_now_is_somebody_else(own: PidIdentity) -> None:
    assert open_same_process(replace(own, start_ticks=own.start_ticks - 1), BOOT) is None
    assert open_same_process(replace(own, pidfd_inode=own.pidfd_inode + 1), BOOT) is None
    assert open_same_process(own, "another boot") is None
