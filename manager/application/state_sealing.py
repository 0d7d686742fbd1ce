"""Has each seal of the log say which state its events lead to, beside the appends.

As with snapshots, the live states are the state at a position whenever they are whole; they are
immutable, so a thread can digest them while the service goes on.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import anyio.to_thread

from manager.application.registry import Registry
from manager.schema.state_seal import StateDigests, seal_state

STATE_EVENTS: Final = 4096
"""Events after which a seal has a new digest; the seals before repeat the last one.

Digesting a busy node takes as long as folding some hundreds of events.
"""
STATE_SECONDS: Final = 10.0
"""Time after which it has, however few events came."""


class StateSealing:
    """Writes the lines of seals; an instance is good for one log.

    Args:
        clock: Seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._registry: Registry | None = None
        self._digests = StateDigests(give_way=partial(time.sleep, 0))
        self._line = ""
        self._position = 0
        self._taken_at = 0.0

    def follow(self, registry: Registry) -> None:
        """From now on, seal the states of these sandboxes. Call it when the log is replayed."""
        self._registry = registry

    async def lines(self, final: bool) -> Sequence[str]:
        """The newest line; with ``final`` of the newest events. As of :class:`SealPolicy`.

        Cancellation: waits for the thread.
        """
        registry = self._registry
        if registry is not None and registry.frontier.whole and (final or self._due(registry)):
            position, live = registry.frontier.position, registry.folded()
            self._position, self._taken_at = position, self._clock()
            digest = await anyio.to_thread.run_sync(self._digests.of, live)
            self._line = seal_state(position, digest).line()
        return (self._line,) if self._line else ()

    def _due(self, registry: Registry) -> bool:
        waiting = registry.frontier.position - self._position
        age_s = self._clock() - self._taken_at
        return not self._line or waiting >= STATE_EVENTS or age_s >= STATE_SECONDS
