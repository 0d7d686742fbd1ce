"""An OCI spec for those who only want to run a program."""

from collections.abc import Sequence
from typing import Any, Final

OCI_VERSION: Final = "1.0.2"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES: Final = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What common engines grant by default, less CAP_NET_RAW."""

_NODEV: Final = ("nosuid", "noexec", "nodev")


def default_spec(
    *,
    args: Sequence[str],
    env: Sequence[str] = (),
    cwd: str = "/",
    hostname: str = "",
    readonly: bool = False,
    binds: Sequence[dict[str, Any]] = (),
    terminal: bool = False,
) -> dict[str, Any]:
    """Describe a container with new namespaces and the usual mounts.

    Args:
        args: The program and its arguments.
        env: ``NAME=value``, after a PATH of the usual directories.
        cwd: Where the program starts.
        hostname: Empty for the engine's default.
        readonly: Whether the root filesystem cannot be written.
        binds: Mounts made by :func:`bind_mount`; each needs a donated descriptor, in this order.
        terminal: Whether the program gets a donated terminal.
    """
    granted = list(DEFAULT_CAPABILITIES)
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": [f"PATH={DEFAULT_PATH}", *env],
            "cwd": cwd,
            "capabilities": {
                "bounding": granted,
                "effective": granted,
                "permitted": granted,
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": readonly},
        "hostname": hostname,
        "mounts": [*_usual_mounts(), *binds],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        },
    }


def bind_mount(source: str, destination: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """A bind mount; ``source`` is only a note for the reader of the log, never followed."""
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", *options],
    }


def _usual_mounts() -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": list(_NODEV)},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*_NODEV, "mode=1777", "size=65536k"],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": [*_NODEV, "ro"],
        },
    ]
