"""``sandtrail replay bisect``."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import click
import msgspec

from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_NO, fail
from manager.terminal.folding import folded
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import full_time, printable
from replay.bisection import Answer, Bisection, bisect, bisect_by, state_at
from replay.cli.log import question, say_doubts
from replay.describe import detail, event_object, where
from replay.selection import payload
from replay.trail import Trail, Window

EXIT_SKIP: Final = 125
EXIT_ABORT_MIN: Final = 128
FLIPS_SHOWN_MAX: Final = 10


@click.command("bisect")
@root_option
@log_option
@json_option
@click.option("--bad", "ask", callback=question, metavar="EXPR",
              help="What is so when it is bad; see `sandtrail help expressions`.")  # fmt: skip
@click.option("--run", "program", metavar="COMMAND", help="A shell command that judges instead.")
@click.option("--good", type=WHEN, help="A point at which it was good; #0 if absent.")
@click.option("--bad-at", type=WHEN, help="A point at which it was bad; head if absent.")
@click.option("-s", "--sandbox", default="", help="Ask of this sandbox alone.")
def command(root: Path, log: Path | None, as_json: bool, **how: Any) -> None:
    """Find the first event after which something is so.

    With --bad every state is looked at and every change of the answer is told. With --run a command
    gets the state as JSON on its standard input and the position in SANDTRAIL_POSITION, and says 0
    for good, 1 to 127 for bad, 125 for "cannot tell"; anything else ends the search.

    Exits 1 if it never was so.
    """
    ask, program, good, bad_at = how["ask"], how["program"], how["good"], how["bad_at"]
    if (ask is None) == (program is None):
        raise click.UsageError("want either --bad EXPR or --run COMMAND")
    path = log_path(root, log)

    async def call() -> tuple[Bisection, Window, dict[str, Any] | None]:
        async with Trail.open(path) as trail:
            first = await trail.position(good) + 1 if good is not None else 1
            last = await trail.position(bad_at) if bad_at is not None else await trail.head()
            window = Window(first=first, last=last)
            if program is not None:
                found = await bisect_by(window, lambda at: _probe(trail, program, at))
            else:
                found = await bisect(trail, window, ask, how["sandbox"])
            record = await trail.record(found.first_bad or 0)
            shown = None
            if record is not None:
                shown = event_object(record)
                shown["line"] = f"{record.type}  {where(record)}  {detail(payload(record))}"
            return found, window, shown

    found, window, record = read_log(call)
    if as_json:
        line = None if record is None else {k: v for k, v in record.items() if k != "line"}
        print_json(
            "bisect",
            window={"first": window.first, "last": window.last},
            **msgspec.to_builtins(found),
            event=line,
        )
    else:
        _print(found, window, record)
    if found.first_bad is None:
        if ask is not None:
            say_doubts(ask)
        sys.exit(EXIT_INCONCLUSIVE if found.skipped else EXIT_NO)


async def _probe(trail: Trail, program: str, position: int) -> Answer:
    subject = await state_at(trail, position)
    body = msgspec.json.encode({**subject, "containers": list(subject["containers"])})
    environment = {**os.environ, "SANDTRAIL_POSITION": str(position)}
    done = await anyio.run_process(
        program, input=body, env=environment, check=False, stdout=None, stderr=subprocess.STDOUT
    )
    code = done.returncode
    if code == EXIT_SKIP:
        return "skip"
    if not 0 <= code < EXIT_ABORT_MIN:
        fail(
            f"the command ended with {code} at #{position}: the search is given up",
            EXIT_INCONCLUSIVE,
        )
    return "bad" if code else "good"


def _print(found: Bisection, window: Window, record: dict[str, Any] | None) -> None:
    stretch = f"#{window.first} to #{window.last}"
    if record is None and found.skipped:
        click.echo(f"nothing can be told of {stretch}: #{found.skipped[0]} cannot be judged")
        return
    if record is None:
        so = "it was so before the window already" if found.bad_before else "it never was so"
        click.echo(f"{so} ({stretch}, {found.looked_at} states looked at)")
        return
    when = full_time(record["recorded_at_ns"])
    told = f"first bad: #{found.first_bad}  {when}  {printable(record['line'])}"
    click.echo(folded(told, len("first bad: ")))
    if found.skipped:
        shown = ", ".join(f"#{each}" for each in found.skipped)
        click.echo(f"it may also have been one of those that could not be judged: {shown}")
    if found.flip_count > 1 or found.bad_before:
        click.echo(f"the answer changed {found.flip_count} times; it is not a matter of one event:")
        for flip in found.flips[:FLIPS_SHOWN_MAX]:
            click.echo(f"  #{flip.position} {'bad' if flip.bad else 'good again'}")
        if found.flip_count > FLIPS_SHOWN_MAX:
            click.echo("  ...")
    click.echo(f"{found.looked_at} states of {stretch} were looked at")
