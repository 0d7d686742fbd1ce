"""Descriptors kept for a start that is still to come."""

from msgspec import Struct

from manager.urpc.fds import FdBundle
from manager.worker.errors import LaunchFailed


class Held(Struct, kw_only=True):
    """What one Hold brought. Owns its descriptors."""

    fds: FdBundle
    spec: bytes


class Holds:
    """Everything that is held, by name."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._held

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is held, oldest first."""
        return tuple(self._held)

    def put(self, hold_id: str, fds: FdBundle, spec: bytes) -> None:
        """Keep; ownership of `fds` moves in. The name must be free."""
        self._held[hold_id] = Held(fds=fds, spec=spec)

    def take(self, hold_id: str) -> Held:
        """Move it out, to its one user.

        Raises:
            LaunchFailed: Stage `hold`: nothing has this name.
        """
        held = self._held.pop(hold_id, None)
        if held is None:
            raise LaunchFailed("hold", "the descriptors that were held for this start are gone")
        return held

    def lend(self, hold_id: str) -> FdBundle:
        """Duplicate what has this name; it stays held, for others.

        Raises:
            LaunchFailed: Stage `hold`: nothing has this name.
        """
        if hold_id not in self._held:
            raise LaunchFailed("hold", "the image that was held for this start is gone")
        return FdBundle([each.dup() for each in self._held[hold_id].fds])

    def release(self, hold_id: str) -> None:
        """Close what has this name, if anything."""
        held = self._held.pop(hold_id, None)
        if held is not None:
            held.fds.close()

    def close(self) -> None:
        """Close everything."""
        for hold_id in self.names:
            self.release(hold_id)
