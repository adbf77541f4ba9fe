"""One epoch: choose what is visible, plan its updates, run it, bring its measurements into the ledger."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from ..config import hiding_arguments
from ..data import RandomState, SampleStream, VisibleSampler
from ..distributed.collectives import any_rank, require_consistency
from ..distributed.data_parallel import data_parallel_world
from ..hiding import HidingRun, SampleLedger
from ..hiding.schedule import EpochPlan, plan_epoch
from ..integrations.registry import metrics_set_aside
from . import learning_rate
from .batch_sizes import (
    begin_epoch_batches,
    dispatches,
    epoch_batch_size,
    global_batch,
    ranks_of_a_batch,
    require_batch_size,
)
from .order import begin_saved_order
from .refresh import measure_all, refresh_hidden
from .reporting import show_in_progress_bars
from .resuming import restore_unlogged_loss
from .state import Training
from .tracking import log_hidden_samples

logger = logging.getLogger(__name__)

# Epochs that hid something, and seconds lost, before a cost is warned of: less is within the noise of the times.
_EPOCHS_BEFORE_WARNING = 3
_SECONDS_BEFORE_WARNING = 1.0


def run_epoch(trainer: Any, training: Training, parent: Callable[..., None], **counts: Any) -> None:
    """Run an epoch with its own numbers of batches and updates.

    Args:
        trainer: the trainer.
        training: the training under way.
        parent: `Trainer._run_epoch`, bound to the trainer.
        counts: what it was called with; Trainer fixes the numbers of batches and updates once for all epochs.
    """
    epoch, checkpoint = counts["epoch"], counts["resume_from_checkpoint"]
    resumed = checkpoint is not None and epoch == counts["epochs_trained"]
    continues = resumed and training.run.epoch == epoch and not training.run.epoch_finished
    if not continues and 0 < trainer.args.max_steps <= trainer.state.global_step:
        trainer.control.should_training_stop = True
        return
    batches_done = counts["steps_trained_in_current_epoch"] if resumed else 0
    if resumed and not continues and batches_done == 0:
        # Trainer would load the generators when the order of the epoch is already drawn from them.
        trainer._load_rng_state(checkpoint)
        counts = {**counts, "resume_from_checkpoint": None}
    if not continues and not training.run.epoch_finished:
        raise RuntimeError(
            f"Epoch {epoch} begins and epoch {training.run.epoch} is not finished: `on_epoch_end` did not reach "
            f"{HidingCallback.__name__}, which the trainer puts first among its callbacks. Leave it there, or set "
            'hiding_policy="none".'
        )
    _require_length(training, epoch)
    if epoch == 0 and checkpoint is None and hiding_arguments(trainer.args).initial_pass:
        measure_all(trainer, training)
    batches = _begin_epoch(trainer, training, epoch, batches_done, checkpoint if continues else None)
    show_in_progress_bars(trainer, training)
    updates, updates_done = _updates(trainer, batches), _updates(trainer, batches_done)
    full_updates = counts["num_update_steps_per_epoch"]
    plan = _plan_epoch(trainer, epoch, updates, full_updates, updates_done)
    learning_rate.begin_epoch(trainer, training, plan, epoch * full_updates, updates_done, continues)
    # A checkpoint of an epoch's, or the training's, last update leaves only the end of the epoch to be done.
    complete = trainer.state.global_step >= trainer.state.max_steps
    training.generators_at_end = checkpoint if continues and (complete or batches_done == batches) else None
    training.run.start_clock()
    parent(
        **{
            **counts,
            "steps_in_epoch": batches,
            "num_update_steps_per_epoch": updates_done if complete else updates,
        }
    )
    if complete:
        trainer.control.should_training_stop = True


def _require_length(training: Training, epoch: int) -> None:
    """Check that the dataset has as many samples as the ledger: ids are their places in it."""
    loader = training.training_loader
    found = loader.num_samples if isinstance(loader.sampler, SampleStream) else len(loader.dataset)
    if found != loader.num_samples:
        raise RuntimeError(
            f"The training dataset ({type(loader.dataset).__name__}) has {found:,} samples before epoch {epoch}, and "
            f"{loader.num_samples:,} when its loader was made, so a sample is no longer known by its place. Leave its "
            "length as it is within a training, and start another one, from the weights, for another length; or set "
            'hiding_policy="none".'
        )


def _begin_epoch(trainer: Any, training: Training, epoch: int, batches_done: int, interrupted: str | None) -> int:
    """Choose the visible samples, or keep those of the checkpoint that interrupts it; the batches on this rank."""
    run, sampler, continues = training.run, training.sampler, interrupted is not None
    if not continues:
        run.begin_epoch(epoch, _progress(trainer, epoch))
        if batches_done:  # a plain Trainer began this epoch
            run.hide_nothing()
            run.batches_done = batches_done
    moment = f"before epoch {epoch}"
    training.barrier.wait(moment)
    visible_set = {"samples": len(run.ledger), "digest of the visible set": run.ledger.digest()}
    require_consistency(visible_set, trainer.args.device, moment)
    text = training.resumed.get("random_state") if continues else None
    random_state = RandomState.from_json(text) if text else None
    training.dropped = training.dropped if continues else 0
    _hand_over_repeats(run, sampler)
    if interrupted is not None:  # what it hides was settled when it began
        begin_epoch_batches(trainer, training, continues=True)
        begin_saved_order(trainer, training, interrupted, batches_done, random_state)
    else:
        sampler.begin_epoch(epoch, run.ledger.hidden, None, batches_done)
        _hide_what_can_be_left_out(trainer, training)
    batches = len(training.loader)
    require_batch_size(trainer, training, batches)
    run.count_draws(sampler.samples, sampler.full_samples)
    require_consistency({"batches": batches, "digest of the order": sampler.digest()}, trainer.args.device, moment)
    return batches


def _hide_what_can_be_left_out(trainer: Any, training: Training) -> None:
    """Hide less in a new epoch, where the sampler draws otherwise, or where batches would be too small or none."""
    run, sampler = training.run, training.sampler
    draws = sampler.draws()
    if draws is not None:
        run.keep_to_draws(draws)
        sampler.hide_less(run.ledger.hidden)
    run.count_draws(sampler.samples, sampler.full_samples)
    begin_epoch_batches(trainer, training, continues=False)
    while _leaves_a_batch_of_one(trainer, training):
        run.move_back_one()
        sampler.hide_less(run.ledger.hidden)
    if len(training.loader) == 0 and run.ledger.num_hidden:
        logger.warning("The visible samples do not fill one batch in epoch %d: nothing is hidden in it.", run.epoch)
        run.hide_nothing()
        _hand_over_repeats(run, sampler)
        sampler.hide_less(run.ledger.hidden)
        begin_epoch_batches(trainer, training, continues=False)


def _hand_over_repeats(run: HidingRun, sampler: VisibleSampler | SampleStream) -> None:
    if isinstance(sampler, VisibleSampler):
        sampler.repeats = run.repeats
    elif run.repeats is not None:
        raise ValueError(
            f"{type(run.policy).__name__} draws samples more than once, which a stream cannot. Load the dataset "
            "map-style (`streaming=False`), and set `repeats_samples = True` in the policy, so that this is "
            "reported at once."
        )


def _leaves_a_batch_of_one(trainer: Any, training: Training) -> bool:
    """Whether hiding, and not the user, is the cause of a last batch of one sample, on which BatchNorm raises.

    On several ranks the last batch is filled up; where rank 0 sends it to the others, to one sample each at least.
    """
    sampler, size = training.sampler, epoch_batch_size(trainer, training.run)
    ranks = data_parallel_world(trainer.accelerator).size
    if size == ranks_of_a_batch(trainer) or trainer.args.dataloader_drop_last or training.run.ledger.num_hidden == 0:
        return False
    if ranks > 1 and not dispatches(trainer, sampler):
        return False
    return 1 <= sampler.samples % global_batch(trainer, size)[0] <= ranks


def _progress(trainer: Any, epoch: int) -> float:
    args = trainer.args
    return trainer.state.global_step / args.max_steps if args.max_steps > 0 else epoch / args.num_train_epochs


def _updates(trainer: Any, batches: int) -> int:
    return math.ceil(batches / trainer.args.gradient_accumulation_steps)


def _plan_epoch(trainer: Any, epoch: int, updates: int, full_updates: int, updates_done: int) -> EpochPlan:
    """Set the state and the progress bar to what is to be expected now."""
    args, state = trainer.args, trainer.state
    before = state.global_step - updates_done
    if args.max_steps > 0:
        plan = EpochPlan(updates, updates, args.max_steps)
        state.num_train_epochs = epoch + math.ceil((plan.total - before) / max(updates, 1))
    else:
        plan = plan_epoch(epoch, args.num_train_epochs, updates, full_updates, before)
        state.max_steps = plan.total
    for kind in ("logging", "eval", "save"):
        fraction = getattr(args, f"{kind}_steps")
        if fraction is not None and 0 < fraction < 1:
            setattr(state, f"{kind}_steps", math.ceil(plan.total * fraction))
    for callback in trainer.callback_handler.callbacks:
        # The bars of a terminal and of a notebook; both fixed their total when the training began.
        for bar in (getattr(callback, "training_bar", None), getattr(callback, "training_tracker", None)):
            if bar is not None:
                bar.total = plan.total
    return plan


def end_epoch(trainer: Any, training: Training) -> None:
    """Bring the epoch's measurements into the ledger, refresh the hidden samples if another epoch follows, log."""
    run = training.run
    training.barrier.wait(f"at the end of epoch {run.epoch}")
    _require_all_batches(trainer, training)
    seen = torch.zeros_like(run.ledger.hidden)
    measured = run.finish_epoch(seen)
    _require_visible(training, measured, seen)
    if run.epoch == 0:
        options = hiding_arguments(trainer.args)
        measured_all = options.initial_pass or options.initial_ledger is not None
        _warn_of_samples_without_a_loss(run.ledger, torch.ones_like(seen) if measured_all else seen)
    if training.generators_at_end is not None:
        trainer._load_rng_state(training.generators_at_end)
    if not any_rank(_stops(trainer), trainer.args.device) and run.wants_refresh():
        refresh_hidden(trainer, training)
    should_log = trainer.control.should_log
    with metrics_set_aside(trainer):
        trainer.log(run.report())
    log_hidden_samples(trainer, training, "epoch")
    trainer.control.should_log = should_log  # `log` takes a request for the training loss as served
    _warn_of_cost(training)


