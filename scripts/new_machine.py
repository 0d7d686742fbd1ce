"""A machine that nobody has used yet, made of Debian's packages, and what the commands say there.

Builds a root file system, boots it in an emulator (on its own kernel, with control groups as that
Debian has them), clones what is committed here, runs commands of the project in it, and cuts its
power a few times while its service is at work. Needs mmdebstrap, qemu-system-x86 and a network;
emulated processors, as many as this process may use, are some eight times as slow as real ones.
Usage, as root::

    python scripts/new_machine.py [--suite bookworm] [--cuts 5] [COMMAND ...]
"""

import argparse
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PLACE = REPOSITORY / ".machine"
KERNELS = {
    "bookworm": "linux-image-cloud-amd64",
    "trixie": "linux-image-cloud-amd64/trixie-backports",
}
"""Debian release -> its kernel; the second is newer than 6.15 and tells statuses by pidfd."""

PACKAGES = (
    "systemd-sysv,dbus,udev,openssh-server,ca-certificates,initramfs-tools,procps,"
    "git,make,python3,python3-venv"
)
COMMANDS = (
    "make demo",
    "SANDTRAIL_SEEDS=40 SANDTRAIL_IMAGES=50 SANDTRAIL_KILLS_AT_RANDOM=40 make promises",
    "make compare ROUNDS=1",
)
BOOT_S = 300
CERTIFICATES = Path("usr/local/share/ca-certificates")
AT_WORK = "systemctl start sandtrail"
"""It is being started when the machine boots: this waits for it."""

CHECKS = (
    "python scripts/power_cut.py look ~/told",
    "sandtrail audit verify --root /var/lib/sandtrail",
    "sandtrail replay check --root /var/lib/sandtrail",
    "sandtrail audit reconcile --root /var/lib/sandtrail",
)


