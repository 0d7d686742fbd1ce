"""What gVisor's clients expect to read: processes, statistics and dumps in its JSON. Pure.

Source: gVisor pkg/sentry/control/{proc,usage}.go, runsc/boot/events.go,
pkg/sentry/seccheck/../procfs/dump.go, of 2022 and HEAD.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from manager.schema.observation import ProcessFacts, UsageFacts

NS_PER_SECOND: Final = 1_000_000_000
UNKNOWN_LIMIT: Final = 0


def process(facts: ProcessFacts, now_ns: int) -> dict[str, Any]:
    """One row of Processes."""
    age_ns = max(now_ns - facts.started_ns, 1)
    return {
        "uid": facts.uid,
        "pid": facts.pid,
        "ppid": facts.ppid,
        "pgid": facts.pgid,
        "threads": list(facts.threads),
        "c": min(facts.cpu_ns * 100 // age_ns, 100) if facts.started_ns else 0,
        "tty": facts.tty,
        "stime": start_time(facts.started_ns, now_ns) if facts.started_ns else "?",
        "time": go_duration(facts.cpu_ns),
        "cmd": facts.name,
    }


def start_time(started_ns: int, now_ns: int) -> str:
    """As ps(1) and gVisor have it: the time today, the day this year, else the year."""
    started = dt.datetime.fromtimestamp(started_ns // NS_PER_SECOND, tz=dt.UTC)
    now = dt.datetime.fromtimestamp(now_ns // NS_PER_SECOND, tz=dt.UTC)
    if started.date() == now.date():
        return started.strftime("%H:%M")
    return started.strftime("%b%d" if started.year == now.year else "%Y")


def go_duration(ns: int) -> str:
    """As Go's time.Duration prints itself, of what is counted in hundredths of a second."""
    if ns == 0:
        return "0s"
    if ns < NS_PER_SECOND:
        return f"{ns // 1_000_000}ms"
    minutes, rest_ns = divmod(ns, 60 * NS_PER_SECOND)
    seconds = f"{rest_ns / NS_PER_SECOND:.2f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def event(cid: str, usages: Mapping[str, UsageFacts]) -> dict[str, Any]:
    """The answer of Event: the statistics of one container, and everybody's CPU time."""
    usage = usages.get(cid, UsageFacts(launch_id=""))
    memory = usage.memory_bytes
    return {
        "event": {
            "type": "stats",
            "id": cid,
            "data": {
                "cpu": {
                    "usage": _present(
                        kernel=usage.cpu_system_ns, user=usage.cpu_user_ns, total=usage.cpu_ns
                    )
                },
                "memory": {
                    **_present(cache=usage.cache_bytes),
                    "usage": _entry(
                        usage.memory_limit_bytes,
                        usage.memory_fail_count,
                        usage=memory,
                        max=usage.memory_max_bytes,
                    ),
                    "swap": _entry(None, None, usage=usage.swap_bytes),
                    "kernel": _entry(None, None),
                    "kernelTCP": _entry(None, None),
                },
                "pids": _present(current=usage.pids, limit=usage.pids_limit),
                "network_interfaces": None,
            },
        },
        "containerUsage": {name: each.cpu_ns or 0 for name, each in usages.items()},
    }


def _entry(limit: int | None, failures: int | None, **counts: int | None) -> dict[str, Any]:
    return {"limit": limit or UNKNOWN_LIMIT, "failcnt": failures or 0, **_present(**counts)}


def _present(**counts: int | None) -> dict[str, int]:
    """Go's omitempty: what is absent or 0 is not written."""
    return {name: count for name, count in counts.items() if count}


def memory_usage(usages: Mapping[str, UsageFacts]) -> dict[str, int]:
    """The answer of Usage.Collect: all containers of the sandbox together."""

    def total(name: str) -> int:
        return sum(getattr(usage, name) or 0 for usage in usages.values())

    known = {
        "Anonymous": total("anonymous_bytes"),
        "PageCache": total("cache_bytes"),
        "Mapped": total("mapped_bytes"),
    }
    used = total("memory_bytes")
    rest = max(used - known["Anonymous"] - known["PageCache"], 0)
    return {"Unknown": 0, "System": rest, **known, "Tmpfs": 0, "Ramdiskfs": 0, "Total": used}


def procfs_dump(facts: ProcessFacts) -> dict[str, Any]:
    """One entry of ProcfsDump."""
    return {
        "exe": facts.exe,
        "args": list(facts.args),
        "env": list(facts.env),
        "cwd": facts.cwd,
        "fdlist": [
            {"number": number, "path": path, "mode": mode} for number, path, mode in facts.files
        ],
        "clone_ts": facts.started_ns,
        "root": facts.root,
        "status": {
            "comm": facts.name,
            "pid": facts.pid,
            "ppid": facts.ppid,
            "uid": dict(zip(("real", "effective", "saved"), facts.uids, strict=True)),
            "gid": dict(zip(("real", "effective", "saved"), facts.gids, strict=True)),
            "vm_size": facts.vm_bytes // 1024,
            "vm_rss": facts.rss_bytes // 1024,
        },
        "stat": {"pgid": facts.pgid, "sid": facts.sid},
    }


def ps_json(facts: list[ProcessFacts], now_ns: int) -> str:
    """What Proc.Ps gives to programs: the rows as text."""
    return msgspec.json.encode([process(each, now_ns) for each in facts]).decode()


def ps_table(facts: list[ProcessFacts], now_ns: int) -> str:
    """What Proc.Ps prints for people."""
    rows = [process(each, now_ns) for each in facts]
    keys = ("uid", "pid", "ppid", "c", "tty", "stime", "time", "cmd")
    lines = ["".join(f"{key.upper():<10}" for key in keys).rstrip()]
    lines += ["".join(f"{row[key]!s:<10}" for key in keys).rstrip() for row in rows]
    return "\n".join(lines)
