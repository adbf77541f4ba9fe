"""Parameters as CSV files: what is written is read back, and what is damaged is said to be."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdsl_toy import Toy
from hf_kakurenbo.fdsl import catalog, load_fdsl
from hf_kakurenbo.fdsl.kernels.published_fractaldb import reference_mask
from hf_kakurenbo.fdsl.parameters import read_parameters, write_parameters

HEADER = "width,shade,probability\n"
GOOD = HEADER + "0.5,0.25,1.0\n"


class FractalColumns(Toy):
    name = "fractaldb"
    columns = ("a", "b", "c", "d", "e", "f", "probability")

    def check_parameters(self, parameters):
        pass


def two_maps(first, second):
    return np.array([[first, second, 0.25], [second, first, 0.75]])


finite = st.floats(max_value=1, allow_nan=False, allow_infinity=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.lists(st.builds(two_maps, finite, finite), min_size=1, max_size=12))
def test_what_is_written_is_read_back_bit_for_bit(tmp_path_factory, tables):
    folder = tmp_path_factory.mktemp("parameters")
    assert write_parameters(folder, Toy(), tables) == len(tables)
    found = read_parameters(folder, Toy())
    assert [table.tobytes() for table in found] == [table.tobytes() for table in tables]
    assert {(table.dtype, table.shape) for table in found} == {(np.dtype(np.float64), (2, 3))}


@pytest.mark.parametrize("name", sorted(catalog._FAMILIES))
def test_those_of_every_family_are_read_back(tmp_path, name):
    family = catalog.find_family(name)
    tables = [catalog.category_parameters(family, 0, category) for category in range(3)]
    write_parameters(tmp_path, family, tables)
    assert [table.tobytes() for table in read_parameters(tmp_path, family)] == [table.tobytes() for table in tables]


def test_the_files(tmp_path):
    write_parameters(tmp_path / "new", Toy(), [two_maps(0.1, 1e-300)] * 2)
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == ["00000.csv", "00001.csv"]
    assert (tmp_path / "new" / "00001.csv").read_text() == HEADER + "0.1,1e-300,0.25\n1e-300,0.1,0.75\n"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_the_published_folders_are_read(tmp_path):
    """Rows without names, in folders of many, with gaps where an attempt was not accepted."""
    row = "-1.668389423696419183e-01,-6.072550667959302206e-01,1.728251339013286980e-02,2.048852284657074474e-01,"
    row += "2.111859836446616789e-01,5.155499518698667405e-01,{}\n"
    for path, weights in {
        "csv0/00002.csv": [1.0],
        "csv10/00250.csv": [0.5, 0.5],
        "csv0/00010.csv": [0.25, 0.75],
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("".join(row.format(weight) for weight in weights))
    found = read_parameters(tmp_path, FractalColumns())
    assert [table[:, -1].tolist() for table in found] == [[1.0], [0.25, 0.75], [0.5, 0.5]]
    assert found[0][0, 0] == -0.1668389423696419183


def test_published_categories_are_drawn_as_by_the_published_program(tmp_path):
    """Written as the program writes them, read with the family: the program's pixels, and a dataset."""
    records = json.loads(Path(__file__).with_name("fractaldb_points.json").read_text())
    numbers = sorted({record["category"] for record in records})
    (tmp_path / "csv0").mkdir()
    for record in records:
        np.savetxt(tmp_path / "csv0" / f"{record['category']:05d}.csv", record["params"], delimiter=",")
    tables = read_parameters(tmp_path, catalog.find_family("fractaldb"))
    assert len(tables) == len(numbers) == 4
    for record in records:
        table = tables[numbers.index(record["category"])]
        mask = reference_mask(table, record["weights"], record["points"], record["size"], record["pad"])
        assert hashlib.sha256(mask.tobytes()).hexdigest() == record["sha256"]
    images = load_fdsl("fractaldb-test", parameters=tmp_path, image_size=64, mode="L", patches=False, as_tensor=True)
    assert images.categories == 4
    masks = np.array([reference_mask(table, np.ones(6), 100_000, 64, 1) > 0 for table in tables])
    for label in range(4):
        drawn = images[label * images.instances]["image"][0].numpy() > 0
        # Other random numbers: nearly the same pixels.
        overlap = (drawn & masks).sum(axis=(1, 2)) / (drawn | masks).sum(axis=(1, 2))
        assert overlap[label] > 0.8
        assert np.delete(overlap, label).max() < 0.7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"00000\.csv is empty; .*Write or copy it anew"),
        ("\n\n", r"00000\.csv is empty"),
        (HEADER, r"00000\.csv has column names and no row below them"),
        (HEADER + "1,2\n", r"00000\.csv, row 2 has 2 columns; toy has 3: width, shade, probability. Correct the file"),
        (GOOD + "1,2,3,4\n", r"00000\.csv, row 3 has 4 columns"),
        ("0.5,1,1\n0.5,1\n", r"00000\.csv, row 2 has 2 columns"),
        (HEADER + "0.5,shade,1\n", r"00000\.csv, row 2, column shade: 'shade' is not a number"),
        ("0.5,,1\n", r"00000\.csv, row 1, column shade: '' is not a number"),
        (HEADER + "0.5,nan,1\n", r"row 2, column shade: nan is not finite"),
        (HEADER + "-inf,0,1\n", r"row 2, column width: -inf is not finite"),
        ("a,b,c,d,e,f,probability\n1,1,1,1,1,1,1\n", r"columns a, b, .*; those of toy are width, shade, probability"),
        (HEADER + "0.5,1,0.5\n", r"00000\.csv: the probabilities of its 1 maps add up to 0.5; they must add up to 1"),
        (HEADER + "0.5,1,1.5\n0.5,1,-0.5\n", r"the probability of map 1 is 1.5; it must be in \[0, 1\]"),
        (HEADER + "2.0,1,1\n", r"00000\.csv: width must be at most 1, got 2.0"),
        (HEADER + '0.5,"1,1\n', r"00000\.csv is not a CSV file \(.*\). Write or copy it anew"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", r"00000\.csv is not a CSV file \(.*\)"),
    ],
)
def test_a_damaged_file(tmp_path, content, message):
    (tmp_path / "00000.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_parameters(tmp_path, Toy())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"00000.csv": GOOD, "00001.csv": "0.5,1,1\n"}, r"00000\.csv begins with a row of column names, .*00001\.csv"),
        ({"a/00000.csv": GOOD, "b/0.csv": GOOD}, r"00000\.csv and .*0\.csv have the same number. Keep one"),
        ({"00000.csv": GOOD, "weights.csv": GOOD}, r"weights\.csv is not named by a number, as 00000\.csv is"),
    ],
)
def test_files_that_contradict_one_another(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_parameters(tmp_path, Toy())


def test_a_missing_folder_and_one_without_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*none. Give the folder that holds 00000\.csv"):
        read_parameters(tmp_path / "none", Toy())
    (tmp_path / "notes.txt").write_text("no parameters")
    with pytest.raises(FileNotFoundError, match=r"has no CSV file in it. Give the folder that holds 00000\.csv"):
        read_parameters(tmp_path, Toy())


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"already holds something else \(thesis\.txt\). Give the name of a new or"):
        write_parameters(tmp_path, Toy(), [two_maps(0.1, 0.2)])
    with pytest.raises(ValueError, match=r"thesis\.txt is a file; parameters need a folder. Give the name of a new"):
        write_parameters(tmp_path / "thesis.txt", Toy(), [two_maps(0.1, 0.2)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_writing_that_fails_leaves_nothing(tmp_path):
    def categories():
        yield two_maps(0.1, 0.2)
        yield np.zeros((2, 4))

    with pytest.raises(ValueError, match=r"toy have shape \(rows, 3\), got \(2, 4\) for 00001\.csv"):
        write_parameters(tmp_path / "new", Toy(), categories())
    assert not list(tmp_path.iterdir())


# Files with a parameter in each row, as the programs of RCDB and SegRCDB write them; Python's csv ends rows with \r\n.
RCDB_FILE = (
    "Vertex,57\r\nPerlin_noise,2.5018339\r\nline_width,0.0441\r\nCenter_rad,31\r\nLine_num,120\r\n"
    "Oval_rate_x,1.25\r\nOval_rate_y,1.5\r\nstart_pos_h,300.5\r\nstart_pos_w,128.0\r\n"
)
SEGRCDB_FILE = (
    "Category_num,1\r\nVertex,310\r\nPerlin_noise,0.125\r\nline_width,0.003\r\nCenter_rad,20\r\nLine_num,49\r\n"
    "Oval_rate_x,1.25\r\nOval_rate_y,1.5\r\nColor_Gray,1\r\n"
)


def test_the_published_files_of_rcdb_and_segrcdb_are_read(tmp_path):
    (tmp_path / "00000.csv").write_text(RCDB_FILE, newline="")
    (tmp_path / "00001.csv").write_text(SEGRCDB_FILE, newline="")
    found = read_parameters(tmp_path, catalog.find_family("rcdb"))
    # vertices, lines, noise_coefficient, line_width
    assert [table.tolist() for table in found] == [[[57, 120, 2.5018339, 0.0441]], [[310, 49, 0.125, 0.003]]]
    images = load_fdsl("rcdb-test", parameters=tmp_path, image_size=32, as_tensor=True)
    assert images.categories == 2
    drawn = images.family.draw_instance(found[0], 0, np.uint64(1))
    assert (drawn.vertices, drawn.lines) == (57, 120)
    assert (drawn.noise_gain, drawn.outward) == (2 * 2.5018339, 2.5018339 + 0.0441)
    assert not np.array_equal(images[0]["image"], images[images.instances]["image"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RCDB_FILE.replace("Line_num,120\r\n", ""), "missing Line_num, unknown none. Copy it anew, or read it with"),
        (RCDB_FILE + "nami1,3\r\n", "missing none, unknown nami1"),
        (RCDB_FILE + "Vertex,3\r\n", r"00000\.csv is no published file of rcdb"),
        (RCDB_FILE + "Vertex\r\n", r"00000\.csv is no published file of rcdb"),
        (RCDB_FILE.replace("57", "many"), "row 1, column vertices: 'many' is not a number"),
        (RCDB_FILE.replace("57", "2"), r"vertices of rcdb must be in \[3, 100000\], got 2"),
    ],
)
def test_a_published_file_that_is_damaged(tmp_path, content, message):
    (tmp_path / "00000.csv").write_text(content, newline="")
    with pytest.raises(ValueError, match=message):
        read_parameters(tmp_path, catalog.find_family("rcdb"))


def test_a_published_file_of_another_family(tmp_path):
    (tmp_path / "00000.csv").write_text(RCDB_FILE, newline="")
    with pytest.raises(ValueError, match=r"00000\.csv, row 1 has 2 columns; visualatom has 9"):
        read_parameters(tmp_path, catalog.find_family("visualatom"))
