"""The control socket of a gVisor sandbox: one call, asked of its kernel directly."""

import socket
from typing import Any, Final

import msgspec

from manager.worker.delivery import Target
from manager.worker.loop import Pause, Steps

REPLY_BYTES_MAX: Final = 65536
"""Longest reply; those that are asked for here are a few words."""


def signal_by_socket(sandbox: str, signo: int, target: Target, seconds: float) -> Steps[str]:
    """Signal a process of the container that a sandbox was made for.

    Args:
        sandbox: Its id, and the container's.
        signo: The signal; 0 asks only.
        target: Whom it is for; the modes are gVisor's own.
        seconds: Longest wait for the answer.

    Returns:
        Why it was not delivered, or an empty string.
    """
    argument = {"CID": sandbox, "Signo": signo, "PID": target.pid, "Mode": target.mode}
    request = {"method": "containerManager.Signal", "arg": argument}
    text = b""
    # Source: gVisor, runsc/boot/controller.go: an abstract address, closed by a NUL.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(f"\0runsc-sandbox.{sandbox}\0")
            sock.sendall(msgspec.json.encode(request))
            while (yield Pause(fd=sock.fileno(), seconds=seconds)):
                chunk = sock.recv(REPLY_BYTES_MAX)
                text += chunk
                reply = _read(text)
                if reply is not None:
                    return "" if reply.get("success") else str(reply.get("err"))
                if not chunk or len(text) > REPLY_BYTES_MAX:
                    return "its kernel hung up"
        except OSError as error:
            return f"its kernel cannot be asked: {error.strerror}"
    return "its kernel does not answer"


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
