"""Where a user is at home, as the container's own /etc/passwd says: HOME for specs without one.

Engines differ here: runc and gVisor look it up, crun does so only for users that it finds, bwrap
does not. So it is done once, for all of them, before an engine sees the spec.
"""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from manager.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from manager.urpc.fds import OwnedFd

PASSWD_BYTES_MAX: Final = 1 << 20
"""How much of /etc/passwd is read."""

NOWHERE: Final = "/"
_NAME: Final = "HOME="
_FIELDS: Final = 7


def with_home(env: Sequence[str], root: Path, uid: int) -> list[str]:
    """Add HOME to an environment that has none.

    Args:
        env: ``NAME=value`` each.
        root: The container's finished root filesystem; nothing outside of it is looked at.
        uid: Whose home it is.
    """
    if any(each.startswith(_NAME) for each in env):
        return list(env)
    return [*env, _NAME + _home(root, uid)]


def _home(root: Path, uid: int) -> str:
    for line in _passwd(root).decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) == _FIELDS and fields[2] == str(uid):
            return fields[5] or NOWHERE
    return NOWHERE


def _passwd(root: Path) -> bytes:
    # Whoever made the tree may have put a FIFO, a device or a link there.
    with contextlib.suppress(OSError):
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        inside = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        with (
            OwnedFd(os.open(root, flags)) as top,
            openat2(top.number, "etc/passwd", os.O_PATH, resolve=inside) as found,
        ):
            if stat.S_ISREG(os.fstat(found.number).st_mode):
                reading = os.O_RDONLY | os.O_NONBLOCK
                with openat2(top.number, "etc/passwd", reading, resolve=inside) as file:
                    return os.read(file.number, PASSWD_BYTES_MAX)
    return b""
