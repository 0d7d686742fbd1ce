"""``sandtrail doctor``."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from msgspec import to_builtins

from manager.adapters.worker_client import probe
from manager.application.engines import AUTO_ORDER
from manager.cli.session import run_async
from manager.terminal.output import json_option, print_json


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Try every engine on this machine and say which work, and why the others do not.

    Exits 1 if none does.
    """

    async def call() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="sandtrail-doctor-") as directory:
            async with probe(Path(directory)) as welcome:
                told: dict[str, Any] = to_builtins(welcome)
                return told

    told = run_async(call)
    engines = told["engines"]
    if as_json:
        print_json(
            "doctor", kernel=told["kernel"], engines=engines, capabilities=told["capabilities"]
        )
    else:
        _print(told, engines)
    sys.exit(0 if any(engine["works"] for engine in engines) else 1)


def _print(told: dict[str, Any], engines: list[dict[str, Any]]) -> None:
    from manager.terminal.table import print_table  # noqa: PLC0415 - rich, only for people

    working = [engine["name"] for engine in engines if engine["works"]]
    auto = next((name for name in AUTO_ORDER if name in working), "none of them")
    rows = [
        (
            engine["name"],
            "works" if engine["works"] else "no",
            engine["version"] or "-",
            engine["problem"] or (f"lacks {', '.join(engine['lacks'])}" if engine["lacks"] else ""),
        )
        for engine in engines
    ]
    print_table(("ENGINE", "HERE", "VERSION", "REMARK"), rows)
    print_table(("KERNEL FACILITY", "PATH TAKEN"), sorted(told["capabilities"].items()))
    click.echo(f"kernel {told['kernel']}; `--engine auto` takes {auto}")
