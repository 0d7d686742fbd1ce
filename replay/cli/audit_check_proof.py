"""``sandtrail audit check-proof``: as ``verify_trail.py``, which needs no sandtrail."""

import argparse
import sys
from pathlib import Path

import click

from manager.terminal.output import json_option
from replay import verify_trail


@click.command("check-proof")
@click.argument("proof", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Verifier key that is trusted; repeatable. Not one that came with the proof.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A checkpoint kept elsewhere, which the proof's must extend.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the arithmetic.")
@json_option
def command(
    proof: Path, key: tuple[Path, ...], checkpoint: Path | None, verbose: bool, as_json: bool
) -> None:
    """Check what `audit prove` or `audit export -o bundle` made; needs no log.

    The single file replay/verify_trail.py does the same with nothing but Python.

    Exit codes: 0 proven, 3 proven wrong, 4 inconclusive (no key, another key, another
    checkpoint), 5 not readable.
    """
    given = argparse.Namespace(key=list(key), checkpoint=checkpoint, verbose=verbose, json=as_json)
    sys.exit(verify_trail.run(proof, given))
