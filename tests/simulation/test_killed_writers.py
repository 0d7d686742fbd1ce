"""Writers that are killed at exactly the n-th call on their files, each on the same log."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import load_signer
from tests.patience import PATIENCE_S
from tests.simulation.power_loss_promises import Said, check_log
from tests.simulation.power_loss_recording import REPOSITORY

FIRST_SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("SANDTRAIL_KILLS", "12"))
CALLS = ("pwrite64", "pwrite64", "fdatasync", "ftruncate", "unlink", "openat")
CALLS_MAX = {"pwrite64": 120, "fdatasync": 15, "ftruncate": 3, "unlink": 2, "openat": 4}
"""strace counts for each thread, and each opening of a log has its own."""

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def write_until_killed(
    path: Path, key: Path, seed: int, call: str, number: int
) -> tuple[list[Said], bool]:
    """Run the writer until it is killed at the n-th such call: what it had said, and if it was."""
    files = [option for suffix in ("", "-wal", "-shm") for option in ("-P", f"{path}{suffix}")]
    done = subprocess.run(
        [
            *("strace", "-f", "-qqq", "-o", os.devnull, *files),
            *("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"),
            *(sys.executable, "-P", "-m", "tests.simulation.power_loss_writer"),
            *(path, key, str(seed), "FULL"),
        ],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    lines = done.stdout.splitlines(keepends=True)
    said = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return said, done.returncode == -signal.SIGKILL


async def test_whatever_a_writer_was_doing_when_it_was_killed(tmp_path: Path) -> None:
    chance = random.Random(FIRST_SEED)
    key = tmp_path / "log.key"
    signer = load_signer(key)
    said: list[Said] = []
    killed = 0
    for kill in range(KILLS):
        call = chance.choice(CALLS)
        number = chance.randrange(1, CALLS_MAX[call])
        path = tmp_path / "events.db"
        told, was_killed = write_until_killed(path, key, FIRST_SEED + kill, call, number)
        said += told
        killed += was_killed
        try:
            await check_log(path, signer, said)
        except AssertionError as error:
            raise AssertionError(
                f"make sim SEED={FIRST_SEED}: kill {kill}, at {call} number {number}: {error}"
            ) from error
    acknowledged = sum("did" in each for each in said)
    print(f"{killed} of {KILLS} writers killed, {acknowledged} acknowledged appends looked for")
    assert killed > KILLS // 2
    assert sum("will" in each for each in said) > acknowledged > 3 * KILLS
