"""Is a spec the one that the image was made with? gVisor's RestoreValidateSpec, all of it at once.

gVisor stops at the first difference; here all are found, in its order, each with its text. Specs
are plain JSON objects. Source: gVisor runsc/specutils/restore.go, as behaviour.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from manager.domain import goliteral as go
from manager.domain.checkpoint import Mismatch
from manager.domain.gotext import quote

Json: TypeAlias = Mapping[str, object]
_LENGTH: Final = ", got error length mismatch"
_DUPLICATE: Final = ", got error duplicate value"
_BAD_MOUNT: Final = ", got error invalid mount in the restore spec"
ANNOTATIONS: Final = "dev.gvisor."
IGNORED_ANNOTATIONS: Final = ("dev.gvisor.internal.", "dev.gvisor.container-name-remap.")
IGNORED_FLAGS: Final = frozenset(
    f"dev.gvisor.flag.{name}"
    for name in (
        "debug debug-log debug-command debug-log-format strace strace-syscalls strace-log-size "
        "log-packets"
    ).split()
)
MOUNT_ANNOTATION: Final = "dev.gvisor.spec.mount."
CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
_GPU: Final = "/dev/nvidia"
PROCESS_COMPARED: Final = frozenset(
    "terminal cwd user rlimits args capabilities env commandLine consoleSize".split()
)
LINUX_COMPARED: Final = frozenset(
    "sysctl seccomp devices resources uidMappings gidMappings namespaces cgroupsPath".split()
)
SPEC_COMPARED: Final = frozenset(
    "ociVersion root mounts annotations process linux hostname domainname hooks".split()
)


def compare_specs(name: str, before: Json | None, now: Json) -> tuple[Mismatch, ...]:
    """Find every difference that gVisor minds, in the order in which it looks.

    Args:
        name: The container's name.
        before: The image's spec of that name; ``None`` if it has none.
        now: The spec that it is to be restored with.
    """
    if before is None:
        text = f"checkpoint image does not contain spec for container: {quote(name)}"
        return (Mismatch(container=name, field="Container", error=text),)
    return tuple(_differences(_Comparison(name), before, now))


class _Comparison:
    """Makes mismatches of one container."""

    def __init__(self, name: str) -> None:
        self.name = name

    def differs(
        self, field: str, before: object, now: object, kind: go.GoType = go.ANY, why: str = ""
    ) -> Mismatch:
        error = (
            f"{quote(field)} does not match across checkpoint restore for container: "
            f"{quote(self.name)}, checkpoint {go.go_literal(before, kind)} "
            f"restore {go.go_literal(now, kind)}{why}"
        )
        return Mismatch(container=self.name, field=field, error=error)

    def equal(
        self, field: str, before: object, now: object, kind: go.GoType = go.ANY
    ) -> Iterator[Mismatch]:
        if _plain(before) != _plain(now):
            yield self.differs(field, before, now, kind)

    def same_set(
        self, field: str, before: object, now: object, kind: go.GoType, *, unique: bool = False
    ) -> Iterator[Mismatch]:
        old, new = _items(before), _items(now)
        if len(old) != len(new):
            yield self.differs(field, before, now, kind, _LENGTH)
        elif unique and len(_keys(new)) < len(new):
            yield self.differs(field, before, now, kind, _DUPLICATE)
        elif _keys(old) != _keys(new):
            yield self.differs(field, before, now, kind)


def _differences(compare: _Comparison, before: Json, now: Json) -> Iterator[Mismatch]:
    version = "ociVersion"
    yield from compare.equal(
        "OCI Version", before.get(version) or "", now.get(version) or "", go.STRING
    )
    old, new = (bool(_object(spec, "root").get("readonly")) for spec in (before, now))
    yield from compare.equal("Root.Readonly", old, new, go.BOOL)
    yield from _mounts(compare, before.get("mounts"), now.get("mounts"))
    yield from compare.equal("Annotations", _annotations(before), _annotations(now), go.STRING_MAP)
    yield from _process(compare, _object(before, "process"), _object(now, "process"))
    yield from _linux(compare, _object(before, "linux"), _object(now, "linux"))
    for field, member, compared in (
        ("Process", "process", PROCESS_COMPARED),
        ("Linux", "linux", LINUX_COMPARED),
    ):
        yield from compare.equal(
            field, _rest(_object(before, member), compared), _rest(_object(now, member), compared)
        )
    yield from compare.equal("Spec", _rest(before, SPEC_COMPARED), _rest(now, SPEC_COMPARED))


def _process(compare: _Comparison, before: Json, now: Json) -> Iterator[Mismatch]:
    old, new = (bool(process.get("terminal")) for process in (before, now))
    yield from compare.equal("Terminal", old, new, go.BOOL)
    yield from compare.equal("Cwd", before.get("cwd") or "", now.get("cwd") or "", go.STRING)
    yield from compare.equal("User", before.get("user"), now.get("user"), go.USER)
    limits = (before.get("rlimits"), now.get("rlimits"))
    yield from compare.same_set("Rlimits", *limits, go.RLIMITS, unique=True)
    yield from _args(compare, before.get("args"), now.get("args"))
    yield from _capabilities(compare, before.get("capabilities"), now.get("capabilities"))


def _args(compare: _Comparison, before: object, now: object) -> Iterator[Mismatch]:
    old, new = _items(before), _items(now)
    if len(old) != len(new):
        yield compare.differs("Args", before, now, go.STRINGS, _LENGTH)
    elif old[1:] != new[1:] or [_base(each) for each in old[:1]] != [_base(e) for e in new[:1]]:
        yield compare.differs("Args", before, now, go.STRINGS)


def _capabilities(compare: _Comparison, before: object, now: object) -> Iterator[Mismatch]:
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        # None at all are others than empty sets: the container has those that its user has.
        if isinstance(before, Mapping) or isinstance(now, Mapping):
            yield compare.differs("Capabilities", before, now)
        return
    for name in CAPABILITY_SETS:
        field = f"Capabilities.{name.capitalize()}"
        yield from compare.same_set(field, before.get(name), now.get(name), go.STRINGS)


def _linux(compare: _Comparison, before: Json, now: Json) -> Iterator[Mismatch]:
    yield from compare.equal("Sysctl", before.get("sysctl"), now.get("sysctl"), go.STRING_MAP)
    yield from compare.equal("Seccomp", before.get("seccomp"), now.get("seccomp"))
    yield from _devices(compare, before.get("devices"), now.get("devices"))
    for field, member in (("UIDMappings", "uidMappings"), ("GIDMappings", "gidMappings")):
        yield from compare.same_set(field, before.get(member), now.get(member), go.ID_MAPPINGS)
    spaces = (before.get("namespaces"), now.get("namespaces"))
    if _members(spaces[0], "type") != _members(spaces[1], "type"):
        yield compare.differs("Namespace", *spaces, go.NAMESPACES)


def _devices(compare: _Comparison, before: object, now: object) -> Iterator[Mismatch]:
    old, new = _plain_devices(before), _plain_devices(now)
    for devices in (old, new):
        for device in devices:
            if devices.count(device) > 1:
                text = (
                    f"duplicate device found in the spec {device[0]} before checkpoint "
                    f"for container {compare.name}"
                )
                yield Mismatch(container=compare.name, field="Devices", error=text)
                return
    if set(old) != set(new):
        yield compare.differs("Devices", before, now)


def _plain_devices(value: object) -> list[tuple[str, str]]:
    found = [(str(each.get("path")), str(each.get("type"))) for each in _objects(value)]
    return [each for each in found if not each[0].removeprefix(_GPU).isdigit()]


def _mounts(compare: _Comparison, before: object, now: object) -> Iterator[Mismatch]:
    old = {_destination(each): each for each in _objects(before)}
    new: dict[str, Json] = {}
    for each in _objects(now):
        if new.setdefault(_destination(each), each) != each:
            yield compare.differs("Mounts", before, now, go.MOUNTS, _BAD_MOUNT)
            return
    same = old.keys() == new.keys() and all(
        _mount_key(old[place]) == _mount_key(new[place]) for place in old
    )
    if not same:
        yield compare.differs("Mounts", before, now, go.MOUNTS)


def _destination(mount: Json) -> str:
    return str(mount.get("destination"))


def _mount_key(mount: Json) -> tuple[object, ...]:
    mappings = tuple(
        frozenset(_keys(_items(mount.get(each)))) for each in ("uidMappings", "gidMappings")
    )
    options = tuple(sorted(map(str, _items(mount.get("options")))))
    return mount.get("type") or "", options, *mappings


def _annotations(spec: Json) -> dict[str, object]:
    return {
        key: value
        for key, value in _object(spec, "annotations").items()
        if key.startswith(ANNOTATIONS)
        and not key.startswith(IGNORED_ANNOTATIONS)
        and key not in IGNORED_FLAGS
        and not (key.startswith(MOUNT_ANNOTATION) and key.endswith(".source"))
    }


def _object(owner: Json, member: str) -> Json:
    value = owner.get(member)
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Json]:
    return [each for each in _items(value) if isinstance(each, Mapping)]


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _members(value: object, member: str) -> set[str]:
    return {str(each.get(member)) for each in _objects(value)}


def _keys(values: list[object]) -> set[str]:
    return {repr(_ordered(each)) for each in values}


def _ordered(value: object) -> object:
    return sorted(value.items()) if isinstance(value, Mapping) else value


def _plain(value: object) -> object:
    """Nothing and emptiness are one: Go's decoder knows no difference."""
    if isinstance(value, Mapping):
        found = {key: plain for key, each in value.items() if (plain := _plain(each)) is not None}
        return found or None
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] or None
    return value or None


def _rest(owner: Json, compared: frozenset[str]) -> dict[str, object]:
    return {key: value for key, value in owner.items() if key not in compared}


def _base(path: object) -> str:
    return str(path).rpartition("/")[2]
