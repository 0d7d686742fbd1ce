"""The main job on real containers, for eyes: `make demo`.

Starts the service, a sandbox with three containers made from donated descriptors, a start that is
refused, an exit status 3, and a SIGKILL of the service while a container runs; then prints what the
log has, and the state that replaying it gives. Leaves the log at .demo/events.db.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import msgspec
from rich.console import Console
from rich.rule import Rule

from eventstore import open_log
from manager import (
    CallRefused,
    Donation,
    Layer,
    ManagerClient,
    SandboxClient,
    connect,
    default_spec,
)
from manager.domain.evolve import fold
from manager.schema.events import decode_event
from manager.schema.node_fold import STREAM_PREFIX

ROOT = Path(".demo")
ROOTFS = ROOT / "rootfs"
GVISOR = ROOT / "gvisor"
SANDBOX = "demo"
LIVES_ON = 'echo "worker: the service will be killed under me"; sleep 4; exit 42'

console = Console(highlight=False)


class NoService(Exception):  # noqa: N818 - the service has said why
    """The service did not start."""


def say(text: str) -> None:
    """Print a heading for the next step."""
    console.print(Rule(text, align="left", style="bold"))


def make_rootfs() -> None:
    """Assemble a root filesystem from the machine's static busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("the demo needs busybox: apt-get install -y busybox-static")
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (ROOTFS / name).mkdir(parents=True)
    shutil.copy2(busybox, ROOTFS / "bin" / "busybox")
    for applet in ("sh", "echo", "sleep", "true", "cat", "ls", "hostname", "id", "ps"):
        (ROOTFS / "bin" / applet).symlink_to("busybox")


def start_service(root: Path = ROOT, engine: str = "auto") -> "subprocess.Popen[str]":
    """Start the service and wait for its ready line."""
    service = subprocess.Popen(
        [sys.executable, "-m", "manager.cli", "serve", "--root", str(root), "--engine", engine],
        stdout=subprocess.PIPE,
        text=True,
    )
    stdout = service.stdout
    line = stdout.readline().strip() if stdout is not None else ""
    if not line.startswith("ready"):
        service.wait()
        raise NoService
    console.print(f"  pid {service.pid}: {line}")
    return service


def sh(script: str) -> dict[str, object]:
    """Describe a container that runs a shell script."""
    return default_spec(args=["/bin/sh", "-c", script], hostname="demo")


class Donor:
    """Opens what a start needs and lends it: the rootfs by descriptor, output into a pipe."""

    def __init__(self) -> None:
        self.rootfs = os.open(ROOTFS, os.O_PATH | os.O_DIRECTORY)
        self.null = os.open(os.devnull, os.O_RDONLY)
        self.output, self.out = os.pipe()
        os.set_blocking(self.output, False)

    def donation(self) -> Donation:
        """One start's descriptors."""
        layer = Layer(source=self.rootfs, upper="memory", size="16m")
        return Donation(rootfs=layer, stdio=(self.null, self.out, self.out))

    def show(self) -> None:
        """Print what the containers have written into the pipe since the last time."""
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self.output, 65536).decode().splitlines():
                console.print(f"  │ {line}", style="green")


