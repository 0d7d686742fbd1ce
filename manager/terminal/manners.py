"""Options that every command takes, before its name or after it: whose time, what colour, how much.

They act on this process alone, through what clocks, terminals and loggers obey anyway (``TZ``,
``NO_COLOR``, ``FORCE_COLOR``, standard input), so no command has to pass them on.
"""

import os
import sys
import time
from typing import Any, Final

import click

from manager.terminal.folding import folded

OUTPUTS: Final = ("table", "plain", "json", "jsonl")
OUTPUT: Final = "sandtrail.output"
QUIET: Final = "sandtrail.quiet"
BEFORE: Final = "sandtrail.before"
"""What was said before the name of a command that takes it, by the name of the parameter."""
STDIN: Final = 0
NO_PAGER: Final = "sandtrail.no_pager"


def output_wanted() -> str:
    """What ``--output`` asks for; empty if nothing was said."""
    context = click.get_current_context(silent=True)
    return "" if context is None else str(context.meta.get(OUTPUT, ""))


def say(text: str) -> None:
    """Tell on stderr what is beside the answer; ``--quiet`` leaves it out."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(QUIET):
        click.echo(folded(text, err=True), err=True)


def page() -> None:
    """Let a person who looks at a terminal page through what is printed from now on."""
    context = click.get_current_context(silent=True)
    if context is None or context.meta.get(NO_PAGER):
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        from manager.terminal.pager import begin  # noqa: PLC0415 - only for people

        begin(os.environ)


def never_page() -> None:
    """Print from now on as with ``--no-pager``."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[NO_PAGER] = True


def note_output(ctx: click.Context, _: click.Parameter, wanted: str | None) -> None:
    """Remember what ``--output`` asks for."""
    if wanted is not None:
        ctx.meta[OUTPUT] = wanted


def note_json(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Remember ``--json``, where it stands before the name of a command."""
    if wanted:
        ctx.meta[OUTPUT] = "json"


def _quiet(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta[QUIET] = True


def _verbose(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    if wanted:
        import logging  # noqa: PLC0415 - only for this option

        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d ms %(message)s")


def _no_pager(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta[NO_PAGER] = True


def _no_input(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta[NO_PAGER] = True
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, STDIN)
        os.close(nothing)


def _color(_: click.Context, __: click.Parameter, wanted: str | None) -> None:
    if wanted is None or wanted == "auto":
        return
    on, off = ("FORCE_COLOR", "NO_COLOR") if wanted == "always" else ("NO_COLOR", "FORCE_COLOR")
    os.environ[on] = "1"
    os.environ.pop(off, None)


def _utc(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    if wanted:
        _set_zone("UTC0")


def _zone(_: click.Context, __: click.Parameter, name: str | None) -> None:
    if name is None:
        return
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - only for this option

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(
            f"{name!r} is no time zone: want a name such as Europe/Vienna"
        ) from None
    _set_zone(name)


def _set_zone(name: str) -> None:
    os.environ["TZ"] = name
    time.tzset()


def _before(ctx: click.Context, param: click.Parameter, given: str | None) -> None:
    if given is not None and param.name is not None:
        ctx.meta.setdefault(BEFORE, {})[param.name] = given


def said_before(ctx: click.Context, name: str) -> str:
    """What was said of a parameter before the name of the command; empty if nothing was."""
    return str(ctx.meta.get(BEFORE, {}).get(name, ""))


def pass_on(ctx: click.Context, name: str, command: click.Command) -> None:
    """Hand a command what was said before its name, as if it stood after it.

    Raises:
        click.UsageError: The command does not take it: it is never ignored.
    """
    given = ctx.meta.get(BEFORE, {})
    if not given or isinstance(command, click.Group):
        return
    takes = {param.name for param in command.params}
    for option in given.keys() - takes:
        raise click.UsageError(f"{name} does not take --{option}", ctx)
    ctx.default_map = {**(ctx.default_map or {}), name: dict(given)}


def _variable(name: str) -> Any:
    def note(_: click.Context, __: click.Parameter, path: str | None) -> None:
        if path is not None:
            os.environ[name] = path

    return note


def _options(*, hidden: bool) -> list[click.Option]:
    how: dict[str, Any] = {"expose_value": False, "is_eager": True, "hidden": hidden}
    return [
        click.Option(["--utc"], is_flag=True, callback=_utc, help="Times in UTC.", **how),
        click.Option(["--tz"], metavar="ZONE", callback=_zone,
                     help="Times in this zone instead of the local one.", **how),
        click.Option(["--color"], type=click.Choice(["auto", "always", "never"]), callback=_color,
                     help="Colours; auto: on a terminal, unless NO_COLOR is set.", **how),
        click.Option(["-q", "--quiet"], is_flag=True, callback=_quiet,
                     help="Nothing on stderr but errors.", **how),
        click.Option(["-v", "--verbose"], is_flag=True, callback=_verbose,
                     help="On stderr: which files are read, from where on, and when.", **how),
        click.Option(["--no-pager"], is_flag=True, callback=_no_pager,
                     help="No pager for long answers, also on a terminal.", **how),
        click.Option(["--no-input"], is_flag=True, callback=_no_input,
                     help="Wait for nobody: stdin is empty, and there is no pager.", **how),
    ]  # fmt: skip


EVERYWHERE: Final = _options(hidden=True)
"""What each command takes; `sandtrail --help` tells of them once."""


def before_any_command() -> list[click.Option]:
    """What ``sandtrail`` itself takes, before the name of a command."""
    how: dict[str, Any] = {"expose_value": False, "is_eager": True}
    return [
        click.Option(["--root"], metavar="PATH", callback=_variable("SANDTRAIL_ROOT"),
                     help="As of each command that takes it.", **how),
        click.Option(["--log"], metavar="PATH", callback=_variable("SANDTRAIL_LOG"),
                     help="As of each command that takes it.", **how),
        click.Option(["--at"], metavar="WHEN", callback=_before,
                     help="As of each command that looks at the past.", **how),
        click.Option(["--fields"], metavar="A,B", callback=_before,
                     help="As of each command that takes it.", **how),
        click.Option(["-o", "--output"], type=click.Choice(OUTPUTS), callback=note_output,
                     help="How to print; --json of each command is -o json.", **how),
        *_options(hidden=False),
    ]  # fmt: skip


def accept_everywhere(command: click.Command) -> click.Command:
    """Let a command take EVERYWHERE, too, but for names that it uses itself."""
    own = {name for param in command.params for name in param.opts}
    command.params.extend(each for each in EVERYWHERE if own.isdisjoint(each.opts))
    return command
