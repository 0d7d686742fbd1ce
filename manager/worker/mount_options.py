"""Mount options of a spec entry, as attributes for mount_setattr(2). Pure.

Source: opencontainers/runtime-spec, config.md, "Linux mount options"; mount(8).
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from manager.kernel import mount as m

_ADD: Final = {
    "ro": m.ATTR_RDONLY,
    "nosuid": m.ATTR_NOSUID,
    "nodev": m.ATTR_NODEV,
    "noexec": m.ATTR_NOEXEC,
    "nodiratime": m.ATTR_NODIRATIME,
    "nosymfollow": m.ATTR_NOSYMFOLLOW,
}
_OMIT: Final = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "diratime": "nodiratime",
    "symfollow": "nosymfollow",
}
_ATIME: Final = {
    "relatime": m.ATTR_RELATIME,
    "noatime": m.ATTR_NOATIME,
    "strictatime": m.ATTR_STRICTATIME,
}
_NAMES: Final = (*_ADD, *_OMIT, *_ATIME)
_RECURSIVE: Final = {f"r{name}": name for name in _NAMES if f"r{name}" not in _NAMES}


class Attributes(Struct, frozen=True, kw_only=True):
    """What to add to a mount and everything below it, and what to clear."""

    add: int = 0
    clear: int = 0


def attributes_of(options: Iterable[str], *, readonly: bool = False) -> Attributes:
    """Translate; later options win, as in mount(8).

    `ro` and its like hold for the whole donated tree, submounts included: with or without the
    recursive spelling (`rro`). `rw` and its like take back an earlier `ro`, and never what the
    donor's own mount forbids. Options that are not attributes are somebody else's business.
    """
    add = clear = 0
    for option in options:
        name = _RECURSIVE.get(option, option)
        if name in _ADD:
            add |= _ADD[name]
        elif name in _OMIT:
            add &= ~_ADD[_OMIT[name]]
        elif name in _ATIME:
            add = (add & ~m.ATTR_ATIME) | _ATIME[name]
            clear = m.ATTR_ATIME
    if readonly:
        add |= m.ATTR_RDONLY
    return Attributes(add=add, clear=clear)


def value_of(options: Iterable[str], key: str) -> str:
    """The last `key=value` among the options, or the empty string."""
    found = [option.partition("=")[2] for option in options if option.startswith(f"{key}=")]
    return found[-1] if found else ""


def flags_of(options: Iterable[str]) -> tuple[str, ...]:
    """The options that name mount attributes, in order."""
    return tuple(option for option in options if _RECURSIVE.get(option, option) in _NAMES)
