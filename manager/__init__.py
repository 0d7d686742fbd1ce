"""sandtrail's manager; ``Manager`` and ``connect`` are its door for Python programs.

Both are imported on first use, so that the worker, which is part of this package too, never loads
the log or an event loop.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manager.adapters.client import connect
    from manager.adapters.donation import Donation, Layer
    from manager.daemon import Manager

__all__ = ["Donation", "Layer", "Manager", "connect"]

_HOMES = {
    "Donation": "manager.adapters.donation",
    "Layer": "manager.adapters.donation",
    "Manager": "manager.daemon",
    "connect": "manager.adapters.client",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - on first use

    return getattr(import_module(_HOMES[name]), name)
