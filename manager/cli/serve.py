"""``sandtrail serve``."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from manager.adapters.worker_start import start_worker_if_none
from manager.application.settings import (
    AUTO,
    SEAL_EVENTS,
    SEAL_SECONDS,
    SNAPSHOT_EVENTS,
    STOP_GRACE_S,
    Service,
)
from manager.cli.stop_signals import stop_signals_held
from manager.domain.request import PERMITS, Permit
from manager.terminal.output import json_option
from manager.terminal.place import root_option
from manager.terminal.timeout import Seconds

ENGINES = (AUTO, "bwrap", "crun", "runc", "runsc")
PROGRAMS = (*ENGINES[1:], "criu")


@click.command("serve")
@root_option
@click.option("--engine", type=click.Choice(ENGINES), default=AUTO, show_default=True)
@click.option(
    "--stop-grace",
    type=Seconds(min=0),
    default=STOP_GRACE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long calls under way may go on after SIGTERM.",
)
@click.option(
    "--stop-containers",
    is_flag=True,
    help="End all containers when the service is stopped: SIGTERM, and SIGKILL after the grace.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Key that seals the log; made, mode 0600, if missing.  [default: ROOT/keys/log.key]",
)
@click.option(
    "--seal-events",
    type=click.IntRange(min=1),
    default=SEAL_EVENTS,
    show_default=True,
    help="Seal the log when so many events came.",
)
@click.option(
    "--seal-seconds",
    type=Seconds(min=0, min_open=True),
    default=SEAL_SECONDS,
    show_default=True,
    help="Seal the log when an event has waited so long; also at stop.",
)
@click.option(
    "--snapshot-events",
    type=click.IntRange(min=1),
    default=SNAPSHOT_EVENTS,
    show_default=True,
    help="Write a snapshot, which makes the next start fast, when so many events came.",
)
@click.option(
    "--runsc-root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Let gVisor's own command drive the sandboxes: runsc --root DIR ps|kill|start|…",
)
@click.option(
    "--ignore-namespace-paths",
    is_flag=True,
    help="Run a spec that names a namespace by a path in the sandbox's own; else it is refused.",
)
@click.option(
    "--permit",
    "permits",
    type=click.Choice(PERMITS),
    multiple=True,
    help="Run what reaches the host, else it is refused: a spec's hooks, as this service's user; "
    "a container in the namespace at a path. May be given twice.",
)
@click.option(
    "--engine-path",
    "engine_paths",
    multiple=True,
    metavar="NAME=PATH",
    callback=lambda _context, _option, given: _engine_paths(given),
    help="Use this crun, runc, runsc, bwrap or criu, not the one in PATH; may be repeated.",
)
@click.option("--verbose", is_flag=True, help="Log more to stderr.")
@json_option
def command(  # noqa: PLR0913 - one for each option
    *,
    root: Path,
    engine: str,
    stop_grace: float,
    stop_containers: bool,
    key: Path | None,
    seal_events: int,
    seal_seconds: float,
    runsc_root: Path | None,
    snapshot_events: int,
    ignore_namespace_paths: bool,
    permits: tuple[Permit, ...],
    engine_paths: dict[str, Path],
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the service: accept calls on ROOT/control.sock until SIGTERM.

    Prints one line, beginning with "ready", when it accepts calls, and tells a service manager
    that listens on $NOTIFY_SOCKET. Containers go on running when the service ends, however it
    ends, and the next one finds them again; with --stop-containers a stop ends them, too.
    """
    _log_to_stderr(verbose=verbose)
    service = Service(
        root=root,
        engine=engine,
        stop_grace_s=stop_grace,
        stop_containers=stop_containers,
        key=key,
        seal_events=seal_events,
        seal_seconds=seal_seconds,
        runsc_root=runsc_root,
        snapshot_events=snapshot_events,
        ignore_namespace_paths=ignore_namespace_paths,
        permits=_permits(permits, ignore_namespace_paths=ignore_namespace_paths),
        engine_paths=engine_paths,
    )

    with stop_signals_held():  # else one would end this at once, and leave the worker for ever
        worker = start_worker_if_none(root, engine_paths)
        from manager.cli.serving import run  # noqa: PLC0415 - all that is large, beside the worker

        run(service, worker, as_json=as_json)


def _permits(given: Collection[Permit], *, ignore_namespace_paths: bool) -> tuple[Permit, ...]:
    if ignore_namespace_paths and "namespace-paths" in given:
        raise click.UsageError("a namespace's path is either ignored or permitted, not both")
    return tuple(each for each in PERMITS if each in given)


def _engine_paths(given: Sequence[str]) -> dict[str, Path]:
    paths = {}
    for text in given:
        name, _, path = text.partition("=")
        if name not in PROGRAMS or not path:
            raise click.BadParameter(f"{text!r} is not NAME=PATH with {', '.join(PROGRAMS)}")
        paths[name] = Path(path).absolute()
    return paths


def _log_to_stderr(*, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
