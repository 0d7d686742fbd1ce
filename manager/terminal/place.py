"""Where the state of a service lies, its log, and points and names in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from typing_extensions import override

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_ROOT: Final = "/var/lib/sandtrail"

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    envvar="SANDTRAIL_ROOT",
    default=DEFAULT_ROOT,
    show_default=True,
    show_envvar=True,
    help="State directory of the service.",
)
log_option = click.option(
    "--log",
    "log",
    type=click.Path(path_type=Path),
    envvar="SANDTRAIL_LOG",
    show_envvar=True,
    help="The log's file, instead of the one in --root.",
)


def complete_target_lazily(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """As :func:`manager.terminal.completing.complete_target`, loaded when a shell asks."""
    from manager.terminal.completing import complete_target  # noqa: PLC0415 - it reads the log

    return complete_target(ctx, param, incomplete)


class When(click.ParamType):  # type: ignore[type-arg] # of click 8.1 it has none
    """A point of a log, as it was written; what it is, shows when the log is looked at."""

    name = "WHEN"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value

    @override
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from manager.terminal.completing import complete_when  # noqa: PLC0415 - it reads the log

        return complete_when(ctx, incomplete)


WHEN: Final = When()


class WrittenFile(click.Path):
    """A file that a command writes: it has a name, and is no directory."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("a file has a name", param, ctx)
        return super().convert(value, param, ctx)


WRITTEN_FILE: Final = WrittenFile()


def complete_sandbox_lazily(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """As :func:`manager.terminal.completing.complete_sandbox`, loaded when a shell asks."""
    from manager.terminal.completing import complete_sandbox  # noqa: PLC0415 - it reads the log

    return complete_sandbox(ctx, param, incomplete)


def complete_container_lazily(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """As :func:`manager.terminal.completing.complete_container`, loaded when a shell asks."""
    from manager.terminal.completing import complete_container  # noqa: PLC0415 - likewise

    return complete_container(ctx, param, incomplete)


def complete_type_lazily(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """As :func:`manager.terminal.completing.complete_type`, loaded when a shell asks."""
    from manager.terminal.completing import complete_type  # noqa: PLC0415 - it needs all events

    return complete_type(ctx, param, incomplete)
