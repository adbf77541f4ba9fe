"""The compiled functions: how each is compiled."""

import importlib
import pkgutil

import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

from hf_kakurenbo import fdsl


def kernels():
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(fdsl.__path__, "hf_kakurenbo.fdsl.")
    ]
    return {
        f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}": kernel
        for module in modules
        for kernel in vars(module).values()
        if isinstance(kernel, Dispatcher)
    }


KERNELS = kernels()


def test_there_are_kernels():
    assert len(KERNELS) > 30
    assert all(name.startswith("hf_kakurenbo.fdsl.") for name in KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_how_it_is_compiled(name):
    options = KERNELS[name].targetoptions
    assert options.get("nogil") is True, "threads would draw one after the other"
    assert options.get("nopython") is True
    assert not options.get("fastmath"), "sums would be put in another order on another CPU"
    assert not options.get("parallel"), "workers would each start as many threads as there are cores"
    assert not isinstance(KERNELS[name]._cache, NullCache), "each process would compile it anew"
