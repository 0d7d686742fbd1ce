"""Sandboxes and their containers, in one layout for now and for then."""

from typing import Any

from manager.terminal.manners import say
from manager.terminal.sandbox_filter import NO_FILTER, SandboxFilter

COLUMNS = ("SANDBOX", "CONTAINER", "STATUS", "PID", "ENGINE", "STARTED", "COMMAND")


def print_sandboxes(items: list[dict[str, Any]], chosen: SandboxFilter = NO_FILTER) -> None:
    """Print summaries (:func:`manager.schema.summary.summary`) as a table, those that fit."""
    from manager.terminal.table import print_table  # noqa: PLC0415 - only for people

    rows, kept = rows_of(items), items
    containers, sandboxes = str(len(rows)), str(len(items))
    if chosen:
        kept = chosen.chosen(items)
        rows = rows_of(kept)
        containers, sandboxes = f"{len(rows)} of {containers}", f"{len(kept)} of {sandboxes}"
    print_table(COLUMNS, rows)
    say(f"containers: {containers}; sandboxes: {sandboxes}")


def rows_of(items: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of such a table."""
    return [_row(sandbox, each) for sandbox in items for each in sandbox["Containers"]]


def _row(sandbox: dict[str, Any], container: dict[str, Any]) -> tuple[str, ...]:
    from manager.terminal.table import local_time  # noqa: PLC0415 - only for people

    return (
        sandbox["ID"],
        container["CID"],
        status_text(sandbox, container),
        str(container["PID"] or "-"),
        sandbox["Engine"],
        local_time(container["StartedAtNs"]) if container["StartedAtNs"] else "-",
        container["Args0"],
    )


def status_text(sandbox: dict[str, Any], container: dict[str, Any]) -> str:
    """A container's status, with how it ended, or that its restore failed."""
    if (sandbox["State"], container["Status"]) == ("restoreFailed", "creating"):
        return "restoreFailed"
    match container["Exit"]:
        case {"type": "exited", "code": code}:
            return f"{container['Status']} (exit {code})"
        case {"type": "signaled", "signal": signo}:
            return f"{container['Status']} (signal {signo})"
        case _:
            return str(container["Status"])
