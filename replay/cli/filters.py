"""Filters that several commands take: which stretch of the log, and which events of it."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from msgspec import Struct

from manager.terminal.place import (
    WHEN,
    complete_container_lazily,
    complete_sandbox_lazily,
    complete_type_lazily,
)
from replay.cli.log import pattern, question, tags, user_id
from replay.outcome import FAIL, OUTCOMES
from replay.selection import Selection
from replay.trail import Trail, Window

C = TypeVar("C", bound=Callable[..., Any])


class Filters(Struct, frozen=True, kw_only=True):
    """What was asked for; the points of the window are not looked up yet."""

    since: str | None
    until: str | None
    selection: Selection

    async def window(self, trail: Trail) -> Window:
        """The window in a log; raises as :meth:`Trail.window`."""
        return await trail.window(self.since, self.until)


def filters_from(how: dict[str, Any]) -> Filters:
    """What the options of :func:`filter_options` say."""
    return Filters(
        since=how["since"],
        until=how["until"],
        selection=Selection(
            sandbox=how["sandbox"],
            container=how["container"],
            types=how["types"],
            outcome=how["outcome"] or "",
            uid=how["actor"],
            pattern=how["regex"],
            where=how["where"],
        ),
    )


def window_options(command: C) -> C:
    """Add ``--since`` and ``--until``."""
    for option in (
        click.option("--until", type=WHEN, help="End there; included, but for a bare date."),
        click.option("--since", type=WHEN, help="Begin there; see `sandtrail help when`."),
    ):
        command = option(command)
    return command


def filter_options(command: C) -> C:
    """Add the window's options and those of a selection."""
    for option in (
        click.option("--where", callback=question, metavar="EXPR",
                     help="Only events of which this is so; see `sandtrail help expressions`."),
        click.option("--grep", "regex", default="", callback=pattern, metavar="RE",
                     help="Only events with a match in their payload."),
        click.option("--actor", callback=user_id, metavar="USER",
                     help="Only what this user asked for."),
        click.option("--outcome", type=click.Choice([FAIL, *OUTCOMES]), default=None,
                     help="Only events with this outcome; fail: all but ok."),
        click.option("-t", "--type", "types", multiple=True, metavar="TAG", callback=tags,
                     shell_complete=complete_type_lazily, help="Only these; repeatable."),
        click.option("-c", "--container", default="", shell_complete=complete_container_lazily,
              help="Only events of this container."),
        click.option("-s", "--sandbox", default="", shell_complete=complete_sandbox_lazily,
                     help="Only events of this sandbox."),
    ):  # fmt: skip
        command = option(command)
    return window_options(command)
