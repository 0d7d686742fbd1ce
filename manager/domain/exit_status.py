"""How a process ended. Never one int: ``exit(9)`` and SIGKILL are different things.

Source: wait(2), the encoding of ``wstatus``.
"""

from typing import TypeAlias

from msgspec import Struct


class Exited(Struct, frozen=True, kw_only=True, tag="exited"):
    """The process returned ``code``, 0 to 255."""

    code: int


class Signaled(Struct, frozen=True, kw_only=True, tag="signaled"):
    """The process was ended by a signal; ``core`` tells whether it left a core dump."""

    signal: int
    core: bool = False


class Unknown(Struct, frozen=True, kw_only=True, tag="unknown"):
    """The process is gone and nobody can tell how: an older version's ``container.lost``."""

    reason: str


ExitStatus: TypeAlias = Exited | Signaled | Unknown


def from_wait_status(status: int) -> Exited | Signaled:
    """Read a raw wait status: 768 is ``exit(3)``, 9 is SIGKILL, 139 is SIGSEGV with a core."""
    signal = status & 0x7F
    if signal:
        return Signaled(signal=signal, core=bool(status & 0x80))
    return Exited(code=(status >> 8) & 0xFF)


def to_wait_status(exit_status: Exited | Signaled) -> int:
    """Write the raw wait status; the inverse of :func:`from_wait_status`."""
    if isinstance(exit_status, Exited):
        return exit_status.code << 8
    return exit_status.signal | (0x80 if exit_status.core else 0)


def to_shell_code(exit_status: Exited | Signaled) -> int:
    """Map to one byte as shells do: the code, or 128 plus the signal."""
    return exit_status.code if isinstance(exit_status, Exited) else 128 + exit_status.signal
