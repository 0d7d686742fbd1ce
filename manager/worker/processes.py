"""Starting processes, and reaping every one that ends, ours or handed down to us.

Reaping is central: at each SIGCHLD all that has ended is reaped, at once. A zombie that is left
standing can keep its container's init from dying (it waits for its PID namespace to empty).
"""

import os
import signal
import subprocess
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from manager.kernel import pidfd
from manager.urpc.fds import OwnedFd
from manager.worker.loop import Child, Loop
from manager.worker.process_numbers import numbers

STRAYS_MAX: Final = 1024
"""Reaped processes that nobody had asked for, remembered in case somebody does."""

STOP_SECONDS: Final = 5.0
"""Longest wait for a process to be reaped after SIGKILL."""

ENGINE_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}
"""All that an engine sees of an environment: its messages are read, so they are in English."""


class Processes:
    """The children of this process.

    Args:
        loop: Is told to watch for SIGCHLD.
    """

    def __init__(self, loop: Loop) -> None:
        self._expected: dict[int, Child] = {}
        self._strays: OrderedDict[int, tuple[int, int, tuple[int, ...]]] = OrderedDict()
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = OwnedFd(read_end)
        self._wakeup_write = OwnedFd(write_end)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        loop.watch(read_end, self._woken)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdio: tuple[int, int, int] | None = None,
        pass_fds: Sequence[int] = (),
        environment: dict[str, str] = ENGINE_ENVIRONMENT,
        executable: str | None = None,
    ) -> Child:
        """Start a program by vfork; every descriptor but the named ones is closed in it.

        Args:
            argv: Program and arguments. Visible to every user of the machine: nothing secret.
            stdio: Descriptors to become 0, 1, 2; lent. `None`: /dev/null.
            pass_fds: Descriptors to keep under their own numbers; lent.
            environment: The whole environment.
            executable: What is executed in truth, if it is not the first of `argv`.

        Raises:
            OSError: The program cannot be executed.
        """
        stdin, stdout, stderr = stdio or (subprocess.DEVNULL,) * 3
        process = subprocess.Popen(
            argv,
            executable=executable,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            close_fds=True,
            cwd="/",
            env=environment,
        )
        # Reaped here, by number: tell the object so, or it would try behind our back.
        process.returncode = 0
        return self.expect(process.pid)

    def expect(self, pid: int) -> Child:
        """Have this child's status kept: for a child that is alive, or not reaped yet."""
        child = self._expected[pid] = Child(pid)
        self._strays.pop(pid, None)
        return child

    def inherit(self, pid: int) -> tuple[Child, OwnedFd | None] | None:
        """Take over an orphan that has become a child of this process, dead or alive.

        Returns:
            The child and its pidfd, owned by the caller; no pidfd when it has been reaped already;
            `None` when there is no such child.
        """
        try:
            handle = pidfd.open_pidfd(pid)
        except ProcessLookupError:
            stray = self._strays.pop(pid, None)
            if stray is None:
                return None
            child = Child(pid)
            child.numbers = stray[2]
            child.settle(*stray[:2])
            return child, None
        if pidfd.parent(pid) != os.getpid():
            # The number was given to a stranger meanwhile.
            handle.close()
            return None
        child = self.expect(pid)
        child.numbers = numbers(pid)
        return child, handle

    def forget(self, child: Child) -> None:
        """No longer keep the status of a child that has not ended; it is reaped all the same."""
        if self._expected.get(child.pid) is child:
            del self._expected[child.pid]

    def reap(self) -> None:
        """Reap everything that has ended."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            pid = info.si_pid
            # Once it is reaped, nobody can tell what its own PID namespace called it.
            own = () if pid in self._expected else numbers(pid)
            os.waitid(os.P_PID, pid, os.WEXITED)
            self._settle(pid, _raw_status(info.si_code, info.si_status), own)

    def close(self) -> None:
        """Stop listening for SIGCHLD."""
        signal.set_wakeup_fd(-1)
        self._wakeup.close()
        self._wakeup_write.close()

    def _woken(self) -> None:
        os.read(self._wakeup.number, 4096)
        self.reap()

    def _settle(self, pid: int, status: int, own: tuple[int, ...]) -> None:
        now = time.time_ns()
        child = self._expected.pop(pid, None)
        if child is not None:
            child.settle(status, now)
            return
        self._strays[pid] = (status, now, own)
        if len(self._strays) > STRAYS_MAX:
            self._strays.popitem(last=False)


def _raw_status(code: int, status: int) -> int:
    """Wait status as wait(2) gives it, from waitid(2)'s two numbers."""
    if code == os.CLD_EXITED:
        return status << 8
    return status | 0x80 if code == os.CLD_DUMPED else status
