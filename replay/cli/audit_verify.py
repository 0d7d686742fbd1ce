"""``sandtrail audit verify``: is the log what was sealed?"""

import sys
from pathlib import Path

import click

from eventstore import (
    Outcome,
    Verdict,
)
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path
from manager.terminal.table import printable
from replay.cli.audit_options import (
    EXIT_OF,
    evidence_errors,
    kept_checkpoint,
    keys_option,
    trusted_keys,
)
from replay.evidence.verification import AuditReport, verify_file


@click.command("verify")
@root_option
@log_option
@keys_option
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A checkpoint kept elsewhere, which the log must extend; repeatable.",
)
@click.option("--deep", is_flag=True, help="Compare every sealed state, not one in 4,096 events.")
@click.option("--no-memory", is_flag=True, help="Neither use nor keep the head last seen here.")
@json_option
def command(
    root: Path,
    log: Path | None,
    keys: tuple[Path, ...],
    checkpoints: tuple[Path, ...],
    deep: bool,
    no_memory: bool,
    as_json: bool,
) -> None:
    """Check the log from its bytes up; also while the service runs.

    What is found intact is remembered in $XDG_STATE_HOME/sandtrail/heads, and the next time the log
    at that path must extend it.

    Exit codes: 0 intact as far as it is sealed, 3 broken, that is proven,
    4 inconclusive (no key, or never sealed), 5 not found or unreadable, 6 a newer program's.
    """
    path = log_path(root, log)
    with evidence_errors():
        trusted, beside = trusted_keys(root, log, keys)
        kept = [kept_checkpoint(each, trusted) for each in checkpoints]
        with progress("verifying") as told:
            found = verify_file(
                path, trusted=trusted, kept=kept, progress=told, memory=not no_memory, deep=deep
            )
    unproven = found.unproven
    if beside:
        unproven += (
            "That the key is the right one: it lies beside the log. Keep a copy elsewhere: --key.",
        )
    _tell(path, found, unproven, as_json)
    sys.exit(EXIT_OF[found.verdict])


def _tell(path: Path, found: AuditReport, unproven: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json(
            "verification",
            log=str(path),
            verdict=found.verdict.value,
            head=found.head,
            sealed=found.sealed,
            first_bad=found.first_bad,
            findings=[
                {
                    "layer": each.layer,
                    "outcome": each.outcome.value,
                    "text": each.text,
                    "first_bad": each.first_bad,
                }
                for each in found.findings
            ],
            unproven=unproven,
        )
        return
    for each in found.findings:
        click.echo(f"{each.layer:<10} {each.outcome.value}   {printable(each.text)}")
    click.echo(_conclusion(found))
    click.echo("Does not prove:")
    for sentence in unproven:
        click.echo(f"  - {sentence}")


def _conclusion(found: AuditReport) -> str:
    match found.verdict:
        case Verdict.INTACT:
            return (
                f"VERIFIED #1 to #{found.sealed}. Proves: nothing between was changed, removed or "
                "reordered since it was sealed."
            )
        case Verdict.BROKEN:
            where = f" at #{found.first_bad}" if found.first_bad is not None else ""
            told = f"BROKEN{where}. Keep the file as it is, with its -wal; work on a copy."
            failed = {each.layer for each in found.findings if each.outcome is Outcome.FAIL}
            if failed == {"content"} and found.sealed:
                told += f" What else there is of #1 to #{found.sealed} is as it was sealed."
            return told
        case Verdict.INCONCLUSIVE:
            told = (
                "INCONCLUSIVE: nothing wrong was found, but what was skipped above could hide it."
            )
            skipped = {each.layer for each in found.findings if each.outcome is Outcome.SKIP}
            return told + (" Give the key with --key." if "signature" in skipped else "")
