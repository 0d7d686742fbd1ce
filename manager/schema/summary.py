"""What is shown of a sandbox: one shape for what lives now and for what the log tells of."""

from typing import Any

import msgspec

from manager.domain.state import Sandbox


def summary(sandbox: Sandbox, *, destroyed: bool = False) -> dict[str, Any]:
    """One line of a list: the sandbox, its engine, and the status of each container.

    Containers that were ``destroyed`` are among them only if asked for.
    """
    root = sandbox.containers.get(sandbox.id)
    return {
        "ID": sandbox.id,
        "State": sandbox.phase,
        "Engine": root.intent.engine if root is not None and root.intent is not None else "",
        "Containers": [
            {
                "CID": found.cid,
                "Status": found.status,
                "PID": found.launched.pid if found.launched is not None else 0,
                "StartedAtNs": found.launched.started_at_ns if found.launched is not None else 0,
                "ExitedAtNs": found.exited_at_ns or 0,
                "Exit": msgspec.to_builtins(found.exit),
                "Args0": found.intent.executable if found.intent is not None else "",
            }
            for found in sandbox.containers.values()
            if destroyed or found.exists
        ],
    }


def inspection(sandbox: Sandbox) -> dict[str, Any]:
    """Everything that is known of a sandbox, as JSON has it."""
    shown: dict[str, Any] = msgspec.to_builtins(sandbox)
    return shown
