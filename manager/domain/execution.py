"""A process that is executed in a container that runs already: what was asked, and what became."""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from manager.domain.exit_status import ExitStatus
from manager.domain.request import FdFact

ExecutionStatus: TypeAlias = Literal["starting", "running", "exited", "failed", "lost"]

EXECUTIONS_ALIVE_MAX: Final = 1024
"""Executed processes of one container that run, or are being started, at a time."""

EXECUTIONS_REMEMBERED_MAX: Final = 1024
"""Executed processes of one container whose end is kept in its state; the log has all of them."""

GUEST_FD_MAX: Final = 1023
"""Highest descriptor number that an executed process can be given."""

EXECUTION_ALIVE: Final[frozenset[str]] = frozenset({"starting", "running"})


class CapabilityMasks(Struct, frozen=True, kw_only=True):
    """The five sets, bit n standing for capability number n. Source: capabilities(7)."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


class ExecRequest(Struct, frozen=True, kw_only=True):
    """The arguments of an ExecuteAsync; of ``env`` the values are replaced by keyed digests.

    ``search_path`` are the directories of its PATH, for error texts. ``filename`` is what is
    executed, ``argv[0]`` if it is empty. ``guest_fds`` are the numbers that ``files`` have in the
    process. ``capabilities`` is ``None`` for those of the container's init.
    """

    cid: str
    filename: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    uid: int = 0
    gid: int = 0
    extra_gids: tuple[int, ...] = ()
    no_new_privileges: bool = False
    capabilities: CapabilityMasks | None = None
    terminal: bool = False
    guest_fds: tuple[int, ...] = ()
    files: tuple[FdFact, ...] = ()
    search_path: tuple[str, ...] = ()
    request_id: str = ""


class Execution(Struct, frozen=True, kw_only=True):
    """One executed process.

    ``pid`` is its number in the container's PID namespace and ``host_pid`` in the worker's, 0
    before it runs; ``error`` is the text that the caller got if it never ran, ``loss`` why nobody
    can tell how it ended.
    """

    exec_id: str
    status: ExecutionStatus
    executable: str = ""
    search_path: tuple[str, ...] = ()
    request_id: str = ""
    pid: int = 0
    host_pid: int = 0
    exit: ExitStatus | None = None
    exited_at_ns: int | None = None
    error: str = ""
    loss: str = ""


def process_lost(reason: str) -> str:
    """What the caller of an exec gets if nobody can tell whether it ever ran."""
    return f"the process is lost: {reason}"
