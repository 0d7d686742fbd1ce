"""What may be wrong with the process of a spec, in gVisor's words where it has any.

Every rule returns the text of the refusal, or an empty string. Source of names: capabilities(7),
getrlimit(2), OCI runtime-spec config.md.
"""

from collections.abc import Collection
from typing import Final

from manager.domain.gotext import quote
from manager.domain.request import Permit
from manager.domain.spec import Process, Spec

SPEC_BYTES_MAX: Final = 8 * 1024 * 1024
"""Size of a spec; the log keeps every one, so it cannot be without bound."""

CAPABILITIES: Final = frozenset(
    "CAP_" + name
    for name in (
        "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN "
        "DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE "
        "MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON "
        "SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE "
        "SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"
    ).split()
)
RLIMITS: Final = frozenset(
    "RLIMIT_" + name
    for name in (
        "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME "
        "SIGPENDING STACK"
    ).split()
)

NO_ID: Final = 2**32 - 1
"""The id of nobody: setresuid(2) and setresgid(2) take it for "as it is", which is root's."""

SANDBOX_NAMESPACES: Final = {"network": "net", "ipc": "ipc", "uts": "uts"}
"""Type in the spec -> name under /proc/PID/ns, of those that all containers of a sandbox share."""
_SHARED_NAMESPACES: Final = frozenset({"pid", *SANDBOX_NAMESPACES})
"""Types whose path is never followed: the sandbox decides what is joined."""


def check_credentials(process: Process) -> str:
    """Refuse names that are no capability."""
    names = process.capabilities.names() if process.capabilities is not None else ()
    return "" if CAPABILITIES.issuperset(names) else "getting root credentials"


def check_ids(uid: int, gid: int, additional_gids: Collection[int]) -> str:
    """Refuse the id that is none: whoever is to run as it would run as whom the engine runs."""
    if uid == NO_ID:
        return f"uid {NO_ID} is no user: the kernel takes it for no change"
    if NO_ID in {gid, *additional_gids}:
        return f"gid {NO_ID} is no group: the kernel takes it for no change"
    return ""


def check_user(process: Process) -> str:
    """Refuse users and groups that nobody can be."""
    user = process.user
    error = check_ids(user.uid, user.gid, user.additional_gids or ())
    return f"creating new process: {error}" if error else ""


def check_limits(process: Process) -> str:
    """Refuse names that are no resource limit."""
    for limit in process.rlimits or ():
        if limit.type not in RLIMITS:
            return f"creating new process: creating limits: unknown resource {quote(limit.type)}"
    return ""


def check_env(process: Process) -> str:
    """Refuse environment entries that are not ``NAME=value``."""
    for entry in process.env or ():
        if "=" not in entry:
            return f"creating new process: resolving env: invalid variable: {entry}"
        if "\0" in entry:
            name = entry.partition("=")[0]
            return (
                "creating new process: resolving env: "
                f"variable {quote(name)} holds a NUL, which no environment can carry"
            )
    return ""


def check_args(process: Process) -> str:
    """Refuse a process without a program, or with a NUL in an argument or the directory."""
    if not process.args:
        return "creating new process: process args must name a program"
    if any("\0" in arg for arg in process.args):
        return "creating new process: process args hold a NUL, which no argument can carry"
    if process.cwd and not process.cwd.startswith("/"):
        return f"creating new process: process cwd must be absolute, but is {quote(process.cwd)}"
    if "\0" in process.cwd:
        return "creating new process: process cwd holds a NUL"
    return ""


def check_host_reach(spec: Spec, permits: Collection[Permit]) -> str:
    """Refuse what would reach the host: hooks, and namespaces and a socket named by a path."""
    if spec.has_hooks and "hooks" not in permits:
        return (
            "OCI hooks are not permitted: they would run on the host; start the service with "
            "--permit hooks to run them"
        )
    for namespace in (spec.linux.namespaces if spec.linux else None) or ():
        if namespace.path and namespace.type not in _SHARED_NAMESPACES:
            return (
                f"joining the {namespace.type} namespace {quote(namespace.path)} is not supported "
                "by sandtrail: a path may lead out of the sandbox"
            )
    seccomp = spec.linux.seccomp if spec.linux else None
    listener = seccomp.get("listenerPath") if isinstance(seccomp, dict) else None
    if listener:
        return (
            f"seccomp listenerPath {quote(str(listener))} is not supported by sandtrail: it names "
            "a socket of the host"
        )
    return ""


def executable(spec: Spec) -> str:
    """The program that the spec asks for, as written."""
    args = spec.process.args if spec.process is not None else None
    return args[0] if args else ""


def search_path(spec: Spec) -> tuple[str, ...]:
    """The directories of PATH in the process's environment; the last PATH wins."""
    entries = (spec.process.env if spec.process is not None else None) or ()
    for entry in reversed(entries):
        name, _, value = entry.partition("=")
        if name == "PATH":
            return tuple(value.split(":"))
    return ()


def container_name(spec: Spec) -> str:
    """The name that a checkpoint knows a container by; empty when the spec gives none.

    A remap annotation whose value is ``NAME=NEW`` renames it.
    """
    annotations = spec.annotations or {}
    name = annotations.get("io.kubernetes.cri.container-name", "")
    for key, value in annotations.items():
        if name and key.startswith("dev.gvisor.container-name-remap."):
            old, separator, new = value.partition("=")
            if separator and old == name and "=" not in new:
                return new
    return name
