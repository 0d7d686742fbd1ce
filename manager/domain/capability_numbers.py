"""Capabilities by number. Source: include/uapi/linux/capability.h."""

from collections.abc import Iterable
from typing import Final

NAMES: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()


def names_of(mask: int) -> tuple[str, ...]:
    """The names of a set's members; bits without a name are left out."""
    return tuple(f"CAP_{name}" for bit, name in enumerate(NAMES) if mask >> bit & 1)


def mask_of(names: Iterable[str]) -> int:
    """The set of these names; those that are unknown are left out."""
    wanted = set(names)
    return sum(1 << bit for bit, name in enumerate(NAMES) if f"CAP_{name}" in wanted)
