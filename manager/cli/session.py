"""What the commands share: where the service is, how errors end, and how results are printed."""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import anyio
import click
import msgspec

from eventstore import EventStoreError
from manager.adapters.client import ManagerClient, SandboxClient, connect
from manager.adapters.control_server import NODE_SOCKET
from manager.application.errors import CallRefused, ManagerError

DEFAULT_ROOT: Final = "/var/lib/sandtrail"
EXIT_REFUSED: Final = 1
EXIT_NOT_STARTED: Final = 125
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE_CLOSED: Final = 141
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127

T = TypeVar("T")

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    envvar="SANDTRAIL_ROOT",
    default=DEFAULT_ROOT,
    show_default=True,
    show_envvar=True,
    help="State directory of the service.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
target_argument = click.argument("target", metavar="SANDBOX[/CONTAINER]")


def client_of(root: Path) -> ManagerClient:
    """A client of the service with that state directory."""
    return connect(root / NODE_SOCKET)


def split_target(target: str) -> tuple[str, str]:
    """A target's sandbox id and cid; without a slash the root container is meant."""
    sandbox_id, _, cid = target.partition("/")
    return sandbox_id, cid or sandbox_id


def sandbox_of(root: Path, target: str) -> tuple[SandboxClient, str]:
    """The sandbox that a target names, and the cid."""
    sandbox_id, cid = split_target(target)
    return client_of(root).sandbox(sandbox_id), cid


def run_async(call: Callable[[], Awaitable[T]], *, refused: int = EXIT_REFUSED) -> T:
    """Run a command's coroutine; an error ends the process with one line on stderr."""
    try:
        return anyio.run(call)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has had enough; nothing may be flushed to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_PIPE_CLOSED)
    except CallRefused as error:
        fail(error.text, code_of(error.text, refused))
    except (ManagerError, EventStoreError, OSError) as error:
        fail(str(error), refused)


def code_of(text: str, refused: int) -> int:
    """The exit code of a refusal: starts distinguish a program that is not there."""
    if refused == EXIT_NOT_STARTED and "error finding executable" in text:
        return EXIT_NOT_EXECUTABLE if "permission denied" in text else EXIT_NOT_FOUND
    return refused


def fail(text: str, code: int) -> NoReturn:
    """End the process with an error line."""
    click.echo(f"sandtrail: {text}", err=True)
    sys.exit(code)


def print_json(schema: str, **members: Any) -> None:
    """Print one JSON object with the name of its schema."""
    body = msgspec.json.encode({"schema": f"sandtrail.{schema}/v1", **members})
    click.echo(msgspec.json.format(body, indent=2).decode())


def done(as_json: bool, schema: str, text: str, **members: Any) -> None:
    """Tell that a command has done its work: the id that it worked on, or JSON."""
    if as_json:
        print_json(schema, **members)
    else:
        click.echo(text)
