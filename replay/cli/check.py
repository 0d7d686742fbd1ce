"""``sandtrail replay check``."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from manager.schema.node_snapshot import node_snapshots
from manager.schema.state_check import SealFinding, StatesFound, StateWatch, state_seals
from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_NO, EXIT_USAGE, fail
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import printable
from manager.terminal.tree import scalar
from replay.difference import Difference
from replay.redecide import Redecision, check
from replay.trail import Trail, Window

SHOWN_MAX: Final = 20
CODE_MARK: Final = Path("replay") / "redecide.py"
THIS_CODE: Final = Path(__file__).resolve().parents[2]

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
@click.option("--since", type=WHEN, help="Begin there; see `sandtrail help when`.")
@click.option("--until", type=WHEN, help="End there.")
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

    The states before them come from the same fold that the service uses; the digests of states
    in sealed checkpoints, and snapshots beside the log, are compared with it, too.

    \b
    Exit codes: 0 all as recorded, 1 something is decided or folded otherwise
    now, 4 some decisions cannot be taken again and the rest is as recorded.
    """
    if code is not None:
        run_other_code(code)
    path = log_path(root, log)
    asked = _Asked(path, since, until)
    window, states = read_log(asked.answer)
    found, counts = asked.found, asked.counts
    wrong = [each for each in states.snapshots if each.problem]
    if as_json:
        _print_json(window, counts, found, states)
    else:
        for each in found:
            click.echo("\n".join(finding_lines(each)))
        for state in states.findings:
            _print_state(state)
        for bad in wrong:
            click.echo(f"snapshot #{bad.position}: {printable(bad.problem)}")
        _conclude(window, counts, states, len(wrong))
    otherwise = counts.total() - counts["same"] - counts["unreplayable"]
    if otherwise or wrong or states.findings:
        sys.exit(EXIT_NO)
    sys.exit(EXIT_INCONCLUSIVE if counts["unreplayable"] else 0)


class _Asked:
    """What is asked, and with :meth:`answer` how decisions came out: those that differ, and all.

    Args:
        path: The log's file.
        since: Where to begin, if not at its beginning.
        until: Where to end, if not at its end.
    """

    def __init__(self, path: Path, since: str | None, until: str | None) -> None:
        self._path, self._since, self._until = path, since, until
        self.found: list[Redecision] = []
        self.counts: Counter[str] = Counter()

    async def answer(self) -> tuple[Window, StatesFound]:
        """Take the decisions again and compare the states."""
        async with Trail.open(self._path) as trail:
            window = await trail.window(self._since, self._until)
            with progress("deciding again") as told:
                watch = StateWatch(node_snapshots(self._path.parent), state_seals(self._path))
                async for each in check(trail, window, watch):
                    self._take(each)
                    if told is not None:
                        told(each.position - window.first + 1, window.count)
            return window, watch.found(whole=False)

    def _take(self, each: Redecision) -> None:
        self.counts[each.verdict] += 1
        if each.verdict != "same" and len(self.found) < SHOWN_MAX:
            self.found.append(each)


def _print_json(
    window: Window, counts: "Counter[str]", found: list[Redecision], states: StatesFound
) -> None:
    print_json(
        "check",
        window={"first": window.first, "last": window.last},
        decisions=counts.total(),
        verdicts=dict(sorted(counts.items())),
        findings=[as_object(each) for each in found],
        states=dict(sorted(states.seals.items())),
        state_findings=[_state_object(each) for each in states.findings],
        snapshots=[
            {"position": each.position, "problem": each.problem} for each in states.snapshots
        ],
    )


def _conclude(window: Window, counts: "Counter[str]", states: StatesFound, wrong: int) -> None:
    total = counts.total()
    told = f"#{window.first} to #{window.last}: {total} decisions, {counts['same']} as recorded"
    for verdict, count in sorted(counts.items()):
        told += f", {count} {verdict}" if verdict != "same" else ""
    foreign = states.seals.get("foreign", 0)
    if compared := sum(states.seals.values()) - foreign:
        told += f"; {states.seals.get('same', 0)} of {compared} sealed states are those of the fold"
    if foreign:
        told += f"; {foreign} sealed states are of another version's shape and were not compared"
    if snapshots := len(states.snapshots):
        told += f"; {snapshots - wrong} of {snapshots} snapshots are what the log says"
    click.echo(told)


def _print_state(found: SealFinding) -> None:
    """Show how a state differs, RECORDED and NOW."""
    by = "this very program" if found.verdict == "different" else f"program {found.sealed.code}"
    click.echo(f"state at #{found.sealed.position}: {found.verdict}")
    click.echo(f"  RECORDED  {found.sealed.digest}  by {by}")
    click.echo(f"  NOW       {found.now.digest}")


def _state_object(found: SealFinding) -> dict[str, Any]:
    return {
        "position": found.sealed.position,
        "verdict": found.verdict,
        "recorded": found.sealed.digest,
        "now": found.now.digest,
        "recorded_by": found.sealed.code,
        "now_by": found.now.code,
    }


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
    """Let the same command be run by that source tree; returns only if it is this one."""
    if not (code / CODE_MARK).is_file():
        fail(f"{code} is no source tree of sandtrail: it has no {CODE_MARK}", EXIT_USAGE)
    code = code.resolve()
    if code == THIS_CODE:
        return
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-P", "-m", "manager.cli", *sys.argv[1:]]
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)
