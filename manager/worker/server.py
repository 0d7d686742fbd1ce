"""The worker's side of the conversation: one manager at a time, commands in, outcomes out."""

import logging
import os
from collections.abc import Callable
from typing import Final

import msgspec

from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.urpc.fdpass import peer_credentials
from manager.urpc.fds import FdBundle
from manager.urpc.frame_socket import FrameSocket
from manager.urpc.unix_address import UnixListener
from manager.worker.connection import Connection
from manager.worker.holds import Holds
from manager.worker.launches import Launches
from manager.worker.loop import Loop
from manager.worker.machine import Machine
from manager.worker.outbox import Outbox
from manager.worker.reports import Reports
from manager.worker.saves import Saves

logger = logging.getLogger(__name__)

ROOT_UID: Final = 0


class Server:
    """Accepts managers and does what the latest of them says.

    Args:
        loop: Runs everything.
        listener: Accepts connections; owned here.
        machine: What launches share.
        leave: Called when the worker has been asked to go and nothing runs.
    """

    def __init__(
        self, loop: Loop, listener: UnixListener, machine: Machine, leave: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._leave = leave
        self._listener = listener
        self._welcome: w.Welcome | None = None
        self._outbox = Outbox(self._send, machine.ends)
        self._reports = Reports(self._outbox)
        self._holds = Holds()
        self._log_mark = machine.log_mark
        self.launches = Launches(loop, machine, self._holds, self._outbox, self._stop_if_idle)
        self.saves = Saves(loop, self.launches, self._outbox, machine.images, self._stop_if_idle)
        self._manager: Connection | None = None
        self._connections: set[Connection] = set()
        self._stopping = False

    def open(self, welcome: w.Welcome) -> None:
        """Let managers in; those that came earlier have waited.

        Args:
            welcome: Says who the worker is and what works here; what is held and what runs is
                added to it each time.
        """
        self._welcome = welcome
        self._loop.watch(self._listener.sock.fileno(), self._accept)

    def stop(self) -> None:
        """Leave as soon as nothing runs or is held, and all news is acknowledged.

        Containers are never killed for it.
        """
        self._stopping = True
        self._stop_if_idle()

    def close(self) -> None:
        """Close every socket and whatever is held."""
        for connection in tuple(self._connections):
            connection.close()
        if self._welcome is not None:
            self._loop.unwatch(self._listener.sock.fileno())
        self._listener.close()
        self._holds.close()

    def received(self, connection: Connection, body: bytes, fds: FdBundle) -> None:
        """Do what a manager says; ownership of `fds` moves in."""
        try:
            message = w.decode_to_worker(body)
        except msgspec.MsgspecError as error:
            logger.warning("worker.message_unknown %s", error)
            fds.close()
            connection.close()
            return
        match message:
            case w.Hello():
                fds.close()
                self._greet(connection)
            case _ if connection is not self._manager:
                # A manager that was replaced, or never introduced itself.
                fds.close()
                connection.close()
            case w.Hold():
                self._hold(message, fds)
            case w.Launch():
                self.launches.launch(message, fds)
            case w.Save():
                self.saves.save(message, fds)
            case w.Execute():
                self.launches.execs.execute(message, fds)
            case _:
                fds.close()
                self._command(message)

    def closed(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        if self._manager is connection:
            self._manager = None

    def _command(self, message: w.ToWorker) -> None:
        match message:
            case w.Release():
                self._holds.release(message.hold_id)
            case w.Kill():
                self.launches.kill(message)
            case w.Freeze():
                self.launches.freeze(message)
            case w.Ask():
                self.launches.answer(message, self._answer)
            case w.Destroy():
                self.launches.destroy(message)
            case w.Ack():
                if message.mark is not None:
                    self._log_mark.write(message.mark)
                self.launches.execs.recorded(self._outbox.acknowledge(message.seq))
                self._stop_if_idle()
            case w.Retell():
                self.launches.retell()
            case w.Stop():
                self.stop()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.sock.accept()
        except OSError as error:
            logger.warning("worker.accept_failed %s", error)
            return
        peer = peer_credentials(sock)
        if peer.uid not in {ROOT_UID, os.geteuid()}:
            logger.error("worker.peer_refused uid=%d pid=%d", peer.uid, peer.pid)
            sock.close()
            return
        self._connections.add(Connection(self._loop, FrameSocket(sock), self))

    def _greet(self, connection: Connection) -> None:
        former, self._manager = self._manager, connection
        self._stopping = False  # that was the wish of a manager before this one
        if former is not None and former is not connection:
            former.close()
        facts = {fact.launch_id: fact for fact in self._outbox.launches()}
        facts |= {fact.launch_id: fact for fact in self.launches.facts()}
        assert self._welcome is not None
        welcome = msgspec.structs.replace(
            self._welcome,
            held=self._holds.names,
            launches=tuple(facts.values()),
            leftovers=self.launches.leftovers,
            saves=self.saves.names(),
            executions=(*self._outbox.executions(), *self.launches.execs.names()),
            mark=self._log_mark.mark,
        )
        connection.send(w.encode(welcome))
        self._outbox.send_again()

    def _hold(self, message: w.Hold, fds: FdBundle) -> None:
        if message.hold_id in self._holds:
            fds.close()
            if self._outbox.send_again(message.hold_id):
                return
        else:
            self._holds.put(message.hold_id, fds, message.spec)
        reached("hold.received")
        self._reports.held(message.hold_id)

    def _send(self, outcome: w.Outcome) -> None:
        if self._manager is not None:
            self._manager.send(w.encode(outcome))

    def _answer(self, answer: w.Answer) -> None:
        if self._manager is not None:
            self._manager.send(w.encode(answer))

    def _stop_if_idle(self) -> None:
        # What was created and not started yet is to be found by the next manager.
        idle = self.launches.idle and self.saves.idle and not self._holds.names
        if self._stopping and idle and not self._outbox.has_news:
            self._leave()
