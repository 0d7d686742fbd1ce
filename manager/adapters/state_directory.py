"""The state directory: whoever can write to it is as good as the service's user."""

import os
import stat
from pathlib import Path
from typing import Final

from manager.application.errors import StateDirectoryUnsafe

DIRECTORY_MODE: Final = 0o700
ROOT_UID: Final = 0


def prepare_state_directory(root: Path) -> Path:
    """Make it, for this user alone, if it is missing; returns its true path.

    Raises:
        StateDirectoryUnsafe: It was there, and somebody else can put files in it, a socket in the
            worker's place say. Nothing of it was used.
        OSError: It cannot be made.
    """
    root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    status = root.stat()
    if status.st_uid not in {ROOT_UID, os.geteuid()}:
        raise StateDirectoryUnsafe(
            root, f"belongs to user {status.st_uid}: choose another, or chown"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise StateDirectoryUnsafe(root, f"can be written by others (mode {mode:04o}): chmod 700")
    return root.resolve()
