"""Images on disk: they load back, in shares as in one, and a kill anywhere leaves nothing broken."""

import errno
import io
import json
import multiprocessing
import os
import select
import signal
import tarfile
import time

import datasets
import numpy as np
import pytest
from PIL import Image

from fdsl_toy import CATEGORIES, INSTANCES, NAME, enter_into_catalog
from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.fdsl.export import formats, rendering
from hf_kakurenbo.fdsl.export.gallery import fitting_grid, make_gallery, save_gallery
from hf_kakurenbo.fdsl.export.jobs import WORKPLACE
from hf_kakurenbo.fdsl.export.rendering import render
from hf_kakurenbo.fdsl.parameters import write_parameters

FORMATS = ["imagefolder", "parquet", "webdataset"]
COUNT = CATEGORIES * INSTANCES


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch):
    enter_into_catalog(monkeypatch.setitem)


def load(split="train", **options):
    return load_fdsl(NAME, split, **{"image_size": 8, "instances": INSTANCES, **options})


def tree(folder):
    """Every file with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def visible(folder):
    """Every file outside the workplace with its bytes."""
    return {name: content for name, content in tree(folder).items() if not name.startswith(WORKPLACE)}


def read_back(folder, storage, cache):
    """(sample id, label, pixels) of every image, as `load_dataset` gives them."""
    loaded = datasets.load_dataset(str(folder), cache_dir=str(cache))["train"]
    for example in loaded:
        if storage == "parquet":
            image, label, sample_id = example["image"], example["label"], example["sample_id"]
        elif storage == "webdataset":
            image, label, sample_id = example["png"], example["cls"], int(example["__key__"])
        else:
            image, label = example["image"], example["label"]
            sample_id = int(image.filename.rsplit("_", 1)[1].removesuffix(".png"))
        yield sample_id, label, np.asarray(image)


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("options", [{}, {"color": True}, {"mode": "L"}], ids=str)
def test_what_is_rendered_loads_back(tmp_path, storage, options):
    dataset = load(**options)
    assert render(dataset, tmp_path / "out", storage, images_per_file=8) == COUNT
    found = list(read_back(tmp_path / "out", storage, tmp_path / "cache"))
    assert [sample_id for sample_id, _, _ in found] == list(range(COUNT))
    for sample_id, label, pixels in found:
        expected = dataset[sample_id]
        assert label == expected["label"]
        np.testing.assert_array_equal(pixels, np.asarray(expected["image"]))


def test_each_format_by_its_own_name(tmp_path):
    """As the documentation shows it."""
    cache = str(tmp_path / "cache")
    for storage in FORMATS:
        render(load(), tmp_path / storage, storage)
    images = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "imagefolder"), cache_dir=cache)
    assert images["train"].features["label"].names == ["00000", "00001", "00002"]
    tables = datasets.load_dataset("parquet", data_dir=str(tmp_path / "parquet"), cache_dir=cache)
    assert tables["train"].features["image"] == datasets.Image()
    assert tables["train"].features["label"].num_classes == CATEGORIES
    tars = datasets.load_dataset(
        "webdataset", data_files=str(tmp_path / "webdataset/train/*.tar"), split="train", streaming=True
    )
    assert [example["cls"] for example in tars.take(8)] == [0] * 7 + [1]


def test_where_images_lie(tmp_path):
    for storage in FORMATS:
        render(load(), tmp_path / storage, storage, images_per_file=16)
    assert list(visible(tmp_path / "imagefolder"))[7:9] == [
        "train/00001/00001_000000007.png",
        "train/00001/00001_000000008.png",
    ]
    assert list(visible(tmp_path / "parquet")) == ["train/000000.parquet", "train/000001.parquet"]
    assert list(visible(tmp_path / "webdataset")) == ["train/000000.tar", "train/000001.tar"]
    with tarfile.open(tmp_path / "webdataset/train/000001.tar") as tar:
        assert tar.getnames()[:4] == ["000000016.png", "000000016.cls", "000000017.png", "000000017.cls"]


def test_two_splits_in_one_folder(tmp_path):
    render(load(), tmp_path / "out", "parquet")
    render(load("validation"), tmp_path / "out", "parquet")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation"}
    assert not set(images(loaded["train"])) & set(images(loaded["validation"]))


def images(examples):
    return [np.asarray(example["image"]).tobytes() for example in examples]


@pytest.mark.parametrize("storage", FORMATS)
def test_shares_together_are_the_whole(tmp_path, storage):
    """However many processes do them, and in whatever order."""
    render(load(), tmp_path / "whole", storage, images_per_file=2)
    shares = [render(load(), tmp_path / "out", storage, (index, 3), images_per_file=2) for index in (2, 0)]
    shares.append(render(load(), tmp_path / "out", storage, (1, 3), num_proc=2, images_per_file=2))
    assert sum(shares) == COUNT
    assert min(shares) >= COUNT // 3 - 2
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("num_proc", [1, 2])
def test_progress_is_shown_on_a_terminal(tmp_path, monkeypatch, num_proc):
    for stream, progress, shown in ((Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)):
        monkeypatch.setattr("sys.stderr", stream)
        folder = tmp_path / f"{type(stream).__name__}{progress}"
        render(load(), folder, num_proc=num_proc, images_per_file=4, progress=progress)
        assert (stream.getvalue() != "") == shown
        if shown:
            last = stream.getvalue().rstrip().split("\r")[-1]
            assert last.startswith("train: 100%")
            assert f"{COUNT}/{COUNT}" in last


@pytest.mark.parametrize("storage", FORMATS)
def test_a_finished_job_is_left_as_it_is(tmp_path, storage, monkeypatch):
    render(load(), tmp_path / "out", storage)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(formats, "encode_png", None)
    assert render(load(), tmp_path / "out", storage) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


class Fuse:
    """Kills the process at one of the moments of a rendering; counts them if none is chosen."""

    def __init__(self, kill_at=None):
        self.kill_at = kill_at
        self.moments = 0

    def moment(self):
        self.moments += 1
        if self.kill_at is not None and self.moments > self.kill_at:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def light(self):
        encode, beside = formats.encode_png, formats.written_beside
        fuse = self

        def watched_encode(image):
            fuse.moment()
            return encode(image)

        class WatchedFile:
            """The file while it is written: half of what goes into it, a moment, then the rest."""

            def __init__(self, *args, **kwargs):
                self.inner = beside(*args, **kwargs)

            def __enter__(self):
                stream = self.inner.__enter__()
                self.write, stream_write = stream.write, stream.write

                class Half(io.RawIOBase):
                    def writable(self):
                        return True

                    def tell(self):
                        return stream.tell()

                    def write(self, content):
                        view = memoryview(content).cast("B")
                        stream_write(view[: len(view) // 2])
                        stream.flush()
                        fuse.moment()
                        return len(view) // 2 + stream_write(view[len(view) // 2 :])

                return Half()

            def __exit__(self, *error):
                fuse.moment()
                result = self.inner.__exit__(*error)
                fuse.moment()
                return result

        formats.encode_png, formats.written_beside = watched_encode, WatchedFile


def render_to_the_kill(folder, storage, num_proc, kill_at, moments):
    os.setpgrp()
    enter_into_catalog(dict.__setitem__)
    fuse = Fuse(kill_at)
    fuse.light()
    render(load(instances=3), folder, storage, num_proc=num_proc, images_per_file=4)
    moments.value = fuse.moments


def in_a_process(*args):
    """Run `render_to_the_kill`; how it ended, and how many moments there were."""
    context = multiprocessing.get_context("fork")
    moments = context.Value("i", 0)
    process = context.Process(target=render_to_the_kill, args=(*args, moments))
    process.start()
    process.join(60)
    return process.exitcode, moments.value


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_anywhere_and_gone_on_with(tmp_path, storage, num_proc):
    whole = load(instances=3)
    code, moments = in_a_process(tmp_path / "whole", storage, 1, None)
    assert code == 0
    expected = tree(tmp_path / "whole")
    assert moments > len(whole)
    kills = 0
    for kill_at in range(0, moments // num_proc, 5):
        folder = tmp_path / str(kill_at)
        code, _ = in_a_process(folder, storage, num_proc, kill_at)
        # With two processes, neither may come as far as the later moments.
        assert code in ((-signal.SIGKILL,) if num_proc == 1 else (-signal.SIGKILL, 0))
        kills += code != 0
        left = visible(folder)
        assert left.items() <= expected.items(), "a file under its final name is not whole"
        render(whole, folder, storage, num_proc=1, images_per_file=4)
        assert tree(folder) == expected
    assert kills >= 3


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_full_disk(tmp_path, storage, num_proc, monkeypatch):
    beside = formats.written_beside
    room = multiprocessing.Value("i", 3)

    class FullDisk:
        def __init__(self, *args, **kwargs):
            self.inner = beside(*args, **kwargs)

        def __enter__(self):
            stream = self.inner.__enter__()
            stream_write = stream.write

            class Filling(io.RawIOBase):
                def writable(self):
                    return True

                def tell(self):
                    return stream.tell()

                def write(self, content):
                    room.value -= 1
                    if room.value < 0:
                        stream_write(memoryview(content).cast("B")[:5])
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return stream_write(content)

            return Filling()

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    monkeypatch.setattr(formats, "written_beside", FullDisk)
    with pytest.raises(
        OSError, match=r"The disk of .* is full.*make room, run the same again, and it continues"
    ) as raised:
        render(load(), tmp_path / "out", storage, num_proc=num_proc, images_per_file=4)
    assert raised.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path / "out" / WORKPLACE) == ["train.json"]
    left = visible(tmp_path / "out")
    monkeypatch.undo()
    enter_into_catalog(monkeypatch.setitem)
    render(load(), tmp_path / "out", storage, images_per_file=4)
    assert left.items() <= visible(tmp_path / "out").items()
    render(load(), tmp_path / "whole", storage, images_per_file=4)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_interrupt_stops_cleanly(tmp_path, num_proc, monkeypatch):
    update = rendering.tqdm.update
    seen = []

    def interrupt(bar, count):
        seen.append(count)
        if sum(seen) >= 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(rendering.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        render(load(), tmp_path / "out", "webdataset", num_proc=num_proc, images_per_file=2)
    assert os.listdir(tmp_path / "out" / WORKPLACE) == ["train.json"]
    monkeypatch.setattr(rendering.tqdm, "update", update)
    assert 0 < render(load(), tmp_path / "out", "webdataset", images_per_file=2) < COUNT


def kill_the_parent(image):
    os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
    time.sleep(60)


def render_alone(folder):
    enter_into_catalog(dict.__setitem__)
    formats.encode_png = kill_the_parent
    render(load(), folder, "webdataset", num_proc=2, images_per_file=1)


def test_workers_end_when_the_parent_is_killed(tmp_path):
    held, inherited = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=render_alone, args=(tmp_path,))
    process.start()
    os.close(inherited)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    # The end of the pipe is seen when the last process that has the other side of it is gone.
    assert select.select([held], [], [], 60)[0] == [held]
    assert os.read(held, 1) == b""
    os.close(held)


def end_the_process(image):
    os._exit(1)


def test_a_worker_that_is_ended_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "encode_png", end_the_process)
    with pytest.raises(
        OSError, match=r"worker process was ended from outside.*with a smaller num_proc, and it continues"
    ):
        render(load(), tmp_path, num_proc=2, images_per_file=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_size": 16},
            r"was begun with other options: image_size 8 there, 16 asked for; draw_size 8 there, 16 asked for. Go on",
        ),
        ({"seed": 7}, r"seed 0 there, 7 asked for"),
        ({"categories": slice(1, 3)}, r"categories \[0, 3, 1\] there, \[1, 3, 1\] asked for"),
        ({"mode": "L"}, r"mode 'RGB' there, 'L' asked for"),
        ({"color": True}, r"color False there, True asked for"),
        ({"instances": 4}, r"images 21 there, 12 asked for; instances \[0, 7, 1\] there, \[0, 4, 1\] asked for"),
        ({"split": "validation", "seed": 7}, r"seed 0 there, 7 asked for"),
    ],
)
def test_another_job_in_the_folder(tmp_path, change, message):
    render(load(), tmp_path, "parquet")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=message):
        render(load(**change), tmp_path, "parquet")
    assert tree(tmp_path) == before


def test_other_parameters(tmp_path):
    tables = [load().family.draw_parameters(np.uint64(key)) for key in range(2)]
    write_parameters(tmp_path / "one", load().family, tables)
    write_parameters(tmp_path / "other", load().family, [tables[0], tables[1] / 2 + 0.25])
    render(load(parameters=tmp_path / "one"), tmp_path / "out")
    assert render(load(parameters=tmp_path / "one"), tmp_path / "out") == 0
    with pytest.raises(ValueError, match=r"other options: parameters '[0-9a-f]{64}' there, '[0-9a-f]{64}' asked for\."):
        render(load(parameters=tmp_path / "other"), tmp_path / "out")


def test_another_layout_in_the_folder(tmp_path):
    render(load(), tmp_path, "parquet")
    with pytest.raises(ValueError, match=r"format 'parquet' there, 'webdataset' asked for"):
        render(load(), tmp_path, "webdataset")
    with pytest.raises(ValueError, match=r"images_per_file 1000 there, 10 asked for"):
        render(load(), tmp_path, "parquet", images_per_file=10)


def test_a_changed_formula(tmp_path, monkeypatch):
    render(load(), tmp_path)
    monkeypatch.setattr(type(load().family), "version", 2)
    with pytest.raises(ValueError, match=r"family_version 1 there, 2 asked for"):
        render(load(), tmp_path)
    monkeypatch.setattr(type(load().family), "name", "other")
    with pytest.raises(ValueError, match=r"family 'toy' there, 'other' asked for"):
        render(load(), tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_note(tmp_path, content):
    render(load(), tmp_path)
    (tmp_path / WORKPLACE / "train.json").write_text(content)
    with pytest.raises(ValueError, match=r"train\.json is damaged \(.*\). Render into a new folder"):
        render(load(), tmp_path)


def test_the_note(tmp_path):
    render(load(), tmp_path, "parquet")
    assert json.loads((tmp_path / WORKPLACE / "train.json").read_text()) == {
        "job_format": 1,
        "name": NAME,
        "family": "toy",
        "family_version": 1,
        "split": "train",
        "format": "parquet",
        "images": COUNT,
        "images_per_file": 1000,
        "categories": [0, CATEGORIES, 1],
        "instances": [0, INSTANCES, 1],
        "parameters": None,
        "image_size": 8,
        "draw_size": 8,
        "color": False,
        "mode": "RGB",
        "points": None,
        "patches": True,
        "seed": 0,
    }


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"already holds something else \(thesis\.txt\). Give the name of a new or"):
        render(load(), tmp_path)
    with pytest.raises(ValueError, match=r"thesis\.txt is a file; images need a folder"):
        render(load(), tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, r"format must be one of imagefolder, parquet, webdataset, got 'zip'"),
        ({"shard": (2, 2)}, r"shard must be \(i, n\) with 0 ≤ i < n, counted from 0, got \(2, 2\)"),
        ({"shard": (-1, 2)}, r"got \(-1, 2\)"),
        ({"num_proc": 0}, r"num_proc must be at least 1, got 0"),
        ({"images_per_file": 0}, r"images_per_file must be at least 1, got 0"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        render(load(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"transform": np.asarray}, {"as_tensor": True}], ids=str)
def test_transformed_images_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=r"without `transform` and `as_tensor`, and transform them when they are read"):
        render(load(**options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gallery(tmp_path):
    dataset = load(mode="L")
    save_gallery(dataset, tmp_path / "new" / "grid.png", rows=2, columns=3)
    grid = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    assert grid.shape == (8 * 2 + 2, 8 * 3 + 4)
    np.testing.assert_array_equal(grid[10:18, 20:28], np.asarray(dataset[INSTANCES + 2]["image"]))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


@pytest.mark.parametrize(("shade", "gap"), [(0, 64), (255, 208)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gaps_are_seen_on_any_background(shade, gap, mode):
    image = Image.new("L", (4, 4), shade).convert(mode)
    grid = np.asarray(make_gallery([[image, image]]))
    assert (grid[:, 4:6] == gap).all()
    assert (np.delete(grid, [4, 5], axis=1) == shade).all()


def test_a_gallery_of_single_instances(tmp_path):
    dataset = load(mode="L", instances=1)
    save_gallery(dataset, tmp_path / "grid.png", rows=1, columns=3)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    for category in range(3):
        found = grid[:, 10 * category : 10 * category + 8]
        np.testing.assert_array_equal(found, np.asarray(dataset[category]["image"]))


@pytest.mark.parametrize(
    ("instances", "wanted", "expected"),
    [
        (INSTANCES, (9, 9), (CATEGORIES, INSTANCES)),
        (INSTANCES, (2, 3), (2, 3)),
        (1, (9, 9), (1, 3)),
        (1, (9, 2), (1, 2)),
        (1, (2, 1), (2, 1)),
    ],
)
def test_the_grid_that_fits(instances, wanted, expected):
    assert fitting_grid(load(instances=instances), *wanted) == expected


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (CATEGORIES + 1, 1, r"3 categories with 7 instances do not fill 4 rows and 1 columns; rows must be in 1..3"),
        (0, 1, r"do not fill 0 rows"),
        (1, 0, r"do not fill 1 rows and 0 columns"),
        (1, INSTANCES + 1, r"rows must be in 1..3 and columns in 1..7"),
    ],
)
def test_a_gallery_of_more_than_there_is(tmp_path, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        save_gallery(load(), tmp_path / "grid.png", rows, columns)
    assert not list(tmp_path.iterdir())


def test_a_gallery_of_unlike_images():
    with pytest.raises(ValueError, match="images of one size and mode, as many in each row"):
        make_gallery([[Image.new("L", (4, 4))], [Image.new("L", (5, 5))]])
