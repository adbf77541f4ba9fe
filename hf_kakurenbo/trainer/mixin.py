"""The glue between the method and Transformers: the one file that knows Trainer's internals.

Every override of an internal says in a comment what of Trainer it is there for; `tests/test_trainer_internals.py`
fails when a release of Transformers moves one of them.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.optimization import GreedyLR
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from .._compat import load_renamed_weights, num_train_samples_argument
from ..config import create_configured_policy, hiding_arguments, named_task, resolve_statistics_function
from ..data import (
    BatchIds,
    HiddenLoader,
    IdentifiedDataset,
    IdentifyingCollator,
    Position,
    RandomState,
    SampleStream,
    StreamCollator,
    StreamOrder,
    VisibleSampler,
    is_indexed,
    leave_whole,
    make_deal,
    make_visible_sampler,
    take_ids,
    untouched_random_state,
)
from ..distributed.barrier import RollCall
from ..distributed.collectives import any_rank, rank, require_agreement, world_size
from ..hiding import AlignedScheduler, HidingRun, SampleLedger, SampleStatistics, StatisticsFunction, forward_only
from ..hiding.checkpoint import load_state, save_state
from ..hiding.schedule import EpochPlan, SchedulerStart, plan_epoch
from ..hiding.statistics import Prediction, StatisticsMatcher
from ..hiding.weighting import require_weighable, weighed_loss
from ..integrations.trl import (
    computes_fused_loss,
    explain_arguments,
    is_scored,
    last_outputs,
    metrics_set_aside,
    scored_statistics,
)
from .checkpoints import is_marked_as_hiding, last_complete_checkpoint, mark_as_hiding, unmark
from .consistency import require_same_training
from .preemption import save_at_the_same_update
from .task_detection import make_matcher
from .validation import refuse_what_cannot_be_honoured

logger = logging.getLogger(__name__)

# Epochs that hid something, and seconds lost, before a cost is told: less is within the noise of the measured times.
_EPOCHS_BEFORE_WARNING = 3
_SECONDS_BEFORE_WARNING = 1.0

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object


@dataclass
class _Training:
    """What one call of `train` holds; made anew by each call."""

    run: HidingRun
    sampler: VisibleSampler | SampleStream
    id_name: str
    label_names: list[str]
    statistics_function: StatisticsFunction | None
    fused_loss: bool
    roll_call: RollCall
    matcher: StatisticsMatcher | None = None
    resumed: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0
    scheduler_start: SchedulerStart | None = None
    batches_changed: bool = False
    batch_ids: BatchIds | None = None
    loader: Any = None
    hidden_loader: HiddenLoader | None = None
    generators_at_end: str | None = None
    epochs_hidden: int = 0
    cost_is_told: bool = False


class KakurenboMixin(_Base):
    """Adds hiding to a subclass of `transformers.Trainer`; name it before the trainer.

    ```python
    class KakurenboSeq2SeqTrainer(KakurenboMixin, Seq2SeqTrainer): ...
    ```

    It takes the trainer's arguments. `args` may be a [`KakurenboConfig`], another subclass of `TrainingArguments` with
    [`HidingArguments`], or a plain `TrainingArguments`, which gets the default options.

    Raises:
        TypeError: a subclass names the mixin after the trainer.
        ValueError: at construction, if an option is out of its range or the training cannot be done as asked: a
            dataset without a length, several GPUs under DataParallel, a sampling option that hiding cannot honour.
    """

    data_collator: Any
    lr_scheduler: Any
    train_dataset: Any
    _roll_call: RollCall

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lineage = cls.__mro__
        if Trainer in lineage and lineage.index(Trainer) < lineage.index(KakurenboMixin):
            raise TypeError(
                f"{cls.__name__} names KakurenboMixin after the trainer, so nothing would be hidden. Write "
                f"`class {cls.__name__}(KakurenboMixin, {cls.__bases__[0].__name__})`."
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._training: _Training | None = None
        self._sampler: VisibleSampler | SampleStream | None = None
        self._weights_folder: str | None = None
        try:
            super().__init__(*args, **kwargs)
        except TypeError as error:
            if "hiding_policy" not in str(error):
                raise
            raise explain_arguments(error, type(self)) from error
        self.callback_handler.callbacks.insert(0, _HidingCallback(self))
        if self._hides():
            save_at_the_same_update(self)

    @property
    def ledger(self) -> SampleLedger | None:
        """The per-sample record of the training under way, or of the last one; None without hiding."""
        return self._training.run.ledger if self._training else None

    # ---- Checks ----

    # Trainer checks its arguments here, during construction and once it knows its device.
    def _validate_args(self) -> None:
        if self._hides():
            self._take_streams_samples()
            refuse_what_cannot_be_honoured(self)
        super()._validate_args()

    def _hides(self) -> bool:
        return create_configured_policy(hiding_arguments(self.args)) is not None

    def _take_streams_samples(self) -> None:
        """Give a stream a length and its samples their ids, for which Trainer would ask for `max_steps`."""
        dataset, options = self.train_dataset, hiding_arguments(self.args)
        if isinstance(dataset, IterableDataset) and not (isinstance(dataset, SampleStream) or is_indexed(dataset)):
            workers = self.args.dataloader_num_workers > 0
            self.train_dataset = SampleStream(dataset, options.sample_id_column, options.num_samples, shared=workers)

    # ---- Data ----

    def get_train_dataloader(self) -> Any:
        """Trainer's training loader over the visible samples, each batch with the ids of its samples.

        Raises:
            ValueError: the dataset has no length, or the sampler yields no single indices.
        """
        if self._hides():
            self._take_streams_samples()
            refuse_what_cannot_be_honoured(self)
            self._sampler = None
        return super().get_train_dataloader()

    # Every loader of Trainer is made here; the training one gets ids beside its examples and the visible sampler.
    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> Any:
        if not (is_training and self._hides()):
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        if isinstance(dataset, SampleStream):
            return self._get_stream_dataloader(dataset, description, batch_size)
        if is_indexed(dataset):
            order = StreamOrder(dataset, len(dataset))
            dataset, sampler_fn = dataset.samples(), lambda _: order
        users_collator = self.data_collator
        # What Trainer does to drop unused columns goes by the type of the dataset, so it is done before wrapping it.
        if isinstance(dataset, datasets.Dataset):
            dataset, collator = self._remove_unused_columns(dataset, description=description), users_collator
        else:
            collator = self._get_collator_with_removed_columns(users_collator, description=description)
        sampler = make_visible_sampler(sampler_fn(dataset) if sampler_fn else None, self.args.data_seed)
        self._sampler = sampler
        self.data_collator = IdentifyingCollator(collator, hiding_arguments(self.args).sample_id_column)
        try:
            return super()._get_dataloader(
                IdentifiedDataset(dataset), description, batch_size, lambda _: sampler, True, dataloader_key
            )
        finally:
            self.data_collator = users_collator

    def _get_stream_dataloader(self, stream: SampleStream, description: str, batch_size: int) -> Any:
        deal = make_deal(self.accelerator, batch_size, self.args.dataloader_drop_last)
        self._sampler = stream = stream.dealt(deal)
        stream.hide_nothing()
        users_collator = self.data_collator
        collator = self._get_collator_with_removed_columns(users_collator, description=description)
        self.data_collator = StreamCollator(collator, stream.id_column)
        try:
            loader = super()._get_dataloader(stream, description, batch_size, None, True)
        finally:
            self.data_collator = users_collator
        return loader if deal.ranks == 1 else leave_whole(loader)

    # Trainer would filter each example once more; the collator inside ours does it already.
    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if isinstance(data_collator, IdentifyingCollator):
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description=description)

    # ---- Loss ----

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Trainer's step, the ids taken out of the batch before the model can see them.

        Raises:
            RuntimeError: a subclass computes the loss past this class, so that nothing is recorded.
        """
        training = self._training
        if training is None:
            return super().training_step(model, inputs, *args, **kwargs)
        training.batch_ids = take_ids(inputs, training.id_name)
        training.roll_call.begin_step()
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        self._require_recorded(training)
        training.run.batches_done += 1
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Exactly Trainer's loss; beside it, the statistics of the batch are recorded.

        Only of a policy that gives weights the loss is another: see `hiding.weighting`.

        Raises:
            ValueError: there are no labels, or no rule gives the statistics of what the model returned, or the policy
                gives weights and the samples have no loss of their own.
        """
        training = self._training
        if training is None or training.batch_ids is None:
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        ids, training.batch_ids = training.batch_ids, None
        batch = dict(inputs)  # the parent may take the labels out
        if training.fused_loss:
            with last_outputs(model) as outputs:
                computed = super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
            measured = self._measure(training, ids, outputs[0], batch)
            training.run.record(ids.samples, measured)
            if training.run.policy.weighs_samples or training.run.weights is not None:
                require_weighable(measured)
            return computed
        loss, outputs = super().compute_loss(model, inputs, True, *args, **kwargs)
        measured = self._measure(training, ids, outputs, batch)
        training.run.record(ids.samples, measured)
        loss = _weighed(training.run, loss, ids, measured)
        return (loss, outputs) if return_outputs else loss

    def _measure(
        self, training: _Training, ids: BatchIds, outputs: Any, batch: dict[str, Any]
    ) -> SampleStatistics | Prediction:
        if training.statistics_function is not None:
            return SampleStatistics(*training.statistics_function(outputs, batch))
        if is_scored(outputs):
            return scored_statistics(outputs, ids, hiding_arguments(self.args).accuracy_threshold)
        if training.matcher is None:
            # Only now: a model may set its problem type in its first forward pass.
            options = hiding_arguments(self.args)
            training.matcher = make_matcher(
                self.model, named_task(options), training.label_names, options.accuracy_threshold
            )
        return training.matcher(outputs, batch, ids.samples.numel(), ids.of_tokens)

    def _require_recorded(self, training: _Training) -> None:
        if training.batch_ids is not None:
            raise RuntimeError(
                f"{type(self).__name__}.compute_loss does not call `super().compute_loss(...)`, where the samples' "
                "losses are recorded. Call it, or put the override into a class that stands after KakurenboMixin: "
                "`class MyTrainer(KakurenboMixin, TrainerWithMyLoss)`."
            )

    # ---- Begin and resume ----

    def train(
        self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """As `Trainer.train`. A checkpoint whose writing was interrupted is passed over for the one before it.

        Raises:
            ValueError: the ranks have different datasets, arguments or checkpoints, said on every rank; or there are
                checkpoints, but none was written to its end.
        """
        none_is_complete: ValueError | None = None
        if resume_from_checkpoint and self._hides():
            try:
                resume_from_checkpoint = last_complete_checkpoint(resume_from_checkpoint, self.args.output_dir)
            except ValueError as error:
                none_is_complete = error
        require_same_training(self.args, self.train_dataset, none_is_complete or resume_from_checkpoint)
        if none_is_complete:
            raise none_is_complete
        if not self._hides():
            return super().train(resume_from_checkpoint, *args, **kwargs)
        with RollCall() as self._roll_call:
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple[Any, ...]:
        """As Trainer's. With `max_steps` the epochs are shorter than it reckons with, so more of them are allowed."""
        values: tuple[Any, ...] = super().set_initial_training_values(args, dataloader)
        if self._hides() and args.max_steps > 0:
            return (args.max_steps, *values[1:])
        return values

    # Trainer makes or loads the state of a training here, and works out the resumed epoch as if all were full.
    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        position: tuple[int, int] = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        options = hiding_arguments(self.args)
        policy = create_configured_policy(options)
        if policy is None:
            self._training = None
            unmark(self.state)
            return position
        if self.args.max_steps > 0:
            self.state.num_train_epochs = math.ceil(max_steps / num_update_steps_per_epoch)
        if self._sampler is None:
            raise RuntimeError(
                f"{type(self).__name__} builds its training loader without `Trainer._get_dataloader`, so its samples "
                'cannot be told apart. Let it call `super().get_train_dataloader()`, or set hiding_policy="none".'
            )
        self._training = training = _Training(
            run=HidingRun(
                len(self.train_dataset), policy, self.args.device, options.lr_compensation, options.ledger_precision
            ),
            sampler=self._sampler,
            id_name=options.sample_id_column,
            label_names=list(dict.fromkeys([*self.label_names, "labels"])),
            statistics_function=resolve_statistics_function(options.statistics_fn),
            fused_loss=computes_fused_loss(type(self)),
            roll_call=self._roll_call,
        )
        if resume_from_checkpoint is not None:
            position = self._resume(training, resume_from_checkpoint, position)
        if position[0] >= num_train_epochs:
            self.state.max_steps = self.state.global_step  # no epoch is left that would say it
        return position

    def _resume(self, training: _Training, checkpoint: str, position: tuple[int, int]) -> tuple[int, int]:
        """Take the run over from a checkpoint; the epoch to go on with and the batches of it already done."""
        if not is_marked_as_hiding(self.state):
            logger.warning(
                "%s was saved by a Trainer that hides nothing. The ledger starts empty; samples are hidden once they "
                "have been seen.",
                checkpoint,
            )
            return position
        tensors, scalars = load_state(checkpoint)
        training.resumed = scalars.pop("trainer")
        run = training.run
        try:
            run.load_state(tensors, scalars)
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} does not belong to this training. {error} Resume with the dataset and the "
                "hiding_policy that it was saved with, or start a new training."
            ) from error
        self._take_position(training, checkpoint)
        return (run.epoch + 1, 0) if run.epoch_finished else (run.epoch, run.batches_done)

    def _batches(self) -> tuple[int, int]:
        """How many samples of all ranks are in a batch, and how many batches make an update."""
        ranks = 1 if self.accelerator.split_batches else world_size()
        return self._train_batch_size * ranks, self.args.gradient_accumulation_steps

    def _take_position(self, training: _Training, checkpoint: str) -> None:
        """Go on where the checkpoint is, also if batches or updates had another number of samples then."""
        run, position = training.run, Position(*training.resumed["position"])
        batch_size, accumulation = self._batches()
        if (position.batch_size, position.accumulation) == (batch_size, accumulation):
            training.dropped = position.samples_dropped
            return
        training.batches_changed = True
        run.batches_done, training.dropped = position.in_batches_of(
            batch_size, accumulation, self.args.dataloader_drop_last
        )
        if rank() == 0:
            logger.warning(
                "%s was saved by a training with %d samples in an update, this one has %d. Each sample that epoch %d "
                "has left is trained on once, and the learning rate goes on from the same share of the training; the "
                "number of updates is another, and so are the random numbers of dropout and augmentation.",
                checkpoint,
                position.batch_size * position.accumulation,
                batch_size * accumulation,
                run.epoch,
            )

    # Trainer reads the weights of a checkpoint here and in the next one, some of them under names that do not fit.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._weights_folder = resume_from_checkpoint
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._weights_folder = self.state.best_model_checkpoint
        super()._load_best_model()

    # Trainer tells here which names did not fit.
    def _issue_warnings_after_load(self, load_result: Any) -> None:
        renamed = load_result.missing_keys and load_result.unexpected_keys
        if renamed and isinstance(self.model, PreTrainedModel) and not self.is_fsdp_enabled:
            assert self._weights_folder is not None
            with untouched_random_state(self.args.device):
                load_result = load_renamed_weights(self.model, self._weights_folder)
        super()._issue_warnings_after_load(load_result)

    # Trainer starts to count the loss anew when it resumes, so that the first log would differ.
    def _restore_unlogged_loss(self, resumed: dict[str, Any]) -> None:
        self._tr_loss += resumed["unlogged_loss"]
        self._total_loss_scalar -= resumed["unlogged_loss"]  # its steps do not count in this session
        self._globalstep_last_logged = resumed["last_logged_step"]

    # ---- Learning rate ----

    # Trainer makes, or is given, the scheduler here. A second training must not align an aligned one.
    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if isinstance(self.lr_scheduler, AlignedScheduler):
            self.lr_scheduler.close()  # a training that failed has not
            self.lr_scheduler = self.lr_scheduler.scheduler
        prepared: tuple[Any, Any] = super()._prepare_for_training(*args, **kwargs)
        self._align_scheduler()
        self.callback_handler.lr_scheduler = self.lr_scheduler
        return prepared

    # Called from there when the scheduler exists and before its state is loaded.
    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        self._align_scheduler()
        training = self._training
        if training is not None and training.batches_changed and isinstance(self.lr_scheduler, AlignedScheduler):
            training.scheduler_start = self.lr_scheduler.start()
        super()._load_optimizer_and_scheduler(checkpoint)

    def _align_scheduler(self) -> None:
        if self._training is None or isinstance(self.lr_scheduler, AlignedScheduler):
            return
        if isinstance(self.lr_scheduler, (ReduceLROnPlateau, GreedyLR)):
            # Trainer steps these with a metric, not once per update: there is nothing to align or to compensate.
            self._training.run.compensate_learning_rate = False
            return
        self.lr_scheduler = AlignedScheduler(self.lr_scheduler, self.optimizer)

    # ---- Epochs ----

    # Trainer fixes the numbers of batches and updates once for all epochs, and hands them in here by name.
    def _run_epoch(self, **figures: Any) -> None:
        training = self._training
        if training is None:
            return super()._run_epoch(**figures)
        epoch, checkpoint = figures["epoch"], figures["resume_from_checkpoint"]
        resumed = checkpoint is not None and epoch == figures["epochs_trained"]
        goes_on = resumed and training.run.epoch == epoch and not training.run.epoch_finished
        if not goes_on and 0 < self.args.max_steps <= self.state.global_step:
            self.control.should_training_stop = True
            return None
        batches_done = figures["steps_trained_in_current_epoch"] if resumed else 0
        if resumed and not goes_on and batches_done == 0:
            # Trainer would load the generators when the order of the epoch is already drawn from them.
            self._load_rng_state(checkpoint)
            figures = {**figures, "resume_from_checkpoint": None}
        training.loader = figures["train_dataloader"]
        if epoch == 0 and checkpoint is None and hiding_arguments(self.args).initial_pass:
            self._look_at_all(training)
        batches = self._begin_epoch(training, epoch, batches_done, goes_on)
        updates, updates_done = self._updates(batches), self._updates(batches_done)
        plan = self._plan_epoch(epoch, updates, figures["num_update_steps_per_epoch"], updates_done)
        if isinstance(self.lr_scheduler, AlignedScheduler):
            full_updates = figures["num_update_steps_per_epoch"]
            self._begin_epoch_of_scheduler(training, plan, epoch * full_updates, updates_done, goes_on)
        # A checkpoint of an epoch's, or the training's, last update leaves only the end of the epoch to be done.
        complete = self.state.global_step >= self.state.max_steps
        training.generators_at_end = checkpoint if goes_on and (complete or batches_done == batches) else None
        training.run.start_clock(training.sampler.samples, training.sampler.full_samples)
        super()._run_epoch(
            **{
                **figures,
                "steps_in_epoch": batches,
                "num_update_steps_per_epoch": updates_done if complete else updates,
            }
        )
        if complete:
            self.control.should_training_stop = True
        return None

    def _begin_epoch(self, training: _Training, epoch: int, batches_done: int, goes_on: bool) -> int:
        """Choose the visible samples, or keep the checkpoint's; the number of batches on this rank."""
        run, sampler = training.run, training.sampler
        if not goes_on:
            run.begin_epoch(epoch, self._progress(epoch))
            if batches_done:  # a plain Trainer began this epoch
                run.hide_nothing()
                run.batches_done = batches_done
        moment = f"before epoch {epoch}"
        training.roll_call.meet(moment)
        visible_set = {"samples": len(run.ledger), "digest of the visible set": run.ledger.digest()}
        require_agreement(visible_set, self.args.device, moment)
        text = training.resumed.get("random_state") if goes_on else None
        random_state = RandomState.from_json(text) if text else None
        training.dropped = training.dropped if goes_on else 0
        _hand_over_repeats(run, sampler)
        sampler.begin_epoch(epoch, run.ledger.hidden, random_state, batches_done, training.dropped)
        # What a resumed epoch hides was settled when it began.
        while not goes_on and self._leaves_a_batch_of_one(training):
            run.move_back_one()
            sampler.hide_less(run.ledger.hidden)
        if not goes_on and len(training.loader) == 0 and run.ledger.num_hidden:
            logger.warning("The visible samples do not fill one batch in epoch %d: nothing is hidden in it.", epoch)
            run.hide_nothing()
            _hand_over_repeats(run, sampler)
            sampler.hide_less(run.ledger.hidden)
        batches = len(training.loader)
        require_agreement({"batches": batches, "digest of the order": sampler.digest()}, self.args.device, moment)
        return batches

    def _begin_epoch_of_scheduler(
        self, training: _Training, plan: EpochPlan, full_updates_before: int, updates_done: int, goes_on: bool
    ) -> None:
        start, training.scheduler_start = training.scheduler_start, None
        full_updates_done = updates_done
        if start is not None:
            full_updates_done = updates_done * plan.full_updates // max(plan.updates, 1)
            by_updates = self.args.max_steps > 0
            steps = self.state.global_step if by_updates else full_updates_before + full_updates_done
            self.lr_scheduler.restart(start, steps)
        elif goes_on:
            return  # its place in the epoch was loaded
        if plan.updates > updates_done:
            self.lr_scheduler.begin_epoch(
                plan.updates - updates_done, plan.full_updates - full_updates_done, training.run.lr_scale
            )

    def _leaves_a_batch_of_one(self, training: _Training) -> bool:
        """Whether hiding, and not the user, is the cause of a last batch of one sample, on which BatchNorm raises.

        On several ranks the last batch is filled up.
        """
        size = self._train_batch_size
        alone = size > 1 and world_size() == 1 and not self.args.dataloader_drop_last
        return alone and training.run.ledger.num_hidden > 0 and training.sampler.samples % size == 1

    def _progress(self, epoch: int) -> float:
        if self.args.max_steps > 0:
            return self.state.global_step / self.args.max_steps
        return epoch / self.args.num_train_epochs

    def _updates(self, batches: int) -> int:
        return math.ceil(batches / self.args.gradient_accumulation_steps)

    def _plan_epoch(self, epoch: int, updates: int, full_updates: int, updates_done: int) -> EpochPlan:
        """Set the state and the progress bar to what is to be expected now."""
        before = self.state.global_step - updates_done
        if self.args.max_steps > 0:
            plan = EpochPlan(updates, updates, self.args.max_steps)
            self.state.num_train_epochs = epoch + math.ceil((plan.total - before) / max(updates, 1))
        else:
            plan = plan_epoch(epoch, self.args.num_train_epochs, updates, full_updates, before)
            self.state.max_steps = plan.total
        for kind in ("logging", "eval", "save"):
            share = getattr(self.args, f"{kind}_steps")
            if share is not None and 0 < share < 1:
                setattr(self.state, f"{kind}_steps", math.ceil(plan.total * share))
        for callback in self.callback_handler.callbacks:
            # The bars of a terminal and of a notebook; both fixed their total when the training began.
            for bar in (getattr(callback, "training_bar", None), getattr(callback, "training_tracker", None)):
                if bar is not None:
                    bar.total = plan.total
        return plan

    def _is_cut_short(self, training: _Training) -> bool:
        """Whether the training stops within the epoch. What is saved from here on must say so."""
        stops = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
        return stops and training.run.batches_done < len(training.loader)

    # Trainer's pass over an epoch ends with `on_epoch_end`; it evaluates and saves after it.
    def _end_epoch(self, training: _Training) -> None:
        run = training.run
        training.roll_call.meet(f"at the end of epoch {run.epoch}")
        if isinstance(training.sampler, SampleStream):
            seen = torch.zeros_like(run.ledger.hidden)
            measured = run.finish_epoch(seen)
            training.sampler.require_distinct(measured, seen)
        else:
            measured = run.finish_epoch()
        if run.epoch == 0:
            looked_at_all = hiding_arguments(self.args).initial_pass
            self._warn_of_samples_without_a_loss(run.ledger, len(run.ledger) if looked_at_all else measured)
        if training.generators_at_end is not None:
            self._load_rng_state(training.generators_at_end)
        stops = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
        if not any_rank(stops, self.args.device) and run.wants_refresh():
            self._refresh(training)
        should_log = self.control.should_log
        with metrics_set_aside(self):
            self.log(run.report())
        self.control.should_log = should_log  # `log` takes a request for the training loss as served
        training.epochs_hidden += run.ledger.num_hidden > 0
        costs = training.epochs_hidden >= _EPOCHS_BEFORE_WARNING and run.time_saved < -_SECONDS_BEFORE_WARNING
        if costs and not training.cost_is_told:
            training.cost_is_told = True
            logger.warning(
                "Hiding has cost %.1f s more than it saved so far: looking at the hidden samples takes longer than "
                'training on them would. Try a larger refresh_interval, or set hiding_policy="none".',
                -run.time_saved,
            )

    def _warn_of_samples_without_a_loss(self, ledger: SampleLedger, measured: int) -> None:
        without = ledger.num_without_loss - max(len(ledger) - measured, 0)
        if without > 0:
            logger.warning(
                "%d of the %d samples have no finite loss after the first epoch, and are not hidden before they have "
                "one. Either every label of theirs is masked (-100), so that there is nothing to learn from them, or "
                "the model's predictions are not finite.",
                without,
                len(ledger),
            )

    def _refresh(self, training: _Training) -> None:
        """Look at the hidden samples, or at those of them that the policy names."""
        with training.run.refreshing() as chosen:
            self._look_at(training, chosen, training.run.epoch)

    def _look_at_all(self, training: _Training) -> None:
        """Look at every sample before the first epoch, so that hiding can start with it."""
        training.roll_call.meet("before the pass over all samples")
        with training.run.looking_at_all() as everything:
            self._look_at(training, everything, 0)

    def _look_at(self, training: _Training, chosen: Tensor, epoch: int) -> None:
        """Measure some samples, (N,) bool, forward only, through the same path as in training."""
        if training.hidden_loader is None:
            training.hidden_loader = HiddenLoader(
                training.loader,
                training.sampler,
                training.run.ledger.hidden,
                self.accelerator,
                self._train_batch_size,
                self.args.dataloader_drop_last,
            )
        # DistributedDataParallel would overwrite buffers in a forward pass; `evaluate` runs the module below it too.
        model = self.model_wrapped if self.is_deepspeed_enabled or world_size() == 1 else self.model
        with untouched_random_state(self.args.device), forward_only(model), metrics_set_aside(self):
            for batch in training.hidden_loader.batches(chosen, epoch):
                inputs = self._prepare_inputs(batch)
                training.batch_ids = take_ids(inputs, training.id_name)
                with self.compute_loss_context_manager():
                    num_items = self._get_num_items_in_batch([inputs], self.args.device)
                    self.compute_loss(model, inputs, num_items_in_batch=num_items)
                self._require_recorded(training)

    # ---- Log, save, finish ----

    # Trainer logs, evaluates and saves here, inside the epoch: time that hiding neither costs nor saves.
    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        does_something = self.control.should_log or self.control.should_evaluate or self.control.should_save
        if self._training is None or self._training.run.epoch_finished or not does_something:
            super()._maybe_log_save_evaluate(*args, **kwargs)
            return
        with self._training.run.clock_stopped():
            super()._maybe_log_save_evaluate(*args, **kwargs)

    # Trainer writes a checkpoint folder here, its state last. The ledger goes first: with the state it is complete.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        training = self._training
        if training is not None:
            training.roll_call.meet("about to save a checkpoint")
            tensors, scalars = training.run.state()
            random_state = training.sampler.random_state
            batch_size, accumulation = self._batches()
            samples = training.sampler.samples
            done = min(training.dropped + training.run.batches_done * batch_size, samples)
            scalars["trainer"] = {
                "position": Position(done, samples, batch_size, accumulation, training.dropped),
                "random_state": random_state.to_json() if random_state else None,
                "unlogged_loss": self.accelerator.gather(self._tr_loss).mean().item(),
                "last_logged_step": self._globalstep_last_logged,
            }
            if self.args.should_save:
                folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
                (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
                save_state(folder, tensors, scalars)
            mark_as_hiding(self.state)
        super()._save_checkpoint(model, trial)

    # Trainer reports the throughput of full epochs from the number that is handed in here.
    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> TrainOutput:
        if self._training is None:
            return super()._finalize_training(trial, num_train_samples, start_time)
        run = self._training.run
        if not run.epoch_finished:
            self._end_epoch(self._training)
        if isinstance(self.lr_scheduler, AlignedScheduler):
            self.lr_scheduler.close()
        samples = num_train_samples_argument(self, run.samples_this_session)
        output = super()._finalize_training(trial, samples, start_time)
        output.metrics.update(run.totals())
        return output


class KakurenboTrainer(KakurenboMixin, Trainer):
    """`transformers.Trainer` that hides in every epoch the samples that the model already knows.

    Put it in the place of `Trainer`; nothing else in the script changes. With `KakurenboConfig` in the place of
    `TrainingArguments` the options of hiding become arguments and command-line flags.
    """


def _weighed(run: HidingRun, loss: Tensor, ids: BatchIds, measured: SampleStatistics | Prediction) -> Tensor:
    """The loss of a training batch by the weights of its samples; of a refresh, or where there are none, as it is."""
    if run.epoch_finished:
        return loss
    weights = run.weights_of(ids.samples)
    if weights is None:
        if run.policy.weighs_samples:
            require_weighable(measured)  # not first in the epoch that has weights
        return loss
    return weighed_loss(loss, measured, weights)


def _hand_over_repeats(run: HidingRun, sampler: VisibleSampler | SampleStream) -> None:
    if isinstance(sampler, VisibleSampler):
        sampler.repeats = run.repeats
    elif run.repeats is not None:
        raise ValueError(
            f"{type(run.policy).__name__} draws samples more than once, which a stream cannot. Load the dataset "
            "map-style (`streaming=False`), and set `repeats_samples = True` in the policy, so that this is told at "
            "once."
        )


class _HidingCallback(TrainerCallback):
    """Called before every other callback, so that they see the epoch finished and refreshed."""

    def __init__(self, trainer: KakurenboMixin) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        training = self.trainer._training
        if training is not None and training.resumed:
            self.trainer._restore_unlogged_loss(training.resumed)

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        training = self.trainer._training
        if training is None or training.run.epoch_finished or self.trainer._is_cut_short(training):
            return
        self.trainer._end_epoch(training)
