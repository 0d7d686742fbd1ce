"""Namespaces of this process and of others; for single-threaded processes only."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from manager.kernel.libc import call
from manager.urpc.fds import OwnedFd

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

FLAGS: Final = {
    "mnt": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
}
"""Name under `/proc/PID/ns` -> flag of setns(2)."""


def unshare(flags: int) -> None:
    """Move this process into new namespaces.

    Source: unshare(2), CLONE_NEW* flags.
    """
    call("unshare", flags)


def setns(fd: int, flags: int) -> None:
    """Move this process into the namespace at `fd`.

    Source: setns(2).
    """
    call("setns", fd, flags)


def open_namespace(pid: int, name: str) -> OwnedFd:
    """Open a namespace of a process, which keeps the namespace alive.

    The caller makes sure that `pid` is who it believes: hold its pidfd, and check after this call
    that it had not exited.
    """
    return OwnedFd(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))


def names_of(uts: int) -> tuple[str, str]:
    """Host name and domain name in a UTS namespace; its descriptor is lent."""
    with entered({"uts": uts}):
        name, domain = (
            Path("/proc/sys/kernel", each).read_text(encoding="utf-8").rstrip("\n")
            for each in ("hostname", "domainname")
        )
        return name, domain


def set_domain_name(uts: int, name: str) -> None:
    """Give a UTS namespace a domain name; its descriptor is lent.

    Raises:
        OSError: ``EINVAL`` if the name has more than 64 bytes.

    Source: setdomainname(2).
    """
    encoded = name.encode()
    with entered({"uts": uts}):
        call("setdomainname", encoded, len(encoded))


@contextlib.contextmanager
def entered(namespaces: Mapping[str, int]) -> Iterator[None]:
    """Be inside other namespaces for the length of a block; children born there stay there.

    Args:
        namespaces: Name (see :data:`FLAGS`) -> descriptor, lent. Of `mnt`, root and working
            directory are those of the other namespace, and `/` after the return.

    Raises:
        OSError: Could not enter; this process is back where it was.
    """
    with contextlib.ExitStack() as stack:
        homes = {
            name: stack.enter_context(open_namespace(os.getpid(), name)) for name in namespaces
        }
        for name, fd in namespaces.items():
            setns(fd, FLAGS[name])
            stack.callback(setns, homes[name].number, FLAGS[name])
        yield
