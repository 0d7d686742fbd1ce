"""``sandtrail ps``."""

from pathlib import Path
from typing import Any

import click

from manager.cli.session import client_of, json_option, print_json, root_option, run_async

COLUMNS = ("SANDBOX", "CONTAINER", "STATUS", "PID", "ENGINE", "STARTED", "COMMAND")


@click.command("ps")
@root_option
@json_option
def command(root: Path, as_json: bool) -> None:
    """List sandboxes and their containers."""
    found = run_async(lambda: client_of(root).sandboxes())
    if as_json:
        print_json("ps", items=found)
        return
    from manager.cli.table import print_table  # noqa: PLC0415 - rich, only for people

    print_table(
        COLUMNS, [_row(sandbox, each) for sandbox in found for each in sandbox["Containers"]]
    )


def _row(sandbox: dict[str, Any], container: dict[str, Any]) -> tuple[str, ...]:
    from manager.cli.table import local_time  # noqa: PLC0415 - only for people

    return (
        sandbox["ID"],
        container["CID"],
        status_text(container),
        str(container["PID"] or "-"),
        sandbox["Engine"],
        local_time(container["StartedAtNs"]) if container["StartedAtNs"] else "-",
        container["Args0"],
    )


def status_text(container: dict[str, Any]) -> str:
    """A container's status, with how it ended."""
    ended = container["Exit"]
    match ended:
        case {"type": "exited", "code": code}:
            return f"{container['Status']} (exit {code})"
        case {"type": "signaled", "signal": signo}:
            return f"{container['Status']} (signal {signo})"
        case _:
            return str(container["Status"])
