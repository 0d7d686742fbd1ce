"""Attributes of this process. Source: prctl(2)."""

from typing import Final

from manager.kernel.libc import call

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NAME: Final = 15


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process, so that it can reap them."""
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_process_name(name: str) -> None:
    """Show `name` (15 bytes) in ps(1) instead of the interpreter's."""
    call("prctl", _PR_SET_NAME, name.encode()[:15], 0, 0, 0)
