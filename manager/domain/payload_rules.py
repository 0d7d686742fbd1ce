"""Give every donated descriptor its part, or say why that cannot be.

Where gVisor has a text for the trouble it is gVisor's; where gVisor would crash (a short list, a
negative count, a left-over descriptor) the text names the numbers. Source of the order:
gVisor's StartArgs, see :mod:`manager.domain.payload`.
"""

from typing import Final

from manager.domain.gotext import quote, slice_text
from manager.domain.payload import LaunchPlan, LayerPlan, Lower, MountPlan
from manager.domain.request import LOWERS, UPPERS, FdFact, GoferMountConf, StartRequest
from manager.domain.spec import Spec

STDIO: Final = ("stdin", "stdout", "stderr")

_SETUP: Final = "failed to setupFS: creating mount namespace: "
_SUBMOUNTS: Final = "failed to setupFS: mounting submounts: "
_ROOTFS: Final = "the rootfs"
_KIND_WORDS: Final = {
    "null": "/dev/null",
    "regular": "a regular file",
    "symlink": "a symbolic link",
    "unconnected-socket": "an unconnected socket",
    "anonymous": "an anonymous descriptor",
    "pseudo-filesystem": "a file of a pseudo filesystem",
}
_STDIO_KINDS: Final = frozenset({"fifo", "socket", "terminal", "null", "regular"})
_SIZE_SUFFIXES: Final = frozenset("kKmMgGtTpPeE%")


def uses_terminal(spec: Spec) -> bool:
    """Whether the process runs on a terminal that was donated when it was created."""
    return spec.process is not None and spec.process.terminal


def check_counts(request: StartRequest, spec: Spec) -> str:
    """Refuse a list of descriptors that is too short for its own flags."""
    return count_error(request, spec, "start")


def count_error(request: StartRequest, spec: Spec, doing: str) -> str:
    """The same for whatever the arguments are for: ``start`` or ``restore``."""
    filestores, got = request.num_gofer_filestore_fds, len(request.files)
    if filestores < 0:
        return f"{doing} arguments must contain 0 or more gofer filestore FDs, but say {filestores}"
    wanted = 1 + _leading(request, spec)
    if got < wanted:
        return f"{doing} arguments must contain at least {wanted} FDs, but only got {got}"
    return ""


def _leading(request: StartRequest, spec: Spec) -> int:
    """How many descriptors come before those of the root filesystem and the mounts."""
    return (
        (0 if uses_terminal(spec) else len(STDIO))
        + request.num_gofer_filestore_fds
        + request.is_dev_io_file_present
        + request.is_rootfs_upper_tar_file_present
    )


def check_stdio(request: StartRequest, spec: Spec) -> str:
    """Refuse a standard stream through which a container could reach the host."""
    if uses_terminal(spec):
        return ""
    for name, fact in zip(STDIO, request.files, strict=False):
        if error := stream_error(name, fact):
            return f"importing fds: {error}"
    return ""


def stream_error(name: str, fact: FdFact) -> str:
    """Refuse what cannot be a process's open file; ``name`` says which, and what it is for."""
    if fact.access == "path" or fact.kind not in _STDIO_KINDS:
        kind = "an O_PATH descriptor" if fact.access == "path" else a_kind(fact)
        return (
            f"{name} must be a pipe, a connected socket, a terminal, /dev/null or a regular file, "
            f"but is {kind}"
        )
    wanted = {"stdin": "r", "stdout": "w", "stderr": "w"}.get(name, "")
    if wanted not in fact.access:
        direction = "reading" if wanted == "r" else "writing"
        return f"{name} must be open for {direction}, but its access mode is {fact.access}"
    return ""


def a_kind(fact: FdFact) -> str:
    """Name the kind of a descriptor in a sentence: ``a directory``, ``an unconnected socket``."""
    return _KIND_WORDS.get(fact.kind) or "a " + fact.kind.replace("-", " ")


def tty_error(fact: FdFact) -> str:
    """Refuse what cannot be a process's controlling terminal."""
    if fact.kind != "terminal":
        return f"TTY file must be a terminal, but is {a_kind(fact)}"
    if fact.access != "rw":
        return (
            f"TTY file must be open for reading and writing, but its access mode is {fact.access}"
        )
    return ""


def plan_payload(request: StartRequest, spec: Spec) -> LaunchPlan | str:
    """Assign every descriptor.

    Expects :func:`check_counts` to have passed. Returns the plan, or the text of the refusal.
    """
    splitter = _Splitter(request, spec)
    plan = splitter.plan()
    return splitter.error or plan


