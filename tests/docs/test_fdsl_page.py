"""What docs/fdsl.md shows runs, and what it says is so."""

import dataclasses
import inspect
import json
import re
import runpy
from pathlib import Path

import datasets
import pytest
from PIL import Image
from typer.testing import CliRunner

from hf_kakurenbo.cli import app, fdsl
from hf_kakurenbo.fdsl import FDSLSegmentation, list_fdsl, load_fdsl, load_fdsl_segmentation
from hf_kakurenbo.fdsl.catalog import find_family
from hf_kakurenbo.fdsl.loading.builder import FDSLConfig
from hf_kakurenbo.fdsl.parameters import write_parameters

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "fdsl.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.split("## How to add a family")[0], re.MULTILINE | re.DOTALL)


def run(block):
    """The value of the last line, which is an expression, and what the others defined."""
    *statements, last = block.strip().splitlines()
    names = {}
    exec("\n".join(statements), names)
    return eval(last, names), names


def test_the_quick_start():
    example, names = run(BLOCKS[0])
    assert len(names["train"]) == 1_000_000
    assert (example["label"], example["sample_id"], example["image"].size) == (12, 12345, (224, 224))


def test_the_ordinary_call():
    names = {}
    exec(BLOCKS[1], names)
    example = next(iter(names["stream"]))
    assert (example["label"], example["sample_id"], example["image"].size) == (0, 0, (224, 224))


def test_one_view_of_each_category():
    sampled, names = run(BLOCKS[2])
    assert (sampled, len(names["views"])) == (1000, 12_000)


def test_crops_are_cut_from_what_is_drawn():
    size, names = run(BLOCKS[3])
    assert size == (224, 224)
    assert names["train"].image_size == names["train"].draw_size


def test_images_with_masks():
    example, names = run(BLOCKS[4])
    assert len(names["train"]) == 118_000
    assert len(names["train"].classes) == 255
    assert (example["sample_id"], example["image"].size, example["mask"].size) == (7, (512, 512), (512, 512))


def test_the_options_of_masks_are_those_of_the_loader():
    section = PAGE.split("### Images with masks")[1].split("### ")[0]
    named = re.findall(r"`(\w+)`", section.split("Options\nare ")[1].split(";")[0])
    own = {*inspect.signature(load_fdsl_segmentation).parameters, *inspect.signature(FDSLSegmentation).parameters}
    assert set(named) == own - {"name", "split", "options"}


def test_the_picture_of_masks_is_what_its_program_draws():
    drawn = runpy.run_path(str(DOCS / "images" / "fdsl_segrcdb.py"))["draw"]()
    picture = DOCS / "images" / "fdsl_segrcdb.png"
    assert picture.stat().st_size <= 300_000
    with Image.open(picture) as shown:
        assert shown.tobytes() == drawn.tobytes(), "draw it anew: python docs/images/fdsl_segrcdb.py"


def test_the_published_figures_of_masks_are_those_that_were_measured():
    measured = json.loads((DOCS.parent / "tests" / "fdsl" / "fdsl_fidelity_segmentation.json").read_text())["segrcdb"]
    table = PAGE.split("| | published | ours |")[1].split("\n\n")[0]
    shown = re.findall(r"^\| \w.*? \| ([\d.]+) \| ", table, re.MULTILINE)
    figures = (figure["mean"] for name, figure in measured.items() if name != "images")
    assert shown == [f"{figure:.{1 if figure > 1 else 3}f}" for figure in figures]


def test_the_table_of_sizes():
    table = PAGE.split("| family | drawn at | points |")[1].split("\n\n")[0]
    rows = {}
    for names, size, points in re.findall(r"^\| (.*?) \| (\d+) \| ([\d,]+|–) \|$", table, re.MULTILINE):
        for name in names.split(", "):
            rows[name] = (int(size), int(points.replace(",", "").replace("–", "0")))
    titles = {"2D-OFDB": "ofdb2d", "3D-OFDB": "ofdb3d", "1p-frac": "1pfrac", "σ-factor fractals": "sigma_ifs"}
    assert len(rows) == 8
    for name, found in rows.items():
        family = find_family(titles.get(name, name.lower()))
        assert found == (family.draw_size, family.points or 0)


