"""Go's ``%#v`` for the members of an OCI spec: gVisor's texts print both sides of a difference so.

Source: Go's fmt documentation; opencontainers/runtime-spec specs-go/config.go for names and order
of the members. What Go prints as an address is printed as JSON here.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from manager.domain.gotext import quote


class GoType(Struct, frozen=True, kw_only=True):
    """How one kind of value is printed.

    ``kind`` is ``string``, ``bool``, ``uint`` (which prints in hexadecimal), ``slice``, ``map`` of
    strings, ``struct`` or ``any``; ``of`` is a slice's element. ``members`` are of a struct:
    JSON name, Go name, type.
    """

    name: str
    kind: str
    of: "GoType | None" = None
    members: "tuple[tuple[str, str, GoType], ...]" = ()


STRING: Final = GoType(name="string", kind="string")
BOOL: Final = GoType(name="bool", kind="bool")
UINT32: Final = GoType(name="uint32", kind="uint")
UINT64: Final = GoType(name="uint64", kind="uint")
ANY: Final = GoType(name="", kind="any")
STRING_MAP: Final = GoType(name="map[string]string", kind="map")


def slice_of(element: GoType) -> GoType:
    """A slice of a type."""
    return GoType(name=f"[]{element.name}", kind="slice", of=element)


def _struct(name: str, *members: tuple[str, str, GoType]) -> GoType:
    return GoType(name=f"specs.{name}", kind="struct", members=members)


STRINGS: Final = slice_of(STRING)
USER: Final = _struct(
    "User",
    ("uid", "UID", UINT32),
    ("gid", "GID", UINT32),
    ("umask", "Umask", GoType(name="*uint32", kind="pointer")),
    ("additionalGids", "AdditionalGids", slice_of(UINT32)),
    ("username", "Username", STRING),
)
RLIMITS: Final = slice_of(
    _struct(
        "POSIXRlimit", ("type", "Type", STRING), ("hard", "Hard", UINT64), ("soft", "Soft", UINT64)
    )
)
ID_MAPPINGS: Final = slice_of(
    _struct(
        "LinuxIDMapping",
        ("containerID", "ContainerID", UINT32),
        ("hostID", "HostID", UINT32),
        ("size", "Size", UINT32),
    )
)
NAMESPACES: Final = slice_of(
    _struct("LinuxNamespace", ("type", "Type", STRING), ("path", "Path", STRING))
)
MOUNTS: Final = slice_of(
    _struct(
        "Mount",
        ("destination", "Destination", STRING),
        ("type", "Type", STRING),
        ("source", "Source", STRING),
        ("options", "Options", STRINGS),
        ("uidMappings", "UIDMappings", ID_MAPPINGS),
        ("gidMappings", "GIDMappings", ID_MAPPINGS),
    )
)


def go_literal(value: object, kind: GoType) -> str:
    """Print a value of a spec, absent members included, as ``%#v`` prints it."""
    match kind.kind:
        case "string":
            return quote(value if isinstance(value, str) else "")
        case "bool":
            return "true" if value else "false"
        case "uint":
            return hex(value) if isinstance(value, int) else "0x0"
        case "slice":
            return _slice(value, kind)
        case "map":
            return _map(value, kind)
        case "struct":
            members = value if isinstance(value, Mapping) else {}
            inside = (
                f"{name}:{go_literal(members.get(key), of)}" for key, name, of in kind.members
            )
            return f"{kind.name}{{{', '.join(inside)}}}"
        case "pointer" if value is None:
            return f"({kind.name})(nil)"
        case _:
            return msgspec.json.encode(value).decode()


def _slice(value: object, kind: GoType) -> str:
    if not isinstance(value, Sequence) or kind.of is None:
        return f"{kind.name}(nil)"
    of = kind.of
    return f"{kind.name}{{{', '.join(go_literal(each, of) for each in value)}}}"


def _map(value: object, kind: GoType) -> str:
    if not isinstance(value, Mapping):
        return f"{kind.name}(nil)"
    inside = (f"{quote(key)}:{quote(str(value[key]))}" for key in sorted(value))
    return f"{kind.name}{{{', '.join(inside)}}}"
