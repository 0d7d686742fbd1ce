"""How a process ended, as far as anybody can tell."""

import time
from typing import Literal, TypeAlias

from msgspec import Struct

ExitSource: TypeAlias = Literal["waitid", "pidfd-info", "proc-stat", "engine", "unknown"]


class ExitReport(Struct, frozen=True, kw_only=True):
    """How a container's init ended; `status` is a raw wait status.

    `loss` is why there is none.
    """

    status: int | None
    source: ExitSource
    at_ns: int
    loss: str = ""


def nobody_knows(why: str, at_ns: int | None = None) -> ExitReport:
    """The report of an end of which no status can be had."""
    at_ns = time.time_ns() if at_ns is None else at_ns
    return ExitReport(status=None, source="unknown", at_ns=at_ns, loss=why)