def test_the_published_figures_are_those_that_were_measured():
    measured = json.loads((DOCS.parent / "tests" / "fdsl" / "fdsl_fidelity.json").read_text())
    titles = {"VisualAtom, best practice": "visualatom_best"}
    table = PAGE.split("| | ink: published |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\w.*?) \| ([\d.]+) \| .*? \| .*? \| ([\d.]+) \|", table, re.MULTILINE)
    assert {titles.get(title, title.lower()) for title, *_ in rows} == set(measured)
    for title, ink, fine in rows:
        figures = measured[titles.get(title, title.lower())]
        assert (ink, fine) == (f"{figures['ink']['mean']:.1f}", f"{figures['fine_energy']['mean']:.3f}")


def test_the_stream():
    example, names = run(BLOCKS[5])
    assert example["sample_id"] // 1000 == example["label"]
    assert names["stream"].num_shards == 320


def test_the_published_parameters(tmp_path, monkeypatch):
    family = find_family("fractaldb")
    published = [family.draw_parameters(family.parameter_key(0, category, 0)) for category in range(3)]
    (tmp_path / "data").mkdir()
    write_parameters(tmp_path / "data" / "csv_rate0.2_category1000", family, published)
    monkeypatch.chdir(tmp_path)
    dataset, _ = run(BLOCKS[6])
    assert dataset.categories == 3
    assert dataset[1999]["label"] == 1


def test_every_block_is_run():
    assert len(BLOCKS) == 7


def test_the_options_are_those_of_load_fdsl():
    section = PAGE.split("## Options")[1].split("## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    parameters = dict(inspect.signature(load_fdsl).parameters)
    del parameters["name"]
    assert set(rows) == set(parameters)
    for name, default in rows.items():
        expected = parameters[name].default
        assert default == f"`{expected!r}`".replace("'", '"') or expected is None, name


def test_the_options_of_load_dataset_are_those_not_marked():
    section = PAGE.split("## Options")[1].split("## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", section, re.MULTILINE))
    marked = {name for name, meaning in rows.items() if "not with `load_dataset`" in meaning}
    own = {field.name for field in dataclasses.fields(FDSLConfig)}
    own -= {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    # What load_dataset itself takes, and hands to the builder as something else.
    own |= {"split", "streaming"}
    assert set(rows) - marked == own
    with pytest.raises(ValueError, match="as_tensor"):
        datasets.load_dataset("fdsl", "rcdb-test", split="train", streaming=True, as_tensor=True)


def test_an_unshuffled_stream_in_later_epochs():
    stream = load_fdsl("rcdb-test", streaming=True, image_size=8)
    orders = []
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        orders.append([example["sample_id"] for example in stream])
    assert orders[0] == list(range(32))
    assert sorted(orders[1]) == orders[0]


def test_every_name_is_in_the_table():
    table = PAGE.split("| names |")[1].split("\n\n")[0]
    named = set()
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        first, *sizes = re.findall(r"`(.*?)`", cell)
        named |= {first, *(first.split("-")[0] + size for size in sizes)}
    assert named == {name for name in list_fdsl() if not name.endswith("-test")}


@pytest.mark.parametrize("family", sorted({name.split("-")[0] for name in list_fdsl()}))
def test_each_family_has_its_picture(family):
    picture = DOCS / "images" / f"fdsl_{family}.png"
    assert f"(images/{picture.name})" in PAGE
    assert picture.stat().st_size <= 300_000
    with Image.open(picture) as image:
        assert max(image.size) <= 1000
        assert image.convert("L").getextrema()[1] > 100, "nothing is drawn"


@pytest.mark.parametrize("family", sorted({name.split("-")[0] for name in list_fdsl()}))
def test_each_picture_is_what_its_command_draws(family, tmp_path):
    own = {"ofdb3d": "--columns 12 --image-size 80", "sigma_ifs": "--color --image-size 64"}
    options = own.get(family, "").split()
    command = ["fdsl", "preview", f"{family}-1k", "--rows", "4", "--out", str(tmp_path / "drawn.png"), *options]
    for part in ("hf-kakurenbo fdsl preview NAME-1k --rows 4 --out ", " ".join(options)):
        assert part in PAGE
    assert CliRunner().invoke(app, command).exit_code == 0
    with Image.open(DOCS / "images" / f"fdsl_{family}.png") as shown, Image.open(tmp_path / "drawn.png") as drawn:
        assert (shown.mode, shown.size) == (drawn.mode, drawn.size)
        assert shown.tobytes() == drawn.tobytes(), f"draw it anew: hf-kakurenbo {' '.join(command[:-1])}"


def test_the_page_names_every_command():
    block = PAGE.split("## On disk, and the command")[1].split("```bash\n")[1].split("```")[0]
    named = [line.split()[2] for line in block.strip().splitlines()]
    assert sorted(named) == sorted(
        command.name or command.callback.__name__ for command in fdsl.app.registered_commands
    )
