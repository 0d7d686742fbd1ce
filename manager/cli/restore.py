"""``sandtrail restore``."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click
import msgspec

from manager.adapters.client import SandboxClient
from manager.adapters.donation import Donation, Layer
from manager.application.errors import ManagerError
from manager.cli.container_options import OWN_STDIO
from manager.cli.image_file import image_in
from manager.cli.session import client_of, remove_made, run_async
from manager.schema.image import ImageContainer, ImageMetadata, ImageRejected
from manager.terminal.ending import fail
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option

EXIT_NO_IMAGE = 1
NULL = Path(os.devnull)

Other: TypeAlias = tuple[str, dict[str, Any], Donation]
"""Of a container that is not the root: its cid, its spec, and what is donated to it."""


@click.command("restore")
@root_option
@json_option
@click.option(
    "--rootfs",
    "rootfs",
    multiple=True,
    required=True,
    metavar="[NAME=]DIR",
    help="Root filesystem of all containers, or of the one of that name; repeatable.",
)
@click.option("-a", "--attach", is_flag=True, help="Lend the root container our own stdio.")
@click.argument("sandbox")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(
    root: Path, as_json: bool, rootfs: tuple[str, ...], attach: bool, sandbox: str, file: Path
) -> None:
    """Bring back from FILE what `sandtrail checkpoint` has saved, as SANDBOX.

    The processes go on where they stopped. Their memory is in the image, their files are not: each
    --rootfs must have what it had then. Containers keep their ids, but for the root's, which is
    SANDBOX. If one of them cannot be brought back, nothing is left of SANDBOX.
    """
    metadata = _read(file)
    found = [each for each in metadata.containers or () if not each.root]
    first = [each for each in metadata.containers or () if each.root]
    if not first:
        fail(f"{file} has no root container", EXIT_NO_IMAGE)

    async def call() -> None:
        with contextlib.ExitStack() as owned:
            lend = _lender(owned)
            # Whatever is missing is found out before there is anything that would be left behind.
            image = lend(file, os.O_RDONLY)
            described = _spec(first[0])
            donation = _donation(first[0], rootfs, lend, OWN_STDIO if attach else None)
            others = [
                (each.cid, _spec(each), _donation(each, rootfs, lend, None)) for each in found
            ]
            made = await client_of(root).create_sandbox(sandbox, described, donation)
            try:
                await _restore(made, image, others)
            except ManagerError:
                await remove_made(made, made.id)
                raise

    run_async(call)
    done(as_json, "restore", sandbox, sandbox=sandbox, containers=len(found) + 1)


async def _restore(made: SandboxClient, image: int, others: Sequence[Other]) -> None:
    await made.restore(image)
    for cid, spec, donation in others:
        await made.create_subcontainer(cid)
        await made.restore_subcontainer(cid, spec, donation)


def _read(file: Path) -> ImageMetadata:
    try:
        with file.open("rb") as image:
            return image_in(image).metadata
    except ImageRejected as error:
        fail(f"{file} is no image: {error}", EXIT_NO_IMAGE)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}", EXIT_NO_IMAGE)


def _spec(container: ImageContainer) -> dict[str, Any]:
    """The image's own spec; the environment is in the image, not in its metadata."""
    spec = msgspec.json.decode(container.spec, type=dict[str, Any])
    if any(mount.get("type") == "bind" for mount in spec.get("mounts") or ()):
        fail(
            f"container {container.name!r} has mounts that must be donated: restore it with the "
            "Python interface",
            EXIT_NO_IMAGE,
        )
    return {**spec, "process": {**spec["process"], "env": []}}


def _lender(owned: contextlib.ExitStack) -> Callable[[Path, int], int]:
    def lend(path: Path, flags: int) -> int:
        number = os.open(path, flags | os.O_CLOEXEC)
        owned.callback(os.close, number)
        return number

    return lend


def _donation(
    container: ImageContainer,
    rootfs: Sequence[str],
    lend: Callable[[Path, int], int],
    stdio: tuple[int, int, int] | None,
) -> Donation:
    source = lend(_rootfs_of(container.name, rootfs), os.O_PATH | os.O_DIRECTORY)
    null = (lend(NULL, os.O_RDONLY), lend(NULL, os.O_WRONLY), lend(NULL, os.O_WRONLY))
    return Donation(rootfs=Layer(source=source, upper="memory"), stdio=stdio or null)


def _rootfs_of(name: str, rootfs: Sequence[str]) -> Path:
    pairs = [each.partition("=") for each in rootfs]
    named = {left: right for left, separator, right in pairs if separator}
    common = [left for left, separator, _ in pairs if not separator]
    if name not in named and not common:
        fail(f"no --rootfs for container {name!r}: give --rootfs {name}=DIR", EXIT_NO_IMAGE)
    return Path(named.get(name) or common[-1])
