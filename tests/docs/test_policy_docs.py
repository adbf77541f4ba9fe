"""What the page on policies shows runs, and what it says is so."""

import inspect
import re

import pytest

from hf_kakurenbo import HidingArguments
from hf_kakurenbo.hiding import list_policies
from hf_kakurenbo.hiding.policies import base
from known_policies import PAGE, rows


@pytest.mark.parametrize("name", sorted(set(list_policies()) - {"first_ids", "rank_dependent", "two_to_one"}))
def test_the_options_of_each_policy_are_those_of_its_constructor(name):
    takes, own = rows()[name]
    parameters = inspect.signature(base._REGISTRY[name]).parameters
    shared = set(re.findall(r"`(\w+)`", takes))
    alone = dict(re.findall(r"`(\w+)` (\[[^]]*\]|[\w.]+)", own))
    assert shared | set(alone) == set(parameters)
    fields = set(HidingArguments.__dataclass_fields__) | {"seed"}
    assert shared <= fields
    assert not set(alone) & fields
    for option, shown in alone.items():
        default = parameters[option].default
        assert str(list(default) if isinstance(default, tuple) else default).lower() == shown
    for option, default in re.findall(r"`(\w+)` \(([\d.]+)\)", takes):
        assert str(parameters[option].default) == default


def test_every_policy_has_a_row():
    named = re.findall(r'^\| `"(\w+)"` \|', PAGE, re.MULTILINE)
    # Other tests in this process may have registered policies of their own.
    ours = {name for name in list_policies() if base._REGISTRY[name].__module__.startswith("hf_kakurenbo.")}
    assert set(named) == ours | {"none"}
