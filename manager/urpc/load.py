"""What all connections of a service hold together, and where that ends.

Each limit has a name; what would go beyond one is refused with a text that says so, and whatever
was admitted before is carried through.
"""

from typing import Final

from msgspec import Struct

CONNECTIONS_TOTAL_MAX: Final = 1024
"""Connections to all sockets of a service together."""

BUFFERED_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of requests that are being read or carried out, all connections together."""

FILES_HELD_MAX: Final = 8192
"""Donated files of requests that are being read or carried out, all connections together."""

CONNECTIONS_SHARE: Final = 8
FILES_SHARE: Final = 2
"""One descriptor in so many that the process may have is for these; the rest is for the others."""


class LoadLimits(Struct, frozen=True, kw_only=True):
    """How much all connections together may hold."""

    connections_max: int = CONNECTIONS_TOTAL_MAX
    buffered_bytes_max: int = BUFFERED_BYTES_MAX
    files_max: int = FILES_HELD_MAX

    @classmethod
    def of_process(cls, open_files_max: int) -> "LoadLimits":
        """The limits of a process that may have so many descriptors (RLIMIT_NOFILE)."""
        return cls(
            connections_max=min(CONNECTIONS_TOTAL_MAX, open_files_max // CONNECTIONS_SHARE),
            files_max=min(FILES_HELD_MAX, open_files_max // FILES_SHARE),
        )


class Load:
    """What is held now."""

    def __init__(self, limits: LoadLimits | None = None) -> None:
        self.limits = limits or LoadLimits()
        self.connections = 0
        self.buffered_bytes = 0
        self.files = 0

    def admit(self) -> "Lease | str":
        """Take in one more connection; returns its lease, or why there is no room for it."""
        if self.connections >= self.limits.connections_max:
            return f"too many connections: this service has {self.limits.connections_max} at most"
        self.connections += 1
        return Lease(self)


class Lease:
    """The part of one connection, made by :meth:`Load.admit`; owned by that connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._bytes = 0
        self._files = 0
        self._open = True

    def hold(self, *, data_bytes: int = 0, files: int = 0) -> str:
        """Hold more; returns why that would be too much, and then holds no more than before."""
        load, limits = self._load, self._load.limits
        if load.buffered_bytes + data_bytes > limits.buffered_bytes_max:
            return (
                f"too much at once: unfinished calls hold {limits.buffered_bytes_max} bytes at "
                "most, try again later"
            )
        if load.files + files > limits.files_max:
            return (
                f"too much at once: unfinished calls hold {limits.files_max} files at most, "
                "try again later"
            )
        load.buffered_bytes += data_bytes
        load.files += files
        self._bytes += data_bytes
        self._files += files
        return ""

    def release(self) -> None:
        """Hold nothing any more; the connection stays."""
        self._load.buffered_bytes -= self._bytes
        self._load.files -= self._files
        self._bytes = self._files = 0

    def close(self) -> None:
        """Give up the connection, too; idempotent."""
        self.release()
        if self._open:
            self._open = False
            self._load.connections -= 1
