"""``sandtrail replay why``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from eventstore import RecordedEvent
from manager.domain.state import Sandbox
from manager.schema.past import AsOf, lived_until
from manager.terminal.ending import EXIT_UNREADABLE, EXIT_USAGE, fail
from manager.terminal.manners import page
from manager.terminal.output import json_option, print_json
from manager.terminal.place import complete_target_lazily, log_option, root_option
from manager.terminal.reading import at_option, log_path, read_log, say_as_of, unknown
from manager.terminal.table import full_time, printable
from manager.terminal.tree import scalar
from replay.describe import detail, event_object
from replay.duration import duration_text
from replay.explanation import Absence, Explanation, Step, WhyError, why, why_not
from replay.selection import payload
from replay.trail import Trail

CONTAINER_FIELD = "status"
SANDBOX_FIELD = "phase"
RESTORE_FAILED = "restoreFailed"
WAITING = "creating"
AGE_TOLD_MIN_NS = 3600 * 10**9
DAY_NS = 24 * 3600 * 10**9


@click.command("why")
@root_option
@log_option
@json_option
@at_option
@click.option("--not", "wanted", metavar="VALUE", help="Why it is not this instead.")
@click.option("--all", "everything", is_flag=True, help="Show what was left out, too.")
@click.argument(
    "target", metavar="SANDBOX[/CONTAINER][.FIELD]", shell_complete=complete_target_lazily
)
def command(
    root: Path,
    log: Path | None,
    as_json: bool,
    at: str | None,
    wanted: str | None,
    everything: bool,
    target: str,
) -> None:
    """Say which events made a value what it is: a container's status, unless a FIELD is named.

    Of a container that a failed restore was to bring back, that is explained instead. Of a sandbox
    that is deleted the last state is explained, unless there is an --at.

    The events that are named alone give that value, which is checked by folding them once more, and
    none of them can be left out. Fields are those that `inspect --json` shows.
    """
    path = log_path(root, log)

    async def call() -> tuple[Explanation | Absence, AsOf]:
        async with Trail.open(path) as trail:
            position = await trail.position(at or "head")
            if at is None:
                position = await _while_there(trail, target, position)
            sandbox_id, field = await resolve(trail, target, position)
            moment = await trail.as_of(position)
            if wanted is not None:
                return await why_not(trail, sandbox_id, field, wanted, position), moment
            return await why(trail, sandbox_id, field, position), moment

    try:
        found, moment = read_log(call)
    except WhyError as error:
        fail(str(error), EXIT_UNREADABLE)
    page()
    if as_json:
        _print_json(found, moment)
        return
    say_as_of(moment)
    if isinstance(found, Absence):
        lines = _absence(found)
    else:
        lines = explanation_lines(found, everything=everything)
    for line in lines:
        click.echo(line)


async def _while_there(trail: Trail, target: str, position: int) -> int:
    """The position, or the last one at which the sandbox was there if it is deleted."""
    fold, _ = await trail.at(f"#{position}")
    name = target.partition("/")[0]
    if any(name == known or name.startswith(f"{known}.") for known in fold.live):
        return position
    for end in range(name.count(".") + 1):
        sandbox_id = name.rsplit(".", end)[0] if end else name
        if last := await lived_until(trail.log, sandbox_id, position):
            return last
    return position


async def resolve(trail: Trail, target: str, position: int) -> tuple[str, tuple[str, ...]]:
    """The sandbox and the path in its state that a target names; ends the process if none is.

    A bare name is a sandbox's, or a container's if only one sandbox has one of that name.
    """
    fold, _ = await trail.at(f"#{position}")
    known = {each: folded.state for each, folded in fold.live.items()}
    name, slash, rest = target.partition("/")
    if slash:
        if name not in known:
            unknown("sandbox", name, list(known))
        cid, field = _split(rest, list(known[name].containers))
        if not cid:
            unknown("container", rest, list(known[name].containers))
        return name, _of_container(known[name], cid, field)
    sandbox_id, field = _split(target, list(known))
    if sandbox_id:
        return sandbox_id, field or (SANDBOX_FIELD,)
    owners = [(each, cid) for each, state in known.items() for cid in state.containers]
    cid, field = _split(target, [cid for _, cid in owners])
    holders = [each for each, owned in owners if owned == cid]
    if not holders:
        unknown("sandbox or container", target, [*known, *(cid for _, cid in owners)])
    if len(holders) > 1:
        readings = " or ".join(f"{each}/{target}" for each in holders)
        fail(f"{target!r} can be {readings}: write one of these", EXIT_USAGE)
    return holders[0], _of_container(known[holders[0]], cid, field)


def _of_container(state: Sandbox, cid: str, field: tuple[str, ...]) -> tuple[str, ...]:
    """The path to a container's field; what a failed restore left is explained by that."""
    if not field and state.phase == RESTORE_FAILED and state.containers[cid].status == WAITING:
        return (SANDBOX_FIELD,)
    return ("containers", cid, *(field or (CONTAINER_FIELD,)))


