"""Words to the service manager that started us, if one wants to hear them.

Source: sd_notify(3): one datagram of `NAME=value` lines to the unix socket `$NOTIFY_SOCKET`, whose
    first character may be `@` for an abstract name.
"""

import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Final

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"

logger = logging.getLogger(__name__)


class ServiceManager:
    """The service manager's socket.

    Args:
        environment: Where its address is; it is taken out, so that no child speaks for us.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        self._address = (os.environ if environment is None else environment).pop(
            SOCKET_VARIABLE, ""
        )

    def tell(self, *assignments: str) -> bool:
        """Send assignments, such as :data:`READY`; returns whether anybody was told.

        Nobody to tell, or one who cannot be told, is no trouble of the service's. Never blocks.
        """
        if not self._address:
            return False
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as sock:
                sock.connect(name)
                sock.send("\n".join(assignments).encode())
        except OSError as error:
            logger.warning("service_manager.not_told reason=%s", error)
            return False
        return True
