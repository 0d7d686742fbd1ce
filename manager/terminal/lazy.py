"""Groups of commands that are imported one by one, when they are called."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from typing_extensions import override


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports each when it is needed.

    Args:
        commands_in: Modules by the name of the command; each has it as ``command``.
        **how: As of :class:`click.Group`.
    """

    def __init__(self, *, commands_in: Mapping[str, str], **how: Any) -> None:
        super().__init__(**how)
        self._commands_in = commands_in

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_in)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._commands_in:
            return None
        command: click.Command = import_module(self._commands_in[cmd_name]).command
        return command
