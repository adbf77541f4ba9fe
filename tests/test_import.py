"""Importing the package is light, and an unsupported Transformers is refused at once."""

import importlib
import subprocess
import sys

import pytest

from hf_kakurenbo._compat import require_supported_transformers
from hf_kakurenbo.utils.moved import MOVED


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_import_is_light():
    code = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import sys
import hf_kakurenbo
heavy = {"torchvision", "timm", "transformers", "datasets"} & set(sys.modules)
assert not heavy, heavy
assert "torch" not in sys.modules or not sys.modules["torch"].cuda.is_initialized()
from hf_kakurenbo import KakurenboTrainer, KakurenboConfig, KakurenboMixin
import torch
assert not torch.cuda.is_initialized()
assert "timm" not in sys.modules
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_nothing_that_is_optional_is_needed():
    """What an extra brings, and what integrations are for."""
    code = """
import sys
for name in ("deepspeed", "evaluate", "lightning", "matplotlib", "peft", "scipy", "sentence_transformers", "sklearn",
             "tensorboard", "timm", "trl"):
    sys.modules[name] = None
from hf_kakurenbo import KakurenboConfig, KakurenboMixin, KakurenboTrainer
import hf_kakurenbo.integrations.registry
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_the_lightning_callback_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "hf_kakurenbo.integrations.lightning", raising=False)
    with pytest.raises(RuntimeError, match=r'The Lightning callback needs .*: pip install "hf-kakurenbo\[lightning\]"'):
        importlib.import_module("hf_kakurenbo.integrations.lightning")


def test_names_and_version():
    import hf_kakurenbo

    assert set(hf_kakurenbo.__all__) <= set(dir(hf_kakurenbo))
    assert all(getattr(hf_kakurenbo, name) is not None for name in hf_kakurenbo.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'load_everything'"):
        hf_kakurenbo.load_everything  # noqa: B018


@pytest.mark.parametrize("old", MOVED)
def test_a_module_is_imported_under_its_old_name_too(old, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(FutureWarning, match=f"{old} has moved to {MOVED[old]};"):
        module = importlib.import_module(old)
    new = importlib.import_module(MOVED[old])
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", None) == new.__name__]
    assert own
    assert all(getattr(module, name) is getattr(new, name) for name in own)


@pytest.mark.parametrize("version", ["4.57.3", "5.3.0", "6.0.0", "6.0.0rc1", "6.0.0.dev0"])
def test_an_unsupported_transformers_is_refused_with_the_range(version):
    with pytest.raises(ImportError, match=rf">=5.4,<6; version {version} is installed"):
        require_supported_transformers(version)


def test_it_is_refused_by_the_import():
    code = """
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: "5.3.0" if name == "transformers" else real(name)
import hf_kakurenbo
"""
    done = run_python(code)
    assert done.returncode != 0
    assert "ImportError: hf_kakurenbo works with transformers >=5.4,<6; version 5.3.0 is installed" in done.stderr


@pytest.mark.parametrize("version", ["5.4.0", "5.4.2", "5.24.0.dev0", "5.99.1"])
def test_a_supported_one_is_not(version):
    require_supported_transformers(version)
