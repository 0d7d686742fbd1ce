"""``sandtrail replay whatif``."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from manager.terminal.ending import EXIT_NO, EXIT_UNREADABLE, fail
from manager.terminal.output import json_option
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.progress import progress
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import harmless_json, printable
from replay.cli.check import as_object, code_option, run_other_code
from replay.policy_file import read_policy
from replay.redecide import Redecision, whatif
from replay.settings import KEYS, SettingError, Settings, parse_settings
from replay.trail import Trail, Window

TITLES: Final = {
    "same": "same",
    "narrowed": "RECORDED allow -> NOW refuse",
    "widened": "RECORDED refuse -> NOW allow",
    "reason": "same verdict, other reason",
    "different": "same verdict, other events",
    "moot": "moot, what it is about did not happen",
    "unreplayable": "not replayable, not guessed",
}


def settings(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Settings, all of them known."""
    try:
        parse_settings(given)
    except SettingError as error:
        raise click.BadParameter(str(error)) from None
    return given


def policy(ctx: click.Context, param: click.Parameter, path: Path | None) -> tuple[str, ...]:
    """The settings of a file, all of them known."""
    if path is None:
        return ()
    try:
        return settings(ctx, param, read_policy(path))
    except SettingError as error:
        raise click.BadParameter(f"{printable(str(path))}: {error}") from None
    except OSError as error:
        fail(f"{printable(str(path))}: {error.strerror}", EXIT_UNREADABLE)


@click.command("whatif")
@root_option
@log_option
@json_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", callback=settings,
              help="; ".join(f"{key}: {values}" for key, values in KEYS.items()))  # fmt: skip
@click.option("--policy", type=click.Path(path_type=Path), metavar="FILE", callback=policy,
              help="Such settings in TOML or JSON; --set goes before them.")  # fmt: skip
@code_option
@click.option("--cascade", is_flag=True, help="Go on from what would have been, not what was.")
@click.option("--fail-on", type=click.Choice(["widened", "narrowed", "any"]),
              help="Exit 1 only if there is one of these.")  # fmt: skip
@click.option("--since", type=WHEN, help="Begin there; see `sandtrail help when`.")
@click.option("--until", type=WHEN, help="End there.")
def command(root: Path, log: Path | None, as_json: bool, **how: Any) -> None:
    """Take clients' decisions again as they would have been with other settings or other code.

    Each is judged alone, in the state that was recorded; with --cascade in the state that would
    have followed. What the settings cannot reach stands as it was recorded, unless --code or
    --cascade has everything decided anew. What the log cannot tell is said to be not replayable.
    Exits 1 if any answer would have been another one.
    """
    if how["code"] is not None:
        run_other_code(how["code"])
    cascade, every = how["cascade"], how["code"] is not None
    settings = parse_settings((*how["policy"], *how["settings"]))
    path = log_path(root, log)
    found: list[Redecision] = []
    counts: Counter[str] = Counter()

    async def call() -> Window:
        async with Trail.open(path) as trail:
            window = await trail.window(how["since"], how["until"])
            with progress("deciding again") as told:
                async for each in whatif(trail, window, settings, cascade=cascade, every=every):
                    if told is not None:
                        told(each.position - window.first + 1, window.count)
                    counts[each.verdict] += 1
                    if each.verdict != "same":
                        found.append(each)
            return window

    window = read_log(call)
    if as_json:
        _print_json(window, counts, found, settings)
    else:
        _print(window, counts, found, cascade=cascade)
    sys.exit(_exit_code(counts, how["fail_on"]))


def _exit_code(counts: "Counter[str]", fail_on: str | None) -> int:
    wanted = {
        "widened": ("widened",),
        "narrowed": ("narrowed",),
        "any": ("widened", "narrowed", "reason", "different"),
        None: ("widened", "narrowed"),
    }[fail_on]
    return EXIT_NO if any(counts[each] for each in wanted) else 0


def _print(
    window: Window, counts: "Counter[str]", found: list[Redecision], *, cascade: bool
) -> None:
    click.echo(f"#{window.first} to #{window.last}: {counts.total()} decisions")
    width = max(map(len, TITLES.values()))
    for verdict, title in TITLES.items():
        if verdict == "moot" and not cascade:
            continue
        click.echo(f"  {title:<{width}}  {counts[verdict]}")
        for each in found:
            if each.verdict == verdict and verdict != "moot":
                click.echo(f"    #{each.position} {printable(_about(each))}")
    if not cascade:
        click.echo("Each was judged alone, on the recorded state; --cascade follows what follows.")


def _about(found: Redecision) -> str:
    place = f"{found.sandbox}/{found.container}" if found.container else found.sandbox
    text = found.recorded if found.verdict == "widened" else found.now
    rule = f"  [{found.rule}]" if found.rule else ""
    return f"{place}: {text}{rule}"


def _print_json(
    window: Window, counts: "Counter[str]", found: list[Redecision], settings: Settings
) -> None:
    body: dict[str, Any] = {
        "schema": "sandtrail.whatif/v1",
        "window": {"first": window.first, "last": window.last},
        "settings": msgspec.to_builtins(settings),
        "decisions": counts.total(),
        "verdicts": {verdict: counts[verdict] for verdict in TITLES},
        "findings": [as_object(each) for each in found],
    }
    click.echo(harmless_json(msgspec.json.format(msgspec.json.encode(body), indent=2)))
