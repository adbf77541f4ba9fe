"""Looking at samples without training on them: which are chosen, which are told of, and what is left behind."""

import math

import pytest
import torch

from hf_kakurenbo import SampleLedger, SampleStatistics
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, Measurements
from stream_toy import streamed
from toy import NUM_SAMPLES, trained

NAN = math.nan


@pytest.mark.parametrize(
    ("confidence", "chosen"),
    [
        ([0.9, NAN, 0.8, 0.7], [1, 3]),
        ([NAN, 0.2, NAN, NAN], [0, 2]),
        ([NAN, NAN, NAN, NAN], [0, 1]),
        ([0.0, 0.5, 0.0, NAN], [0, 3]),
    ],
    ids=str,
)
def test_a_confidence_that_is_no_number_is_the_least(confidence, chosen):
    ledger = SampleLedger(4)
    correct = torch.ones(4, dtype=torch.bool)
    ledger.update(Measurements.of(torch.arange(4), torch.zeros(4), correct, torch.tensor(confidence)))
    ledger.hide(correct)
    wanted = KakurenboPolicy(move_back=False, refreshed_fraction=0.5).to_refresh(ledger, 0)
    assert wanted.nonzero().flatten().tolist() == chosen


class Told(KakurenboPolicy):
    """Keeps what it is told of the epochs."""

    def __init__(self):
        super().__init__(max_consecutive_hidden=2)
        self.epochs = {}

    def observe(self, ledger, trained, epoch):
        super().observe(ledger, trained, epoch)
        self.epochs[epoch] = trained.nonzero()[0].tolist()


def test_the_policy_is_told_of_what_came_in_the_first_pass():
    run = HidingRun(5, Told())
    with run.measuring_all() as everything:
        assert everything.all()
        ids = torch.tensor([3, 0, 4])  # of a stream that leaves out the rest
        run.record(ids, SampleStatistics(ids.float(), torch.ones(3, dtype=torch.bool), torch.ones(3)))
    assert run.policy.epochs == {-1: [0, 3, 4]}


def test_left_in_the_middle_it_leaves_the_visible_samples_of_a_stream_as_they_were(tmp_path):
    stream = {"dataset": streamed(), "num_samples": NUM_SAMPLES}
    training = trained(tmp_path, confidence_threshold=0.3, **stream)._training
    visible = training.sampler.samples
    batches = training.hidden_loader.batches(torch.ones(NUM_SAMPLES, dtype=torch.bool), 0)
    next(batches)
    assert training.sampler.samples == 0
    batches.close()
    assert training.sampler.samples == visible > 0
