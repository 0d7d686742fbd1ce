"""What can be seen of a container that runs: its processes, and what it has used."""

from msgspec import Struct


class ProcessFacts(Struct, frozen=True, kw_only=True):
    """One process of a container. Source: proc_pid_stat(5), proc_pid_status(5).

    Pids are those of the container's own PID namespace; ``ppid`` is 0 for a parent outside of it.
    Times are in nanoseconds, ``started_ns`` since 1970. ``tty`` is ``pts/N`` or ``?``. What is
    below ``name`` is filled in for ``details`` only.
    """

    launch_id: str
    uid: int
    gid: int
    pid: int
    ppid: int
    pgid: int
    sid: int
    threads: tuple[int, ...]
    tty: str
    started_ns: int
    cpu_ns: int
    name: str
    uids: tuple[int, int, int] = (0, 0, 0)
    gids: tuple[int, int, int] = (0, 0, 0)
    vm_bytes: int = 0
    rss_bytes: int = 0
    exe: str = ""
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    root: str = ""
    files: tuple[tuple[int, str, int], ...] = ()
    """Number, path and open mode of each open file."""


class UsageFacts(Struct, frozen=True, kw_only=True):
    """What a container has used, by its control group; absent where there is no controller."""

    launch_id: str
    cpu_ns: int | None = None
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    memory_limit_bytes: int | None = None
    memory_fail_count: int | None = None
    cache_bytes: int | None = None
    anonymous_bytes: int | None = None
    mapped_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    pids_limit: int | None = None
