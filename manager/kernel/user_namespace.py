"""Privilege over what is one's own: the user namespace of a process that is not root.

Inside, the user is root over the mounts, networks and processes that are made there, and what it
was before to everything else. Source: user_namespaces(7).
"""

import os
from pathlib import Path
from typing import Final

from manager.kernel.namespaces import CLONE_NEWUSER, setns, unshare

ROOT: Final = 0
_EVERYBODY: Final = ["0", "0", "4294967295"]
"""The first user namespace's map: each user is who it is."""


def in_first_user_namespace() -> bool:
    """Whether this process is in the user namespace that the machine started with."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == _EVERYBODY


def enter_new_user_namespace() -> None:
    """Become root of a new user namespace, in which only this user exists; single-threaded only.

    A map of more users takes set-user-ID programs and entries in `/etc/subuid`.

    Raises:
        OSError: `EPERM` or `ENOSPC`, unprivileged user namespaces are switched off here
            (`user.max_user_namespaces`, `kernel.unprivileged_userns_clone`, AppArmor).
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny", encoding="ascii")
    (own / "uid_map").write_text(f"{ROOT} {uid} 1", encoding="ascii")
    (own / "gid_map").write_text(f"{ROOT} {gid} 1", encoding="ascii")


def enter_user_namespace_of(pid: int) -> None:
    """Join the user namespace of a process, as the user who made it.

    The caller holds the pidfd of `pid`, and checks after this call that it had not exited.

    Raises:
        OSError: `EPERM`, it is somebody else's; `EINVAL`, it is the one that this process is in.
    """
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWUSER)
    finally:
        os.close(fd)
