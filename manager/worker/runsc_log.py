"""What `runsc exec` writes of the end of the process that it made. Pure.

Its exit code is one byte, in which `exit(137)` and SIGKILL are the same; its log has the raw wait
status, as the sandbox's kernel told it::

    I1128 09:24:50.686271    9171 main.go:266] Exiting with status: 35072
"""

import re
from typing import Final

_ENDED: Final = r"^I\d+ \S+ +{pid} \S+\] Exiting with status: (\d+)$"


def told_status(log: str, pid: int) -> int | None:
    """The raw wait status that a process told, of several that wrote to the log.

    Args:
        log: Its log, in the format `text`.
        pid: Whose word counts: `runsc exec --detach` says how it has itself ended, too.

    Returns:
        `None` if it did not live to tell.
    """
    found = re.search(_ENDED.format(pid=pid), log, re.MULTILINE)
    return int(found[1]) if found else None
