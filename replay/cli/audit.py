"""``sandtrail audit``: is the log what was sealed, and its newest seal to be kept elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from eventstore import (
    Checkpoint,
    EventStoreError,
    KeyUnusable,
    LogCorrupt,
    NoteRejected,
    Outcome,
    Verdict,
    Verification,
    Verifier,
    copy_log,
    load_verifier,
    newest_note,
    open_checkpoint,
    read_checkpoint,
    verify_log,
)
from manager.schema.layout import LOG_FILE, PUBLIC_SUFFIX, SEAL_KEY_FILE
from manager.terminal.ending import fail
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option

EXIT_OF: Final = {Verdict.INTACT: 0, Verdict.BROKEN: 3, Verdict.INCONCLUSIVE: 4}
EXIT_INCONCLUSIVE: Final = 4
EXIT_UNREADABLE: Final = 5
NOTE_BYTES_READ_MAX: Final = 2 * 1024 * 1024

keys_option = click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Verifier key that is trusted; repeatable. Default: the one in the state directory.",
)


@click.group("audit")
def command() -> None:
    """Show that the log is what was sealed."""


@command.command("verify")
@root_option
@log_option
@keys_option
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A checkpoint kept elsewhere, which the log must extend.",
)
@json_option
def verify(
    root: Path, log: Path | None, keys: tuple[Path, ...], checkpoint: Path | None, as_json: bool
) -> None:
    r"""Check the log from its bytes up; also while the service runs.

    \b
    Exit codes: 0 intact as far as it is sealed, 3 broken, that is proven,
    4 inconclusive (no key, or never sealed), 5 not found or unreadable.
    """
    path = log or root / LOG_FILE
    try:
        trusted, beside = _trusted(root, log, keys)
        pinned = None if checkpoint is None else _pinned(checkpoint, trusted)
        with _progress() as progress:
            found = verify_log(path, trusted=trusted, pinned=pinned, progress=progress)
    except (KeyUnusable, NoteRejected) as error:
        fail(str(error), EXIT_INCONCLUSIVE)
    except (EventStoreError, OSError) as error:
        fail(str(error), EXIT_UNREADABLE)
    unproven = found.unproven
    if beside:
        unproven += (
            "That the key is the right one: it lies beside the log. Keep a copy elsewhere: --key.",
        )
    _tell(path, found, unproven, as_json)
    sys.exit(EXIT_OF[found.verdict])


@command.command("checkpoint")
@root_option
@log_option
def checkpoint(root: Path, log: Path | None) -> None:
    """Print the newest checkpoint, a signed note. Keep it where nobody can change it.

    Later `sandtrail audit verify --checkpoint FILE` shows that nothing which it covers was changed
    since, by anybody.
    """
    path = log or root / LOG_FILE
    try:
        note = newest_note(path)
    except (EventStoreError, OSError) as error:
        fail(str(error), EXIT_UNREADABLE)
    if note is None:
        fail(f"{path} was never sealed: that is done by the service", EXIT_INCONCLUSIVE)
    click.echo(note, nl=False)


@command.command("snapshot")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@root_option
@log_option
@keys_option
@json_option
def snapshot(
    destination: Path, root: Path, log: Path | None, keys: tuple[Path, ...], as_json: bool
) -> None:
    r"""Make a whole, verified copy of the log; also while the service runs.

    DEST must not exist: it appears at once, when it is verified and on disk. Keep it with a
    checkpoint, to show later that it was not changed either.

    \b
    Exit codes: 0 made, 3 the log is broken and nothing was made, 4 the key is unusable,
    5 not found, unreadable, or DEST cannot be made.
    """
    path = log or root / LOG_FILE
    try:
        trusted, _ = _trusted(root, log, keys)
        with _progress() as progress:
            found = copy_log(path, destination, trusted=trusted, progress=progress)
    except KeyUnusable as error:
        fail(str(error), EXIT_INCONCLUSIVE)
    except LogCorrupt as error:
        fail(str(error), EXIT_OF[Verdict.BROKEN])
    except (EventStoreError, OSError) as error:
        fail(str(error), EXIT_UNREADABLE)
    if as_json:
        print_json(
            "snapshot",
            log=str(path),
            snapshot=str(destination),
            verdict=found.verdict.value,
            head=found.head,
            sealed=found.sealed,
        )
        return
    seal = (
        f"sealed to #{found.sealed} by a key that is trusted"
        if found.sealed
        else "no seal of a trusted key"
    )
    click.echo(f"{destination}: #1 to #{found.head}, verified, {seal}")


def _trusted(
    root: Path, log: Path | None, keys: tuple[Path, ...]
) -> tuple[tuple[Verifier, ...], bool]:
    """The keys to trust, and whether they are only those that lie beside the log."""
    if keys:
        return tuple(map(load_verifier, keys)), False
    own = root / (SEAL_KEY_FILE + PUBLIC_SUFFIX)
    if log is None and own.exists():
        return (load_verifier(own),), True
    return (), False


def _pinned(path: Path, trusted: tuple[Verifier, ...]) -> Checkpoint:
    with path.open("rb") as file:
        raw = file.read(NOTE_BYTES_READ_MAX)
    return open_checkpoint(raw, trusted) if trusted else read_checkpoint(raw)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, if a person looks at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _tell(path: Path, found: Verification, unproven: tuple[str, ...], as_json: bool) -> None:
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
        click.echo(f"{each.layer:<10} {each.outcome.value}   {each.text}")
    click.echo(_conclusion(found))
    click.echo("Does not prove:")
    for sentence in unproven:
        click.echo(f"  - {sentence}")


def _conclusion(found: Verification) -> str:
    match found.verdict:
        case Verdict.INTACT:
            return (
                f"VERIFIED #1 to #{found.sealed}. Proves: nothing between was changed, removed or "
                "reordered since it was sealed."
            )
        case Verdict.BROKEN:
            where = f" at #{found.first_bad}" if found.first_bad is not None else ""
            return f"BROKEN{where}. Keep the file as it is, with its -wal; work on a copy."
        case Verdict.INCONCLUSIVE:
            told = (
                "INCONCLUSIVE: nothing wrong was found, but what was skipped above could hide it."
            )
            skipped = {each.layer for each in found.findings if each.outcome is Outcome.SKIP}
            return told + (" Give the key with --key." if "signature" in skipped else "")
