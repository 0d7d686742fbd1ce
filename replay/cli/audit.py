"""``sandtrail audit``: evidence about the log."""

from typing import Final

import click

from manager.terminal.lazy import LazyGroup

COMMANDS: Final = {
    "verify": ("replay.cli.audit_verify", "Check the log from its bytes up."),
    "checkpoint": (
        "replay.cli.audit_checkpoint",
        "Print the newest signed checkpoint, to be kept elsewhere.",
    ),
    "snapshot": ("replay.cli.audit_snapshot", "Make a whole, verified copy of the log."),
    "log": ("replay.cli.log", "Print the log; the same as `sandtrail log`."),
    "show": ("replay.cli.audit_show", "Show one event, its causes and its effects."),
    "prove": (
        "replay.cli.audit_prove",
        "Prove that events are in the log, to somebody who has neither.",
    ),
    "check-proof": ("replay.cli.audit_check_proof", "Check such a proof."),
    "stats": ("replay.cli.audit_stats", "Count outcomes, and how long starts took."),
    "export": ("replay.cli.audit_export", "Write events in other formats."),
    "reconcile": (
        "replay.cli.audit_reconcile",
        "Compare the state with processes, cgroups, mounts, sockets.",
    ),
    "report": ("replay.cli.audit_report", "Write one page of HTML for people."),
}


@click.command("audit", cls=LazyGroup, commands_in=COMMANDS)
def command() -> None:
    """Show that the log is what was sealed, and what it says."""
