"""Resource limits of a spec, as writes to cgroup files. Pure.

Source: opencontainers/runtime-spec, config-linux.md, "Control groups";
Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from typing import Final

from msgspec import Struct, ValidationError, convert

from manager.domain.spec import Spec
from manager.worker.errors import LaunchFailed

CPU_SHARES_MIN: Final = 2
CPU_SHARES_MAX: Final = 262144
CPU_WEIGHT_MAX: Final = 10000
CPU_PERIOD_DEFAULT_US: Final = 100_000

DEFAULT_DEVICES: Final = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # ptys
)
"""What every container may use, as all OCI runtimes have it: make nodes, open the harmless ones."""


class _Memory(Struct, frozen=True, rename="camel"):
    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None


class _Pids(Struct, frozen=True):
    limit: int | None = None


class _Cpu(Struct, frozen=True):
    shares: int | None = None
    quota: int | None = None
    period: int | None = None


class _Device(Struct, frozen=True):
    allow: bool = False
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class _Node(Struct, frozen=True):
    type: str = ""
    major: int = -1
    minor: int = -1


class _Resources(Struct, frozen=True):
    memory: _Memory = _Memory()
    pids: _Pids = _Pids()
    cpu: _Cpu = _Cpu()
    devices: tuple[_Device, ...] = ()


class Limit(Struct, frozen=True, kw_only=True):
    """Write `value` to `file` in the cgroup of `controller`."""

    controller: str
    file: str
    value: str


class Limits(Struct, frozen=True, kw_only=True):
    """All writes, in order, per cgroup version. Devices need a BPF program on v2: absent there."""

    v1: tuple[Limit, ...] = ()
    v2: tuple[Limit, ...] = ()


def limits_of(spec: Spec) -> Limits:
    """Translate a spec's `linux.resources`, and the devices that every container may use.

    Raises:
        LaunchFailed: Stage `cgroup`: a member has the wrong kind.
    """
    linux = spec.linux
    given = {} if linux is None or linux.resources is None else linux.resources
    try:
        resources = convert(_without_nulls(given), _Resources)
        nodes = convert((linux.devices if linux else None) or (), tuple[_Node, ...])
    except ValidationError as error:
        raise LaunchFailed("cgroup", f"linux.resources: {error}") from error
    return Limits(
        v1=(
            *_memory_v1(resources.memory),
            *_pids(resources.pids),
            *_cpu_v1(resources.cpu),
            *_devices_v1(resources.devices, nodes),
        ),
        v2=(*_memory_v2(resources.memory), *_pids(resources.pids), *_cpu_v2(resources.cpu)),
    )


def _without_nulls(value: object) -> object:
    # Go writes absent slices as null.
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value


def _memory_v1(memory: _Memory) -> tuple[Limit, ...]:
    files = {
        "memory.limit_in_bytes": memory.limit,
        "memory.soft_limit_in_bytes": memory.reservation,
        "memory.memsw.limit_in_bytes": memory.swap,
    }
    return _given("memory", files)


def _memory_v2(memory: _Memory) -> tuple[Limit, ...]:
    swap = memory.swap
    if swap is not None and swap > 0 and memory.limit is not None:
        swap -= memory.limit  # the spec's swap is memory and swap together
    files = {"memory.max": memory.limit, "memory.low": memory.reservation, "memory.swap.max": swap}
    return tuple(
        Limit(controller=limit.controller, file=limit.file, value=_max_if_negative(limit.value))
        for limit in _given("memory", files)
    )


def _pids(pids: _Pids) -> tuple[Limit, ...]:
    if pids.limit is None:
        return ()
    value = str(pids.limit) if pids.limit > 0 else "max"
    return (Limit(controller="pids", file="pids.max", value=value),)


def _cpu_v1(cpu: _Cpu) -> tuple[Limit, ...]:
    files = {
        "cpu.shares": cpu.shares or None,
        "cpu.cfs_period_us": cpu.period or None,
        "cpu.cfs_quota_us": cpu.quota or None,
    }
    return _given("cpu", files)


def _cpu_v2(cpu: _Cpu) -> tuple[Limit, ...]:
    limits = []
    if cpu.shares:
        shares = min(max(cpu.shares, CPU_SHARES_MIN), CPU_SHARES_MAX)
        span = CPU_SHARES_MAX - CPU_SHARES_MIN
        weight = 1 + (shares - CPU_SHARES_MIN) * (CPU_WEIGHT_MAX - 1) // span
        limits.append(Limit(controller="cpu", file="cpu.weight", value=str(weight)))
    if cpu.quota or cpu.period:
        quota = _max_if_negative(str(cpu.quota or -1))
        value = f"{quota} {cpu.period or CPU_PERIOD_DEFAULT_US}"
        limits.append(Limit(controller="cpu", file="cpu.max", value=value))
    return tuple(limits)


def _devices_v1(rules: tuple[_Device, ...], nodes: tuple[_Node, ...]) -> tuple[Limit, ...]:
    writes = [("devices.deny", "a")]
    writes += [("devices.allow", line) for line in DEFAULT_DEVICES]
    writes += [
        ("devices.allow", f"{'c' if node.type == 'u' else node.type} {node.major}:{node.minor} rwm")
        for node in nodes
        if node.type in {"b", "c", "u"}
    ]
    for rule in rules:
        if rule.type == "a" and not rule.allow:
            continue  # the default that almost every spec states; done above
        line = "a" if rule.type == "a" else f"{rule.type} {_range(rule)} {rule.access}"
        writes.append(("devices.allow" if rule.allow else "devices.deny", line))
    return tuple(Limit(controller="devices", file=file, value=value) for file, value in writes)


def _range(rule: _Device) -> str:
    numbers = ("*" if n is None or n < 0 else str(n) for n in (rule.major, rule.minor))
    return ":".join(numbers)


def _given(controller: str, files: dict[str, int | None]) -> tuple[Limit, ...]:
    return tuple(
        Limit(controller=controller, file=file, value=str(value))
        for file, value in files.items()
        if value is not None
    )


def _max_if_negative(value: str) -> str:
    return "max" if value.startswith("-") else value
