"""``--filter`` of ``ps``: which sandboxes and containers are shown."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias, get_args

import click

Item: TypeAlias = dict[str, Any]
"""A sandbox, or one container of it, as :func:`manager.schema.summary.summary` has them."""

KEYS: Final[dict[str, Callable[[Item, Item], Sequence[str]]]] = {
    "sandbox": lambda sandbox, _: (sandbox["ID"],),
    "container": lambda _, container: (container.get("CID", ""),),
    "state": lambda sandbox, container: (sandbox["State"], container.get("Status", "")),
    "engine": lambda sandbox, _: (sandbox["Engine"],),
    "command": lambda _, container: (container.get("Args0", ""),),
}
"""What each key looks at, in a sandbox and a container of it; one of these values has to fit."""
ALIASES: Final = {"id": "sandbox", "name": "container", "status": "state"}
"""What other container managers call them."""


class SandboxFilter:
    """Several filters: those of one key are alternatives, of several keys all have to fit.

    Args:
        asked: Values by key, each one a pattern as a shell has it.
    """

    def __init__(self, asked: dict[str, list[str]]) -> None:
        self._asked = asked

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._asked)

    def chosen(self, items: Sequence[Item]) -> list[Item]:
        """The sandboxes with those of their containers that fit; without any it is left out."""
        found = []
        for sandbox in items:
            fitting = [each for each in sandbox["Containers"] if self._fits(sandbox, each)]
            if fitting or (not sandbox["Containers"] and self._fits(sandbox, {})):
                found.append({**sandbox, "Containers": fitting})
        return found

    def _fits(self, sandbox: Item, container: Item) -> bool:
        return all(
            any(
                fnmatchcase(value, pattern)
                for value in KEYS[key](sandbox, container)
                for pattern in patterns
            )
            for key, patterns in self._asked.items()
        )


NO_FILTER: Final = SandboxFilter({})


def parse_filters(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> SandboxFilter:
    """Read ``KEY=VALUE`` texts, all of them known."""
    asked: dict[str, list[str]] = {}
    for text in given:
        name, separator, value = text.partition("=")
        key = ALIASES.get(name, name)
        if key not in KEYS or not separator:
            known = ", ".join(f"{each}=…" for each in KEYS)
            raise click.BadParameter(f"{text!r} is no filter: want {known}")
        if key == "state":
            _check_state(value)
        asked.setdefault(key, []).append(value)
    return SandboxFilter(asked)


def _check_state(value: str) -> None:
    """A misspelt state would find nothing, as if there were nothing in it."""
    from manager.domain.state import ContainerStatus, Phase  # noqa: PLC0415 - only to check it

    states = sorted({*get_args(Phase), *get_args(ContainerStatus)})
    if not any(fnmatchcase(state, value) for state in states):
        near = get_close_matches(value, states, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"want {', '.join(states)}"
        raise click.BadParameter(f"nothing is ever in the state {value!r}: {hint}")
