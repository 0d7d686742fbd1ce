"""``sandtrail checkpoint``."""

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import click

from eventstore.whole_file import put_in_place, replaceable
from manager.application.errors import CallRefused
from manager.cli.image_file import holds_image
from manager.cli.session import run_async, whole_sandbox
from manager.domain.checkpoint import COMPRESSIONS, NONE
from manager.terminal.ending import fail
from manager.terminal.output import done, json_option
from manager.terminal.place import WRITTEN_FILE, root_option
from manager.terminal.table import printable

EXIT_NO_FILE = 1
PARTIAL_SUFFIX = ".partial"


@click.command("checkpoint")
@root_option
@json_option
@click.option("--leave-running", is_flag=True, help="Let the sandbox run on afterwards.")
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default=NONE,
    show_default=True,
    help="Make FILE smaller, which takes longer, and so does its restore.",
)
@click.argument("sandbox")
@click.argument("file", type=WRITTEN_FILE)
def command(
    root: Path, as_json: bool, leave_running: bool, compression: str, sandbox: str, file: Path
) -> None:
    """Save every process of SANDBOX to FILE, which `sandtrail restore` brings back.

    FILE appears at once, when the image is whole and on disk; one of that name is replaced. It has
    the memory of the processes in it, secrets among them: only its owner can read it.

    Until then it is in a file .FILE.*.partial beside it. The service saves to the end even if this
    command is interrupted; then that file is kept, and named.
    """
    try:
        target = replaceable(file)
    except OSError as error:
        _cannot_write(file, error)
    found = whole_sandbox(root, sandbox)
    # Where nobody can be asked for an image none has to be kept: no file is made yet.
    run_async(found.state)
    image, partial = _new_partial(target)

    async def call() -> None:
        try:
            await found.checkpoint(image, resume=leave_running, compression=compression)
        except CallRefused:
            # Of a save that was interrupted nobody but the file can tell whether it is an image.
            if not holds_image(image):
                partial.unlink()
            raise

    with image, _kept(image, partial, target, sandbox):
        run_async(call)
        size = os.fstat(image.fileno()).st_size
        try:
            put_in_place(partial, target)
        except OSError as error:
            _cannot_write(file, error)
    done(as_json, "checkpoint", str(file), sandbox=sandbox, image=str(file), image_bytes=size)


def _new_partial(target: Path) -> tuple[BinaryIO, Path]:
    """A file beside the target that nobody else has, another checkpoint to it included."""
    try:
        number, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=PARTIAL_SUFFIX, dir=target.parent
        )
    except OSError as error:
        _cannot_write(target, error)
    return os.fdopen(number, "w+b"), Path(name)


@contextmanager
def _kept(image: BinaryIO, partial: Path, target: Path, sandbox: str) -> Iterator[None]:
    """However the block ends, tell where the file is that may be all there is of the sandbox."""
    try:
        yield
    except BaseException:
        if partial.exists():
            click.echo(f"sandtrail: {_what_to_do(image, partial, target, sandbox)}", err=True)
        raise


def _what_to_do(image: BinaryIO, partial: Path, target: Path, sandbox: str) -> str:
    source, destination = (shlex.quote(printable(str(each))) for each in (partial, target))
    move = f"mv {source} {destination}"
    if holds_image(image):
        return f"the image is whole, and kept under another name: {move}"
    log = f"`sandtrail log -s {shlex.quote(printable(sandbox))}`"
    return (
        f"{source} is kept, since the service may still be writing the image to it. Once {log} "
        f"says sandbox.checkpointed it is whole: {move}"
    )


def _cannot_write(file: Path, error: OSError) -> NoReturn:
    fail(f"cannot write {printable(str(file))}: {error.strerror}", EXIT_NO_FILE)
