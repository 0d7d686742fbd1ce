"""One connection of a manager, on the loop."""

import logging
from collections.abc import Callable
from typing import Protocol

from manager.urpc.errors import FrameError, PeerClosed
from manager.urpc.fds import FdBundle
from manager.urpc.frame_socket import FrameSocket
from manager.worker.loop import READ, WRITE, Loop

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """Who takes the frames of a connection."""

    def received(self, connection: "Connection", body: bytes, fds: FdBundle) -> None:
        """Take one; ownership of `fds` moves in."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Forget the connection, which has ended."""
        ...


class Connection:
    """A frame socket that is watched. Closes itself when the peer is gone or breaks the protocol.

    A peer that hears nothing any more may have said something before it left, that it is done
    with this worker for example: all of it is received first.

    Args:
        loop: Watches it.
        frames: Owned here.
        receiver: Takes what arrives.
    """

    def __init__(self, loop: Loop, frames: FrameSocket, receiver: Receiver) -> None:
        self._loop = loop
        self._frames = frames
        self._receiver = receiver
        self._events = READ
        self._is_heard = True
        loop.watch(frames.fileno(), self._ready)

    def send(self, body: bytes) -> None:
        """Send, now or as soon as the peer takes it; nothing happens if the peer is gone."""
        self._guard(lambda: self._utter(lambda: self._frames.send(body)))

    def close(self) -> None:
        """End it; idempotent."""
        if not self._frames.closed:
            self._loop.unwatch(self._frames.fileno())
            self._frames.close()
            self._receiver.closed(self)

    def _ready(self) -> None:
        self._guard(self._exchange)

    def _utter(self, action: Callable[[], None]) -> None:
        if self._is_heard:
            try:
                action()
            except PeerClosed:
                self._is_heard = False

    def _exchange(self) -> None:
        self._utter(self._frames.flush)
        for frame in self._frames.receive():
            if self._frames.closed:
                frame.fds.close()
            else:
                self._receiver.received(self, frame.body, frame.fds)

    def _guard(self, action: Callable[[], None]) -> None:
        if self._frames.closed:
            return
        try:
            action()
        except PeerClosed:
            self.close()
        except FrameError as error:
            logger.warning("worker.protocol_broken %s", error)
            self.close()
        else:
            self._watch_as_needed()

    def _watch_as_needed(self) -> None:
        if self._frames.closed:
            return
        events = READ | WRITE if self._frames.wants_write and self._is_heard else READ
        if events != self._events:
            self._events = events
            self._loop.rewatch(self._frames.fileno(), self._ready, events)
