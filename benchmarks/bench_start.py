"""A start to its end: sandtrail over its socket, durable, beside the engine alone.

Both run the same busybox from the same directory with new pid, net, ipc, uts and mount namespaces;
the rounds of the two are interleaved. Prints medians and their ratio. Usage::

    python -m benchmarks.bench_start [--rounds N]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from manager import Donation, Layer, Manager, SandboxClient, default_spec

WARM_UP_ROUNDS = 3


def make_rootfs(root: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("needs busybox: apt-get install -y busybox-static")
    for name in ("bin", "proc", "dev", "sys"):
        (root / name).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin" / "true")
    os.link(root / "bin" / "true", root / "bin" / "sleep")


def write_bundle(bundle: Path, rootfs: Path, spec: dict[str, Any]) -> None:
    bundle.mkdir()
    config = {**spec, "root": {"path": str(rootfs), "readonly": True}}
    (bundle / "config.json").write_text(json.dumps(config))


def bare_crun(directory: Path, number: int) -> float:
    began = time.perf_counter()
    command = [
        *("crun", "--root", str(directory / "crun"), "--cgroup-manager=disabled"),
        *("run", "-b", str(directory / "bundle"), f"bench{number}"),
    ]
    # A host with a hybrid cgroup tree: crun 1.8 refuses to see its unified half.
    hidden = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"']
    subprocess.run([*hidden, "sh", *command], check=True)
    return time.perf_counter() - began


async def one_life(
    sandbox: SandboxClient, cid: str, spec: dict[str, Any], donation: Donation
) -> tuple[float, float]:
    """Seconds until it runs, and until its exit is on record."""
    await sandbox.create_subcontainer(cid)
    began = time.perf_counter()
    await sandbox.start_subcontainer(cid, spec, donation)
    running = time.perf_counter() - began
    await sandbox.wait(cid)
    ended = time.perf_counter() - began
    await sandbox.destroy(cid)
    return running, ended


async def main(rounds: int) -> None:
    spec = default_spec(args=["/bin/true"], readonly=True)
    with tempfile.TemporaryDirectory(prefix="sandtrail-bench-") as name:
        directory = Path(name)
        make_rootfs(directory / "rootfs")
        write_bundle(directory / "bundle", directory / "rootfs", spec)
        rootfs = os.open(directory / "rootfs", os.O_PATH | os.O_DIRECTORY)
        null = os.open(os.devnull, os.O_RDWR)
        donation = Donation(rootfs=Layer(source=rootfs), stdio=(null, null, null))
        async with Manager.open(directory / "state", engine="crun") as manager:
            idle = default_spec(args=["/bin/sleep", "3600"], readonly=True)
            sandbox = await manager.create_sandbox("bench", idle, donation)
            await sandbox.start_root()
            bare: list[float] = []
            running: list[float] = []
            ended: list[float] = []
            for number in range(-WARM_UP_ROUNDS, rounds):
                alone = await anyio.to_thread.run_sync(bare_crun, directory, number)
                until_running, until_end = await one_life(sandbox, f"c{number}", spec, donation)
                if number >= 0:
                    bare.append(alone)
                    running.append(until_running)
                    ended.append(until_end)
            await sandbox.delete(force=True)
        os.close(rootfs)
        os.close(null)
    report(bare, running, ended)


def report(bare: list[float], running: list[float], ended: list[float]) -> None:
    base = statistics.median(bare)
    rows = (
        ("crun run, alone", bare),
        ("start to running", running),
        ("start to recorded exit", ended),
    )
    print(f"{'':<26}{'median ms':>10}{'x crun run':>12}   ({len(bare)} rounds)")
    for name, values in rows:
        median = statistics.median(values)
        print(f"{name:<26}{median * 1000:>10.1f}{median / base:>12.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    anyio.run(main, parser.parse_args().rounds)
