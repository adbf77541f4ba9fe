"""The command `hf-kakurenbo`: a file for each command or group of commands, which a line here registers.

What a command works with is imported when it runs, so that help, version and completion are there at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from .._version import __version__
from . import compare, fdsl, policies, report
from .options import Imports

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(compare.compare)
app.command()(policies.policies)
app.command()(report.report)
app.add_typer(fdsl.app, name="fdsl")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-kakurenbo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    modules: Imports = None,
) -> None:
    """Train Hugging Face models on fewer samples.

    KakurenboTrainer hides, in each epoch, the samples that a model already
    knows. This command reports what a training hid, compares ways of hiding
    by accuracy and cost, and draws labelled training images from formulas
    (FDSL).
    """


def main() -> None:
    """Run the command."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may know no Δ, and the rest is to be printed
    sys.exit(app())
