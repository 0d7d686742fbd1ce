"""The async API: the same for a manager in this process and for a service on a socket.

A call carries a request id, so that one whose answer was lost can be asked again without acting
twice; the client does that by itself while the service restarts.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from eventstore import RecordedEvent, new_event_id
from manager.adapters.donation import Donation
from manager.adapters.event_reading import read_events
from manager.adapters.transport import SocketTransport, Transport
from manager.application.spec_body import SpecObject
from manager.domain.exit_status import Exited, Signaled, from_wait_status
from manager.schema.layout import LOG_FILE
from manager.schema.node_fold import STREAM_PREFIX
from manager.urpc.fds import HasFileno

SIGNAL_PROCESS: Final = 0
SIGNAL_ALL: Final = 1
SIGNAL_FOREGROUND: Final = 2
SIGNAL_GROUP: Final = 3
DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Environment of an executed process that names none."""


class ManagerClient:
    """A node's manager."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create_sandbox(
        self,
        sandbox_id: str,
        spec: SpecObject,
        donation: Donation,
        *,
        conf: dict[str, Any] | None = None,
        request_id: str | None = None,
    ) -> "SandboxClient":
        """Register a sandbox with its root container.

        Args:
            sandbox_id: Its id, also the root container's.
            spec: The root container's OCI spec.
            donation: Its descriptors, lent: the caller keeps its own.
            conf: Configuration as gVisor's; the defaults if absent.
            request_id: Same id, same call: acted upon once. A new one if absent.

        Raises:
            CallRefused: The text says why; it is in the log.
            ServiceUnavailable: No answer.
        """
        arg = {
            "ID": sandbox_id,
            **_start_args(sandbox_id, spec, donation, conf, request_id),
        }
        await self._transport.call(None, "sandboxManager.Create", arg, donation.files(), again=True)
        return self.sandbox(sandbox_id)

    def sandbox(self, sandbox_id: str) -> "SandboxClient":
        """A handle; whether there is such a sandbox shows at the first call."""
        return SandboxClient(self._transport, sandbox_id)

    async def sandboxes(self) -> list[dict[str, Any]]:
        """A summary of each live sandbox, oldest first."""
        found = await self._transport.call(None, "sandboxManager.List", None, again=True)
        return list(found)

    async def mark(
        self, name: str, *, at: int = 0, message: str = "", request_id: str | None = None
    ) -> int:
        """Give a point of the log a name, found as ``mark:NAME``; returns its position.

        Args:
            name: Like an id; a name is given once.
            at: The position; 0 for the mark's own.
            message: What for.
            request_id: Same id, same call: acted upon once. A new one if absent.

        Raises:
            CallRefused: The text says why; it is in the log.
            ServiceUnavailable: No answer.
        """
        asked = {"Name": name, "Position": at, "Message": message}
        arg = {**asked, "RequestID": request_id or new_event_id()}
        found = await self._transport.call(None, "sandboxManager.Mark", arg, again=True)
        return int(found["Position"])

    async def version(self) -> dict[str, Any]:
        """What runs there: program, log format, engine, process."""
        return dict(await self._transport.call(None, "sandboxManager.Version", None, again=True))

    def events(
        self, *, after: int = 0, stream: str | None = None, follow: bool = False
    ) -> AsyncIterator[RecordedEvent]:
        """Recorded events after a position, oldest first; with ``follow``, then live.

        Raises:
            EventStoreError: The log cannot be read.

        Cancellation: safe; go on from the last position seen.
        """
        path = self._transport.state_directory / LOG_FILE
        return read_events(path, stream, follow=follow, after=after)


class ExecOptions(TypedDict, total=False):
    """What an executed process is given beside its program and descriptors.

    Attributes:
        env: Its whole environment, ``NAME=value``; only a PATH if absent. HOME is added.
        cwd: Its working directory, ``/`` if absent.
        uid: Its user, 0 if absent.
        gid: Its group, 0 if absent.
        extra_gids: Its other groups.
        no_new_privileges: As in a spec; what the container has, holds anyway.
        terminal: Its streams are one terminal, which becomes its controlling terminal.
        request_id: Same id, same call: acted upon once. A new one if absent.
    """

    env: Sequence[str]
    cwd: str
    uid: int
    gid: int
    extra_gids: Sequence[int]
    no_new_privileges: bool
    terminal: bool
    request_id: str


class SandboxClient:
    """One sandbox."""

    def __init__(self, transport: Transport, sandbox_id: str) -> None:
        self._transport = transport
        self.id = sandbox_id

    async def _call(self, method: str, arg: Any, files: Sequence[int | HasFileno] = ()) -> Any:
        again = isinstance(arg, dict) or method in {"Wait", "ContainerRuntimeState"}
        return await self._transport.call(
            self.id, f"containerManager.{method}", arg, files, again=again
        )

    async def start_root(self) -> None:
        """Run the root container; returns when its own code runs."""
        await self._call("StartRoot", self.id)

    async def create_subcontainer(
        self, cid: str, *, tty: int | HasFileno | None = None, request_id: str | None = None
    ) -> None:
        """Register a subcontainer; ``tty`` becomes its controlling terminal."""
        arg = {"CID": cid, "RequestID": request_id or new_event_id()}
        await self._call("CreateSubcontainer", arg, () if tty is None else (tty,))

    async def start_subcontainer(
        self,
        cid: str,
        spec: SpecObject,
        donation: Donation,
        *,
        conf: dict[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        """Run a subcontainer; returns when its own code runs.

        Raises:
            CallRefused: Refused, or the start failed; the text says why.
        """
        arg = _start_args(cid, spec, donation, conf, request_id)
        await self._call("StartSubcontainer", arg, donation.files())

    async def wait(self, cid: str | None = None) -> Exited | Signaled:
        """Wait for a container's end (the root's if no cid is given)."""
        return from_wait_status(await self.wait_status(cid))

    async def wait_status(self, cid: str | None = None) -> int:
        """Wait for a container's end; the raw wait status (wait(2))."""
        return int(await self._call("Wait", cid or self.id))

    async def signal(
        self,
        signo: int,
        cid: str | None = None,
        *,
        everyone: bool = False,
        pid: int = 0,
        mode: int = SIGNAL_PROCESS,
        request_id: str | None = None,
    ) -> None:
        """Send a signal to a container's init, or to every process in it.

        Args:
            signo: Its number; 0 asks whether one could be sent, and leaves no event.
            cid: The container; the root if absent.
            everyone: To all of its processes.
            pid: To this one instead of init, as the container numbers it.
            mode: As gVisor's, see ``SIGNAL_*`` in this module.
            request_id: Same id, same call: acted upon once. A new one if absent.
        """
        arg = {
            "CID": cid or self.id,
            "Signo": signo,
            "PID": pid,
            "Mode": SIGNAL_ALL if everyone else mode,
            "RequestID": request_id or new_event_id(),
        }
        await self._call("Signal", arg)

    async def execute(
        self,
        cid: str,
        argv: Sequence[str],
        files: Mapping[int, int | HasFileno],
        **options: Unpack[ExecOptions],
    ) -> int:
        """Run one more process in a container that runs; returns its PID there.

        Args:
            cid: The container.
            argv: The program and its arguments.
            files: Its descriptors by number, lent; of 0, 1 and 2 what is missing is /dev/null.
            **options: See :class:`ExecOptions`.

        Raises:
            CallRefused: Refused, or it never ran; the text says why.
        """
        arg = {
            "argv": list(argv),
            "envv": list(options.get("env", (DEFAULT_PATH,))),
            "wd": options.get("cwd", "/"),
            "KUID": options.get("uid", 0),
            "KGID": options.get("gid", 0),
            "ExtraKGIDs": list(options.get("extra_gids", ())),
            "NoNewPrivileges": options.get("no_new_privileges", False),
            "StdioIsPty": options.get("terminal", False),
            "GuestFDs": list(files),
            "ContainerID": cid,
            "RequestID": options.get("request_id") or new_event_id(),
        }
        return int(await self._call("ExecuteAsync", arg, tuple(files.values())))

    async def wait_process(self, cid: str, pid: int) -> Exited | Signaled:
        """Wait for the end of an executed process; the same answer until destroy."""
        arg = {"PID": pid, "CID": cid}
        return from_wait_status(int(await self._call("WaitPID", arg)))

    async def pause(self, *, request_id: str | None = None) -> None:
        """Stop every process of the sandbox, until it is resumed."""
        await self._call("Pause", {"RequestID": request_id or new_event_id()})

    async def resume(self, *, request_id: str | None = None) -> None:
        """Let a paused sandbox go on."""
        await self._call("Resume", {"RequestID": request_id or new_event_id()})

    async def checkpoint(
        self,
        file: int | HasFileno,
        *,
        resume: bool = False,
        compression: str = "none",
        request_id: str | None = None,
    ) -> None:
        """Make an image of all that runs; returns when it is whole and on disk.

        Args:
            file: A regular file that can be written, lent; the image begins at its beginning. Sync
                its directory and give it its final name when this has returned.
            resume: Let the sandbox run on; else its containers end.
            compression: ``none`` or ``flate-best-speed``: takes less room, and longer.
            request_id: Same id, same call: acted upon once. A new one if absent.

        Raises:
            CallRefused: Refused, or there is no image: then the sandbox runs on.
        """
        arg = {
            "metadata": {"compression": compression},
            "Resume": resume,
            "RequestID": request_id or new_event_id(),
        }
        await self._call("Checkpoint", arg, (file,))

    async def restore(
        self,
        file: int | HasFileno,
        *,
        background: bool = False,
        request_id: str | None = None,
    ) -> None:
        """Take an image in, instead of :meth:`start_root`; ``file`` is lent.

        The root container goes on with the donation that the sandbox was created with. If the image
        holds more containers, nothing runs until each of them was registered. In the ``background``
        the last of these calls returns when the restore of all has begun: :meth:`wait_restore`
        waits for its end.

        Raises:
            CallRefused: Refused, or failed: then the sandbox is in state restoreFailed.
        """
        arg = {"Background": background, "RequestID": request_id or new_event_id()}
        await self._call("Restore", arg, (file,))

    async def restore_subcontainer(
        self,
        cid: str,
        spec: SpecObject,
        donation: Donation,
        *,
        conf: dict[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        """Register a created container; with the last one, returns when all of them go on.

        It is paired with the image's container of the same name, which the spec's annotation
        ``io.kubernetes.cri.container-name`` gives it.

        Raises:
            CallRefused: Refused, or the restore of all failed; the text says why.
        """
        arg = _start_args(cid, spec, donation, conf, request_id)
        await self._call("RestoreSubcontainer", arg, donation.files())

    async def wait_restore(self) -> None:
        """Wait until the sandbox is restored; raises CallRefused with the reason if it failed."""
        await self._call("WaitRestore", None)

    async def savings_ns(self) -> tuple[int, int]:
        """Processor and wall time that the restore has saved."""
        found = await self._call("GetSavings", None)
        return found["CPUTimeSaved"], found["WallTimeSaved"]

    async def processes(self, cid: str = "") -> list[dict[str, Any]]:
        """The processes of a container, or of the whole sandbox, as gVisor tells them."""
        return list(await self._call("Processes", cid) or ())

    async def stats(self, cid: str | None = None) -> dict[str, Any]:
        """What a container uses, and the CPU time of every container, as gVisor tells it."""
        return dict(await self._call("Event", cid or self.id))

    async def destroy(self, cid: str) -> None:
        """End every process of a container; returns when nothing of it is left."""
        await self._call("DestroySubcontainer", cid)

    async def runtime_state(self, cid: str | None = None) -> int:
        """1 creating, 2 running, 3 stopped (or unknown)."""
        return int(await self._call("ContainerRuntimeState", cid or self.id))

    async def state(self) -> dict[str, Any]:
        """The full derived state."""
        return dict(await self._transport.call(None, "sandboxManager.State", self.id, again=True))

    def events(self, *, after: int = 0, follow: bool = False) -> AsyncIterator[RecordedEvent]:
        """This sandbox's events after a position of the log; with ``follow``, then live."""
        path = self._transport.state_directory / LOG_FILE
        return read_events(path, STREAM_PREFIX + self.id, follow=follow, after=after)

    async def delete(self, *, force: bool = False, request_id: str | None = None) -> None:
        """Forget the sandbox; with ``force``, end what still runs in it."""
        arg = {"ID": self.id, "Force": force, "RequestID": request_id or new_event_id()}
        await self._transport.call(None, "sandboxManager.Delete", arg, again=True)


def connect(socket: str | Path) -> ManagerClient:
    """A client of the service whose node socket is at ``socket``; connects at each call."""
    return ManagerClient(SocketTransport(Path(socket)))


def _start_args(
    cid: str,
    spec: SpecObject,
    donation: Donation,
    conf: dict[str, Any] | None,
    request_id: str | None,
) -> dict[str, Any]:
    return {
        "Spec": spec,
        "Conf": conf if conf is not None else {},
        "CID": cid,
        **donation.arguments(),
        "RequestID": request_id or new_event_id(),
    }