class _Splitter:
    """Walks the list once, front to back; the first trouble stays in ``error``."""

    def __init__(self, request: StartRequest, spec: Spec) -> None:
        self.error = ""
        self._request = request
        self._spec = spec
        self._stdio = None if uses_terminal(spec) else (0, 1, 2)
        first = 0 if self._stdio is None else len(STDIO)
        filestores_end = first + request.num_gofer_filestore_fds
        self._filestores = list(range(first, filestores_end))
        after = filestores_end
        self._dev = after if request.is_dev_io_file_present else None
        after += request.is_dev_io_file_present
        self._tar = after if request.is_rootfs_upper_tar_file_present else None
        after += request.is_rootfs_upper_tar_file_present
        self._gofers = list(range(after, len(request.files)))

    def plan(self) -> LaunchPlan:
        mounts = self._spec.configured_mounts
        confs = self._request.gofer_mount_confs or (GoferMountConf(),) * (1 + len(mounts))
        root = self._root(confs[0])
        self._check_tar(confs[0])
        if len(confs) != 1 + len(mounts):
            self._refuse(
                f"{_SUBMOUNTS}GoferMountConfs must have one entry for the rootfs and one for each "
                f"of the {len(mounts)} bind and EROFS mounts, but has {len(confs)}"
            )
        planned = tuple(
            MountPlan(
                destination=mount.destination,
                layer=self._layer(
                    conf, _SUBMOUNTS, quote(mount.destination), "ro" in (mount.options or ())
                ),
                options=mount.options or (),
            )
            for mount, conf in zip(mounts, confs[1:], strict=False)
        )
        self._check_destinations()
        self._check_leftovers()
        self._check_dev()
        return LaunchPlan(
            stdio=self._stdio,
            root=root,
            mounts=planned,
            dev_fd=self._dev,
            upper_tar_fd=self._tar,
        )

    def _refuse(self, text: str) -> None:
        self.error = self.error or text

    def _root(self, conf: GoferMountConf) -> LayerPlan:
        if conf.lower == 0:
            self._refuse(f"{_SETUP}unsupported rootfs config: {conf.text}")
        readonly = self._spec.root is not None and self._spec.root.readonly
        return self._layer(conf, _SETUP, _ROOTFS, readonly)

    def _layer(self, conf: GoferMountConf, prefix: str, what: str, readonly: bool) -> LayerPlan:
        in_range = 0 <= conf.lower < len(LOWERS) and 0 <= conf.upper < len(UPPERS)
        if not in_range or (conf.lower == 0 and conf.upper == 0):
            self._refuse(f"{prefix}invalid gofer mount config: {quote(conf.text)}")
            return LayerPlan(lower="none")
        if not _is_size(conf.size):
            self._refuse(
                f"{prefix}invalid gofer mount config: {quote(conf.text)}: a size is digits with "
                "one of k m g t p e % behind them"
            )
        lower = LOWERS[conf.lower]
        upper = UPPERS[conf.upper]
        lower_fd = self._take(self._gofers, "gofer FDs", prefix, what) if conf.lower else None
        filestore_fd = (
            self._take(self._filestores, "gofer filestore FDs", prefix, what)
            if upper in {"self", "anon"}
            else None
        )
        if lower_fd is not None:
            self._check_lower(lower_fd, lower, prefix, what)
        if filestore_fd is not None and not _is_directory(self._request.files[filestore_fd]):
            kind = a_kind(self._request.files[filestore_fd])
            self._refuse(f"{prefix}filestore of {what} must be a directory, but is {kind}")
        return LayerPlan(
            lower=lower,
            lower_fd=lower_fd,
            upper=upper,
            filestore_fd=filestore_fd,
            size=conf.size,
            readonly=readonly,
        )

    def _take(self, pool: list[int], name: str, prefix: str, what: str) -> int | None:
        if pool:
            return pool.pop(0)
        self._refuse(f"{prefix}too few {name}: none is left for {what}")
        return None

    def _check_lower(self, index: int, lower: Lower, prefix: str, what: str) -> None:
        fact = self._request.files[index]
        if lower == "erofs":
            if fact.kind != "regular" or "r" not in fact.access:
                self._refuse(
                    f"{prefix}{what} must be a readable regular file with an EROFS image, "
                    f"but is {a_kind(fact)}"
                )
            return
        may_be_file = what != _ROOTFS
        if not _is_directory(fact) and not (may_be_file and fact.kind == "regular"):
            hint = " (a gofer connection is of no use on a host kernel)" * (fact.kind == "socket")
            wanted = "a directory or regular file" if may_be_file else "a directory"
            self._refuse(f"{prefix}{what} must be {wanted}, but is {a_kind(fact)}{hint}")

    def _check_destinations(self) -> None:
        for mount in self._spec.mounts or ():
            path = mount.destination
            if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
                self._refuse(
                    f"{_SUBMOUNTS}mount destination {quote(path)} must be an absolute path "
                    'without ".."'
                )
            elif path.strip("/") == "":
                self._refuse(f"{_SUBMOUNTS}mount destination {quote(path)} is the rootfs itself")

    def _check_leftovers(self) -> None:
        if self._gofers:
            self._refuse(
                f"{_SUBMOUNTS}not all gofer FDs were consumed, remaining: "
                f"{slice_text(self._gofers)}"
            )
        if self._filestores:
            self._refuse(
                f"{_SUBMOUNTS}not all gofer Filestore FDs were consumed, remaining: "
                f"{slice_text(self._filestores)}"
            )

    def _check_dev(self) -> None:
        files = self._request.files
        if self._dev is not None and not _is_directory(files[self._dev]):
            self._refuse(f"{_SUBMOUNTS}/dev must be a directory, but is {a_kind(files[self._dev])}")

    def _check_tar(self, root: GoferMountConf) -> None:
        if self._tar is None:
            return
        if root.upper == 0:
            self._refuse(
                f"{_SETUP}rootfs-upper-tar-fd is set when overlay is disabled for rootfs: "
                f"rootfsConf={root.text}"
            )
        tar = self._request.files[self._tar]
        if tar.kind not in {"regular", "fifo"} or "r" not in tar.access:
            self._refuse(
                f"{_SETUP}rootfs upper tar must be a readable regular file or pipe, "
                f"but is {a_kind(tar)}"
            )


def _is_directory(fact: FdFact) -> bool:
    return fact.kind == "directory"


def _is_size(text: str) -> bool:
    digits = text[:-1] if text and text[-1] in _SIZE_SUFFIXES else text
    return not text or (digits.isascii() and digits.isdigit())
