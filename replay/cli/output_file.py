"""Where a command writes what it makes: a new file, whole or not at all, or stdout."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.whole_file import replace_whole


@contextmanager
def new_file(path: Path | None) -> Iterator[Callable[[str], object]]:
    """What takes the parts of a text, in order; the file appears when all of them are on disk.

    Args:
        path: The file; one that exists is replaced. None: stdout.

    Raises:
        OSError: It cannot be written.
    """
    if path is None:
        yield sys.stdout.write  # not click.echo, which takes escapes for decoration
        sys.stdout.flush()
        return
    with replace_whole(path) as file:
        yield file.write
