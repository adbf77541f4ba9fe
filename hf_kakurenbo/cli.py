"""The command `hf-kakurenbo`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from ._version import __version__

_PLAIN: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None, "add_completion": False}

app = typer.Typer(
    help="Hiding what is known, compared; training images from formulas.", pretty_exceptions_enable=False, **_PLAIN
)
fdsl = typer.Typer(help="Images from formulas (FDSL): list, look at, store.", **_PLAIN)
app.add_typer(fdsl, name="fdsl")


class _Split(str, Enum):
    train = "train"
    validation = "validation"


class _Format(str, Enum):
    imagefolder = "imagefolder"
    parquet = "parquet"
    webdataset = "webdataset"


class _Mode(str, Enum):
    RGB = "RGB"
    L = "L"


Name = Annotated[str, typer.Argument(help="A dataset, as `fdsl list` shows them.", show_default=False)]
Split = Annotated[_Split, typer.Option(help="Validation has the same categories, and no instance of train.")]
ImageSize = Annotated[int, typer.Option(help="Height and width in pixels.")]
Color = Annotated[bool, typer.Option("--color", help="In colour instead of gray.")]
Seed = Annotated[int, typer.Option(help="Another seed gives other categories and images.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--parameters",
        help="CSV files of categories of your own, as `fdsl parameters` writes them.",
        show_default=False,
    ),
]
Points = Annotated[
    int | None, typer.Option(help="Points per image.  [default: the family's number]", show_default=False)
]
Patches = Annotated[bool, typer.Option(help="FractalDB: a random 3×3 patch for each point, or a pixel.")]
Categories = Annotated[int | None, typer.Option(help="Only the first so many.  [default: all]", show_default=False)]
Processes = Annotated[int, typer.Option("--num-proc", help="How many processes work.")]


@contextmanager
def _errors_in_one_line(when_interrupted: str = "Interrupted.") -> Iterator[None]:
    """Exit code 2 for a bad value, 1 for a failure, 130 for Ctrl-C; each with a line instead of a traceback."""
    try:
        yield
    except ValueError as error:
        _exit_with(f"Error: {error}", 2)
    except (OSError, RuntimeError) as error:
        _exit_with(f"Error: {error}", 1)
    except MemoryError as error:
        _exit_with(f"Error: There is not enough memory ({error}). Ask for smaller images, or fewer points.", 1)
    except KeyboardInterrupt:
        _exit_with(when_interrupted, 130)


def _require_processes(num_proc: int) -> None:
    if num_proc < 1:
        raise ValueError(f"--num-proc must be at least 1, got {num_proc}.")


def _exit_with(message: str, code: int) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-kakurenbo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@fdsl.command("list")
def list_datasets() -> None:
    """Show the datasets that there are."""
    from .fdsl.catalog import find_entry, list_fdsl

    typer.echo(f"{'name':<20} {'categories':>10} {'instances':>10} {'training images':>16}")
    for entry in map(find_entry, list_fdsl()):
        images = entry.categories * entry.instances
        typer.echo(f"{entry.name:<20} {entry.categories:>10,} {entry.instances:>10,} {images:>16,}")


@fdsl.command()
def preview(
    name: Name,
    out: Annotated[Path, typer.Option(help="The PNG file to write.", show_default=False)],
    rows: Annotated[int, typer.Option(help="How many categories, at most.")] = 5,
    columns: Annotated[int, typer.Option(help="How many instances of each, at most.")] = 8,
    image_size: ImageSize = 112,
    color: Color = False,
    seed: Seed = 0,
    points: Points = None,
    patches: Patches = True,
    parameters_folder: Folder = None,
    split: Split = _Split.train,
) -> None:
    """Draw a grid of images into a PNG file.

    A row is a category, a column an instance; of a dataset with one instance
    of each, every image is a category.
    """
    from .fdsl import load_fdsl
    from .fdsl.export.gallery import fitting_grid, save_gallery

    with _errors_in_one_line():
        dataset = load_fdsl(
            name,
            split.value,
            image_size=image_size,
            color=color,
            mode="RGB" if color else "L",
            seed=seed,
            points=points,
            patches=patches,
            parameters=parameters_folder,
        )
        save_gallery(dataset, out, *fitting_grid(dataset, rows, columns))


def _parse_shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--shard {text!r} is not i/n with 0 ≤ i < n, as 0/4, 1/4, 2/4 and 3/4 for four machines.")
    return int(index), int(count)


@fdsl.command()
def render(
    name: Name,
    out: Annotated[Path, typer.Option(help="A new or empty folder, or one to go on in.", show_default=False)],
    format: Annotated[_Format, typer.Option(help="How the images are stored.")] = _Format.imagefolder,  # noqa: A002
    split: Split = _Split.train,
    image_size: ImageSize = 224,
    color: Color = False,
    seed: Seed = 0,
    points: Points = None,
    patches: Patches = True,
    parameters_folder: Folder = None,
    categories: Categories = None,
    instances: Annotated[
        int | None, typer.Option(help="Only the first so many of each category.  [default: all]", show_default=False)
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do part I of N of the work, counted from 0; machines share a job so.")
    ] = "0/1",
    mode: Annotated[_Mode, typer.Option(help="L stores gray images in one channel: smaller, faster.")] = _Mode.RGB,
    num_proc: Processes = 1,
    images_per_file: Annotated[int, typer.Option(help="In a parquet or tar file.")] = 1000,
) -> None:
    """Store the images of a dataset in a folder.

    datasets.load_dataset(OUT) reads them. Killed or interrupted, the same
    command goes on.
    """
    from .fdsl import load_fdsl
    from .fdsl.export import rendering

    with _errors_in_one_line("Interrupted. What is written is complete; the same command goes on."):
        share = _parse_shard(shard)
        _require_processes(num_proc)
        dataset = load_fdsl(
            name,
            split.value,
            image_size=image_size,
            color=color,
            mode=mode.value,
            seed=seed,
            points=points,
            patches=patches,
            parameters=parameters_folder,
            categories=categories,
            instances=instances,
        )
        written = rendering.render(dataset, out, format.value, share, num_proc, images_per_file)
        typer.echo(f"{written:,} images written to {out}." if written else f"Nothing to do: {out} is complete.")


@fdsl.command()
def parameters(
    name: Name,
    out: Annotated[Path, typer.Option(help="A new or empty folder.", show_default=False)],
    categories: Categories = None,
    seed: Seed = 0,
) -> None:
    """Write the parameters of categories as CSV files."""
    from .fdsl.catalog import category_parameters, find_entry, find_family
    from .fdsl.parameters import write_parameters

    with _errors_in_one_line():
        entry = find_entry(name)
        count = entry.categories if categories is None else categories
        if not 1 <= count <= entry.categories:
            raise ValueError(f"categories must be in 1..{entry.categories}, got {count}.")
        family = find_family(entry.family)
        written = write_parameters(out, family, (category_parameters(family, seed, c) for c in range(count)))
        typer.echo(f"{written:,} files written to {out}.")


@app.command()
def compare(
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="One of digits, fdsl-cnn, fdsl-cnn-group-norm, fdsl-cnn-long, fdsl-cnn-augmented, fdsl-cnn-many, "
            "fdsl-vit, text, fashion-mnist-10k, fashion-mnist, fashion-mnist-wide, fashion-mnist-vit, "
            "reviews, reviews-minilm, digits-continued, fdsl-cnn-continued, text-continued, or "
            "package.module:attribute for one of your own; may be repeated.  "
            "[default: digits, fdsl-cnn, fdsl-cnn-augmented, fdsl-vit, text; quick: digits, fdsl-cnn]",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method, a .json file of your own, or one of the groups controls, field, kakurenbo-parts, "
            "kakurenbo-settings, spaced_repetition-parts, spaced_repetition-settings, savings; may be repeated, and "
            "no-hiding is always added.  [default: controls, field; quick: shorter-0.7, shorter-0.4, kakurenbo, "
            "spaced_repetition, random, infobatch]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many, from 0.  [default: 8; quick: 3]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder for what comes of it, or one to go on in.")] = Path("comparison"),
    num_proc: Processes = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few seeds, tasks and methods, unless given; takes minutes.")
    ] = False,
) -> None:
    """Compare methods of hiding: accuracy against time.

    Trains every method with every seed on every task, offline. Writes
    comparison.md, .png and .csv, and trainings.csv. Killed or interrupted,
    the same command goes on; with more methods or seeds it trains only these.
    """
    # The imports take seconds, in which the command may be interrupted too.
    with _errors_in_one_line("Interrupted. What was trained is kept; the same command goes on."):
        from .compare import Record, find_methods, find_tasks
        from .compare import compare as compare_methods
        from .compare.comparison import (
            DEFAULT_METHODS,
            DEFAULT_SEEDS,
            DEFAULT_TASKS,
            QUICK_METHODS,
            QUICK_SEEDS,
            QUICK_TASKS,
        )

        def show(record: Record, left: int) -> None:
            said = f"{record.task} {record.method}, seed {record.seed}: {record.accuracy:.1%}, {record.seconds:.1f} s"
            typer.echo(f"{said}; {left} left", err=True)

        if seeds is None:
            seeds = QUICK_SEEDS if quick else DEFAULT_SEEDS
        if seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {seeds}.")
        _require_processes(num_proc)
        # So that a task of your own is found where the command is given; last, as its files may be named like packages.
        sys.path.append(str(Path.cwd()))
        comparison = compare_methods(
            find_tasks(task or (QUICK_TASKS if quick else DEFAULT_TASKS)),
            find_methods(method or (QUICK_METHODS if quick else DEFAULT_METHODS)),
            range(seeds),
            out,
            num_proc,
            show,
        )
        typer.echo(comparison.table())
        typer.echo(f"Written to {out}: comparison.md, .png, .csv, trainings.csv.")


@fdsl.command()
def search(
    family: Annotated[str, typer.Argument(help="A family, as fractaldb.", show_default=False)],
    categories: Annotated[int, typer.Option(help="Of how many categories, from the first.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .npy file; if it is there, the search goes on.", show_default=False)],
    seed: Seed = 0,
    num_proc: Processes = 1,
) -> None:
    """Search for the categories of a family anew.

    Finds the number of the first accepted attempt at each category, which the
    package ships for seed 0. May be stopped; the same command goes on.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    from .fdsl.catalog import find_family
    from .fdsl.search import search as search_attempts

    with _errors_in_one_line("Interrupted. What was found is kept; the same command goes on."):
        find_family(family)
        _require_processes(num_proc)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tqdm(total=categories, unit="category", desc=family, disable=None) as bar:
            found = search_attempts(
                family,
                categories,
                out,
                seed=seed,
                processes=num_proc,
                on_progress=lambda done: bar.update(done - bar.n),
            )
        typer.echo(f"{len(found):,} categories in {out}, after {found.sum() + len(found):,} attempts.")


def main() -> None:
    """Run the command."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may know no Δ, and the rest is to be printed
    sys.exit(app())


if __name__ == "__main__":
    main()