async def main() -> None:
    """Run the whole story."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    make_rootfs()
    say("1. a service that starts containers from donated descriptors")
    service = start_service()
    manager = connect(ROOT / "control.sock")
    donor = Donor()
    try:
        service = await story(manager, donor, service)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()
    if shutil.which("runsc"):
        await survive(donor)
    await print_trail()


async def story(
    manager: ManagerClient, donor: Donor, service: "subprocess.Popen[str]"
) -> "subprocess.Popen[str]":
    """Start, refuse, kill, find again. Returns the service that runs at the end."""
    say("2. a sandbox: its root container, and two more that share its network and host name")
    root = sh('echo "root: host $(hostname), fds: $(ls /proc/self/fd | xargs)"; sleep 600')
    sandbox = await manager.create_sandbox(SANDBOX, root, donor.donation())
    await sandbox.start_root()
    await run(sandbox, "hello", 'echo "hello: pid $$, uid $(id -u), host $(hostname)"', donor)
    donor.show()

    say("3. an exit status")
    ended = await run(sandbox, "three", 'echo "three: leaving with 3"; exit 3', donor)
    donor.show()
    console.print(f"  wait says: {ended}")

    say("4. a start that is refused: the text that the caller gets is the text on record")
    try:
        await sandbox.start_subcontainer("never-created", sh("true"), donor.donation())
    except CallRefused as refused:
        console.print(f"  {refused}", style="yellow")

    say("5. SIGKILL to the service while a container runs")
    await sandbox.create_subcontainer("survivor")
    await sandbox.start_subcontainer("survivor", sh(LIVES_ON), donor.donation())
    service.kill()
    service.wait()
    pid = await survivor_pid()
    alive = os.path.exists(f"/proc/{pid}")
    console.print(
        f"  the service is gone; the container, pid {pid}, is {'alive' if alive else 'gone'}"
    )
    service = start_service()
    donor.show()
    console.print(f"  wait, asked of the new service, says: {await sandbox.wait('survivor')}")
    await manager.sandbox(SANDBOX).delete(force=True)
    return service


async def survive(donor: Donor) -> None:
    """Save a counter that runs in gVisor, and let it go on in another sandbox."""
    say("6. a counter that is saved, ended, and goes on where it stopped (engine runsc)")
    try:
        service = start_service(GVISOR, "runsc")
    except NoService:
        console.print("  left out: this runsc does not work on this machine", style="yellow")
        return
    manager = connect(GVISOR / "control.sock")
    counter = sh('n=0; while :; do n=$((n+1)); echo "counter: $n"; sleep 0.2; done')
    try:
        before = await manager.create_sandbox("before", counter, donor.donation())
        await before.start_root()
        await anyio.sleep(0.7)
        with (GVISOR / "image").open("wb") as image:
            await before.checkpoint(image)
        donor.show()
        console.print(f"  {image.name}: {os.stat(image.name).st_size} bytes, and nothing runs")
        after = await manager.create_sandbox("after", counter, donor.donation())
        with (GVISOR / "image").open("rb") as image:
            await after.restore(image)
        await anyio.sleep(0.5)
        donor.show()
        await after.delete(force=True)
    except CallRefused as refused:
        console.print(f"  {refused}", style="yellow")
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


async def run(sandbox: SandboxClient, cid: str, script: str, donor: Donor) -> object:
    """Create, start and wait for a subcontainer."""
    await sandbox.create_subcontainer(cid)
    await sandbox.start_subcontainer(cid, sh(script), donor.donation())
    return await sandbox.wait(cid)


async def survivor_pid() -> int:
    """The container's pid, as the log has it."""
    async with open_log(ROOT / "events.db", read_only=True) as log:
        async for record in log.read(STREAM_PREFIX + SANDBOX):
            data = msgspec.json.decode(record.data)
            if record.type == "container.started" and data["container"] == "survivor":
                return int(data["launched"]["pid"])
    sys.exit("the log does not know the container: that is a bug")


async def print_trail() -> None:
    """Show the log as a table, and the state that replaying it gives."""
    say("7. the trail")
    await anyio.run_process(
        [sys.executable, "-m", "manager.cli", "log", "--root", str(ROOT)], stdout=None
    )
    say("8. the state, rebuilt from the log alone")
    async with open_log(ROOT / "events.db", read_only=True) as log:
        events = [
            decode_event(record.type, record.data)
            async for record in log.read(STREAM_PREFIX + SANDBOX)
        ]
    state = fold(events)
    console.print(f"  sandbox {state.id}: {state.phase}")
    for container in state.containers.values():
        console.print(f"  {container.cid}: {container.status}, {container.exit}")
    console.print(f"\nThe log is {ROOT / 'events.db'}: any sqlite3 shell can read it.")


if __name__ == "__main__":
    try:
        anyio.run(main)
    except NoService:
        sys.exit("the service did not start; `sandtrail doctor` tells what is missing")