def _split(text: str, known: list[str]) -> tuple[str, tuple[str, ...]]:
    """The longest id that a text begins with, and the field that follows."""
    fits = [each for each in known if text == each or text.startswith(f"{each}.")]
    found = max(fits, key=len, default="")
    field = text[len(found) + 1 :] if found else ""
    return found, tuple(step for step in field.split(".") if step)


def explanation_lines(found: Explanation, *, everything: bool = False) -> Iterator[str]:
    """An explanation for people: the tree of causes, then what alone is needed."""
    name = printable(f"{found.sandbox}.{'.'.join(found.path)}")
    if found.since is None:
        yield f"{name} is {scalar(found.value)}, as it was from the beginning"
        return
    top = found.causes[0].record
    yield f"{name} is {scalar(found.value)} since #{found.since}  {_when(top)}"
    told = False  # each event of a decision may carry the same mismatches
    for depth, step in enumerate(found.causes):
        yield f"{'   ' * depth}└─ {_line(step)}{_earlier(step.record, top)}"
        for each in payload(step.record).get("mismatches") or () if not told else ():
            told = True
            yield f"{'   ' * depth}     {printable(each['error'])}"
    for step in found.likely:
        yield f"   likely by: {_line(step)}{_earlier(step.record, top)}"
    for record in found.decided_on:
        yield f"   decided on: {_line(Step(record=record))}{_earlier(record, top)}"
    yield "Needed for it, oldest first:"
    for step in found.essential:
        left = f"  -> {scalar(step.value)}" if step.wrote else ""
        yield f"   {_line(step)}{printable(left)}"
    yield (
        f"Shown: {len(found.essential)} of {found.history} events of the sandbox. Checked: these "
        "alone give the same value, and none can be left out."
    )
    before = f"sandtrail inspect {found.sandbox} --at '#{found.since - 1}'"
    if everything:
        yield f"All: sandtrail log -s {found.sandbox}   Before: {before}"
    else:
        yield f"Before it: {before}"


def _absence(found: Absence) -> Iterator[str]:
    name = printable(f"{found.sandbox}.{'.'.join(found.path)}")
    wanted = printable(found.wanted)
    if found.had_until is not None:
        step = found.had_until
        yield f"{name} is not {wanted} any more since #{step.record.position}:"
        yield f"└─ {_line(step)}  -> {scalar(step.value)}"
        return
    yield f"{name} is {scalar(found.value)} and never was {wanted}"
    for step in found.reasons:
        yield f"├─ {_line(step)}"
    if not found.reasons:
        yield f"└─ nothing was refused and nothing failed in {found.history} events"


def _line(step: Step) -> str:
    record = step.record
    about = printable(detail(payload(record)))
    actor = f"  by uid:{record.actor.uid}, pid {record.actor.pid}" if record.actor else ""
    return f"#{record.position} {printable(record.type)}  {about}{actor}"


def _earlier(record: RecordedEvent, than: RecordedEvent) -> str:
    """How long before another event it was, if that was not just before."""
    age_ns = than.recorded_at_ns - record.recorded_at_ns
    if age_ns < AGE_TOLD_MIN_NS:
        return ""
    age = duration_text(age_ns) if age_ns < 2 * DAY_NS else f"{round(age_ns / DAY_NS)} days"
    return f", {age} earlier"


def _when(record: RecordedEvent) -> str:
    return full_time(record.recorded_at_ns)


def _print_json(found: Explanation | Absence, moment: AsOf) -> None:
    if isinstance(found, Absence):
        print_json(
            "why_not",
            as_of={"position": moment.position, "time_ns": moment.time_ns},
            sandbox=found.sandbox,
            path=list(found.path),
            value=found.value,
            wanted=found.wanted,
            had_until=None if found.had_until is None else _step(found.had_until),
            reasons=[_step(each) for each in found.reasons],
            history=found.history,
        )
        return
    print_json(
        "why",
        as_of={"position": moment.position, "time_ns": moment.time_ns},
        sandbox=found.sandbox,
        path=list(found.path),
        value=found.value,
        since=found.since,
        causes=[_step(each) for each in found.causes],
        likely=[_step(each) for each in found.likely],
        decided_on=[event_object(each) for each in found.decided_on],
        essential=[_step(each) for each in found.essential],
        history=found.history,
    )


def _step(step: Step) -> dict[str, Any]:
    left = {"value": step.value} if step.wrote else {}
    return {**event_object(step.record), **left}
