"""What a container has used, from its control group.

Source: Linux admin-guide/cgroup-v1/{cpuacct,memory,pids}.rst and admin-guide/cgroup-v2.rst.
"""

from typing import Final

from manager.schema.observation import UsageFacts
from manager.worker.cgroups import Cgroup

NS_PER_US: Final = 1_000
NS_PER_TICK: Final = 10_000_000
"""Of USER_HZ, 100 on every Linux, in which cpuacct.stat counts."""

UNLIMITED_BYTES: Final = 1 << 62
"""v1 writes a number near 2**63 for no limit."""


def usage_of(launch_id: str, cgroup: Cgroup) -> UsageFacts:
    """Read it; what the machine does not count is absent."""
    return _of_v2(launch_id, cgroup) if cgroup.is_unified else _of_v1(launch_id, cgroup)


def _of_v1(launch_id: str, cgroup: Cgroup) -> UsageFacts:
    ticks = cgroup.read_table("cpuacct", "cpuacct.stat")
    memory = cgroup.read_table("memory", "memory.stat")
    return UsageFacts(
        launch_id=launch_id,
        cpu_ns=_number(cgroup.read("cpuacct", "cpuacct.usage")),
        cpu_user_ns=_times(ticks.get("user"), NS_PER_TICK),
        cpu_system_ns=_times(ticks.get("system"), NS_PER_TICK),
        memory_bytes=_number(cgroup.read("memory", "memory.usage_in_bytes")),
        memory_max_bytes=_number(cgroup.read("memory", "memory.max_usage_in_bytes")),
        memory_limit_bytes=_limit(cgroup.read("memory", "memory.limit_in_bytes")),
        memory_fail_count=_number(cgroup.read("memory", "memory.failcnt")),
        cache_bytes=memory.get("total_cache"),
        anonymous_bytes=memory.get("total_rss"),
        mapped_bytes=memory.get("total_mapped_file"),
        swap_bytes=memory.get("total_swap"),
        pids=_less(_number(cgroup.read("pids", "pids.current")), cgroup.guests),
        pids_limit=_less(_limit(cgroup.read("pids", "pids.max")), cgroup.guests),
    )


def _of_v2(launch_id: str, cgroup: Cgroup) -> UsageFacts:
    cpu = cgroup.read_table("", "cpu.stat")
    memory = cgroup.read_table("", "memory.stat")
    return UsageFacts(
        launch_id=launch_id,
        cpu_ns=_times(cpu.get("usage_usec"), NS_PER_US),
        cpu_user_ns=_times(cpu.get("user_usec"), NS_PER_US),
        cpu_system_ns=_times(cpu.get("system_usec"), NS_PER_US),
        memory_bytes=_number(cgroup.read("", "memory.current")),
        memory_max_bytes=_number(cgroup.read("", "memory.peak")),
        memory_limit_bytes=_limit(cgroup.read("", "memory.max")),
        memory_fail_count=cgroup.read_table("", "memory.events").get("max"),
        cache_bytes=memory.get("file"),
        anonymous_bytes=memory.get("anon"),
        mapped_bytes=memory.get("file_mapped"),
        swap_bytes=_number(cgroup.read("", "memory.swap.current")),
        pids=_less(_number(cgroup.read("", "pids.current")), cgroup.guests),
        pids_limit=_less(_limit(cgroup.read("", "pids.max")), cgroup.guests),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _limit(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None or number >= UNLIMITED_BYTES else number


def _times(count: int | None, unit: int) -> int | None:
    return None if count is None else count * unit


def _less(count: int | None, guests: int) -> int | None:
    return None if count is None else max(0, count - guests)
