"""Owned file descriptors: each has one owner, and the type shows who.

An integer says nothing about who must close it. An OwnedFd does: whoever holds it closes it, or
moves it on with `take()`; after a move the old holder is empty. One that is forgotten warns
(ResourceWarning) and is closed, so that a test run finds every leak.
"""

import contextlib
import errno
import fcntl
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self

from manager.urpc.errors import FdEmpty

MAX_FILES: Final = 128
"""Most files that one urpc message may carry, either way (gVisor's maxFiles)."""

DUP_FLOOR: Final = 3
"""Duplicates never land on 0, 1 or 2: a closed stdio slot must not receive a client's file."""

_EMPTY: Final = -1


class HasFileno(Protocol):
    """An open file object: anything with fileno()."""

    def fileno(self) -> int:
        """Return the descriptor's number; the object stays its owner."""


class OwnedFd:
    """The one owner of one open file descriptor.

    Args:
        fd: An open descriptor, >= 0; ownership moves in.
    """

    __slots__ = ("__weakref__", "_number")

    def __init__(self, fd: int) -> None:
        self._number = _EMPTY
        if fd < 0:
            raise ValueError(f"a descriptor is >= 0, not {fd}")
        self._number = fd

    @property
    def number(self) -> int:
        """The number, lent: valid until this owner closes it or lets go of it.

        Raises:
            FdEmpty: Closed, taken or released before. A programming error.
        """
        if self._number == _EMPTY:
            raise FdEmpty
        return self._number

    @property
    def closed(self) -> bool:
        """Whether this owner holds nothing (closed, taken or released)."""
        return self._number == _EMPTY

    def fileno(self) -> int:
        """Return the number, lent, so that selectors and os functions accept an owner."""
        return self.number

    def dup(self) -> "OwnedFd":
        """Duplicate: a second owner of the same open file description, close-on-exec.

        Raises:
            FdEmpty: Nothing to duplicate. A programming error.
            OSError: EMFILE, the process is out of descriptors. Refuse the request.
        """
        return OwnedFd(fcntl.fcntl(self.number, fcntl.F_DUPFD_CLOEXEC, DUP_FLOOR))

    def take(self) -> "OwnedFd":
        """Move the descriptor into a new owner; this one becomes empty.

        Raises:
            FdEmpty: Nothing to move. A programming error.
        """
        return OwnedFd(self.release())

    def release(self) -> int:
        """Let go: the caller owns the returned number from now on.

        Raises:
            FdEmpty: Nothing to release. A programming error.
        """
        number, self._number = self.number, _EMPTY
        return number

    def close(self) -> None:
        """Close it, once; closing an empty owner does nothing.

        Raises:
            OSError: EBADF only: somebody else closed a descriptor that is ours, a bug.
        """
        number, self._number = self._number, _EMPTY
        if number != _EMPTY:
            _close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._number != _EMPTY:
            text = f"file descriptor {self._number} was never closed"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            self.close()


class FdBundle:
    """An ordered collection that owns its descriptors, as they came with one message.

    Args:
        fds: The owners to take in, in order. They are moved: what is passed becomes empty.
    """

    __slots__ = ("_fds",)

    def __init__(self, fds: Iterable[OwnedFd] = ()) -> None:
        self._fds: deque[OwnedFd] = deque()
        for fd in fds:
            self.append(fd)

    @classmethod
    def adopt(cls, numbers: Iterable[int]) -> "FdBundle":
        """Own raw numbers, as recvmsg(2) delivered them."""
        bundle = cls()
        bundle._fds.extend(OwnedFd(number) for number in numbers)
        return bundle

    @classmethod
    def dup_of(cls, sources: Iterable[int | HasFileno]) -> "FdBundle":
        """Duplicate what somebody else owns and keeps, all or nothing.

        Raises:
            OSError: EBADF for a source that is not open, EMFILE; nothing stays open.
        """
        bundle = cls()
        try:
            for source in sources:
                bundle.append(dup_foreign(source))
        except BaseException:
            bundle.close()
            raise
        return bundle

    def append(self, fd: OwnedFd) -> None:
        """Move one more owner in, at the end; `fd` becomes empty."""
        self._fds.append(fd.take())

    def extend(self, other: "FdBundle") -> None:
        """Move everything of `other` in, at the end; `other` becomes empty."""
        self._fds.extend(other._fds)  # noqa: SLF001 - the same class
        other._fds.clear()  # noqa: SLF001 - the same class

    def take(self, count: int) -> "FdBundle":
        """Move the first `count` out into a bundle of their own, order kept.

        Raises:
            ValueError: `count` is negative or more than there are. Nothing was moved.
        """
        if not 0 <= count <= len(self._fds):
            raise ValueError(f"cannot take {count} of {len(self._fds)} descriptors")
        taken = FdBundle()
        taken._fds.extend(self._fds.popleft() for _ in range(count))
        return taken

    def take_first(self) -> OwnedFd:
        """Move the first one out.

        Raises:
            ValueError: There is none.
        """
        if not self._fds:
            raise ValueError("cannot take from an empty bundle")
        return self._fds.popleft()

    def take_all(self) -> "FdBundle":
        """Move everything out into a new bundle; this one becomes empty."""
        return self.take(len(self._fds))

    def dup(self) -> "FdBundle":
        """Duplicate every one, order kept, all or nothing.

        Raises:
            OSError: EMFILE; the duplicates made so far are closed.
        """
        return FdBundle.dup_of(self._fds)

    def numbers(self) -> tuple[int, ...]:
        """The numbers, lent, in order: valid while this bundle owns them."""
        return tuple(fd.number for fd in self._fds)

    def close(self) -> None:
        """Close every one and become empty; doing it again does nothing."""
        if not self._fds:  # as nearly every bundle is that is closed
            return
        with contextlib.ExitStack() as stack:
            while self._fds:
                stack.callback(self._fds.pop().close)

    def __len__(self) -> int:
        return len(self._fds)

    def __iter__(self) -> Iterator[OwnedFd]:
        """Lend the owners, in order; they stay in the bundle."""
        return iter(self._fds)

    def __getitem__(self, index: int) -> OwnedFd:
        """Lend one owner; it stays in the bundle."""
        return self._fds[index]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def dup_foreign(source: int | HasFileno) -> OwnedFd:
    """Duplicate a descriptor that somebody else owns and keeps.

    Args:
        source: A number, or an object with fileno(); only read, never closed.

    Raises:
        OSError: EBADF, `source` is not open; EMFILE, out of descriptors.

    Source: fcntl(2), F_DUPFD_CLOEXEC: lowest free number >= the argument, close-on-exec set.
    """
    number = source if isinstance(source, int) else source.fileno()
    return OwnedFd(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, DUP_FLOOR))


def _close(number: int) -> None:
    # Linux frees the number whatever close(2) reports; EIO and its like concern data that somebody
    # else wrote. EBADF alone is ours: an owner that does not own.
    try:
        os.close(number)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
