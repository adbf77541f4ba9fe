"""How much may be hidden, and how an epoch is planned."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo.hiding import AlignedScheduler, HiddenFractionSchedule, compensated_learning_rate_scale
from hf_kakurenbo.hiding.schedule import plan_epoch


@pytest.mark.parametrize("epochs", [10, 20, 30, 90, 100])
def test_the_factor_falls_at_its_share_of_the_training(epochs):
    schedule = HiddenFractionSchedule(0.3, (0.0, 0.3, 0.6, 0.8), (1.0, 0.8, 0.6, 0.4), warmup_epochs=2)
    found = [schedule(epoch, epoch / epochs) for epoch in range(epochs)]
    starts = [0, epochs * 3 // 10, epochs * 6 // 10, epochs * 8 // 10, epochs]
    expected = [0.3 * factor for i, factor in enumerate((1.0, 0.8, 0.6, 0.4)) for _ in range(starts[i], starts[i + 1])]
    assert found == [0.0, 0.0, *expected[2:]]


def test_compensation_is_by_what_is_really_hidden():
    assert compensated_learning_rate_scale(100, 0) == 1.0
    assert compensated_learning_rate_scale(100, 20) == pytest.approx(1 / (1 - 0.2))


@given(
    num_epochs=st.integers(1, 6) | st.floats(0.1, 6),
    full=st.integers(1, 40),
    shares=st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
)
def test_a_training_ends_at_its_plan(num_epochs, full, shares):
    done = scheduled = 0
    epochs = -int(-num_epochs // 1)
    for epoch in range(epochs):
        updates = max(1, int(full * shares[epoch]))
        plan = plan_epoch(epoch, num_epochs, updates, full, done)
        done += plan.updates
        scheduled += plan.updates * plan.full_updates // plan.updates if plan.updates else 0
        assert plan.updates <= updates
        if epoch + 1 < epochs:
            assert plan.total > done, "the training would stop before its last epoch"
    assert plan.total == done
    assert scheduled == -int(-num_epochs * full // 1), "the scheduler would not arrive"


def test_with_full_epochs_the_plan_is_trainers():
    assert [plan_epoch(epoch, 3, 7, 7, 7 * epoch) for epoch in range(3)] == [(7, 7, 21)] * 3


def optimizer(rate):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor():
    driven = optimizer(torch.tensor(0.1))
    rate = driven.param_groups[0]["lr"]
    scheduler = AlignedScheduler(torch.optim.lr_scheduler.StepLR(driven, 1, 0.5), driven)
    scheduler.begin_epoch(2, 4, scale=2.0)
    assert float(rate) == pytest.approx(0.2)
    driven.step()
    scheduler.step()
    assert driven.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.1 * 0.25 * 2.0)


def test_closed_it_leaves_the_rates_of_the_scheduler_underneath():
    driven = optimizer(0.1)
    scheduler = AlignedScheduler(torch.optim.lr_scheduler.ExponentialLR(driven, 0.5), driven)
    scheduler.begin_epoch(2, 4, scale=1.25)
    driven.step()
    scheduler.step()
    assert driven.param_groups[0]["lr"] == pytest.approx(0.1 * 0.25 * 1.25)
    for _ in range(2):
        scheduler.close()
        assert scheduler.get_last_lr() == [driven.param_groups[0]["lr"]] == [pytest.approx(0.1 * 0.25)]


def test_what_callbacks_read_is_the_schedulers_own():
    driven = optimizer(0.1)
    scheduler = AlignedScheduler(torch.optim.lr_scheduler.StepLR(driven, 3), driven)
    assert (scheduler.base_lrs, scheduler.step_size) == ([0.1], 3)
    with pytest.raises(AttributeError):
        scheduler.no_such_thing  # noqa: B018


def test_the_state_goes_on_within_an_epoch_and_loads_into_a_bare_scheduler(tmp_path):
    def fresh():
        driven = optimizer(0.1)
        return driven, AlignedScheduler(torch.optim.lr_scheduler.ExponentialLR(driven, 0.9), driven)

    def drive(driven, scheduler, count):
        rates = []
        for _ in range(count):
            driven.step()
            scheduler.step()
            rates.append(driven.param_groups[0]["lr"])
        return rates

    driven, scheduler = fresh()
    scheduler.begin_epoch(7, 10, scale=1.25)
    drive(driven, scheduler, 3)
    torch.save((driven.state_dict(), scheduler.state_dict()), tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    expected = drive(driven, scheduler, 4)

    resumed, aligned = fresh()
    resumed.load_state_dict(states[0])
    aligned.load_state_dict(states[1])
    assert aligned.get_last_lr() == [resumed.param_groups[0]["lr"]]
    assert drive(resumed, aligned, 4) == expected

    bare = torch.optim.lr_scheduler.ExponentialLR(optimizer(0.1), 0.9)
    bare.load_state_dict(states[1])
    assert bare.last_epoch == 4
    _, aligned = fresh()
    aligned.load_state_dict(torch.optim.lr_scheduler.ExponentialLR(optimizer(0.1), 0.9).state_dict())
    assert aligned.scale == 1.0
    with pytest.raises(ValueError, match="at least one update, got updates=0"):
        aligned.begin_epoch(0, 10)


def test_a_tensor_that_somebody_else_has_set_is_kept_too():
    driven = optimizer(torch.tensor(0.1))
    scheduler = AlignedScheduler(torch.optim.lr_scheduler.ExponentialLR(driven, 0.5), driven)
    scheduler.begin_epoch(2, 2, scale=2.0)
    driven.param_groups[0]["lr"].fill_(0.8)
    driven.step()
    scheduler.step()
    assert float(driven.param_groups[0]["lr"]) == pytest.approx(0.8 * 0.5)


def test_a_loaded_state_sets_the_rates_whatever_the_optimizers_state_has_brought():
    driven = optimizer(0.1)
    scheduler = AlignedScheduler(torch.optim.lr_scheduler.ExponentialLR(driven, 0.9), driven)
    scheduler.begin_epoch(7, 10, scale=1.25)
    driven.step()
    scheduler.step()
    fresh = optimizer(0.1)
    resumed = AlignedScheduler(torch.optim.lr_scheduler.ExponentialLR(fresh, 0.9), fresh)
    resumed.load_state_dict(scheduler.state_dict())
    assert fresh.param_groups[0]["lr"] == driven.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9 * 1.25)


def test_it_is_a_scheduler_of_pytorchs():
    driven = optimizer(0.8)
    scheduler = AlignedScheduler(torch.optim.lr_scheduler.StepLR(driven, 1, 0.5), driven)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert driven.param_groups[0]["lr"] == 0.8, "it makes no step of its own"
    assert scheduler.base_lrs == [0.8]
    scheduler.begin_epoch(1, 2, scale=1.5)
    driven.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.8 * 0.5 * 0.5 * 1.5]
    assert scheduler.last_epoch == 2
    assert scheduler.get_lr() == scheduler.scheduler.get_lr()
    with pytest.raises(ValueError, match=r"step\(epoch=3\) is not possible"):
        scheduler.step(3)
