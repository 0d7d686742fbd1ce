"""The arguments of a start, as any door (urpc, Python) hands them in."""

from typing import Any

from msgspec import Struct

from manager.application.spec_body import SpecObject
from manager.domain.request import CONF_FIELDS, ConfValue, GoferMountConf


class StartArguments(Struct, frozen=True, kw_only=True):
    """What a start or a create says, beside its descriptors.

    ``spec`` is the OCI spec as decoded JSON; ``None`` for a call without one, as is ``conf``.
    ``host_paths`` as in :class:`manager.domain.request.StartRequest`.
    """

    cid: str
    spec: SpecObject | None
    conf: dict[str, Any] | None
    num_gofer_filestore_fds: int = 0
    is_dev_io_file_present: bool = False
    is_rootfs_upper_tar_file_present: bool = False
    gofer_mount_confs: tuple[GoferMountConf, ...] = ()
    request_id: str = ""
    host_paths: tuple[str, ...] = ()

    @property
    def recorded_conf(self) -> dict[str, ConfValue] | None:
        """The members of the configuration that bear on a container."""
        if self.conf is None:
            return None
        return {
            name: value
            for name in CONF_FIELDS
            if isinstance(value := self.conf.get(name), (bool, int, str))
        }


def from_wire(argument: dict[str, Any], cid: str) -> StartArguments:
    """Read a decoded StartArgs (see ``manager.urpc.gotypes``)."""
    confs = argument["GoferMountConfs"] or ()
    return StartArguments(
        cid=cid,
        spec=argument["Spec"],
        conf=argument["Conf"],
        num_gofer_filestore_fds=argument["NumGoferFilestoreFDs"],
        is_dev_io_file_present=argument["IsDevIoFilePresent"],
        is_rootfs_upper_tar_file_present=argument["IsRootfsUpperTarFilePresent"],
        gofer_mount_confs=tuple(
            GoferMountConf(lower=conf["lower"], upper=conf["upper"], size=conf["size"])
            for conf in confs
        ),
        request_id=argument["RequestID"],
    )
