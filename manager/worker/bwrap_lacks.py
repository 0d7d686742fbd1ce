"""What of a spec bubblewrap cannot give."""

from collections.abc import Mapping
from typing import Final

from manager.domain.features import Feature

WHY_NOT: Final[Mapping[Feature, str]] = {"checkpoint": "bubblewrap cannot save processes"}

LACKS: Final[frozenset[Feature]] = frozenset(
    {
        "apparmor",
        "capability-sets",
        "cgroup-mount",
        "checkpoint",
        "devices",
        "hooks",
        "idmapped-mounts",
        "intel-rdt",
        "mount-label",
        "non-root-user",
        "personality",
        "resources-beyond-memory-pids-cpu",
        "rootfs-propagation",
        "seccomp",
        "selinux",
        "sysctl",
        "time-namespace",
        "user-namespace",
        "writable-cgroup-mount",
    }
)
