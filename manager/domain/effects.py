"""What must be done in the world because of an event: descriptions, carried out by the shell."""

from typing import TypeAlias

from msgspec import Struct

from manager.domain.state import LaunchIntent


class Launch(Struct, frozen=True, kw_only=True):
    """Have the worker start a container.

    ``sandbox`` and ``pid_namespace`` are launch ids, see ``manager.schema.worker.Launch``. With
    ``held_image`` it goes on as the image's container ``image_name`` does.
    """

    intent: LaunchIntent
    held_fds: str | None = None
    held_tty: str | None = None
    sandbox: str | None = None
    pid_namespace: str | None = None
    held_image: str = ""
    image_name: str = ""


class SaveLaunches(Struct, frozen=True, kw_only=True):
    """Have the worker make an image of launches: of all of them at one moment, or of none."""

    checkpoint_id: str
    launch_ids: tuple[str, ...]
    resume: bool


class SendSignal(Struct, frozen=True, kw_only=True):
    """Have the worker deliver a signal within a launch; ``pid`` and ``mode`` as in a Signal.

    Whether it was delivered is for the log, unless it is not ``durable``.
    """

    kill_id: str
    launch_id: str
    signo: int
    pid: int = 0
    mode: int = 0
    durable: bool = True


class ExecuteProcess(Struct, frozen=True, kw_only=True):
    """Have the worker run one more process in a container that runs."""

    exec_id: str
    launch_id: str


class FreezeLaunches(Struct, frozen=True, kw_only=True):
    """Have the worker stop launches, or let them go on: all or none."""

    pause_id: str
    launch_ids: tuple[str, ...]
    frozen: bool


class DestroyLaunch(Struct, frozen=True, kw_only=True):
    """Have the worker end and remove all of a launch."""

    launch_id: str


class ReleaseHold(Struct, frozen=True, kw_only=True):
    """Have the worker close what it holds for a start that will not come."""

    hold_id: str


Effect: TypeAlias = (
    Launch
    | SaveLaunches
    | SendSignal
    | ExecuteProcess
    | FreezeLaunches
    | DestroyLaunch
    | ReleaseHold
)
