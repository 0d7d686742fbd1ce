"""What gVisor's clients read."""

import pytest

from manager.adapters import gvisor_shapes as shapes
from manager.schema.observation import ProcessFacts, UsageFacts

NOW = 1_800_000_000_000_000_000  # 2027-01-15 08:00 UTC
FACTS = ProcessFacts(
    launch_id="L",
    uid=7,
    gid=8,
    pid=3,
    ppid=1,
    pgid=3,
    sid=3,
    threads=(3, 4),
    tty="pts/2",
    started_ns=NOW - 10 * 10**9,
    cpu_ns=5 * 10**9,
    name="sh",
)
USAGE = UsageFacts(
    launch_id="L", cpu_ns=30, cpu_user_ns=20, cpu_system_ns=10, memory_bytes=4096, pids=2
)


def test_a_process() -> None:
    assert shapes.process(FACTS, NOW) == {
        "uid": 7,
        "pid": 3,
        "ppid": 1,
        "pgid": 3,
        "threads": [3, 4],
        "c": 50,
        "tty": "pts/2",
        "stime": "07:59",
        "time": "5s",
        "cmd": "sh",
    }


@pytest.mark.parametrize(
    ("ago_s", "text"), [(60, "07:59"), (86_400, "Jan14"), (86_400 * 40, "2026")]
)
def test_when_it_was_started(ago_s: int, text: str) -> None:
    assert shapes.start_time(NOW - ago_s * 10**9, NOW) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (10_000_000, "10ms"),
        (1_190_000_000, "1.19s"),
        (60_000_000_000, "1m0s"),
        (3_661_500_000_000, "1h1m1.5s"),
    ],
)
def test_durations_as_go_writes_them(ns: int, text: str) -> None:
    assert shapes.go_duration(ns) == text


def test_statistics_leave_out_what_is_not_known() -> None:
    found = shapes.event("c1", {"c1": USAGE, "c2": UsageFacts(launch_id="M")})
    assert found["containerUsage"] == {"c1": 30, "c2": 0}
    data = found["event"]["data"]
    assert data["cpu"] == {"usage": {"kernel": 10, "user": 20, "total": 30}}
    assert data["memory"]["usage"] == {"limit": 0, "failcnt": 0, "usage": 4096}
    assert data["pids"] == {"current": 2}


def test_memory_of_a_whole_sandbox() -> None:
    both = {
        "a": UsageFacts(launch_id="a", memory_bytes=100, anonymous_bytes=60, cache_bytes=30),
        "b": UsageFacts(launch_id="b", memory_bytes=10, anonymous_bytes=10),
    }
    found = shapes.memory_usage(both)
    assert (found["Anonymous"], found["PageCache"], found["System"]) == (70, 30, 10)
    assert found["Total"] == 110


def test_a_table_for_people() -> None:
    lines = shapes.ps_table([FACTS], NOW).splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "TTY", "STIME", "TIME", "CMD"]
    assert lines[1].split() == ["7", "3", "1", "50", "pts/2", "07:59", "5s", "sh"]
