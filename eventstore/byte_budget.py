"""Back-pressure: a bounded amount of bytes, handed out in the order of asking."""

import asyncio
from collections import deque


class ByteBudget:
    """Bytes that may be under way at once.

    Args:
        size: How many; nobody may ask for more than that in one piece.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, amount: int) -> bool:
        """Take ``amount`` bytes if they are free and nobody waits for some; whether it was so."""
        if amount > self._free or self._waiting:
            return False
        self._free -= amount
        return True

    async def reserve(self, amount: int) -> None:
        """Take ``amount`` bytes, waiting for them behind those who asked before.

        Cancellation: safe; nothing is taken.
        """
        if amount > self._size:
            raise ValueError(f"{amount} bytes in one piece, but there are {self._size} in all")
        if self.take(amount):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._grant()
            else:
                self.release(amount)
            raise

    def release(self, amount: int) -> None:
        """Give ``amount`` bytes back."""
        self._free += amount
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            amount, granted = self._waiting[0]
            if not granted.done():
                if amount > self._free:
                    return
                self._free -= amount
                granted.set_result(None)
            self._waiting.popleft()
