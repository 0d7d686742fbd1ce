"""The domain name of a sandbox: no engine is asked for it, since not every version of each can."""

from manager.kernel.namespaces import set_domain_name
from manager.worker.engine import Job, Running
from manager.worker.errors import LaunchFailed


def name_domain(job: Job, running: Running) -> None:
    """Give a root container's UTS namespace the domain name of its spec, before its code runs.

    A subcontainer finds that of its sandbox, and leaves it so.

    Raises:
        LaunchFailed: Stage `create`.
    """
    name = job.spec.domainname
    uts = running.namespaces.get("uts")
    if not name or "uts" in job.namespaces or uts is None:  # None: init has ended meanwhile
        return
    try:
        set_domain_name(uts.number, name)
    except OSError as error:
        raise LaunchFailed.from_os("create", f"cannot set domainname to {name!r}", error) from error
