"""Numbers of control groups, v1 and v2, from files as the kernel writes them."""

import datetime as dt
from pathlib import Path

import pytest

from manager.worker.cgroups import Cgroup
from manager.worker.resources import Limit, Limits
from manager.worker.runsc_log import told_status
from manager.worker.runsc_table import parse_table
from manager.worker.usage import usage_of

V1 = {
    "cpuacct/cpuacct.usage": "1500000000\n",
    "cpuacct/cpuacct.stat": "user 100\nsystem 50\n",
    "memory/memory.usage_in_bytes": "4096\n",
    "memory/memory.max_usage_in_bytes": "8192\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.stat": "cache 1\ntotal_cache 10\ntotal_rss 20\ntotal_mapped_file 5\n",
    "pids/pids.current": "2\n",
    "pids/pids.max": "max\n",
    "freezer/freezer.state": "FROZEN\n",
}
V2 = {
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.max": "16384\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 0\noom_kill 1\n",
    "memory.stat": "anon 20\nfile 10\nfile_mapped 5\n",
    "memory.swap.current": "7\n",
    "pids.current": "2\n",
    "pids.max": "9\n",
    "cgroup.events": "populated 1\nfrozen 1\n",
}


def written(files: dict[str, str], directory: Path) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory


LIMIT = Limit(controller="pids", file="pids.max", value="1233")
"""As long as what it replaces: these files are not the kernel's."""


@pytest.fixture
def v1(tmp_path: Path) -> Cgroup:
    written(V1, tmp_path)
    names = ("cpuacct", "memory", "pids", "freezer")
    return Cgroup("/x", {name: tmp_path / name for name in names})


@pytest.fixture
def v2(tmp_path: Path) -> Cgroup:
    return Cgroup("/x", {"": written(V2, tmp_path)})


def test_v1(v1: Cgroup) -> None:
    usage = usage_of("L", v1)
    assert (usage.cpu_ns, usage.cpu_user_ns, usage.cpu_system_ns) == (15 * 10**8, 10**9, 5 * 10**8)
    assert (usage.memory_bytes, usage.memory_max_bytes, usage.memory_limit_bytes) == (
        4096,
        8192,
        None,
    )
    assert (usage.memory_fail_count, usage.cache_bytes, usage.anonymous_bytes) == (3, 10, 20)
    assert (usage.pids, usage.pids_limit, usage.swap_bytes) == (2, None, None)
    assert v1.is_frozen()
    assert not v1.ran_out_of_memory()


def test_v2(v2: Cgroup) -> None:
    usage = usage_of("L", v2)
    assert (usage.cpu_ns, usage.cpu_user_ns, usage.cpu_system_ns) == (15 * 10**8, 10**9, 5 * 10**8)
    assert (usage.memory_bytes, usage.memory_max_bytes, usage.memory_limit_bytes) == (
        4096,
        8192,
        16384,
    )
    assert (usage.memory_fail_count, usage.cache_bytes, usage.anonymous_bytes) == (3, 10, 20)
    assert (usage.pids, usage.pids_limit, usage.swap_bytes) == (2, 9, 7)
    assert v2.is_frozen()
    assert v2.ran_out_of_memory()


def test_a_guest_counts_nowhere(v1: Cgroup, v2: Cgroup) -> None:
    for cgroup in (v1, v2):
        alone = usage_of("L", cgroup)
        assert alone.pids is not None
        cgroup.host(1)
        usage = usage_of("L", cgroup)
        assert usage.pids == alone.pids - 1
        assert usage.pids_limit == (alone.pids_limit and alone.pids_limit - 1)
        cgroup.limit(Limits(v1=(LIMIT,), v2=(LIMIT,)))
        again = usage_of("L", cgroup)
        assert again.pids_limit == int(LIMIT.value)


def test_without_control_groups_nothing_is_known() -> None:
    usage = usage_of("L", Cgroup("/x", {}))
    assert usage.cpu_ns is usage.memory_bytes is usage.pids is None


def test_the_table_of_runsc() -> None:
    text = (
        "UID       PID       PPID      C         TTY       STIME     TIME      CMD\n"
        "0         1         0         0         ?         20:04     10ms      sleep\n"
        "7         2         1         3         pts/0     Nov22     1m2.5s    a b\n"
        "a line of another kind\n"
    )
    first, second = parse_table("L", text, dt.date(2026, 11, 23))
    assert (first.uid, first.pid, first.ppid, first.cpu_ns, first.name) == (0, 1, 0, 10**7, "sleep")
    assert first.started_ns == 1795464240 * 10**9
    assert (second.tty, second.started_ns, second.cpu_ns, second.name) == (
        "pts/0",
        0,
        62_500_000_000,
        "a b",
    )


def test_the_log_of_runsc_exec() -> None:
    log = (
        "I1128 09:24:50.679261    9171 main.go:222] UID: 0, GID: 0\n"
        "I1128 09:24:50.686271    9171 main.go:266] Exiting with status: 35072\n"
        "I1128 09:24:50.686988    9161 main.go:266] Exiting with status: 0\n"
        "I1128 09:24:50.686271 1234567 main.go:266] Exiting with status: 9\n"
        "W1128 09:24:50.686988      71 main.go:275] Failure to execute command, err: 1\n"
    )
    assert told_status(log, 9171) == 137 << 8
    assert told_status(log, 9161) == 0
    assert told_status(log, 1234567) == 9
    assert told_status(log, 71) is None
    assert told_status("", 71) is None