class Machine:
    """One of them: a disk, a kernel, and the process that emulates the rest.

    Args:
        place: Its directory.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._key = place / "key"
        self._disk = place / "disk"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def build(self, suite: str) -> None:
        """Install Debian, anew."""
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(mode=0o700, parents=True)
        root = self._place / "root"
        keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f")
        subprocess.run([*keygen, str(self._key)], check=True)
        source = "deb http://deb.debian.org/debian {} main"
        sources = [source.format(suite), source.format(f"{suite}-backports")]
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"),
                *(f"--include={PACKAGES},{KERNELS[suite]}", suite, str(root), *sources),
            ],
            check=True,
        )
        self._configure(root)
        for name in ("vmlinuz", "initrd.img"):
            [found] = (root / "boot").glob(f"{name}-*")
            shutil.copy(found, self._place / name)
        subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-d", str(root), str(self._disk), "16G"], check=True
        )
        shutil.rmtree(root)

    def _configure(self, root: Path) -> None:
        (root / "etc/hostname").write_text("new-machine\n")
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
        network = root / "etc/systemd/network/ether.network"
        network.write_text("[Match]\nType=ether\n[Network]\nDHCP=yes\n")
        enable = ["systemctl", "--quiet", f"--root={root}", "enable", "systemd-networkd"]
        subprocess.run(enable, check=True)
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self._key.with_suffix(".pub"), root / "root/.ssh/authorized_keys")
        if Path("/", CERTIFICATES).is_dir():
            # The way out of here may be by a proxy that signs for others.
            shutil.copytree(Path("/", CERTIFICATES), root / CERTIFICATES, dirs_exist_ok=True)
            subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True)

    def boot(self) -> None:
        """Switch it on, and wait until it can be talked to."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        processors = len(os.sched_getaffinity(0))
        with (self._place / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *("qemu-system-x86_64", "-nographic", "-no-reboot", "-cpu", "max"),
                    *("-accel", "tcg,thread=multi", "-smp", str(processors), "-m", "4096"),
                    *("-kernel", str(self._place / "vmlinuz")),
                    *("-initrd", str(self._place / "initrd.img")),
                    *("-append", "root=/dev/vda rw console=ttyS0"),
                    *("-drive", f"file={self._disk},format=raw,if=virtio"),
                    *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22"),
                    *("-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        deadline = time.monotonic() + BOOT_S
        while self.run("true", quiet=True):
            if self._process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"it does not boot: see {console.name}")
            time.sleep(1)

    def ssh(self, command: str) -> list[str]:
        """The command here that runs one there."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        return [
            *("ssh", "-p", str(self._port), "-i", str(self._key), "root@127.0.0.1"),
            *(part for option in options for part in ("-o", option)),
            f"cd ~/sandtrail 2>/dev/null; PATH=$PWD/.venv/bin:$PATH; {command}",
        ]

    def run(self, command: str, *, data: bytes | None = None, quiet: bool = False) -> int:
        """Run a command of the shell there, in the clone if there is one; returns its exit code."""
        errors = subprocess.DEVNULL if quiet else None
        return subprocess.run(self.ssh(command), check=False, input=data, stderr=errors).returncode

    def put(self, data: bytes, path: str) -> None:
        """Write a file there."""
        self.run(f"cat > {path}", data=data)

    def cut_power(self) -> None:
        """No signal, no sync: it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def switch_off(self) -> None:
        """As its switch does."""
        assert self._process is not None
        self.run("systemctl poweroff")
        self._process.wait()


def clone(machine: Machine) -> None:
    """Bring what is committed here."""
    bundle = ["git", "-C", str(REPOSITORY), "bundle", "create", "-q", "-", "HEAD"]
    machine.put(subprocess.run(bundle, check=True, capture_output=True).stdout, "~/bundle")
    quiet = "-c init.defaultBranch=main -c advice.detachedHead=false"
    machine.run(f"git {quiet} clone -q ~/bundle ~/sandtrail")


def install(machine: Machine) -> None:
    """Have the machine start the service when it boots."""
    machine.run(
        "ln -sfn $PWD/.venv /opt/sandtrail; cp docs/sandtrail.service /etc/systemd/system/; "
        "systemctl daemon-reload; systemctl enable --now sandtrail"
    )


def work(machine: Machine, name: str, seconds: float) -> bytes:
    """Cut the power amid the service's work; returns what clients had been told."""
    command = machine.ssh(f"python scripts/power_cut.py work {name}")
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert client.stdout is not None
    first = client.stdout.readline()
    if not first:
        sys.exit("the work has not begun: its reason is above")
    time.sleep(seconds)
    machine.cut_power()
    rest, _ = client.communicate()
    whole, _, _ = rest.rpartition(b"\n")
    return first + (whole + b"\n" if whole else b"")


@contextmanager
def booted(machine: Machine) -> Iterator[None]:
    """The machine runs meanwhile."""
    machine.boot()
    try:
        yield
    finally:
        machine.switch_off()


def main() -> int:
    """Say of each command how it ended; 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bookworm", choices=KERNELS, help="Debian's release")
    parser.add_argument("--cuts", type=int, default=5, help="how often the power is cut; 5")
    parser.add_argument("--seed", type=int, default=1, help="for the moments of the cuts")
    parser.add_argument("commands", nargs="*", default=COMMANDS, help="all of them if none is said")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    machine = Machine(PLACE / arguments.suite)
    machine.build(arguments.suite)
    verdicts: list[tuple[str, int, float]] = []

    def judge(command: str) -> None:
        began = time.monotonic()
        print(f"+ {command}", flush=True)
        verdicts.append((command, machine.run(command), time.monotonic() - began))

    with booted(machine):
        clone(machine)
        judge("uname -rv; python3 --version; stat -fc %T /sys/fs/cgroup")
        for command in arguments.commands:
            judge(command)
        install(machine)
    told = b""
    with booted(machine):
        machine.run(AT_WORK)
        for number in range(arguments.cuts):
            told += work(machine, f"cut-{number}", dice.uniform(1, 15))
            machine.boot()
            machine.run(AT_WORK)
            machine.put(told, "~/told")
            for check in CHECKS:
                judge(check)
    for command, code, seconds in verdicts:
        print(f"{'ok' if code == 0 else f'exit {code}':8} {seconds:6.0f} s  {command}")
    return int(any(code for _, code, _ in verdicts))


if __name__ == "__main__":
    sys.exit(main())
