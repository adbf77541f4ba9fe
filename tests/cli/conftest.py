import sys

import pytest

from fdsl_toy import enter_into_catalog


@pytest.fixture(autouse=True)
def own_import_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch):
    enter_into_catalog(monkeypatch.setitem)
