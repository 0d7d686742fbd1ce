"""Whether a spec is the one that the image was made with: gVisor's table, point by point."""

from typing import Any

import pytest

from manager.domain import goliteral as go
from manager.domain.restore_spec import compare_specs

USER = "specs.User{UID:0x0, GID:0x0, Umask:(*uint32)(nil), AdditionalGids:[]uint32(nil), Username:"
LIMIT = {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}
MOUNT = {"destination": "/d", "type": "bind", "source": "/a", "options": ["ro", "rbind"]}
MOUNT_TEXT = (
    'specs.Mount{Destination:"/d", Type:"bind", Source:"/a", Options:[]string{"ro", "rbind"}, '
    "UIDMappings:[]specs.LinuxIDMapping(nil), GIDMappings:[]specs.LinuxIDMapping(nil)}"
)
DEVICE = {"path": "/dev/x", "type": "c", "major": 1, "minor": 2}
MAPPING = {"containerID": 0, "hostID": 1000, "size": 1}


def spec(process: Any = None, linux: Any = None, **members: Any) -> dict[str, object]:
    return {
        "ociVersion": "1.1.0",
        "process": {"args": ["/bin/sh", "-c", "x"], "cwd": "/", **(process or {})},
        "root": {"path": "rootfs"},
        "mounts": [MOUNT],
        "linux": {"namespaces": [{"type": "pid"}], **(linux or {})},
        **members,
    }


def text(field: str, before: str, now: str, why: str = "") -> str:
    return (
        f'"{field}" does not match across checkpoint restore for container: "web", '
        f"checkpoint {before} restore {now}{why}"
    )