def _require_all_batches(trainer: Any, training: Training) -> None:
    """Check that the epoch had all its batches, unless it was asked to stop."""
    done, expected = training.run.batches_done, len(training.loader)
    if done < expected and not (trainer.control.should_epoch_stop or _stops(trainer)):
        raise RuntimeError(
            f"Epoch {training.run.epoch} ended after {done} of its {expected} batches, so samples that hiding counts "
            "as visible were not trained on. What iterates over the training loader has to pass on each of its "
            'batches; or set hiding_policy="none".'
        )


def _require_visible(training: Training, measured: int, seen: Tensor) -> None:
    """Check that the samples trained on are those that were drawn, as far as it is known which these are.

    Args:
        training: the training under way.
        measured: how many samples all ranks trained on in the epoch, one that came twice counted twice.
        seen: (N,) bool, which they were.
    """
    run, sampler = training.run, training.sampler
    if isinstance(sampler, SampleStream):
        sampler.require_distinct(measured, seen)
    hidden = int((seen & run.ledger.hidden).count_nonzero())
    distinct, drawn = int(seen.count_nonzero()), sampler.distinct
    if hidden or (drawn is not None and measured == len(sampler) and distinct != drawn):
        raise RuntimeError(
            f"In epoch {run.epoch} {distinct:,} different samples were trained on, {hidden:,} of them hidden, where "
            f"the sampler drew {'others' if drawn is None else f'{drawn:,}'}: batches came twice, or from somewhere "
            "else. What iterates over the training loader has to pass on each of its batches once; or set "
            'hiding_policy="none".'
        )


