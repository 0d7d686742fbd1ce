"""How two objects of JSON differ, field by field."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct


class Absent(Struct, frozen=True):
    """What a field has where there is none."""


ABSENT: Final = Absent()


class Difference(Struct, frozen=True, kw_only=True):
    """One field. ``path`` are names and indices; a side that lacks it has :data:`ABSENT`."""

    path: tuple[str, ...]
    before: Any
    after: Any

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.before is ABSENT:
            return "added"
        return "removed" if self.after is ABSENT else "changed"

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer. Source: RFC 6901."""
        return "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in self.path)


def differences(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[Difference]:
    """The fields in which two values differ, each as deep as it goes, in the order of ``after``."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*after, *(each for each in before if each not in after)]:
            yield from differences(
                before.get(name, ABSENT), after.get(name, ABSENT), (*path, str(name))
            )
    elif isinstance(before, list) and isinstance(after, list) and before and after:
        for number in range(max(len(before), len(after))):
            yield from differences(
                _item(before, number), _item(after, number), (*path, str(number))
            )
    elif before != after or type(before) is not type(after):
        yield Difference(path=path, before=before, after=after)


def _item(values: list[Any], number: int) -> Any:
    return values[number] if number < len(values) else ABSENT


def as_patch(found: list[Difference]) -> list[dict[str, Any]]:
    """Differences as a JSON patch that makes the one object of the other. Source: RFC 6902.

    Items leave a list from its end, so that the indices of those that stay hold.
    """
    operations: list[dict[str, Any]] = []
    for each in (*(d for d in found if d.kind != "removed"), *reversed(_removed(found))):
        match each.kind:
            case "added":
                operations.append({"op": "add", "path": each.pointer, "value": each.after})
            case "changed":
                operations.append({"op": "replace", "path": each.pointer, "value": each.after})
            case _:
                operations.append({"op": "remove", "path": each.pointer})
    return operations


def _removed(found: list[Difference]) -> list[Difference]:
    return [each for each in found if each.kind == "removed"]
