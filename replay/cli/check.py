"""``sandtrail replay check``."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from manager.schema.node_snapshot import SnapshotFinding, node_snapshots, verify_snapshots
from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_NO, EXIT_USAGE, fail
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import printable
from manager.terminal.tree import scalar
from replay.difference import Difference
from replay.redecide import Redecision, check
from replay.trail import Trail, Window

SHOWN_MAX: Final = 20
CODE_MARK: Final = Path("replay") / "redecide.py"

code_option = click.option(
    "--code",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Decide with the code of this source tree instead.",
)


@click.command("check")
@root_option
@log_option
@json_option
@click.option("--since", metavar="WHEN", help="Begin there; see `sandtrail help when`.")
@click.option("--until", metavar="WHEN", help="End there.")
@code_option
def command(
    root: Path,
    log: Path | None,
    as_json: bool,
    since: str | None,
    until: str | None,
    code: Path | None,
) -> None:
    """Take every recorded decision again, with the code of today, and compare.

    The states before them come from the same fold that the service uses; snapshots beside the log
    are compared with it, too.

    \b
    Exit codes: 0 all as recorded, 1 something is decided otherwise now,
    4 some decisions cannot be taken again and the rest is as recorded.
    """
    if code is not None:
        run_other_code(code)
    path = log_path(root, log)
    found: list[Redecision] = []
    counts: Counter[str] = Counter()

    async def call() -> tuple[Window, list[SnapshotFinding]]:
        async with Trail.open(path) as trail:
            window = await trail.window(since, until)
            with progress("deciding again") as told:
                async for each in check(trail, window):
                    counts[each.verdict] += 1
                    if each.verdict != "same" and len(found) < SHOWN_MAX:
                        found.append(each)
                    if told is not None:
                        told(each.position - window.first + 1, window.count)
            return window, await verify_snapshots(trail.log, node_snapshots(path.parent))

    window, snapshots = read_log(call)
    wrong = [each for each in snapshots if each.problem]
    if as_json:
        print_json(
            "check",
            window={"first": window.first, "last": window.last},
            decisions=counts.total(),
            verdicts=dict(sorted(counts.items())),
            findings=[as_object(each) for each in found],
            snapshots=[{"position": each.position, "problem": each.problem} for each in snapshots],
        )
    else:
        for each in found:
            click.echo("\n".join(finding_lines(each)))
        for bad in wrong:
            click.echo(f"snapshot #{bad.position}: {printable(bad.problem)}")
        _conclude(window, counts, len(snapshots), len(wrong))
    otherwise = counts.total() - counts["same"] - counts["unreplayable"] + len(wrong)
    if otherwise:
        sys.exit(EXIT_NO)
    sys.exit(EXIT_INCONCLUSIVE if counts["unreplayable"] else 0)


def _conclude(window: Window, counts: "Counter[str]", snapshots: int, wrong: int) -> None:
    total = counts.total()
    click.echo(
        f"#{window.first} to #{window.last}: {total} decisions, {counts['same']} as recorded"
        + "".join(
            f", {count} {verdict}" for verdict, count in sorted(counts.items()) if verdict != "same"
        )
        + (
            f"; {snapshots - wrong} of {snapshots} snapshots are what the log says"
            if snapshots
            else ""
        )
    )


def finding_lines(found: Redecision) -> Iterator[str]:
    """How a decision differs, RECORDED and NOW, for people."""
    place = f"{found.sandbox}/{found.container}" if found.container else found.sandbox
    yield f"#{found.position} {found.type}  {printable(place)}: {found.verdict}"
    if found.verdict == "unreplayable":
        yield f"  not in the log: {printable(found.now)}"
        return
    yield f"  RECORDED  {_answer(found.recorded)}"
    yield f"  NOW       {_answer(found.now)}" + (f"  [{found.rule}]" if found.rule else "")
    if found.verdict == "different":
        for field in found.fields:
            yield f"  {printable('.'.join(field.path))}"
            yield f"    RECORDED  {_value(field, field.before)}"
            yield f"    NOW       {_value(field, field.after)}"


def _value(field: Difference, value: Any) -> str:
    absent = (field.kind == "added" and value is field.before) or (
        field.kind == "removed" and value is field.after
    )
    return "(absent)" if absent else scalar(value)


def _answer(text: str) -> str:
    return f"refused: {printable(text)}" if text else "allowed"


def as_object(found: Redecision) -> dict[str, Any]:
    """A decision that differs, as JSON."""
    return {
        "position": found.position,
        "sandbox": found.sandbox,
        "container": found.container,
        "type": found.type,
        "verdict": found.verdict,
        "recorded": found.recorded,
        "now": found.now,
        "rule": found.rule,
        "fields": [
            {
                "path": list(each.path),
                "recorded": None if each.kind == "added" else each.before,
                "now": None if each.kind == "removed" else each.after,
            }
            for each in found.fields
        ],
    }


def run_other_code(code: Path) -> None:
    """Let the same command be run by another source tree; never returns."""
    if not (code / CODE_MARK).is_file():
        fail(f"{code} is no source tree of sandtrail: it has no {CODE_MARK}", EXIT_USAGE)
    arguments = list(sys.argv[1:])
    for number, text in enumerate(arguments):
        if text == "--code":
            del arguments[number : number + 2]
            break
        if text.startswith("--code="):
            del arguments[number]
            break
    environment = {**os.environ, "PYTHONPATH": str(code.resolve())}
    command = [sys.executable, "-P", "-m", "manager.cli", *arguments]
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)