def _stops(trainer: Any) -> bool:
    """Whether the training ends here."""
    return trainer.control.should_training_stop or trainer.state.global_step >= trainer.state.max_steps


def _warn_of_samples_without_a_loss(ledger: SampleLedger, measured: Tensor) -> None:
    without = ledger.num_without_loss - int((~measured).count_nonzero())
    if without > 0:
        logger.warning(
            "%d of the %d samples have no finite loss after the first epoch, and are not hidden before they have "
            "one. Either every label of theirs is masked (-100), so that there is nothing to learn from them, or "
            "the model's predictions are not finite.",
            without,
            len(ledger),
        )


def _warn_of_cost(training: Training) -> None:
    run = training.run
    training.epochs_hidden += run.ledger.num_hidden > 0
    costs = training.epochs_hidden >= _EPOCHS_BEFORE_WARNING and run.time_saved < -_SECONDS_BEFORE_WARNING
    if costs and not training.cost_is_told:
        training.cost_is_told = True
        logger.warning(
            "Hiding has cost %.1f s more than it saved so far: looking at the hidden samples takes longer than "
            'training on them would. Try a larger refresh_interval, or set hiding_policy="none".',
            -run.time_saved,
        )


def _is_cut_short(trainer: Any, training: Training) -> bool:
    """Whether the training stops within the epoch. What is saved from here on must say so."""
    return _stops(trainer) and training.run.batches_done < len(training.loader)


class HidingCallback(TrainerCallback):
    """Called before every other callback, so that they see the epoch finished and refreshed.

    Args:
        trainer: the trainer with the mixin.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Trainer has just begun to count the loss."""
        training = self.trainer._training
        if training is not None and training.resumed:
            restore_unlogged_loss(self.trainer, training)

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's pass over the epoch has ended; it evaluates and saves next."""
        training = self.trainer._training
        if training is None or training.run.epoch_finished or _is_cut_short(self.trainer, training):
            return
        end_epoch(self.trainer, training)


def put_first(trainer: Any, hides: bool) -> None:
    """Put a [`HidingCallback`] before a trainer's other callbacks if it hides; if not, its callbacks are Trainer's."""
    callbacks = trainer.callback_handler.callbacks
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, HidingCallback)]
    if hides:
        callbacks.insert(0, HidingCallback(trainer))
