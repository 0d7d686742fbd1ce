"""What a killed worker leaves to the service, which becomes its parent."""

import subprocess
import sys

from tests.patience import PATIENCE_S

SERVICE = """
import os, subprocess, sys
from pathlib import Path
import anyio
from manager.adapters.worker_client import WorkerProcess
from manager.kernel.prctl import become_subreaper

async def main():
    become_subreaper()
    worker = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    stray = int(worker.stdout.readline())
    workers = WorkerProcess(Path("nowhere"))
    workers._child = worker.pid
    async with anyio.create_task_group() as tasks:
        # Its connection has ended, and it has not yet.
        tasks.start_soon(workers.reap_strays, frozenset)
        await anyio.wait_all_tasks_blocked()
        worker.kill()
        with anyio.fail_after(float(sys.argv[1])):
            while not is_ours(stray):
                await anyio.sleep(0.01)
            os.kill(stray, 9)
            while Path(f"/proc/{stray}").exists():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    worker.returncode = 0  # it is reaped
    print("all reaped")

def is_ours(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())

anyio.run(main)
"""


def test_what_it_leaves_later_than_its_connection() -> None:
    # A process of its own: it becomes the parent of whatever its children leave.
    result = subprocess.run(
        [sys.executable, "-c", SERVICE, str(PATIENCE_S)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert result.stdout == "all reaped\n", result.stderr
