"""Names that clients choose, and which of them are acceptable."""

from typing import Final

ID_CHARS_MAX: Final = 128
"""Length of a sandbox id or container id."""

REQUEST_ID_CHARS_MAX: Final = 128

_ALNUM: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_FIRST: Final = _ALNUM | {"_"}
_REST: Final = _FIRST | {".", "+", "-"}

ID_RULE: Final = (
    f"1 to {ID_CHARS_MAX} characters of A-Z a-z 0-9 _ . + -, the first of them a letter, digit or _"
)


def is_valid_id(text: str) -> bool:
    """Whether ``text`` may name a sandbox or a container.

    The set excludes all that a file name, a cgroup or an engine could read another way: empty,
    ``.``, ``..``, a leading dash, separators, non-ASCII look-alikes, a trailing newline.
    """
    return 0 < len(text) <= ID_CHARS_MAX and text[0] in _FIRST and _REST.issuperset(text)
