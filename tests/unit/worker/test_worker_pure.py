"""Tables of the worker's small pure parts: options, limits, cgroups, messages, the tiny program."""

import errno
import platform
import stat
import subprocess

import pytest

from manager.domain.spec import Linux, Spec
from manager.kernel import mount as m
from manager.worker.engine_messages import explain
from manager.worker.errors import REASON_CHARS_MAX, LaunchFailed, one_line
from manager.worker.hierarchies import Hierarchies, parse_hierarchies, parse_homes
from manager.worker.mount_options import attributes_of, flags_of, value_of
from manager.worker.resources import DEFAULT_DEVICES, limits_of
from manager.worker.tiny_program import tiny_program


@pytest.mark.parametrize(
    ("options", "add", "clear"),
    [
        ([], 0, 0),
        (["rbind", "rprivate"], 0, 0),
        (["ro"], m.ATTR_RDONLY, 0),
        (["ro", "rw"], 0, 0),
        (["rw", "ro"], m.ATTR_RDONLY, 0),
        (["rro"], m.ATTR_RDONLY, 0),
        (["nosuid", "nodev", "noexec"], m.ATTR_NOSUID | m.ATTR_NODEV | m.ATTR_NOEXEC, 0),
        (["rnosuid", "suid"], 0, 0),
        (["noatime"], m.ATTR_NOATIME, m.ATTR_ATIME),
        (["noatime", "strictatime"], m.ATTR_STRICTATIME, m.ATTR_ATIME),
        (["relatime"], 0, m.ATTR_ATIME),
        (["size=5m", "mode=755"], 0, 0),
    ],
)
def test_mount_attributes(options, add, clear):
    found = attributes_of(options)
    assert (found.add, found.clear) == (add, clear)


def test_readonly_layers_are_read_only_whatever_the_options_say():
    assert attributes_of(["rw"], readonly=True).add == m.ATTR_RDONLY


def test_values_and_flags_of_options():
    options = ["size=1m", "ro", "size=2m", "rprivate", "rnoexec"]
    assert value_of(options, "size") == "2m"
    assert value_of(options, "mode") == ""
    assert flags_of(options) == ("ro", "rnoexec")


def resources(**members):
    return Spec(linux=Linux(resources=members))


def writes(limits):
    return {limit.file: limit.value for limit in limits if limit.controller != "devices"}


@pytest.mark.parametrize(
    ("given", "v1", "v2"),
    [
        ({}, {}, {}),
        ({"pids": {"limit": 5}}, {"pids.max": "5"}, {"pids.max": "5"}),
        ({"pids": {"limit": -1}}, {"pids.max": "max"}, {"pids.max": "max"}),
        (
            {"memory": {"limit": 100, "swap": 150, "reservation": 50}},
            {
                "memory.limit_in_bytes": "100",
                "memory.soft_limit_in_bytes": "50",
                "memory.memsw.limit_in_bytes": "150",
            },
            {"memory.max": "100", "memory.low": "50", "memory.swap.max": "50"},
        ),
        (
            {"memory": {"limit": -1}},
            {"memory.limit_in_bytes": "-1"},
            {"memory.max": "max"},
        ),
        (
            {"cpu": {"shares": 1024, "quota": 5000, "period": 10000}},
            {"cpu.shares": "1024", "cpu.cfs_period_us": "10000", "cpu.cfs_quota_us": "5000"},
            {"cpu.weight": "39", "cpu.max": "5000 10000"},
        ),
        ({"cpu": {"quota": 5000}}, {"cpu.cfs_quota_us": "5000"}, {"cpu.max": "5000 100000"}),
        ({"memory": None, "pids": {"limit": None}}, {}, {}),
    ],
)
def test_limits(given, v1, v2):
    limits = limits_of(resources(**given))
    assert writes(limits.v1) == v1
    assert writes(limits.v2) == v2


def test_devices_are_denied_first_and_the_specs_rules_come_last():
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": False, "type": "b"},
    ]
    nodes = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    spec = Spec(linux=Linux(resources={"devices": rules}, devices=nodes))
    lines = [(limit.file, limit.value) for limit in limits_of(spec).v1]
    assert lines[0] == ("devices.deny", "a")
    assert lines[1 : 1 + len(DEFAULT_DEVICES)] == [("devices.allow", d) for d in DEFAULT_DEVICES]
    assert lines[1 + len(DEFAULT_DEVICES) :] == [
        ("devices.allow", "c 10:229 rwm"),
        ("devices.allow", "c 10:229 rw"),
        ("devices.deny", "b *:* rwm"),
    ]


