"""`hf-kakurenbo fdsl ...`: images from formulas."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .errors import errors_in_one_line
from .options import Imports, NumProc, count, pixels, require_processes

app = typer.Typer(
    help="List, draw and store training images from formulas (FDSL).", no_args_is_help=True, rich_markup_mode=None
)


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


def _complete(incomplete: str) -> list[str]:
    from ..fdsl.catalog import list_fdsl

    return [name for name in list_fdsl() if name.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(help="A dataset, as `fdsl list` shows them.", show_default=False, autocompletion=_complete)
]
Split = Annotated[_Split, typer.Option(help="Validation has the same categories, and no instance of train.")]
ImageSize = Annotated[
    int, typer.Option(help="Height and width in pixels, as 224 or 224x224.", parser=pixels, metavar="SIZE")
]
DrawSize = Annotated[
    int | None,
    typer.Option(
        help="Draw at this size, then make smaller; the image size draws at full contrast.  [default: the published "
        "size]",
        show_default=False,
        parser=pixels,
        metavar="SIZE",
    ),
]
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
    int | None,
    typer.Option(
        help="Points per image, as 200k.  [default: the family's number]",
        show_default=False,
        parser=count,
        metavar="COUNT",
    ),
]
Patches = Annotated[bool, typer.Option(help="FractalDB, 2D-OFDB: a random 3×3 patch for each point, or a pixel.")]
Categories = Annotated[
    int | None,
    typer.Option(
        help="Only the first so many, as 500 or 1k.  [default: all]", show_default=False, parser=count, metavar="COUNT"
    ),
]


@app.command("list")
def list_datasets(modules: Imports = None) -> None:
    """Show the datasets that there are."""
    from ..fdsl.catalog import find_entry, list_fdsl

    typer.echo(f"{'name':<20} {'categories':>10} {'instances':>10} {'training images':>16}")
    for entry in map(find_entry, list_fdsl()):
        images = entry.categories * entry.instances
        typer.echo(f"{entry.name:<20} {entry.categories:>10,} {entry.instances:>10,} {images:>16,}")


@app.command()
def preview(
    name: Name,
    out: Annotated[Path, typer.Option(help="The file to write: .png, .webp, .jpg, …", show_default=False)],
    rows: Annotated[int, typer.Option(help="How many categories, at most.")] = 5,
    columns: Annotated[int, typer.Option(help="How many instances of each, at most.")] = 8,
    image_size: ImageSize = 112,
    draw_size: DrawSize = None,
    color: Color = False,
    seed: Seed = 0,
    points: Points = None,
    patches: Patches = True,
    parameters_folder: Folder = None,
    split: Split = _Split.train,
    modules: Imports = None,
) -> None:
    """Draw a grid of images into a file.

    A row is a category, a column an instance; of a dataset with one instance
    of each, every image is a category.
    """
    from ..fdsl import load_fdsl
    from ..fdsl.export.gallery import fitting_grid, save_gallery

    with errors_in_one_line():
        dataset = load_fdsl(
            name,
            split.value,
            image_size=image_size,
            draw_size=draw_size,
            color=color,
            mode="RGB" if color else "L",
            seed=seed,
            points=points,
            patches=patches,
            parameters=parameters_folder,
        )
        save_gallery(dataset, out, *fitting_grid(dataset, rows, columns))


def _parse_shard(text: str) -> tuple[int, int]:
    index, _, parts = text.partition("/")
    if not (index.isdecimal() and parts.isdecimal() and int(index) < int(parts)):
        raise ValueError(f"--shard {text!r} is not i/n with 0 ≤ i < n, as 0/4, 1/4, 2/4 and 3/4 for four machines.")
    return int(index), int(parts)


@app.command()
def render(
    name: Name,
    out: Annotated[Path, typer.Option(help="A new or empty folder, or one to continue in.", show_default=False)],
    format: Annotated[_Format, typer.Option(help="How the images are stored.")] = _Format.imagefolder,  # noqa: A002
    split: Split = _Split.train,
    image_size: ImageSize = 224,
    draw_size: DrawSize = None,
    color: Color = False,
    seed: Seed = 0,
    points: Points = None,
    patches: Patches = True,
    parameters_folder: Folder = None,
    categories: Categories = None,
    instances: Annotated[
        int | None,
        typer.Option(
            help="Only the first so many of each category.  [default: all]",
            show_default=False,
            parser=count,
            metavar="COUNT",
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do part I of N of the work, counted from 0; machines share a job so.")
    ] = "0/1",
    mode: Annotated[_Mode, typer.Option(help="L stores gray images in one channel: smaller, faster.")] = _Mode.RGB,
    num_proc: NumProc = 1,
    images_per_file: Annotated[
        int, typer.Option(help="In a parquet or tar file, as 10k.", parser=count, metavar="COUNT")
    ] = 1000,
    modules: Imports = None,
) -> None:
    """Store the images of a dataset in a folder.

    datasets.load_dataset(OUT) reads them. Killed or interrupted, the same
    command continues.
    """
    from ..fdsl import load_fdsl
    from ..fdsl.export import rendering

    with errors_in_one_line("Interrupted. What is written is complete; the same command continues."):
        part = _parse_shard(shard)
        require_processes(num_proc)
        dataset = load_fdsl(
            name,
            split.value,
            image_size=image_size,
            draw_size=draw_size,
            color=color,
            mode=mode.value,
            seed=seed,
            points=points,
            patches=patches,
            parameters=parameters_folder,
            categories=categories,
            instances=instances,
        )
        written = rendering.render(dataset, out, format.value, part, num_proc, images_per_file)
        typer.echo(f"{written:,} images written to {out}." if written else f"Nothing to do: {out} is complete.")


@app.command()
def parameters(
    name: Name,
    out: Annotated[Path, typer.Option(help="A new or empty folder.", show_default=False)],
    categories: Categories = None,
    seed: Seed = 0,
    modules: Imports = None,
) -> None:
    """Write the parameters of categories as CSV files."""
    from ..fdsl.catalog import category_parameters, find_entry, find_family
    from ..fdsl.parameters import write_parameters

    with errors_in_one_line():
        entry = find_entry(name)
        count = entry.categories if categories is None else categories
        if not 1 <= count <= entry.categories:
            raise ValueError(f"categories must be in 1..{entry.categories}, got {count}.")
        family = find_family(entry.family)
        written = write_parameters(out, family, (category_parameters(family, seed, c) for c in range(count)))
        typer.echo(f"{written:,} files written to {out}.")


@app.command()
def search(
    family: Annotated[str, typer.Argument(help="A family, as fractaldb.", show_default=False)],
    categories: Annotated[
        int,
        typer.Option(help="Of how many categories, from the first.", show_default=False, parser=count, metavar="COUNT"),
    ],
    out: Annotated[Path, typer.Option(help="The .npy file; if it exists, the search continues.", show_default=False)],
    seed: Seed = 0,
    num_proc: NumProc = 1,
    modules: Imports = None,
) -> None:
    """Search for the categories of a family anew.

    Finds the number of the first accepted attempt at each category, which the
    package ships for seed 0. May be stopped; the same command continues.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    from ..fdsl.catalog import find_family
    from ..fdsl.search import search as search_attempts

    with errors_in_one_line("Interrupted. What was found is kept; the same command continues."):
        find_family(family)
        require_processes(num_proc)
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
