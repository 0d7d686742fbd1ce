"""Groups of commands that are imported one by one, when they are called."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import click
from typing_extensions import override

from manager.terminal.ending import hear_interrupts, leave_pipe
from manager.terminal.manners import accept_everywhere, pass_on

SUGGESTIONS_MAX: Final = 3


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports each when it is needed.

    Its help imports none: the line about each command is given beside its module.

    Args:
        commands_in: By the name of the command its module, which has it as ``command``, and what it
            does in a few words.
        sections: Names of commands by the heading of their part of the help; all in one if absent.
        **how: As of :class:`click.Group`.
    """

    def __init__(
        self,
        *,
        commands_in: Mapping[str, tuple[str, str]],
        sections: Mapping[str, tuple[str, ...]] | None = None,
        **how: Any,
    ) -> None:
        super().__init__(**how)
        self._commands_in = commands_in
        self._sections = sections or {"Commands": tuple(commands_in)}

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_in)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._commands_in:
            return None
        module, _ = self._commands_in[cmd_name]
        command: click.Command = import_module(module).command
        return accept_everywhere(command)

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._commands_in and not ctx.resilient_parsing:
            near = get_close_matches(name, self._commands_in, n=SUGGESTIONS_MAX)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        found, command, rest = super().resolve_command(ctx, args)
        if found is not None and command is not None:
            pass_on(ctx, found, command)
        if not isinstance(command, click.Group):  # all that it needs is imported
            hear_interrupts()
        return found, command, rest

    @override
    def make_context(self, *args: Any, **how: Any) -> click.Context:
        try:
            return super().make_context(*args, **how)
        except BrokenPipeError:  # help and versions are told while the options are read
            leave_pipe()

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # before click makes a failure of it
            leave_pipe()

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self._commands_in))
        for title, names in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), self._commands_in[name][1]) for name in names]
                )