def test_resources_of_the_wrong_kind():
    with pytest.raises(LaunchFailed, match=r"linux\.resources") as caught:
        limits_of(resources(memory={"limit": "much"}))
    assert caught.value.stage == "cgroup"


HYBRID = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hierarchies():
    hybrid = parse_hierarchies(HYBRID)
    assert hybrid.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
    }
    assert (hybrid.unified, hybrid.hybrid) == ("", "/sys/fs/cgroup/unified")
    unified = parse_hierarchies(UNIFIED)
    assert (unified.v1, unified.unified, unified.hybrid) == ({}, "/sys/fs/cgroup", "")
    assert parse_hierarchies("22 27 0:21 / /proc rw - proc proc rw") == Hierarchies()


def test_homes():
    own = "4:memory:/system/worker\n1:cpu,cpuacct:/\n0::/user.slice/x\n"
    assert [str(home) for home in parse_homes(own, parse_hierarchies(HYBRID))] == [
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/memory/system/worker",
    ]
    assert [str(home) for home in parse_homes(own, parse_hierarchies(UNIFIED))] == [
        "/sys/fs/cgroup/user.slice/x"
    ]


@pytest.mark.parametrize(
    ("engine", "output", "stage", "number", "reason"),
    [
        (
            "crun",
            '{"msg":"executable file `/x` not found in $PATH: No such file or directory",'
            '"level":"error"}',
            "exec",
            errno.ENOENT,
            "crun: executable file `/x` not found in $PATH: No such file or directory",
        ),
        (
            "crun",
            "executable file `/x` not found: No such file or directory",
            "exec",
            errno.ENOENT,
            "crun: executable file `/x` not found: No such file or directory",
        ),
        (
            "crun",
            "the path `/x` exists but it is not executable: Operation not permitted",
            "exec",
            errno.EACCES,
            "crun: the path `/x` exists but it is not executable: Operation not permitted",
        ),
        (
            "crun",
            "the path `/x` is not a regular file: Operation not permitted",
            "exec",
            errno.EACCES,
            "crun: the path `/x` is not a regular file: Operation not permitted",
        ),
        (
            "crun",
            "open executable: Permission denied",
            "exec",
            errno.EACCES,
            "crun: /x: open executable: Permission denied",
        ),
        (
            "runc",
            '{"level":"warning","msg":"noise"}\n{"level":"error","msg":"runc create failed: '
            'unable to start container process: exec: \\"/x\\": stat /x: no such file or '
            'directory"}',
            "exec",
            errno.ENOENT,
            'runc: unable to start container process: exec: "/x": stat /x: no such file or '
            "directory",
        ),
        (
            "runsc",
            '{"msg":"cause","level":"error"}{"msg":"effect","level":"error"}',
            "create",
            None,
            "runsc create: cause; effect",
        ),
        ("bwrap", "bwrap: Can't mkdir /a: Read-only", "create", None, "Can't mkdir /a"),
        ("crun", "", "create", None, "crun create: failed without a message"),
        ("crun", "a\x1b[31m\nb", "create", None, "crun create: a [31m; b"),
    ],
)
def test_engines_complaints(engine, output, stage, number, reason):
    failure = explain(engine, "create", output, "/x")
    assert (failure.stage, failure.errno) == (stage, number)
    assert reason in failure.reason


def test_reasons_are_one_bounded_line():
    assert one_line("  a\n\tb\0c ") == "a b c"
    assert len(one_line("x" * 5000)) == REASON_CHARS_MAX
    error = LaunchFailed.from_os("mounts", "doing", OSError(errno.ELOOP, "too many"))
    assert (error.reason, error.errno) == ("doing: too many", errno.ELOOP)


def test_the_tiny_program_ends_well(tmp_path):
    program = tiny_program(platform.machine())
    if program is None:
        pytest.skip(f"no tiny program for {platform.machine()}")
    path = tmp_path / "probe"
    path.write_bytes(program)
    path.chmod(stat.S_IRWXU)
    assert subprocess.run([path], check=False).returncode == 0
    assert tiny_program("vax") is None
