"""What holds for all tests."""

import gc
import importlib
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

EXAMPLES = Path(__file__).parent.parent / "examples"

# The same examples in every run: a failure can be repeated.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# Networks as small as those here only wait for a second thread.
torch.set_num_threads(1)

# Once a trainer is freed, PyTorch waits so many seconds for each persistent worker of its loaders that still holds a
# batch (pytorch/pytorch#81794), with `Trainer` as well: at 5, the tests wait for minutes.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2


@pytest.fixture
def example(monkeypatch):
    """Imports an example, whose neighbours are beside it."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    return importlib.import_module


@pytest.fixture(scope="module")
def examples_on_the_path():
    """For a module whose fixtures, of more than one test, import examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        yield


@pytest.fixture
def last_words(example, monkeypatch, capsys):
    """Runs an example that ends with an error, in this process: the last line that it says."""

    def run(script, *options):
        monkeypatch.setattr(sys, "argv", [script, *options, "--output_dir", "out"])
        with pytest.raises(SystemExit) as ended:
            example(script.removesuffix(".py")).main()
        said, code = capsys.readouterr(), ended.value.code
        assert said.out == ""
        assert code not in (0, None)
        return (code if isinstance(code, str) else said.err).splitlines()[-1]

    return run


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """Leave what was imported out of the garbage collections to come: each training begins with one, half a second."""
    gc.collect()
    gc.freeze()
