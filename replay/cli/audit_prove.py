"""``sandtrail audit prove``: what shows of some events, to somebody without the log."""

from pathlib import Path

import click

from eventstore import EventProof
from manager.schema.when import WhenError
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import log_path, read_log
from replay.cli.audit_options import evidence_errors, kept_checkpoint
from replay.cli.proving import make_proof
from replay.evidence.proof_document import proof_text
from replay.evidence.proof_range import split_range
from replay.trail import Trail


@click.command("prove")
@click.argument("events", metavar="EVT|RANGE")
@root_option
@log_option
@click.option(
    "--since",
    type=click.Path(path_type=Path),
    metavar="NOTE",
    help="A checkpoint kept elsewhere: also show that the newest one extends it.",
)
@click.option("--json", is_flag=True, expose_value=False, help="As without it: a proof is JSON.")
@click.option("--documents", is_flag=True, help="With the documents that the events name.")
def command(events: str, root: Path, log: Path | None, since: Path | None, documents: bool) -> None:
    """Print a proof that an event, or a range of events, is in the log.

    The event is a point as of `sandtrail help when`; a range is two of them, A..B or #A-#B, both
    ends included, and its proof also shows that nothing is missing between. Whoever gets it checks
    it with `audit check-proof` or verify_trail.py and the log's verifier key.

    Exit codes: 0 made, 3 the log is broken, 4 not sealed so far, 5 not found, unreadable.
    """
    path = log_path(root, log)

    with evidence_errors():
        kept = None if since is None else kept_checkpoint(since, ())

    async def make() -> EventProof:
        async with Trail.open(path) as trail:
            ends = [await trail.position(end) for end in split_range(events)]
        if ends[0] < 1 or ends[-1] < ends[0]:
            raise WhenError(f"{events!r} is no event and no range of events")
        chosen = range(ends[0], ends[-1] + 1)
        return make_proof(path, chosen, since=kept, documents=documents)

    click.echo(proof_text(read_log(make)), nl=False)
