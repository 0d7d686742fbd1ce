"""The parts of an OCI runtime spec that decisions depend on.

A spec reaches an engine as the client wrote it (with the changes that the worker must make); these
types are only the window through which the rules look at it. Unknown members are ignored.
Source: opencontainers/runtime-spec, config.md and config-linux.md, v1.2.
"""

from typing import Final

from msgspec import Struct, convert, json

BIND_OPTIONS: Final = frozenset({"bind", "rbind"})


class User(Struct, frozen=True, kw_only=True, rename="camel"):
    """Numeric ids in the container's user namespace."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] | None = None


class Rlimit(Struct, frozen=True, kw_only=True, rename="camel"):
    """One POSIX resource limit: ``{"type": "RLIMIT_NOFILE", "soft": …, "hard": …}``."""

    type: str = ""
    soft: int = 0
    hard: int = 0


class Capabilities(Struct, frozen=True, kw_only=True, rename="camel"):
    """Five sets of capability names (``CAP_CHOWN``); ``None`` where the spec is silent."""

    bounding: tuple[str, ...] | None = None
    effective: tuple[str, ...] | None = None
    inheritable: tuple[str, ...] | None = None
    permitted: tuple[str, ...] | None = None
    ambient: tuple[str, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """Every name of every set, in the spec's order, repeats included."""
        sets = (self.bounding, self.effective, self.inheritable, self.permitted, self.ambient)
        return tuple(name for members in sets for name in members or ())


class Process(Struct, frozen=True, kw_only=True, rename="camel"):
    """The container's init."""

    terminal: bool = False
    user: User = User()
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    cwd: str = ""
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] | None = None
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None


class Root(Struct, frozen=True, kw_only=True, rename="camel"):
    """``path`` is never followed: the root filesystem is a donated descriptor."""

    path: str = ""
    readonly: bool = False


class Mount(Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of ``mounts``."""

    destination: str = ""
    type: str = ""
    source: str = ""
    options: tuple[str, ...] | None = None

    @property
    def is_bind(self) -> bool:
        """Whether this is a bind mount with a source, by type or by option."""
        by_option = not BIND_OPTIONS.isdisjoint(self.options or ())
        return bool(self.source) and (self.type == "bind" or by_option)

    @property
    def takes_gofer_conf(self) -> bool:
        """Whether a gofer mount configuration belongs to this mount: binds and EROFS images."""
        return self.is_bind or self.type == "erofs"


class Namespace(Struct, frozen=True, kw_only=True, rename="camel"):
    """``path`` empty: a new namespace of this type."""

    type: str = ""
    path: str = ""


class Linux(Struct, frozen=True, kw_only=True, rename="camel"):
    """Linux-specific configuration; what is only tested for presence has no shape."""

    namespaces: tuple[Namespace, ...] | None = None
    uid_mappings: object = None
    gid_mappings: object = None
    sysctl: dict[str, str] | None = None
    resources: object = None
    devices: object = None
    seccomp: object = None
    intel_rdt: object = None
    personality: object = None
    mount_label: str = ""
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None

    def namespace(self, kind: str) -> Namespace | None:
        """The first entry of that type (``pid``, ``network``, …), if the spec has one."""
        return next((ns for ns in self.namespaces or () if ns.type == kind), None)


class Spec(Struct, frozen=True, kw_only=True, rename="camel"):
    """An OCI runtime spec, as far as sandtrail looks into it."""

    oci_version: str = ""
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] | None = None
    hooks: object = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None

    @property
    def has_hooks(self) -> bool:
        """Whether it names any program that the engine is to run on the host."""
        hooks = self.hooks
        return any(hooks.values()) if isinstance(hooks, dict) else bool(hooks)

    @property
    def configured_mounts(self) -> tuple[Mount, ...]:
        """The mounts that have a gofer mount configuration, in spec order."""
        return tuple(mount for mount in self.mounts or () if mount.takes_gofer_conf)


_decoder = json.Decoder(Spec)


def parse_spec(body: bytes) -> Spec:
    """Read a spec from JSON.

    Raises:
        ValueError: The text is not JSON, or a member has the wrong kind; the message names it.
    """
    try:
        return _decoder.decode(body)
    except RecursionError as error:
        raise ValueError("the spec is nested too deeply") from error


def parse_spec_object(value: object) -> Spec:
    """Read a spec from decoded JSON; raises as :func:`parse_spec` does."""
    return convert(value, Spec)
