"""What all launches of a worker share."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from manager.urpc.fds import OwnedFd
from manager.worker.cgroups import Cgroups
from manager.worker.ends import Ends
from manager.worker.engine import Engine
from manager.worker.exec_records import ExecRecords
from manager.worker.keeping import Keeping
from manager.worker.leftovers import Leftover, find_leftovers
from manager.worker.log_mark import LogMarkFile
from manager.worker.processes import Processes
from manager.worker.records import Record, Records
from manager.worker.stage import Stage


class Machine(Struct, kw_only=True):
    """The kernel's facilities as found here, and the places that are ours.

    Attributes:
        nothing: /dev/null, opened for reading and writing.
        overlay_by_fd: Whether overlayfs takes descriptors.
        rootless: Whether this is an ordinary user's, root of a user namespace only.
        boot_id: This boot of the machine.
        records: Launches on disk, for the next worker.
        exec_records: Executed processes on disk, for the same.
        ends: Exits on disk, for the same.
        log_mark: How far the log was, for the same.
        engine_states: Directory with a directory for each engine's own state.
        keeping: Has their pidfds kept, for the same.
        images: Room for what goes into images, or comes out of them.
        engines: Those whose programs are here.
        absent: The others: they can look after what runs already, and start nothing.
    """

    processes: Processes
    stage: Stage
    cgroups: Cgroups
    nothing: OwnedFd
    overlay_by_fd: bool
    rootless: bool
    boot_id: str
    records: Records
    exec_records: ExecRecords
    ends: Ends
    log_mark: LogMarkFile
    keeping: Keeping
    images: Path
    engines: Mapping[str, Engine]
    absent: Mapping[str, Engine]
    engine_states: Path

    def engine_of(self, name: str) -> Engine | None:
        """What looks after a container of that engine's, whether its program is here or not."""
        return self.engines.get(name) or self.absent.get(name)

    def take_stock(self) -> tuple[list[Leftover], list[Record]]:
        """What former workers left behind, and the launches that they were still busy with."""
        names = self.records.names()
        records = self.records.read()
        leftovers = find_leftovers(self.engine_states, names, records, self.cgroups)
        return leftovers, [record for record in records if not record.over]
