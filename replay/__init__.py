"""Questions to a log, and their answers; what ``__all__`` names is the door for Python programs.

::

    async with Trail.open("/var/lib/sandtrail/events.db") as trail:
        async for decision in check(trail, await trail.window()):
            assert decision.verdict == "same"

Each name is imported on first use: a command loads what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replay.bisection import Bisection, bisect, bisect_by
    from replay.comparison import diff
    from replay.difference import Difference, differences
    from replay.evidence.machine_view import MachineView
    from replay.evidence.reconcile import Reconciliation, reconcile
    from replay.evidence.verification import AuditReport, verify
    from replay.explanation import Absence, Explanation, why, why_not
    from replay.expression import parse_expression
    from replay.redecide import Redecision, check, whatif
    from replay.selection import Selection
    from replay.settings import Settings
    from replay.stats import Stats, stats_of
    from replay.trail import Trail, Window

__all__ = [
    "Absence",
    "AuditReport",
    "Bisection",
    "Difference",
    "Explanation",
    "MachineView",
    "Reconciliation",
    "Redecision",
    "Selection",
    "Settings",
    "Stats",
    "Trail",
    "Window",
    "bisect",
    "bisect_by",
    "check",
    "diff",
    "differences",
    "parse_expression",
    "reconcile",
    "stats_of",
    "verify",
    "whatif",
    "why",
    "why_not",
]

_HOMES = {
    "Absence": "explanation",
    "AuditReport": "evidence.verification",
    "Bisection": "bisection",
    "Difference": "difference",
    "Explanation": "explanation",
    "MachineView": "evidence.machine_view",
    "Reconciliation": "evidence.reconcile",
    "Redecision": "redecide",
    "Selection": "selection",
    "Settings": "settings",
    "Stats": "stats",
    "Trail": "trail",
    "Window": "trail",
    "bisect": "bisection",
    "bisect_by": "bisection",
    "check": "redecide",
    "diff": "comparison",
    "differences": "difference",
    "parse_expression": "expression",
    "reconcile": "evidence.reconcile",
    "stats_of": "stats",
    "verify": "evidence.verification",
    "whatif": "redecide",
    "why": "explanation",
    "why_not": "explanation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'replay' has no attribute {name!r}")
    return getattr(import_module(f"replay.{_HOMES[name]}"), name)
