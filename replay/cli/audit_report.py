"""``sandtrail audit report``: the log as one file of HTML."""

import time
from pathlib import Path
from typing import Any

import click

from manager.terminal.manners import say
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WRITTEN_FILE, log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path, read_log
from manager.version import __version__
from replay.cli.audit_options import evidence_errors, kept_checkpoint, keys_option, trusted_keys
from replay.cli.filters import filter_options, filters_from
from replay.cli.output_file import new_file
from replay.evidence.verification import AuditReport, verify_file
from replay.report.data import ReportData, gather
from replay.report.page import Heading, page
from replay.trail import Trail

FILTER_NAMES = ("since", "until", "sandbox", "container", "types", "outcome", "actor", "regex")


@click.command("report")
@root_option
@log_option
@json_option
@keys_option
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE",
              help="A checkpoint kept elsewhere, which the log must extend.")  # fmt: skip
@click.option("--title", default="What the containers did", show_default=True, help="Its title.")
@click.option("--out", type=WRITTEN_FILE, metavar="FILE", required=True,
              help="The file to write.")  # fmt: skip
@filter_options
def command(
    root: Path,
    log: Path | None,
    as_json: bool,
    keys: tuple[Path, ...],
    checkpoint: Path | None,
    title: str,
    out: Path,
    **how: Any,
) -> None:
    """Write a report for people: one file, which loads nothing from anywhere.

    First what it covers and whether the log is what was sealed, then what happened, why things
    failed, who asked, how long it took, each container over time, and the newest events.

    \b
    Exit codes: 0 written, whatever the verdict in it; 4 a key or a checkpoint
    is unusable, 5 not found or unreadable.
    """
    path = log_path(root, log)
    filters = filters_from(how)
    report = _verified(path, root, log, keys, checkpoint)

    async def call() -> ReportData:
        async with Trail.open(path) as trail:
            return await gather(trail, await filters.window(trail), filters.selection)

    data = read_log(call)
    heading = Heading(
        title=title,
        log=str(path),
        filters=" ".join(f"{name}={how[name]}" for name in FILTER_NAMES if how[name]),
        made_at_ns=time.time_ns(),
        program=__version__,
    )
    with evidence_errors(), new_file(out) as write:
        write(page(heading, data, report))
    if as_json:
        told = {"events": data.stats.events, "verdict": report.verdict.value}
        print_json("audit-report", log=str(path), report=str(out), **told)
        return
    say(f"{out}: {data.stats.events} events, {report.verdict.value}")


def _verified(
    path: Path, root: Path, log: Path | None, keys: tuple[Path, ...], checkpoint: Path | None
) -> AuditReport:
    with evidence_errors():
        trusted, _ = trusted_keys(root, log, keys)
        kept = [] if checkpoint is None else [kept_checkpoint(checkpoint, trusted)]
        with progress("verifying") as told:
            return verify_file(path, trusted=trusted, kept=kept, progress=told)
