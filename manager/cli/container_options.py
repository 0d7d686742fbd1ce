"""The options that describe a container: its root filesystem, its mounts, its process."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from msgspec import Struct

from manager.adapters.donation import Donation, Layer
from manager.application.default_spec import bind_mount, default_spec

OWN_STDIO: Final = (0, 1, 2)

Function = TypeVar("Function", bound=Callable[..., Any])


class ContainerOptions(Struct, frozen=True, kw_only=True):
    """What the command line says of a container."""

    rootfs: Path
    command: tuple[str, ...]
    read_only: bool
    overlay: str
    env: tuple[str, ...]
    cwd: str
    volumes: tuple[str, ...]
    hostname: str

    @property
    def is_image(self) -> bool:
        """Whether the root filesystem is an EROFS image, not a directory."""
        return self.rootfs.is_file()


def container_options(function: Function) -> Function:
    """Add the options of a container to a command."""
    options = [
        click.option(
            "--rootfs",
            type=click.Path(exists=True, path_type=Path),
            required=True,
            help="Directory, or EROFS image, that becomes the root filesystem.",
        ),
        click.option("--read-only", is_flag=True, help="Mount the root filesystem read-only."),
        click.option(
            "--overlay",
            default="memory",
            show_default=True,
            metavar="memory|none|DIR",
            help="Where writes to the root filesystem go: memory, the directory itself, or DIR.",
        ),
        click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable."),
        click.option("-w", "--cwd", default="/", show_default=True, help="Working directory."),
        click.option(
            "-v",
            "--volume",
            "volumes",
            multiple=True,
            metavar="SOURCE:DESTINATION[:ro]",
            help="Mount a directory or file of the host.",
        ),
        click.option("--hostname", default="", help="Host name; the id if absent."),
        click.argument("command", nargs=-1, required=True),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def build_spec(options: ContainerOptions, name: str) -> dict[str, Any]:
    """The OCI spec that the options describe."""
    return default_spec(
        args=options.command,
        env=options.env,
        cwd=options.cwd,
        hostname=options.hostname or name[:64],
        readonly=options.read_only,
        binds=[bind_mount(*_split_volume(volume)[:3]) for volume in options.volumes],
    )


@contextlib.contextmanager
def open_donation(options: ContainerOptions, *, attach: bool) -> Iterator[Donation]:
    """Open every descriptor that the options name; they are closed at the end.

    Args:
        options: What the command line says.
        attach: Lend this process's own stdio; otherwise the container gets /dev/null.

    Raises:
        OSError: A file cannot be opened, or one of our own streams is closed.
    """
    with contextlib.ExitStack() as stack:

        def lend(path: Path, flags: int) -> int:
            fd = os.open(path, flags | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        if attach:
            for fd in OWN_STDIO:
                os.fstat(fd)
        null = Path(os.devnull)
        yield Donation(
            stdio=OWN_STDIO
            if attach
            else (lend(null, os.O_RDONLY), lend(null, os.O_WRONLY), lend(null, os.O_WRONLY)),
            rootfs=_root_layer(options, lend),
            mounts=[
                Layer(source=lend(Path(_split_volume(volume)[0]), os.O_PATH))
                for volume in options.volumes
            ],
        )


def _root_layer(options: ContainerOptions, lend: Callable[[Path, int], int]) -> Layer:
    flags = os.O_RDONLY if options.is_image else os.O_PATH | os.O_DIRECTORY
    source = lend(options.rootfs, flags)
    if options.read_only or options.overlay == "none":
        return Layer(source=source, image=options.is_image)
    if options.overlay == "memory":
        return Layer(source=source, image=options.is_image, upper="memory")
    filestore = lend(Path(options.overlay), os.O_PATH | os.O_DIRECTORY)
    return Layer(source=source, image=options.is_image, upper="filestore", filestore=filestore)


def _split_volume(text: str) -> tuple[str, str, Sequence[str]]:
    source, _, rest = text.partition(":")
    destination, _, options = rest.partition(":")
    if not source or not destination.startswith("/"):
        raise click.BadParameter(
            f"{text!r} is not SOURCE:DESTINATION[:ro] with an absolute destination",
            param_hint="--volume",
        )
    return source, destination, options.split(",") if options else ()
