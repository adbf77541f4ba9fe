"""What a run counts and how it reckons the time that it saves."""

import pytest
import torch

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, times
from hf_kakurenbo.hiding import run as module


class Clock:
    """A clock that moves when a test moves it."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for measuring in (module, times):
        monkeypatch.setattr(measuring, "time", clock)
    return clock


def make_run():
    return HidingRun(100, KakurenboPolicy(max_hidden_fraction=0.5, hiding_warmup_epochs=0, move_back=False))


def record(run, ids):
    """Measure samples: the higher the id, the higher the loss."""
    count = len(ids)
    run.record(ids, SampleStatistics(ids.float(), torch.ones(count, dtype=torch.bool), torch.ones(count)))


def halfway_through_an_epoch_that_hides(clock):
    run = make_run()
    run.begin_epoch(0, 0.0)
    record(run, torch.arange(100))
    run.finish_epoch()
    run.begin_epoch(1, 0.0)
    record(run, torch.arange(50, 80))
    clock.now += 30
    return run


def test_the_time_saved_is_that_of_the_hidden_samples(clock):
    run = halfway_through_an_epoch_that_hides(clock)
    with run.clock_stopped():
        clock.now += 1000
    record(run, torch.arange(80, 100))
    clock.now += 20
    run.finish_epoch()
    assert (run.trained_samples, run.samples_this_session) == (150, 150)
    assert run.time_saved == 50
    with run.refreshing():
        clock.now += 4
    assert run.time_saved == 46


def test_an_interrupted_epoch_counts_in_all_its_parts(clock):
    state = halfway_through_an_epoch_that_hides(clock).state()
    clock.now = 7e5
    run = make_run()
    run.load_state(*state)
    clock.now += 1000  # what a resumption takes saves nothing
    run.start_clock()
    record(run, torch.arange(80, 100))
    clock.now += 20
    run.finish_epoch()
    assert run.time_saved == 50
    assert (run.trained_samples, run.samples_this_session) == (150, 20)


def test_padding_is_not_counted(clock):
    run = halfway_through_an_epoch_that_hides(clock)
    record(run, torch.arange(80, 100))
    record(run, torch.arange(50, 56))
    run.finish_epoch()
    assert (run.trained_samples, run.samples_this_session) == (150, 150)


def test_a_sampler_of_part_of_the_samples(clock):
    run = make_run()
    run.begin_epoch(0, 0.0)
    run.count_draws(40, 60)
    run.start_clock()
    record(run, torch.arange(40))
    clock.now += 8
    run.finish_epoch()
    assert run.trained_samples == 40
    assert run.time_saved == pytest.approx(4)


def test_smaller_batches_are_measured_by_whole_ones(clock):
    run = make_run()
    run.begin_epoch(0, 0.0)
    run.start_clock()
    record(run, torch.arange(100))
    clock.now += 100
    run.finish_epoch()
    run.begin_epoch(1, 0.0)
    assert (run.keep_updates(16), run.lr_scale) == (8, 1.0)
    run.start_clock()
    record(run, torch.arange(50, 100))
    clock.now += 80  # a sample takes longer in them
    run.finish_epoch()
    assert run.time_saved == 20
    assert run.time_saved_fraction == pytest.approx(20 / 200)
