"""The control socket of a gVisor sandbox: calls of which its kernel is asked directly."""

import contextlib
import os
import socket
from pathlib import Path
from typing import Any, Final

import msgspec

from manager.urpc.fds import OwnedFd
from manager.urpc.unix_address import connect_unix
from manager.worker.delivery import Target
from manager.worker.loop import Pause, Steps

REPLY_BYTES_MAX: Final = 65536
"""Longest reply; those that are asked for here are a few words."""


class KernelSilent(Exception):  # noqa: N818 - an answer, too
    """A sandbox's kernel did not answer; says why."""


OTHER_PLACES: Final = (Path("/var/run"), Path("/run"))
"""Where a kernel listens if the name in its engine's own directory would be too long.

The next that it tries is /tmp, where anybody may listen: nobody is asked there.
Source: gVisor, runsc/sandbox/sandbox.go, createControlSocket.
"""


def connect_kernel(sandbox: str, directory: Path) -> OwnedFd:
    """Connect to the kernel of a sandbox, by its id.

    As long as the connection is open, the kernel outlives its container by up to 15 seconds, and
    answers.

    Args:
        sandbox: The id.
        directory: The engine's own, where gVisor listens since 2023.

    Raises:
        KernelSilent: It cannot be reached: it is gone, say.
    """
    for place in (directory, *OTHER_PLACES):
        with contextlib.suppress(OSError):
            return OwnedFd(connect_unix(place / f"runsc-{sandbox}.sock").detach())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Source: gVisor, runsc/boot/controller.go: an abstract address, closed by a NUL.
        sock.connect(f"\0runsc-sandbox.{sandbox}\0")
    except OSError as error:
        sock.close()
        raise KernelSilent(f"its kernel cannot be asked: {error.strerror}") from error
    return OwnedFd(sock.detach())


def signal_by_socket(
    connection: OwnedFd, sandbox: str, signo: int, target: Target, seconds: float
) -> Steps[str]:
    """Signal a process of the container that a sandbox was made for.

    Args:
        connection: To its kernel; lent.
        sandbox: Its id, and the container's.
        signo: The signal; 0 asks only.
        target: Whom it is for; the modes are gVisor's own.
        seconds: Longest wait for the answer.

    Returns:
        Why it was not delivered, or an empty string.

    Raises:
        KernelSilent: It is unknown.
    """
    argument = {"CID": sandbox, "Signo": signo, "PID": target.pid, "Mode": target.mode}
    reply = yield from _ask(connection, "Signal", argument, seconds)
    return "" if reply.get("success") else str(reply.get("err"))


def wait_by_socket(connection: OwnedFd, sandbox: str) -> Steps[int | None]:
    """Wait, for as long as it takes, for the end of the container that a sandbox was made for.

    Args:
        connection: To its kernel; lent.
        sandbox: Its id, and the container's.

    Returns:
        The raw wait status; `None` if the kernel did not live to tell it.
    """
    try:
        return _status((yield from _ask(connection, "Wait", sandbox, None)))
    except KernelSilent:
        return None


def wait_process_by_socket(connection: OwnedFd, sandbox: str, number: int) -> Steps[int | None]:
    """Wait, for as long as it takes, for the end of a process that was executed in a sandbox.

    A kernel tells it once; whoever asks before that is told as well.

    Args:
        connection: To its kernel; lent.
        sandbox: Its id, and the container's.
        number: The process's, as its kernel counts.

    Returns:
        The raw wait status; `None` if the kernel has told it before.

    Raises:
        KernelSilent: It did not live to tell.
    """
    return _status((yield from _ask(connection, "WaitPID", {"PID": number, "CID": sandbox}, None)))


def _status(reply: dict[str, Any]) -> int | None:
    status = reply.get("result")
    return status if reply.get("success") and isinstance(status, int) else None


def _ask(
    connection: OwnedFd, method: str, argument: object, seconds: float | None
) -> Steps[dict[str, Any]]:
    request = {"method": f"containerManager.{method}", "arg": argument}
    text = b""
    try:
        os.write(connection.number, msgspec.json.encode(request))
        while (yield Pause(fd=connection.number, seconds=seconds)):
            chunk = os.read(connection.number, REPLY_BYTES_MAX)
            text += chunk
            reply = _read(text)
            if reply is not None:
                return reply
            if not chunk or len(text) > REPLY_BYTES_MAX:
                raise KernelSilent("its kernel hung up")
    except OSError as error:
        raise KernelSilent(f"its kernel cannot be asked: {error.strerror}") from error
    raise KernelSilent("its kernel does not answer")


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
