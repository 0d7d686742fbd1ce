"""What a caller may get instead of an answer.

::

    ManagerError
    ├── CallRefused(text)      the rules, the engine or the kernel said no; the log says it too
    ├── NotRecorded(text)      the log could not take the event; nothing was done, try again
    ├── NoEngine(problems)     no engine works on this machine: install one, see `sandtrail doctor`
    ├── StateDirectoryUnsafe   others can write to the state directory: repair it, as the text says
    ├── WorkerGone             the worker process is not there; it is being started again
    └── ServiceUnavailable     no service answers on the socket: start it, or try again
"""

from collections.abc import Sequence
from pathlib import PurePath


class ManagerError(Exception):
    """Root of everything that this package raises on purpose."""


class CallRefused(ManagerError):  # noqa: N818 - a refusal is an answer, not a fault
    """The call was refused or failed; ``text`` is the exact text that is on record."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class NotRecorded(ManagerError):  # noqa: N818 - likewise
    """The event could not be stored, so nothing was done. Free what the text names, then retry."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"cannot record the call, so nothing was done: {cause}")


class NoEngine(ManagerError):  # noqa: N818 - likewise
    """No engine can start a container here; ``problems`` says why, one line an engine."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("no engine works on this machine: " + "; ".join(problems))


class StateDirectoryUnsafe(ManagerError):  # noqa: N818 - likewise
    """The state directory is not this user's alone; ``problem`` says why, and what to do."""

    def __init__(self, path: PurePath, problem: str) -> None:
        super().__init__(f"state directory {path} {problem}")


class WorkerGone(ManagerError):  # noqa: N818 - likewise
    """The connection to the worker has ended; what was sent last may not have arrived."""


class ServiceUnavailable(ManagerError):  # noqa: N818 - likewise
    """Nobody answers; whether the call was carried out is unknown.

    ``was_connected`` tells that somebody was there when the call was made.
    """

    def __init__(self, text: str, *, was_connected: bool = False) -> None:
        super().__init__(text)
        self.was_connected = was_connected


def ungrouped(error: BaseException, keep: BaseException | None = None) -> BaseException:
    """The one error of a group, of groups in it, too; the group itself if it has several.

    Args:
        error: What came out of a task group.
        keep: An error that comes out as it is, even if it is a group.
    """
    while error is not keep and isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) > 1:
            break
        error = error.exceptions[0]
    return error
