"""``sandtrail exec``."""

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anyio
import click

from manager.adapters.client import DEFAULT_PATH, ExecOptions, SandboxClient
from manager.application.errors import ManagerError
from manager.cli.exec_terminal import ExecTerminal, StreamBroken
from manager.cli.session import after_start, run_async, sandbox_of, target_argument
from manager.domain.exit_status import Exited, Signaled, to_shell_code
from manager.terminal.ending import EXIT_NOT_STARTED, EXIT_UNREADABLE, fail, leave_pipe
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option

FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
STDIN, STDOUT, STDERR = 0, 1, 2


@click.command("exec", context_settings={"allow_interspersed_args": False})
@root_option
@json_option
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal of its own.")
@click.option("-u", "--user", default="0", metavar="UID[:GID]", help="Its user and group.")
@click.option("-w", "--workdir", default="/", metavar="DIR", help="Its working directory.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME=VALUE", help="One variable; may be repeated."
)
@target_argument
@click.argument("argv", metavar="COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    root: Path, as_json: bool, target: str, argv: tuple[str, ...], **described: Any
) -> None:
    """Run one more COMMAND in a container that runs, with this command's own stdio.

    Exits with its status (128 plus the signal's number if a signal ended it). SIGTERM, SIGINT,
    SIGHUP and SIGQUIT are passed on to it. With --json how it ended follows what it printed.
    """
    sandbox, cid = sandbox_of(root, target)
    tty, interactive = described["tty"], described["interactive"]
    uid, gid = parse_user(described["user"])
    options = ExecOptions(
        env=(DEFAULT_PATH, *described["env"]),
        cwd=described["workdir"],
        uid=uid,
        gid=gid,
        terminal=tty,
    )

    async def call() -> Exited | Signaled:
        with anyio.open_signal_receiver(*FORWARDED) as signals:
            if tty:
                return await _on_terminal(
                    sandbox, cid, argv, options, signals, interactive=interactive
                )
            return await _with_own_streams(
                sandbox, cid, argv, options, signals, interactive=interactive
            )

    try:
        ended = run_async(call, refused=EXIT_NOT_STARTED)
    except StreamBroken as error:
        if isinstance(error.cause, BrokenPipeError):
            leave_pipe()
        fail(str(error), EXIT_UNREADABLE)
    if as_json:
        print_json("exec", container=target, exit=ended)
    sys.exit(to_shell_code(ended))


def parse_user(text: str) -> tuple[int, int]:
    """Numbers of a user and a group from `UID[:GID]`; the group is 0 if absent."""
    uid, _, gid = text.partition(":")
    try:
        return int(uid), int(gid or "0")
    except ValueError:
        raise click.BadParameter(f"{text!r} is not UID[:GID]", param_hint="--user") from None


async def _with_own_streams(
    sandbox: SandboxClient,
    cid: str,
    argv: tuple[str, ...],
    options: ExecOptions,
    signals: AsyncIterator[signal.Signals],
    *,
    interactive: bool,
) -> Exited | Signaled:
    streams = {STDIN: STDIN} if interactive else {}
    pid = await sandbox.execute(cid, argv, {**streams, STDOUT: STDOUT, STDERR: STDERR}, **options)
    with after_start(_named(sandbox, cid, pid)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_forward, sandbox, cid, pid, signals)
            ended = await sandbox.wait_process(cid, pid)
            tasks.cancel_scope.cancel()
    return ended


async def _on_terminal(
    sandbox: SandboxClient,
    cid: str,
    argv: tuple[str, ...],
    options: ExecOptions,
    signals: AsyncIterator[signal.Signals],
    *,
    interactive: bool,
) -> Exited | Signaled:
    with ExecTerminal(STDIN if interactive else None, STDOUT) as terminal:
        with terminal.lent() as slave:
            files = dict.fromkeys((STDIN, STDOUT, STDERR), slave)
            pid = await sandbox.execute(cid, argv, files, **options)
        with after_start(_named(sandbox, cid, pid)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_forward, sandbox, cid, pid, signals)
                tasks.start_soon(terminal.carry_in)
                tasks.start_soon(terminal.carry_out)
                ended = await sandbox.wait_process(cid, pid)
                await terminal.last_words()
                tasks.cancel_scope.cancel()
    return ended


def _named(sandbox: SandboxClient, cid: str, pid: int) -> str:
    return f"process {pid} of {sandbox.id}/{cid}"


async def _forward(
    sandbox: SandboxClient, cid: str, pid: int, signals: AsyncIterator[signal.Signals]
) -> None:
    async for signo in signals:
        try:
            await sandbox.signal(signo, cid, pid=pid)
        except ManagerError as error:
            click.echo(f"sandtrail: {error}", err=True)
