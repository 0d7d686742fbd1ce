"""``sandtrail help``: what no one command's help can say."""

import click

from manager.terminal.ending import EXIT_CODES
from manager.terminal.folding import hanging
from manager.terminal.manners import page
from manager.terminal.output import json_option, print_json
from manager.terminal.reading import unknown

COLUMNS = 79
TOPICS = ("exit-codes", "when", "events", "expressions")


@click.command("help")
@json_option
@click.argument("topic", required=False, metavar="[TOPIC]")
@click.pass_context
def command(ctx: click.Context, as_json: bool, topic: str | None) -> None:
    """Explain a topic: exit-codes, when, events or expressions; or a command."""
    page()
    if topic is None:
        text = f"{(ctx.parent or ctx).get_help()}\n\nTopics: {', '.join(TOPICS)}."
    else:
        text = topic_text(topic) or _command_help(ctx, topic)
    if as_json:
        print_json("help", topic=topic or "", text=text)
    else:
        click.echo(text)


def topic_text(topic: str) -> str | None:
    """What there is to say of a topic; ``None`` if it is none."""
    match topic:
        case "exit-codes":
            return "\n".join(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
        case "when":
            from manager.schema import when  # noqa: PLC0415 - only this topic needs it

            return _tidy(when.__doc__)
        case "expressions":
            # By name: replay stands above manager and is not imported from here.
            from importlib import import_module  # noqa: PLC0415 - only this topic needs it

            return _tidy(import_module("replay.expression").__doc__)
        case "events":
            return _events()
        case _:
            return None


def _events() -> str:
    from manager.schema.events import EVENT_TYPES  # noqa: PLC0415 - only this topic needs them
    from manager.schema.node_events import NODE_EVENT_TYPES  # noqa: PLC0415 - the same

    types = {**EVENT_TYPES, **NODE_EVENT_TYPES}
    width = max(map(len, types))
    lines = (
        hanging(f"{tag:<{width}}  {_first_sentence(types[tag].__doc__)}", COLUMNS, width + 2)
        for tag in sorted(types)
    )
    return _tidy("\n".join(lines))


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").partition(".")[0].split())


def _command_help(ctx: click.Context, name: str) -> str:
    parent = ctx.find_root()
    group = parent.command
    found = group.get_command(parent, name) if isinstance(group, click.Group) else None
    if found is None:
        names = group.list_commands(parent) if isinstance(group, click.Group) else []
        unknown("topic or command", name, [*TOPICS, *names])
    return found.get_help(click.Context(found, info_name=name, parent=parent))


def _tidy(text: str | None) -> str:
    """A module's docstring without its markup, and without what is for programmers."""
    told = (text or "").partition("\n\nFor programs: ")[0]
    told = told.replace("``", "").replace("::\n\n", "").strip()
    return "\n\n".join(map(_filled, told.split("\n\n")))


def _filled(paragraph: str) -> str:
    """A paragraph of sentences broken anew; examples and lists are left as they are."""
    lines = paragraph.splitlines()
    if max(map(len, lines)) <= COLUMNS or any(line.startswith(" ") for line in lines):
        return paragraph
    return hanging(" ".join(lines), COLUMNS)
