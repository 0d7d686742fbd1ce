"""Ids and keys that must come from outside the application."""

import secrets
from pathlib import Path
from typing import Final

from typing_extensions import override

from eventstore import new_event_id
from eventstore.whole_file import create_whole
from manager.application.ports import Ids

ENV_KEY_BYTES: Final = 32
ENV_KEY_MODE: Final = 0o600


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
        OSError: It cannot be read or made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        create_whole(path, secrets.token_bytes(ENV_KEY_BYTES), ENV_KEY_MODE)
    key = path.read_bytes()
    if len(key) != ENV_KEY_BYTES:
        raise ValueError(f"{path} must hold a key of {ENV_KEY_BYTES} bytes, but has {len(key)}")
    return key