SAME = [
    spec(),
    spec(root={"path": "elsewhere", "readonly": False}),
    spec(process={"env": ["A=b"], "terminal": False}, hostname="h", domainname="d", hooks={"x": 1}),
    spec(linux={"cgroupsPath": "/x", "resources": {"pids": {"limit": 3}}}),
    spec(linux={"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}),
    spec(process={"args": ["/usr/bin/sh", "-c", "x"]}),
    spec(mounts=[{**MOUNT, "source": "/elsewhere", "options": ["rbind", "ro"]}]),
    spec(mounts=[MOUNT, MOUNT]),
    spec(
        annotations={
            "mine": "x",
            "dev.gvisor.spec.mount.m.source": "/x",
            "dev.gvisor.internal.x": "y",
            "dev.gvisor.container-name-remap.1": "a=b",
            "dev.gvisor.flag.debug": "true",
            "dev.gvisor.flag.debug-log": "/x",
            "dev.gvisor.flag.debug-command": "x",
            "dev.gvisor.flag.debug-log-format": "json",
            "dev.gvisor.flag.strace": "true",
            "dev.gvisor.flag.strace-syscalls": "read",
            "dev.gvisor.flag.strace-log-size": "9",
            "dev.gvisor.flag.log-packets": "true",
        }
    ),
    spec(linux={"devices": [{"path": "/dev/nvidia0", "type": "c"}]}),
    spec(linux={"seccomp": None, "sysctl": {}}),
]

DIFFERENT = [
    (spec(), spec(ociVersion="1.0.2"), text("OCI Version", '"1.1.0"', '"1.0.2"')),
    (spec(), spec(root={"readonly": True}), text("Root.Readonly", "false", "true")),
    (
        spec(),
        spec(mounts=[]),
        text("Mounts", f"[]specs.Mount{{{MOUNT_TEXT}}}", "[]specs.Mount{}"),
    ),
    (spec(), spec(mounts=[{**MOUNT, "destination": "/e"}]), "Mounts"),
    (spec(), spec(mounts=[{**MOUNT, "options": ["rw"]}]), "Mounts"),
    (spec(), spec(mounts=[{**MOUNT, "uidMappings": [MAPPING]}]), "Mounts"),
    (
        spec(),
        spec(mounts=[MOUNT, {**MOUNT, "source": "/b"}]),
        "got error invalid mount in the restore spec",
    ),
    (
        spec(),
        spec(annotations={"dev.gvisor.flag.overlay": "x"}),
        text(
            "Annotations", "map[string]string{}", 'map[string]string{"dev.gvisor.flag.overlay":"x"}'
        ),
    ),
    (spec(), spec(process={"terminal": True}), text("Terminal", "false", "true")),
    (spec(), spec(process={"cwd": "/tmp"}), text("Cwd", '"/"', '"/tmp"')),
    (
        spec(process={"user": {"uid": 0, "username": "a"}}),
        spec(process={"user": {"uid": 0, "username": "b"}}),
        text("User", f'{USER}"a"}}', f'{USER}"b"}}'),
    ),
    (
        spec(),
        spec(process={"rlimits": [LIMIT]}),
        text(
            "Rlimits",
            "[]specs.POSIXRlimit(nil)",
            '[]specs.POSIXRlimit{specs.POSIXRlimit{Type:"RLIMIT_NOFILE", Hard:0x400, Soft:0x200}}',
            ", got error length mismatch",
        ),
    ),
    (
        spec(process={"rlimits": [LIMIT, {**LIMIT, "soft": 1}]}),
        spec(process={"rlimits": [LIMIT, LIMIT]}),
        "got error duplicate value",
    ),
    (
        spec(process={"rlimits": [LIMIT]}),
        spec(process={"rlimits": [{**LIMIT, "soft": 1}]}),
        "Rlimits",
    ),
    (
        spec(),
        spec(process={"args": ["/bin/sh"]}),
        text(
            "Args",
            '[]string{"/bin/sh", "-c", "x"}',
            '[]string{"/bin/sh"}',
            ", got error length mismatch",
        ),
    ),
    (spec(), spec(process={"args": ["/bin/ash", "-c", "x"]}), "Args"),
    (spec(), spec(process={"args": ["/bin/sh", "-c", "y"]}), "Args"),
    (
        spec(process={"capabilities": {"bounding": ["A"]}}),
        spec(process={"capabilities": {"bounding": ["B"]}}),
        text("Capabilities.Bounding", '[]string{"A"}', '[]string{"B"}'),
    ),
    (
        spec(process={"capabilities": {}}),
        spec(process={"capabilities": {"ambient": ["A"]}}),
        "Capabilities.Ambient",
    ),
    (spec(process={"capabilities": {"effective": ["A"]}}), spec(), '"Capabilities" does not match'),
    (spec(), spec(process={"capabilities": {}}), '"Capabilities" does not match'),
    (
        spec(),
        spec(linux={"sysctl": {"a": "1"}}),
        text("Sysctl", "map[string]string(nil)", 'map[string]string{"a":"1"}'),
    ),
    (spec(), spec(linux={"seccomp": {"defaultAction": "x"}}), "Seccomp"),
    (spec(), spec(linux={"devices": [DEVICE]}), "Devices"),
    (
        spec(),
        spec(linux={"devices": [DEVICE, DEVICE]}),
        "duplicate device found in the spec /dev/x before checkpoint for container web",
    ),
    (spec(), spec(linux={"uidMappings": [MAPPING]}), "UIDMappings"),
    (
        spec(linux={"gidMappings": [MAPPING]}),
        spec(linux={"gidMappings": [{**MAPPING, "size": 2}]}),
        "Size:0x1}} restore",
    ),
    (
        spec(),
        spec(linux={"namespaces": [{"type": "pid"}, {"type": "ipc"}]}),
        '[]specs.LinuxNamespace{specs.LinuxNamespace{Type:"pid", Path:""}} restore',
    ),
    (spec(), spec(process={"noNewPrivileges": True}), '"Process" does not match'),
    (spec(), spec(linux={"maskedPaths": ["/x"]}), '"Linux" does not match'),
    (spec(), spec(vm={"x": 1}), '"Spec" does not match'),
]


@pytest.mark.parametrize("now", SAME)
def test_what_does_not_matter(now: dict[str, object]) -> None:
    assert compare_specs("web", spec(), now) == ()


def test_no_capabilities_are_an_empty_list_of_them() -> None:
    before = spec(process={"capabilities": {"bounding": None}})
    assert compare_specs("web", before, spec(process={"capabilities": {"bounding": []}})) == ()


@pytest.mark.parametrize(("before", "now", "found"), DIFFERENT)
def test_what_does(before: dict[str, object], now: dict[str, object], found: str) -> None:
    (mismatch,) = compare_specs("web", before, now)
    assert mismatch.container == "web"
    assert found in mismatch.error
    if found.startswith('"'):
        assert mismatch.error.startswith(found.partition(" ")[0])


def test_all_are_found_in_the_order_in_which_gvisor_looks() -> None:
    now = spec(ociVersion="9", process={"cwd": "/x", "args": []}, linux={"seccomp": {"a": 1}})
    fields = [each.field for each in compare_specs("web", spec(), now)]
    assert fields == ["OCI Version", "Cwd", "Args", "Seccomp"]


def test_an_image_without_it() -> None:
    (mismatch,) = compare_specs("web", None, spec())
    assert mismatch.error == 'checkpoint image does not contain spec for container: "web"'


@pytest.mark.parametrize(
    ("value", "kind", "printed"),
    [
        (None, go.STRING, '""'),
        ('a"b', go.STRING, '"a\\"b"'),
        (None, go.UINT32, "0x0"),
        (7, go.GoType(name="*uint32", kind="pointer"), "7"),
        ({"b": "2", "a": "1"}, go.STRING_MAP, 'map[string]string{"a":"1", "b":"2"}'),
        ([], go.STRINGS, "[]string{}"),
        (None, go.STRINGS, "[]string(nil)"),
        ({"b": [1]}, go.ANY, '{"b":[1]}'),
    ],
)
def test_literals(value: object, kind: go.GoType, printed: str) -> None:
    assert go.go_literal(value, kind) == printed
