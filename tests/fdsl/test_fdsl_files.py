"""What a power cut, a kill, a full disk or another machine does to files that are being written."""

import errno
import io
import os
import uuid

import numpy as np
import pytest

from fdsl_toy import CATEGORIES, INSTANCES, NAME, Toy, enter_into_catalog
from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.fdsl.export import jobs
from hf_kakurenbo.fdsl.export.gallery import save_gallery
from hf_kakurenbo.fdsl.export.jobs import WORKPLACE
from hf_kakurenbo.fdsl.export.rendering import render
from hf_kakurenbo.fdsl.parameters import write_parameters
from hf_kakurenbo.fdsl.search import search
from hf_kakurenbo.utils import files

COUNT = CATEGORIES * INSTANCES


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch):
    enter_into_catalog(monkeypatch.setitem)


def load(**options):
    return load_fdsl(NAME, **{"image_size": 8, **options})


def tree(folder):
    """Every file with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_preview(folder):
    save_gallery(load(), folder / "grid.png", 1, 2)


def write_tables(folder):
    write_parameters(folder / "csv", Toy(), [np.array([[0.5, 0.5, 1.0]])] * 2)


def write_found(folder):
    search("toy", 5, folder / "toy.npy")


def write_images(folder):
    render(load(), folder / "images")


WRITERS = [write_preview, write_tables, write_found, write_images]


# Two machines.


@pytest.mark.parametrize("as_far_as", ["workplace", "note", "first image"])
def test_another_machine_begins_in_the_same_moment(tmp_path, monkeypatch, as_far_as):
    look = jobs.require_new_or_empty
    other = {}

    def while_the_other_begins(folder, purpose):
        if not other:
            other["began"] = True
            if as_far_as == "workplace":
                (folder / WORKPLACE).mkdir(parents=True)
            else:
                jobs.claim_folder(folder, jobs.describe_job(load(), "imagefolder", 1000))
            if as_far_as == "first image":
                (folder / "train" / "00000").mkdir(parents=True)
        look(folder, purpose)

    monkeypatch.setattr(jobs, "require_new_or_empty", while_the_other_begins)
    assert render(load(), tmp_path / "out") == COUNT
    assert other


def test_another_machine_begins_another_job_in_the_same_moment(tmp_path, monkeypatch):
    beside = jobs.written_beside

    def while_the_other_notes(note):
        monkeypatch.undo()
        enter_into_catalog(monkeypatch.setitem)
        written = beside(note)
        enter = written.__enter__

        class Later:
            def __enter__(self):
                return enter()

            def __exit__(self, *error):
                done = written.__exit__(*error)
                note.write_text(note.read_text().replace('"seed": 0', '"seed": 9'))
                return done

        return Later()

    monkeypatch.setattr(jobs, "written_beside", while_the_other_notes)
    with pytest.raises(ValueError, match="seed 9 there, 0 asked for"):
        render(load(), tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()


def test_a_note_that_another_machine_tidied_away(tmp_path, monkeypatch):
    beside = jobs.written_beside

    def tidied(note):
        monkeypatch.setattr(jobs, "written_beside", beside)
        render(load(), tmp_path / "out")
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(note))

    monkeypatch.setattr(jobs, "written_beside", tidied)
    assert render(load(), tmp_path / "out") == 0


# A kill.


class Killed(BaseException):
    """Ends the writing without a chance to tidy up."""


@pytest.fixture
def killed(monkeypatch):
    """Lets the next writing end in its midst."""

    def kill():
        def no_tidying(*args, **kwargs):
            raise Killed

        monkeypatch.setattr(files.Path, "replace", no_tidying)
        monkeypatch.setattr(files.Path, "unlink", no_tidying)
        monkeypatch.setattr(files.shutil, "rmtree", lambda *args, **kwargs: None)

    return kill


@pytest.mark.parametrize("write", WRITERS)
def test_what_a_kill_leaves_the_next_call_removes(tmp_path, monkeypatch, killed, write):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    folder.mkdir()
    write(whole)
    neighbours = [".grid.png-notes", f".other.png-{uuid.uuid4().hex}", "grid.png-" + 32 * "0"]
    for name in neighbours:
        (folder / name).write_text("of somebody else")
    killed()
    with pytest.raises(Killed):
        write(folder)
    monkeypatch.undo()
    enter_into_catalog(monkeypatch.setitem)
    assert len(tree(folder)) > len(neighbours), "the kill left nothing"
    write(folder)
    if write is write_images:
        write(folder)  # no note is there yet in the first: what lies beside may be of a machine that begins too
    assert tree(folder) == tree(whole) | dict.fromkeys(neighbours, b"of somebody else")


# A full disk.


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes five bytes of each file."""

    class FullDisk(io.FileIO):
        def write(self, content):
            super().write(memoryview(content).cast("B")[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    class FullTextDisk(io.StringIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = files.Path.open

    def open_on_it(path, mode="r", *args, **kwargs):
        if "x" in mode:
            return FullDisk(path, mode.replace("b", ""))
        if "w" in mode:
            path.touch()
            return FullTextDisk()
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(files.Path, "open", open_on_it)


@pytest.mark.parametrize(
    ("write", "left", "message"),
    [
        (write_preview, [], r"grid\.png is full\. Nothing is written: make room, or give a file on another disk"),
        (write_tables, [], r"csv is full\. Nothing is written: make room, or give a folder on another disk"),
        (write_found, [], r"toy\.npy is full\. What was found before is kept: make room, run the same again"),
        (write_images, ["images"], r"images is full\. What is written there is complete: make room, run the same"),
    ],
)
def test_a_full_disk(tmp_path, full_disk, monkeypatch, write, left, message):
    with pytest.raises(OSError, match="The disk of .*" + message) as raised:
        write(tmp_path)
    assert raised.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == left
    assert tree(tmp_path) == {}
    monkeypatch.undo()
    enter_into_catalog(monkeypatch.setitem)
    write(tmp_path)
    assert tree(tmp_path)


def test_a_full_disk_leaves_what_was_found_before(tmp_path, request):
    write_found(tmp_path)
    before = tree(tmp_path)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="is full"):
        search("toy", 9, tmp_path / "toy.npy")
    assert tree(tmp_path) == before


def test_another_failure_of_the_disk_is_told_as_it_is(tmp_path):
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(IsADirectoryError):
        write_preview(tmp_path)


# A power cut.


@pytest.mark.parametrize("storage", ["imagefolder", "parquet", "webdataset"])
@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2]])
def test_files_cut_off_by_a_power_cut_are_written_again(tmp_path, storage, damage):
    render(load(), tmp_path, storage, images_per_file=8)
    expected = tree(tmp_path)
    images = [name for name in expected if not name.startswith(WORKPLACE)]
    for name in images[::2]:
        (tmp_path / name).write_bytes(damage(expected[name]))
    written = render(load(), tmp_path, storage, images_per_file=8)
    assert written == (len(images[::2]) if storage == "imagefolder" else 8 + COUNT - 16)
    assert tree(tmp_path) == expected


def test_pngs_of_zeros_are_written_again(tmp_path):
    render(load(), tmp_path)
    expected = tree(tmp_path)
    name = next(name for name in expected if name.endswith(".png"))
    (tmp_path / name).write_bytes(bytes(len(expected[name])))
    assert render(load(), tmp_path) == 1
    assert tree(tmp_path) == expected
