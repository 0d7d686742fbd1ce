"""``sandtrail checkpoint``."""

import os
from pathlib import Path

import click

from eventstore.whole_file import sync_names
from manager.cli.session import run_async, sandbox_of
from manager.domain.checkpoint import COMPRESSIONS, NONE
from manager.terminal.ending import fail
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option

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
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def command(
    root: Path, as_json: bool, leave_running: bool, compression: str, sandbox: str, file: Path
) -> None:
    """Save every process of SANDBOX to FILE, which `sandtrail restore` brings back.

    FILE appears at once, when the image is whole and on disk; one of that name is replaced. It has
    the memory of the processes in it, secrets among them: only its owner can read it.
    """
    found, _ = sandbox_of(root, sandbox)
    partial = file.with_name(file.name + PARTIAL_SUFFIX)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

    async def call() -> None:
        await found.checkpoint(image, resume=leave_running, compression=compression)

    try:
        image = os.open(partial, flags, 0o600)
    except OSError as error:
        fail(f"cannot write {partial}: {error.strerror}", EXIT_NO_FILE)
    try:
        run_async(call)
        size = os.fstat(image).st_size
        partial.replace(file)
    finally:
        os.close(image)
        partial.unlink(missing_ok=True)
    sync_names(file.parent)  # a new name is on disk only then: fsync(2)
    done(as_json, "checkpoint", str(file), sandbox=sandbox, image=str(file), image_bytes=size)
