"""sandtrail's manager; what ``__all__`` names is its door for Python programs.

Each is imported on first use, so that the worker, which is part of this package too, never loads
the log or an event loop.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manager.adapters.client import ManagerClient, SandboxClient, connect
    from manager.adapters.donation import Donation, Layer
    from manager.application.default_spec import bind_mount, default_spec
    from manager.application.errors import CallRefused, ManagerError, ServiceUnavailable
    from manager.daemon import Manager

__all__ = [
    "CallRefused",
    "Donation",
    "Layer",
    "Manager",
    "ManagerClient",
    "ManagerError",
    "SandboxClient",
    "ServiceUnavailable",
    "bind_mount",
    "connect",
    "default_spec",
]

_HOMES = {
    "CallRefused": "manager.application.errors",
    "Donation": "manager.adapters.donation",
    "Layer": "manager.adapters.donation",
    "Manager": "manager.daemon",
    "ManagerClient": "manager.adapters.client",
    "ManagerError": "manager.application.errors",
    "SandboxClient": "manager.adapters.client",
    "ServiceUnavailable": "manager.application.errors",
    "bind_mount": "manager.application.default_spec",
    "connect": "manager.adapters.client",
    "default_spec": "manager.application.default_spec",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - on first use

    return getattr(import_module(_HOMES[name]), name)
