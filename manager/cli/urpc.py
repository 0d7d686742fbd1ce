"""``sandtrail urpc``: what no other command asks for."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from manager.adapters.control_server import NODE_SOCKET
from manager.adapters.transport import SocketTransport
from manager.cli.session import run_async
from manager.terminal.ending import EXIT_TIMEOUT, EXIT_UNREADABLE, fail
from manager.terminal.manners import page
from manager.terminal.output import json_option, print_json
from manager.terminal.place import complete_sandbox_lazily, root_option
from manager.terminal.table import harmless_json, printable
from manager.terminal.timeout import timeout_option

OF_A_SANDBOX: Final = "containerManager."
OWN: Final = "fd:"
MODES: Final = {
    "r:": os.O_RDONLY,
    "w:": os.O_WRONLY | os.O_CREAT,
    "rw:": os.O_RDWR | os.O_CREAT,
}
NEW_FILE_MODE: Final = 0o600


def argument(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """The argument of the call, as JSON."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(sys.stdin.buffer.read() if text == "-" else text.encode())
    except (msgspec.DecodeError, UnicodeError) as error:
        raise click.BadParameter(f"is no JSON: {error}") from None


@click.command("urpc")
@root_option
@json_option
@click.option("--socket", type=click.Path(path_type=Path), metavar="PATH",
              help="The socket, instead of one of the service in --root.")  # fmt: skip
@click.option("-s", "--sandbox", metavar="SANDBOX", shell_complete=complete_sandbox_lazily,
              help="The sandbox whose socket is meant.")  # fmt: skip
@click.option("--file", "files", multiple=True, metavar="FILE",
              help="A file to donate, in this order: r:PATH, w:PATH, rw:PATH, fd:NUMBER of one "
              "that is open, or a directory. Repeatable.")  # fmt: skip
@timeout_option
@click.argument("method", metavar="CALL")
@click.argument("arg", metavar="[JSON]", required=False, callback=argument)
def command(root: Path, as_json: bool, method: str, arg: Any, **how: Any) -> None:
    """Make one call as gVisor's clients make it, and print its result as JSON.

    \b
      sandtrail urpc sandboxManager.List
      sandtrail urpc -s web containerManager.Wait '"web"'
      sandtrail urpc -s web --file rw:web.image containerManager.Checkpoint '{}'

    CALL is sent as it is written and JSON (- for what stdin holds) with it, checked by nobody
    before the service. Exits 1 with the service's own text if it refuses. docs/urpc.md has the
    calls.
    """
    sandbox, socket = how["sandbox"], how["socket"]
    if method.startswith(OF_A_SANDBOX) and sandbox is None and socket is None:
        raise click.UsageError(f"{method} is asked of a sandbox: name it with --sandbox")
    if sandbox is not None and socket is not None:
        raise click.UsageError("--sandbox and --socket both say which socket")
    transport = SocketTransport(socket or root / NODE_SOCKET)

    async def call() -> Any:
        import anyio  # noqa: PLC0415 - the help needs no event loop

        with _opened(how["files"]) as numbers, anyio.move_on_after(how["timeout"]):
            return await transport.call(sandbox, method, arg, numbers, again=False)
        sys.exit(EXIT_TIMEOUT)

    result = run_async(call)
    page()
    if as_json:
        print_json("urpc", method=method, result=result)
    else:
        body = msgspec.json.encode(result)
        click.echo(harmless_json(msgspec.json.format(body, indent=2)))


@contextmanager
def _opened(files: Sequence[str]) -> Iterator[list[int]]:
    """Descriptors of the files while the context is open; those of fd:NUMBER are left open."""
    numbers: list[int] = []
    ours: list[int] = []
    try:
        for text in files:
            if text.startswith(OWN):
                numbers.append(_own(text))
            else:
                ours.append(_open(text))
                numbers.append(ours[-1])
        yield numbers
    finally:
        for each in ours:
            os.close(each)


def _own(text: str) -> int:
    number = text.removeprefix(OWN)
    if not (number.isascii() and number.isdecimal()):
        raise click.BadParameter(f"{text!r}: want fd:NUMBER", param_hint="--file")
    return int(number)


def _open(text: str) -> int:
    mode = next((each for each in MODES if text.startswith(each)), "")
    path = text.removeprefix(mode)
    # A tree is donated by a descriptor that only names it.
    flags = os.O_PATH if not mode and Path(path).is_dir() else MODES.get(mode, os.O_RDONLY)
    try:
        return os.open(path, flags | os.O_CLOEXEC, NEW_FILE_MODE)
    except OSError as error:
        fail(f"{printable(path)}: {error.strerror}", EXIT_UNREADABLE)
