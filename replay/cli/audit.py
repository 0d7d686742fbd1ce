"""``sandtrail audit``: evidence about the log."""

from typing import Final

import click

from manager.terminal.lazy import LazyGroup

COMMANDS: Final = {
    "verify": "replay.cli.audit_verify",
    "checkpoint": "replay.cli.audit_checkpoint",
    "snapshot": "replay.cli.audit_snapshot",
    "prove": "replay.cli.audit_prove",
    "check-proof": "replay.cli.audit_check_proof",
    "stats": "replay.cli.audit_stats",
    "export": "replay.cli.audit_export",
}


@click.command("audit", cls=LazyGroup, commands_in=COMMANDS)
def command() -> None:
    """Show that the log is what was sealed, and what it says."""
