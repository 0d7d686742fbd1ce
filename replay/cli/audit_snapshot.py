"""``sandtrail audit snapshot``."""

from pathlib import Path

import click

from eventstore import copy_log
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path
from replay.cli.audit_options import evidence_errors, keys_option, trusted_keys


@click.command("snapshot")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@root_option
@log_option
@keys_option
@json_option
def command(
    destination: Path, root: Path, log: Path | None, keys: tuple[Path, ...], as_json: bool
) -> None:
    """Make a whole, verified copy of the log; also while the service runs.

    DEST must not exist: it appears at once, when it is verified and on disk. Keep it with a
    checkpoint, to show later that it was not changed either.

    Exit codes: 0 made, 3 the log is broken and nothing was made, 4 the key is unusable,
    5 not found, unreadable, or DEST cannot be made.
    """
    path = log_path(root, log)
    with evidence_errors():
        trusted, _ = trusted_keys(root, log, keys)
        with progress("copying and verifying") as told:
            found = copy_log(path, destination, trusted=trusted, progress=told)
    if as_json:
        print_json(
            "snapshot",
            log=str(path),
            snapshot=str(destination),
            verdict=found.verdict.value,
            head=found.head,
            sealed=found.sealed,
        )
        return
    seal = (
        f"sealed to #{found.sealed} by a key that is trusted"
        if found.sealed
        else "no seal of a trusted key"
    )
    click.echo(f"{destination}: #1 to #{found.head}, verified, {seal}")
