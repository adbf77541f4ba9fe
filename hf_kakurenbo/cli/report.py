"""`hf-kakurenbo report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import errors_in_one_line

_NAME = "kakurenbo_report.html"


def report(
    output_dir: Annotated[
        Path,
        typer.Argument(help="The output_dir of a training, a checkpoint, or a saved model.", show_default=False),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The training dataset: a name, a folder or a file. With it the report shows samples and classes.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the dataset was trained on.")] = "train",
    config_name: Annotated[
        str | None, typer.Option(help="Which configuration of the dataset.", show_default=False)
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="The column with the class of a sample.  [default: found by its type]", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help=f"The HTML file to write.  [default: {_NAME} in OUTPUT_DIR]", show_default=False),
    ] = None,
) -> None:
    """Write what a training hid into one HTML file.

    It opens offline. Train with ledger_history=True to see whether what was
    hidden is still known, and which samples were never learnt.
    """
    # The imports take seconds, in which the command may be interrupted too.
    with errors_in_one_line():
        from ..reporting import read_run, write_report

        run = read_run(output_dir)
        loaded = None
        if dataset is not None:
            from ..reporting.dataset_by_name import load_by_name

            loaded = load_by_name(dataset, split, config_name)
        folder = output_dir if output_dir.is_dir() else output_dir.parent
        target = write_report(run, folder / _NAME if out is None else out, loaded, label_column)
        typer.echo(f"Written to {target}: {len(run.ledger):,} samples, {run.epochs_done} epochs, from {run.source}.")
