"""CRIU, by which runc saves processes and brings them back: whether it can do so here."""

import os
import re
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from manager.worker import commands
from manager.worker.loop import Steps
from manager.worker.processes import ENGINE_ENVIRONMENT, Processes

CHECK_SECONDS: Final = 5.0
"""Longest time that `criu check` may take."""

NAME: Final = "criu"
NOT_INSTALLED: Final = "CRIU is not installed"
UNTRIED: Final = "`criu check` has not been run yet"
NAMES_MAGIC: Final = struct.pack("<II", 0x54564319, 0x54473203)
NAME_BYTES_MAX: Final = 64
_ERROR: Final = re.compile(r"Error \([^)]*\): (?!exited, status|rlimit: )(.+)$", re.MULTILINE)


class Criu(Struct, kw_only=True):
    """The program as found on this machine; `problem` says why it cannot be used, if it cannot."""

    path: Path | None = None
    problem: str = NOT_INSTALLED


def find_criu(given: Path | None) -> Criu:
    """Look for it; whether it works here, `try_criu` finds out.

    Args:
        given: The program to use instead of the one in PATH.
    """
    path = given or shutil.which(NAME, path=ENGINE_ENVIRONMENT["PATH"])
    if path is None:
        return Criu()
    if not os.access(path, os.X_OK):
        return Criu(problem=f"{path} cannot be executed")
    return Criu(path=Path(path), problem=UNTRIED)


def try_criu(path: Path, processes: Processes, nothing: int) -> Steps[str]:
    """Ask it whether it can save processes on this kernel; returns why it cannot."""
    try:
        result = yield from commands.run(
            processes, [str(path), "check"], seconds=CHECK_SECONDS, nothing=nothing
        )
    except OSError as error:
        return f"`criu check` cannot be run: {error.strerror}"
    if result.timed_out:
        return f"`criu check` cannot be run: it took more than {CHECK_SECONDS:g} seconds"
    return check_problem(result.code, result.output)


def check_problem(code: int, output: str) -> str:
    """What a `criu check` that ended with a code, and said this, means; empty if it works. Pure."""
    if code == os.EX_OK:
        return ""
    return f"`criu check` fails: {first_error(output) or f'it ended with {code}'}"


def first_error(log: str) -> str:
    """The first error in what CRIU wrote: the others come of it. Empty if there is none. Pure.

    That it may not have more descriptors than it has is none: it goes on without them.
    """
    found = _ERROR.search(log)
    return found.group(1).strip() if found else ""


def names_image(hostname: str, domainname: str) -> bytes:
    """The file of an image that has a UTS namespace's names. Pure.

    Source: CRIU's images/utsns.proto, and the page Images of its documentation.
    """
    names = [name.encode() for name in (hostname, domainname)]
    assert all(len(name) <= NAME_BYTES_MAX for name in names), "the kernel keeps no longer ones"
    entry = b"".join(
        bytes((number << 3 | 2, len(name))) + name for number, name in enumerate(names, start=1)
    )
    return NAMES_MAGIC + struct.pack("<I", len(entry)) + entry


def options(lines: Iterable[str]) -> str:
    """CRIU's options as it reads them from a file. Pure.

    Nothing keeps the peers of a connection out while a container is saved: it has no network but
    its own loopback, which stands still as well. Modes of files are not compared: those that come
    in the place of others are meant to be others.
    """
    return "\n".join(("network-lock skip", "skip-file-rwx-check", *lines, ""))
