"""The policies that the page on policies of one's own shows hide, train and resume."""

import re
from pathlib import Path

import pytest
import torch

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import create_policy
from hf_kakurenbo.hiding.policies import base
from toy import epochs, trained

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "own_policy.md").read_text(encoding="utf-8")
FIRST, SECOND = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))


def test_the_policy_of_your_own_is_found_by_name():
    exec(FIRST, {})
    selection = create_policy("random_fraction", {"max_hidden_fraction": 0.5}).select(SampleLedger(1000), 1, 0.0)
    assert 400 < selection.candidates < 600


def test_the_policy_with_weights_and_a_state_trains_and_resumes(tmp_path):
    exec(SECOND, {})
    trainer = trained(tmp_path, hiding_policy="bored", num_train_epochs=8, policy_options='{"patience": 2}')
    assert epochs(trainer)[-1]["kakurenbo/candidates"] > 20
    assert trainer.ledger.times_hidden.sum() > 20
    policy = trainer._training.run.policy
    again = create_policy("bored", {}, {"patience": 2})
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.streak, policy.streak)
