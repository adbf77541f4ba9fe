"""Every task that has a rule, on a model of Transformers: the loss stays, the figures are right, hiding hides."""

import pytest
import torch

from task_toy import CASES, make, pad
from toy import losses, same_tensors, same_weights, without_timings

pytestmark = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.mark.parametrize("hidden", [{"hiding_policy": "none"}, {"max_hidden_fraction": 0.0}], ids=["none", "F = 0"])
def test_nothing_hidden_is_the_base_trainer(case, hidden, tmp_path):
    plain, ours = make(case, tmp_path / "plain", plain=True), make(case, tmp_path / "ours", **hidden)
    plain.train()
    ours.train()
    assert losses(ours) == losses(plain)
    assert len(losses(plain)) == 12
    assert same_weights(ours, plain)


def test_the_figures_are_those_of_each_sample_alone(case, tmp_path):
    # Nothing is learnt, so the model that each sample met is the one at hand.
    trainer = make(case, tmp_path, learning_rate=0.0, num_train_epochs=1, accuracy_threshold=0.3)
    trainer.train()
    ledger, model = trainer.ledger, trainer.model.eval()
    with torch.no_grad():
        for index, sample in enumerate(trainer.train_dataset):
            batch = pad([sample])
            outputs = model(**batch)
            correct, confidence = case.figures(outputs, batch, 0.3)
            torch.testing.assert_close(ledger.loss[index], outputs.loss)
            assert bool(ledger.correct[index]) is correct
            torch.testing.assert_close(float(ledger.confidence[index]), confidence, rtol=1e-4, atol=1e-5)


def test_hiding_hides_what_is_known(case, tmp_path):
    options = {"max_hidden_fraction": 0.5, "confidence_threshold": 0.4, "accuracy_threshold": 0.4}
    trainer = make(case, tmp_path, num_train_epochs=30, **options)
    result = trainer.train()
    assert int(trainer.ledger.times_hidden.sum()) > 20
    assert result.metrics["kakurenbo/trained_samples"] == 30 * 30 - int(trainer.ledger.times_hidden.sum())


def test_a_resumed_training_ends_as_one_that_never_stopped(case, tmp_path):
    # Whatever is known is enough to be hidden.
    options = {"confidence_threshold": 0.0, "move_back": False, "num_train_epochs": 4, "save_strategy": "steps"}
    whole = make(case, tmp_path, save_steps=6, **options)
    whole.train()
    assert int(whole.ledger.times_hidden.sum()) > 10
    resumed = make(case, tmp_path / "resumed", save_steps=6, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())
    assert without_timings(resumed.state.log_history)[:-1] == without_timings(whole.state.log_history)[:-1]
