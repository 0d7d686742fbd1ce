"""``sandtrail audit verify``: is the log what was sealed?"""

import sys
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from eventstore import Outcome, Verdict, Verifier, read_checkpoint
from manager.terminal.ending import EXIT_UNREADABLE, fail, run
from manager.terminal.folding import folded
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import printable
from replay.cli.audit_options import (
    EXIT_OF,
    evidence_errors,
    kept_checkpoint,
    keys_option,
    sightings,
    trusted_keys,
)
from replay.evidence.kept_bundle import judge_bundle, read_bundle
from replay.evidence.verification import AuditReport, verify_file, verify_part
from replay.trail import Trail, Window


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
@click.option("--witness-key", "witnesses", type=click.Path(path_type=Path), multiple=True,
              metavar="FILE", help="Of a witness, who must have signed a checkpoint.")  # fmt: skip
@click.option("--against", type=click.Path(path_type=Path), metavar="BUNDLE",
              help="Evidence of before, whose events it must have byte for byte.")  # fmt: skip
@click.option("--from", "since", type=WHEN, help="Only from there on: content, not history.")
@click.option("--to", "until", type=WHEN, help="Only up to there.")
@click.option("--deep", is_flag=True, help="Compare every sealed state, not one in 4,096 events.")
@click.option("--no-memory", is_flag=True, help="Neither use nor keep the head last seen here.")
@json_option
def command(root: Path, log: Path | None, as_json: bool, **how: Any) -> None:
    """Check the log from its bytes up; also while the service runs.

    What is found intact is remembered in $XDG_STATE_HOME/sandtrail/heads, and the next time the log
    at that path must extend it. With --from and --to only some events are looked at, from the
    checkpoint before them to the one after, and what is not is said.

    Exit codes: 0 intact as far as it is sealed, 3 broken, that is proven,
    4 inconclusive (no key, never sealed, not sealed so far), 5 not found or
    unreadable, 6 a newer program's.
    """
    part = how["since"] is not None or how["until"] is not None
    whole = any(how[name] for name in ("checkpoints", "witnesses", "against", "deep"))
    if part and whole:
        raise click.UsageError(
            "--from and --to look at events alone: not with --checkpoint, --witness-key, --against "
            "or --deep"
        )
    if how["witnesses"] and not how["checkpoints"]:
        raise click.UsageError("--witness-key asks who has signed a --checkpoint: name one")
    path = log_path(root, log)
    with evidence_errors():
        trusted, beside = trusted_keys(root, log, how["keys"])
        found = (_part if part else _whole)(path, trusted, how)
    unproven = found.unproven
    if beside:
        unproven += (
            "That the key is the right one: it lies beside the log. Keep a copy elsewhere: --key.",
        )
    _tell(path, found, unproven, as_json)
    sys.exit(EXIT_OF[found.verdict])


def _whole(path: Path, trusted: tuple[Verifier, ...], how: dict[str, Any]) -> AuditReport:
    kept = [kept_checkpoint(each, trusted) for each in how["checkpoints"]]
    seen = sightings(how["checkpoints"], how["witnesses"])
    bundle = None if how["against"] is None else read_bundle(how["against"], trusted)
    if bundle is not None:
        kept.append(read_checkpoint(bundle.note))
    with progress("verifying") as told:
        found = verify_file(
            path,
            trusted=trusted,
            kept=kept,
            seen=seen,
            progress=told,
            memory=not how["no_memory"],
            deep=how["deep"],
        )
    if bundle is None:
        return found
    compared = run(lambda: judge_bundle(path, bundle, str(how["against"])))
    return replace(found, findings=(*found.findings, compared))


def _part(path: Path, trusted: tuple[Verifier, ...], how: dict[str, Any]) -> AuditReport:
    async def call() -> Window:
        async with Trail.open(path) as trail:
            return await trail.window(how["since"], how["until"])

    window = read_log(call)
    if not window.count:
        fail("there is no event between these points", EXIT_UNREADABLE)
    with progress("verifying") as told:
        return verify_part(path, window.first, window.last, trusted=trusted, progress=told)


def _tell(path: Path, found: AuditReport, unproven: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json(
            "verification",
            log=str(path),
            verdict=found.verdict.value,
            first=found.first,
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
        line = f"{each.layer:<10} {each.outcome.value}   "
        click.echo(folded(line + printable(each.text), len(line)))
    click.echo(folded(_conclusion(found)))
    click.echo("Does not prove:")
    for sentence in unproven:
        click.echo(folded(f"  - {sentence}", 4))


def _conclusion(found: AuditReport) -> str:
    checked = f"#{found.first} to #{found.sealed}"
    match found.verdict:
        case Verdict.INTACT:
            return (
                f"VERIFIED {checked}. Proves: nothing between was changed, removed or reordered "
                "since it was sealed."
            )
        case Verdict.BROKEN:
            where = f" at #{found.first_bad}" if found.first_bad is not None else ""
            told = f"BROKEN{where}. Keep the file as it is, with its -wal; work on a copy."
            failed = {each.layer for each in found.findings if each.outcome is Outcome.FAIL}
            if failed == {"content"} and found.sealed:
                told += (
                    f" What else there is of #{found.first} to #{found.sealed} is as it was sealed."
                )
            return told
        case Verdict.INCONCLUSIVE:
            told = (
                "INCONCLUSIVE: nothing wrong was found, but what was skipped above could hide it."
            )
            skipped = {each.layer for each in found.findings if each.outcome is Outcome.SKIP}
            return told + (" Give the key with --key." if "signature" in skipped else "")
