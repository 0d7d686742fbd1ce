"""A start as it was asked for, and what is known about each donated descriptor.

These values are recorded in events as they stand, so that any decision can be taken again from the
log alone: the spec by its digest, its env values masked, and the rest in full.
"""

from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from manager.domain.payload import Lower, Upper

FdKind: TypeAlias = Literal[
    "fifo",
    "socket",
    "unconnected-socket",
    "terminal",
    "null",
    "character-device",
    "block-device",
    "regular",
    "directory",
    "symlink",
    "namespace",
    "anonymous",
    "pseudo-filesystem",
]
FdAccess: TypeAlias = Literal["r", "w", "rw", "path"]
ConfValue: TypeAlias = bool | int | str | None

CONF_FIELDS: Final = (
    "OCISeccomp",
    "EnableRaw",
    "TPUProxy",
    "NVProxyDocker",
    "MountCgroupV2",
    "FileAccess",
    "FileAccessMounts",
    "DirectFS",
    "HostFifo",
    "CharacterDevicePolicy",
    "DCache",
    "GVisorMarkerFile",
    "OverrideProcs",
    "Network",
    "RestoreSpecValidation",
)
"""The members of a Conf that bear on a container, and are therefore recorded."""

LOWERS: Final[tuple[Lower, ...]] = ("none", "lisafs", "erofs")
UPPERS: Final[tuple[Upper, ...]] = ("none", "memory", "self", "anon")


class FdFact(Struct, frozen=True, kw_only=True):
    """What fstat(2) and fcntl(2) said of a donated descriptor when it arrived."""

    kind: FdKind
    access: FdAccess
    device: int
    inode: int


class GoferMountConf(Struct, frozen=True, kw_only=True):
    """How one file tree is layered: numbers as on gVisor's wire, valid or not."""

    lower: int = 1
    upper: int = 0
    size: str = ""

    @property
    def text(self) -> str:
        """As gVisor prints it: ``lisafs:memory:size=10M``; unknown numbers stand as numbers."""
        lower = LOWERS[self.lower] if 0 <= self.lower < len(LOWERS) else str(self.lower)
        upper = UPPERS[self.upper] if 0 <= self.upper < len(UPPERS) else str(self.upper)
        return f"{lower}:{upper}" + (f":size={self.size}" if self.size else "")


Permit: TypeAlias = Literal["hooks", "namespace-paths"]
"""What reaches the host, and is refused unless the service was started to permit it.

``hooks``: programs of the host that a spec names are run there by the engine. ``namespace-paths``:
a container joins the network, IPC or UTS namespace at a path of the host.
"""

PERMITS: Final[tuple[Permit, ...]] = get_args(Permit)


class StartRequest(Struct, frozen=True, kw_only=True):
    """The arguments of a start, without the spec's body.

    ``spec_digest`` names the recorded body (env values masked) and is empty when the call had no
    spec; ``spec_bytes`` is the size of the body as received. ``conf`` is ``None`` when the call had
    none. ``files`` are the donated descriptors in the order of the call. ``host_paths`` is not
    empty when a client donated connections to a gofer and was allowed to: the last of ``files``
    were then opened at these paths of the spec instead, in this order. ``ignore_namespace_paths``
    is the service's permission to run a spec whose network, IPC or UTS namespace is named by a
    path: the path is not followed, the sandbox's own is used. ``permits`` is what else the service
    was started to permit.
    """

    cid: str
    spec_digest: str = ""
    spec_bytes: int = 0
    conf: dict[str, ConfValue] | None = None
    num_gofer_filestore_fds: int = 0
    is_dev_io_file_present: bool = False
    is_rootfs_upper_tar_file_present: bool = False
    gofer_mount_confs: tuple[GoferMountConf, ...] = ()
    files: tuple[FdFact, ...] = ()
    host_paths: tuple[str, ...] = ()
    ignore_namespace_paths: bool = False
    permits: tuple[Permit, ...] = ()
    request_id: str = ""


class EngineFacts(Struct, frozen=True, kw_only=True):
    """The engine that a start would use, as probed on this machine.

    ``why_not`` has the reason for some of the features that it ``lacks``.
    """

    name: str
    version: str = ""
    lacks: tuple[str, ...] = ()
    why_not: dict[str, str] = {}

    def refusal(self, *features: str) -> str:
        """The text by which a call is refused that needs features which the engine lacks."""
        reasons = [self.why_not[each] for each in features if each in self.why_not]
        text = f"engine {self.name} does not support {', '.join(features)}"
        return f"{text}: {'; '.join(reasons)}" if reasons else text
