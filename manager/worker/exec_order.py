"""One process to be executed, as an engine gets it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from manager.schema import worker as w
from manager.worker.cgroups import Cgroup

KEPT_MEMBERS: Final = (
    "apparmorProfile",
    "capabilities",
    "noNewPrivileges",
    "oomScoreAdj",
    "rlimits",
    "selinuxLabel",
)
"""Members of a container's `process` that hold for what is executed in it later."""

STREAMS: Final = 3


def kept_members(body: Mapping[str, object]) -> dict[str, Any]:
    """What of a spec must be known for a later exec: nothing secret."""
    process = body.get("process")
    if not isinstance(process, dict):
        return {}
    return {name: process[name] for name in KEPT_MEMBERS if name in process}


class ExecOrder(Struct, kw_only=True):
    """Everything an engine needs to execute one process. Descriptors are lent.

    Attributes:
        engine_id: The container.
        process: What to run.
        defaults: See `kept_members`.
        files: Guest descriptor number -> descriptor.
        cgroup: The container's; what is executed belongs there from its first moment.
        init: The container's init, alive, and
        init_pidfd: its handle.
        place: A private directory of its own, existing.
    """

    engine_id: str
    process: w.ExecProcess
    defaults: dict[str, Any]
    files: dict[int, int]
    cgroup: Cgroup
    init: int
    init_pidfd: int
    place: Path

    @property
    def program(self) -> str:
        """What is to be executed, for messages."""
        return self.process.executable or self.process.args[0]

    def stdio(self, nothing: int) -> tuple[int, int, int]:
        """The three streams; what was not given is /dev/null."""
        stdin, stdout, stderr = (self.files.get(number, nothing) for number in range(STREAMS))
        return stdin, stdout, stderr

    def extra(self) -> dict[int, int]:
        """The other descriptors, by their numbers in the process."""
        return {number: fd for number, fd in self.files.items() if number >= STREAMS}
