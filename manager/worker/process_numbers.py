"""What a process is called inside a container: the numbers of its PID namespace.

Source: proc_pid_status(5), NSpid and NSpgid: one number for each level of PID namespaces, from that
of the reader's /proc down.
"""

from manager.kernel import pidfd

_STAT_GROUP = 2
_STAT_TERMINAL = 4
_STAT_FOREGROUND = 5


def numbers(pid: int, field: str = "NSpid") -> tuple[int, ...]:
    """The numbers of a process, zombies included, or of its group; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="latin-1") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == field:
                    return tuple(map(int, value.split()))
    except OSError:
        pass
    return ()


def group(pid: int) -> int:
    """Its process group, as numbered here; 0 if it is gone."""
    fields = pidfd.stat_fields(pid)
    return int(fields[_STAT_GROUP]) if fields else 0


def foreground_group(pid: int) -> int | None:
    """The foreground process group of its terminal, as numbered here.

    Returns:
        `None` if it has no terminal or is gone; 0 or less if nobody is in the foreground.
    """
    fields = pidfd.stat_fields(pid)
    if not fields or fields[_STAT_TERMINAL] == "0":
        return None
    return int(fields[_STAT_FOREGROUND])
