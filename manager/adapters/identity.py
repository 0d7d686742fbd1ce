"""Ids and keys that must come from outside the application."""

import os
import secrets
from pathlib import Path
from typing import Final

from typing_extensions import override

from eventstore import new_event_id
from manager.application.ports import Ids

ENV_KEY_BYTES: Final = 32


class RandomIds(Ids):
    """UUIDv7s."""

    @override
    def new_id(self) -> str:
        return new_event_id()


def boot_id() -> str:
    """This boot of the machine. Source: proc_sys_kernel(5), random/boot_id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def load_env_key(path: Path) -> bytes:
    """Read the key under which env values are masked; make one, mode 0600, on first use.

    Raises:
        ValueError: The file has not the length of a key: restore it, or remove it to begin anew
            (equal values before and after then no longer look equal).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != ENV_KEY_BYTES:
            raise ValueError(
                f"{path} must hold a key of {ENV_KEY_BYTES} bytes, but has {len(key)}"
            ) from None
        return key
    with os.fdopen(fd, "wb") as file:
        key = secrets.token_bytes(ENV_KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key
