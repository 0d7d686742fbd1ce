"""A worker of an ordinary user: root of a user namespace, where it mounts and launches."""

import contextlib
from pathlib import Path

from manager.kernel import pidfd
from manager.kernel.user_namespace import enter_new_user_namespace, enter_user_namespace_of
from manager.worker.adoption import open_same_process
from manager.worker.records import Records


def become_root(launches: Path) -> None:
    """Enter a user namespace: that of the containers that still run, so that they are ours; or new.

    Args:
        launches: Directory of the records of a former worker's launches.

    Raises:
        OSError: This machine lets ordinary users have none.
    """
    boot_id = pidfd.boot_id()
    for record in Records(launches, boot_id).read():
        handle = record.identity and open_same_process(record.identity, boot_id)
        if not handle:
            continue
        with handle, contextlib.suppress(OSError):
            enter_user_namespace_of(record.identity.pid if record.identity else 0)
            return
    enter_new_user_namespace()
