"""Find out from outside whether a container's program can be executed, and its directory entered.

An engine that only says "exit code 1" cannot tell a program that is missing from one that ran.
"""

import errno
import os
import stat
from collections.abc import Iterator

from manager.domain.spec import Process
from manager.urpc.fds import OwnedFd
from manager.worker.completing import open_in_container
from manager.worker.errors import LaunchFailed

ANY_EXECUTE: int = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def check_program(pid: int, process: Process) -> None:
    """Look as execvp(3) will, in the file tree of a container that stands and waits.

    Raises:
        LaunchFailed: Stage `exec`, errno `ENOENT` or `EACCES`; stage `create` for the working
            directory.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with OwnedFd(os.open(f"/proc/{pid}/root", flags)) as root:
        _check_directory(root, process.cwd or "/")
        program = (process.args or ("",))[0]
        problem = errno.ENOENT
        for path in _candidates(process, program):
            found = _problem_with(root, path)
            if found == 0:
                return
            if found == errno.EACCES:
                problem = found
    text = os.strerror(problem).lower()
    raise LaunchFailed("exec", f"program {program!r}: {text}", problem)


def _candidates(process: Process, program: str) -> Iterator[str]:
    if "/" in program:
        directory = process.cwd or "/"
        yield program if program.startswith("/") else f"{directory}/{program}"
        return
    paths = [e.partition("=")[2] for e in process.env or () if e.startswith("PATH=")]
    for directory in (paths[-1] if paths else "/bin:/usr/bin").split(":"):
        yield f"{directory or process.cwd or '/'}/{program}"


def _problem_with(root: OwnedFd, path: str) -> int:
    try:
        with open_in_container(root, path) as file:
            mode = os.fstat(file.number).st_mode
    except OSError as error:
        return error.errno or errno.EIO
    return 0 if stat.S_ISREG(mode) and mode & ANY_EXECUTE else errno.EACCES


def _check_directory(root: OwnedFd, path: str) -> None:
    try:
        with open_in_container(root, path) as directory:
            if stat.S_ISDIR(os.fstat(directory.number).st_mode):
                return
            number = errno.ENOTDIR
    except OSError as error:
        number = error.errno or errno.EIO
    text = os.strerror(number).lower()
    raise LaunchFailed("create", f"working directory {path!r}: {text}", number)
