"""Parquet, for tables of millions of events; written by DuckDB, an extra."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from eventstore.whole_file import put_in_place, replaceable

COLUMNS: Final = {
    "position": "BIGINT",
    "time": "TIMESTAMPTZ",
    "recorded_at_ns": "BIGINT",
    "stream": "VARCHAR",
    "version": "BIGINT",
    "type": "VARCHAR",
    "sandbox": "VARCHAR",
    "container": "VARCHAR",
    "outcome": "VARCHAR",
    "actor": "STRUCT(uid BIGINT, gid BIGINT, pid BIGINT)",
    "correlation_id": "VARCHAR",
    "causation": "BIGINT",
    "event_id": "VARCHAR",
    "data": "JSON",
}
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""More than the longest payload, each of its characters escaped."""
OFFLINE: Final[dict[str, bool | int | float | str | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class ParquetMissing(Exception):  # noqa: N818 - nothing is broken
    """The extra is not installed; the message says how to install it."""


@contextmanager
def parquet_file(path: Path) -> Iterator[Callable[[str], object]]:
    """What takes events as lines of JSON; the file appears when all of them were taken.

    Args:
        path: The file; one that exists is replaced, and of a link what it leads to. The lines lie
            beside it meanwhile.

    Raises:
        ParquetMissing: The extra is not installed.
        OSError: It cannot be written, or is a device, say.
    """
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise ParquetMissing("-o parquet needs DuckDB: pip install 'sandtrail[parquet]'") from None
    target = replaceable(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    lines = partial.with_name(f"{partial.name}.jsonl")
    try:
        with lines.open("x", encoding="utf-8", newline="") as file:
            yield file.write
        with duckdb.connect(config=OFFLINE) as connection:
            events = connection.read_json(
                str(lines),
                columns=COLUMNS,
                format="newline_delimited",
                maximum_object_size=LINE_BYTES_MAX,
            )
            events.write_parquet(str(partial), compression="zstd")
        _sync(partial)
        put_in_place(partial, target)
    except duckdb.Error as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        lines.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
