"""How far a long piece of work is, for a person who looks at stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Told = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@contextmanager
def progress(doing: str) -> Iterator[Told | None]:
    """A bar on stderr while the context is open; nothing if no person looks at it."""
    # Absent if the process was started with the descriptor closed.
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.progress import Progress  # noqa: PLC0415 - the same

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
