"""What the commands share that speak to a service: where it is, and how its refusals end them."""

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from eventstore import EventStoreError
from manager.adapters.client import ManagerClient, SandboxClient, connect
from manager.adapters.control_server import NODE_SOCKET
from manager.application.errors import CallRefused, ManagerError, ServiceUnavailable, ungrouped
from manager.terminal.ending import (
    EXIT_INTERRUPTED,
    EXIT_NO,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_NOT_STARTED,
    fail,
    leave_pipe,
    run,
)
from manager.terminal.place import complete_target_lazily

T = TypeVar("T")

target_argument = click.argument(
    "target", metavar="SANDBOX[/CONTAINER]", shell_complete=complete_target_lazily
)


def client_of(root: Path) -> ManagerClient:
    """A client of the service with that state directory."""
    return connect(root / NODE_SOCKET)


def split_target(target: str) -> tuple[str, str]:
    """A target's sandbox id and cid; without a slash the root container is meant."""
    sandbox_id, slash, cid = target.partition("/")
    if slash and not cid:
        # Of a script whose variable is empty: that is not to act on the whole sandbox.
        raise click.BadParameter(
            f"{target!r} names no container after its slash; the sandbox is {sandbox_id!r}",
            param_hint="SANDBOX[/CONTAINER]",
        )
    return sandbox_id, cid or sandbox_id


def sandbox_of(root: Path, target: str) -> tuple[SandboxClient, str]:
    """The sandbox that a target names, and the cid."""
    sandbox_id, cid = split_target(target)
    return client_of(root).sandbox(sandbox_id), cid


def whole_sandbox(root: Path, name: str) -> SandboxClient:
    """The sandbox of a name, for what cannot be done to one container alone."""
    if "/" in name:
        text = f"this is for all of a sandbox, and {name!r} names a container"
        raise click.BadParameter(text, param_hint="SANDBOX")
    return client_of(root).sandbox(name)


async def remove_made(sandbox: SandboxClient, cid: str) -> None:
    """Remove what was made by a command; what was refused is not there to be removed."""
    try:
        if cid == sandbox.id:
            await sandbox.delete(force=True)
        else:
            await sandbox.destroy(cid)
    except ManagerError as error:
        if "not found" not in str(error):
            click.echo(f"sandtrail: {error}", err=True)


def run_async(call: Callable[[], Awaitable[T]], *, refused: int = EXIT_NO) -> T:
    """Run a command's coroutine; an error ends the process with one line on stderr."""
    try:
        return _run_ungrouped(call)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        leave_pipe()
    except CallRefused as error:
        fail(error.text, code_of(error.text, refused))
    except (ManagerError, EventStoreError, OSError) as error:
        fail(str(error), refused)


@contextlib.contextmanager
def after_start(what: str) -> Iterator[None]:
    """Errors in here end the process, and not as if what was started could not have been.

    Args:
        what: What was started. It needs no service to go on.
    """
    try:
        yield
    except Exception as caught:
        error = ungrouped(caught)
        if isinstance(error, ServiceUnavailable):
            # It may have been stopped with --stop-containers: whether it goes on, nobody tells.
            fail(f"{error}; {what} was started, and goes on unless it was ended", EXIT_NO)
        if isinstance(error, ManagerError):
            fail(str(error), EXIT_NO)
        raise


def _run_ungrouped(call: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine; what fails in a task group of its is raised as if there were none."""
    try:
        return run(call)
    except ExceptionGroup as group:
        raise ungrouped(group) from None


def code_of(text: str, refused: int) -> int:
    """The exit code of a refusal: starts distinguish a program that is not there."""
    if refused == EXIT_NOT_STARTED and "error finding executable" in text:
        return EXIT_NOT_EXECUTABLE if "permission denied" in text else EXIT_NOT_FOUND
    return refused
