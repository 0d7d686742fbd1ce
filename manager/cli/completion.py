"""``sandtrail completion``."""

import click
from click.shell_completion import get_completion_class

from manager.terminal.output import done, json_option

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@json_option
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, as_json: bool, shell: str) -> None:
    """Print a script that lets a shell complete commands, options and ids.

    For bash: `eval "$(sandtrail completion bash)"`. Ids are those of the log, also of the past if
    the line has --at.
    """
    complete = get_completion_class(shell)
    assert complete is not None, "click knows the three"
    root = ctx.find_root()
    script = complete(root.command, {}, "sandtrail", "_SANDTRAIL_COMPLETE").source()
    done(as_json, "completion", script, shell=shell, script=script)
