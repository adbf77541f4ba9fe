"""The glue between the method and Transformers: the one file that knows Trainer's internals.

Every override of an internal says in a comment what of Trainer it is there for; `tests/test_trainer_internals.py`
fails when a release of Transformers moves one of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler
from transformers import Trainer, TrainerCallback
from transformers.optimization import GreedyLR
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from ._compat import num_train_samples_argument
from .config import create_configured_policy, hiding_arguments, resolve_statistics_function
from .data import (
    HiddenSampler,
    IdentifiedDataset,
    IdentifyingCollator,
    RandomState,
    VisibleSampler,
    untouched_random_state,
)
from .hiding import AlignedScheduler, HidingRun, SampleLedger, SampleStatistics
from .hiding.checkpoint import LEDGER_NAME, load_state, save_state
from .hiding.distributed import gather_rows, require_agreement, world_size
from .hiding.statistics import check_label_values, classification_statistics

logger = logging.getLogger(__name__)

# Entry of `trainer_state.json` that tells a checkpoint saved with hiding from a plain Trainer's.
_MARK = "KakurenboTrainer"
# Epochs that hid something before a saving below zero is told.
_EPOCHS_BEFORE_WARNING = 3

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lineage = cls.__mro__
        if Trainer in lineage and lineage.index(Trainer) < lineage.index(KakurenboMixin):
            raise TypeError(
                f"{cls.__name__} names KakurenboMixin after the trainer, so nothing would be hidden. Write "
                f"`class {cls.__name__}(KakurenboMixin, {cls.__bases__[0].__name__})`."
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._hiding: HidingRun | None = None
        self._batch_ids: Tensor | None = None
        self._sampler: VisibleSampler | None = None
        super().__init__(*args, **kwargs)
        self.callback_handler.callbacks.insert(0, _HidingCallback(self))

    @property
    def ledger(self) -> SampleLedger | None:
        """The per-sample record of the training under way, or of the last one; None without hiding."""
        return self._hiding.ledger if self._hiding else None

    # ---- Checks ----

    # Trainer checks its arguments here, during construction and after the accelerator is made.
    def _validate_args(self) -> None:
        if self._hides():
            self._refuse_what_cannot_be_honoured()
        super()._validate_args()

    def _hides(self) -> bool:
        return create_configured_policy(hiding_arguments(self.args)) is not None

    def _refuse_what_cannot_be_honoured(self) -> None:
        args, dataset = self.args, self.train_dataset
        if dataset is not None and (isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")):
            raise ValueError(
                f"The training dataset ({type(dataset).__name__}) has no length and no random access, which hiding "
                "samples needs. Load it map-style (`load_dataset(..., streaming=False)`), or set "
                'hiding_policy="none".'
            )
        if args.n_gpu > 1:
            raise ValueError(
                f"The script runs in one process with {args.n_gpu} GPUs, which is DataParallel; hiding works with one "
                "process per GPU. Start it with `accelerate launch`, or show it one GPU (CUDA_VISIBLE_DEVICES=0)."
            )
        if args.train_sampling_strategy == "batch_rebalance":
            raise ValueError(
                'train_sampling_strategy="batch_rebalance" fixes the batches of each rank beforehand, so nothing could '
                'be left out of them. Use "random" or "group_by_length", or set hiding_policy="none".'
            )
        if not args.accelerator_config.use_seedable_sampler:
            raise ValueError(
                "accelerator_config.use_seedable_sampler=False draws the order of an epoch from the global generator, "
                'which a resumed training cannot repeat. Leave it at True, or set hiding_policy="none".'
            )
        if args.ignore_data_skip:
            raise ValueError(
                "ignore_data_skip=True would train twice on samples of the resumed epoch. Leave it at False: skipped "
                "samples are not fetched, so skipping costs nothing."
            )
        resolve_statistics_function(hiding_arguments(args).statistics_fn)

    # ---- Data ----

    def get_train_dataloader(self) -> DataLoader:
        """Trainer's training loader over the visible samples, each batch with the ids of its samples.

        Raises:
            ValueError: the dataset has no length.
            RuntimeError: a subclass built its loader past this one.
        """
        if not self._hides():
            return super().get_train_dataloader()
        self._refuse_what_cannot_be_honoured()
        self._sampler = None
        loader = super().get_train_dataloader()
        if self._sampler is None:
            raise RuntimeError(
                f"{type(self).__name__} builds its training loader without `Trainer._get_dataloader`, so its samples "
                'could not be told apart. Let it call `super().get_train_dataloader()`, or set hiding_policy="none".'
            )
        return loader

    # Every loader of Trainer is made here; the training one gets ids beside its examples and the visible sampler.
    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader:
        if not (is_training and self._hides()):
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        # What Trainer does to drop unused columns goes by the type of the dataset, so it is done before wrapping it.
        if isinstance(dataset, datasets.Dataset):
            dataset, collator = self._remove_unused_columns(dataset, description=description), self.data_collator
        else:
            collator = self._get_collator_with_removed_columns(self.data_collator, description=description)
        self._sampler = self._make_visible_sampler(sampler_fn, dataset)
        self.data_collator, users_collator = IdentifyingCollator(collator, self._id_name), self.data_collator
        try:
            return super()._get_dataloader(
                IdentifiedDataset(dataset), description, batch_size, lambda _: self._sampler, True, dataloader_key
            )
        finally:
            self.data_collator = users_collator

    def _make_visible_sampler(self, sampler_fn: Callable[[Any], Any] | None, dataset: Any) -> VisibleSampler:
        sampler = sampler_fn(dataset) if sampler_fn is not None else None
        if sampler is None or isinstance(sampler, BatchSampler):
            raise ValueError(
                f"Hiding needs a sampler that yields sample indices, got {type(sampler).__name__} from "
                f'`{type(self).__name__}._get_train_sampler`. Return a `Sampler[int]`, or set hiding_policy="none".'
            )
        if isinstance(sampler, RandomSampler) and not isinstance(sampler, SeedableRandomSampler):
            # Accelerate makes this exchange for a RandomSampler that it sees; a wrapped one it does not see.
            sampler = SeedableRandomSampler(
                data_source=sampler.data_source,
                replacement=sampler.replacement,
                num_samples=sampler._num_samples,
                generator=sampler.generator,
                data_seed=self.args.data_seed,
            )
        return VisibleSampler(sampler)

    @property
    def _id_name(self) -> str:
        return hiding_arguments(self.args).sample_id_column

    # ---- Loss ----

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Trainer's step, the ids taken out of the batch before the model can see them.

        Raises:
            RuntimeError: a subclass computes the loss past this class, so that nothing is recorded.
        """
        if self._hiding is None:
            return super().training_step(model, inputs, *args, **kwargs)
        self._batch_ids = inputs.pop(self._id_name)
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._require_recorded()
        self._hiding.batches_done += 1
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Exactly Trainer's loss; beside it, the statistics of the batch are recorded.

        Raises:
            ValueError: there are no labels, or no rule gives the statistics of what the model returned.
        """
        ids, self._batch_ids = self._batch_ids, None
        if ids is None or self._hiding is None:
            return super().compute_loss(model, inputs, return_outputs, *args, **kwargs)
        batch = dict(inputs)  # the parent may take the labels out
        loss, outputs = super().compute_loss(model, inputs, True, *args, **kwargs)
        self._hiding.record(ids, self._sample_statistics(outputs, batch))
        return (loss, outputs) if return_outputs else loss

    def _sample_statistics(self, outputs: Any, batch: dict[str, Any]) -> SampleStatistics:
        own = resolve_statistics_function(hiding_arguments(self.args).statistics_fn)
        if own is not None:
            return SampleStatistics(*own(outputs, batch))
        label_names = list(dict.fromkeys([*self.label_names, "labels"]))
        problem_type = getattr(getattr(self.model, "config", None), "problem_type", None)
        statistics = classification_statistics(outputs, batch, label_names, problem_type)
        if not self._labels_checked:
            self._labels_checked = True
            check_label_values(next(batch[name] for name in label_names if batch.get(name) is not None))
        return statistics

    def _require_recorded(self) -> None:
        if self._batch_ids is not None:
            raise RuntimeError(
                f"{type(self).__name__}.compute_loss does not call `super().compute_loss(...)`, where the samples' "
                "losses are recorded. Call it, or put the override into a class that stands after KakurenboMixin: "
                "`class MyTrainer(KakurenboMixin, TrainerWithMyLoss)`."
            )

    # ---- The course of a training ----

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As `Trainer.train`. A checkpoint whose writing was interrupted is passed over for the one before it."""
        if resume_from_checkpoint and self._hides():
            resume_from_checkpoint = self._complete_checkpoint(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _complete_checkpoint(self, wanted: str | bool) -> str | bool:
        # Trainer writes `trainer_state.json` last, so a checkpoint without it is half written.
        if isinstance(wanted, str) and (not Path(wanted).is_dir() or _is_complete(Path(wanted))):
            return wanted
        parent = Path(wanted).parent if isinstance(wanted, str) else Path(self.args.output_dir)
        found = sorted(parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=_step_of, reverse=True)
        usable = [folder for folder in found if _is_complete(folder)]
        if isinstance(wanted, str):
            usable = [folder for folder in usable if _step_of(folder) < _step_of(Path(wanted))]
        if not usable:
            return wanted
        if isinstance(wanted, str) or usable[0] != found[0]:
            logger.warning(
                "%s was not written to its end; resuming from %s.",
                wanted if isinstance(wanted, str) else found[0],
                usable[0],
            )
        return str(usable[0])

    # With max_steps, the number of epochs is worked out from the full epoch's length here; shorter ones are more.
    def set_initial_training_values(self, args: Any, dataloader: DataLoader) -> tuple[Any, ...]:
        values = super().set_initial_training_values(args, dataloader)
        if self._hides() and args.max_steps > 0:
            return (args.max_steps, *values[1:])
        return values

    # Trainer makes or loads the state of a training here, and works out the resumed epoch from full epochs.
    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        position = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        options = hiding_arguments(self.args)
        policy = create_configured_policy(options)
        if policy is None:
            self._hiding = None
            return position
        self._hiding = HidingRun(len(self.train_dataset), policy, self.args.device, options.lr_compensation)
        self._batch_ids = None
        self._labels_checked = False
        self._refresh_loader: Any = None
        self._epochs_hidden = 0
        self._resumed: dict[str, Any] = {}
        self._epoch_sampler = self._sampler
        if resume_from_checkpoint is not None:
            position = self._resume_hiding(resume_from_checkpoint, position)
        self.state.stateful_callbacks[_MARK] = {"args": {}, "attributes": {}}
        return position

    def _resume_hiding(self, checkpoint: str, position: tuple[int, int]) -> tuple[int, int]:
        run = self._run
        if _MARK not in self.state.stateful_callbacks and not (Path(checkpoint) / LEDGER_NAME).is_file():
            logger.warning(
                "%s was saved by a Trainer that hides nothing: the ledger starts empty, and samples are hidden once "
                "they have been seen.",
                checkpoint,
            )
            return position
        tensors, scalars = load_state(checkpoint)
        self._resumed = scalars.pop("trainer")
        try:
            run.load_state(tensors, scalars)
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} does not belong to this training. {error} Resume with the dataset that it was saved "
                "with, or start a new training."
            ) from error
        return (run.epoch + 1, 0) if run.epoch_finished else (run.epoch, run.batches_done)

    # The optimizer and the scheduler exist when Trainer is about to load theirs, and for certain after preparing.
    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        self._align_scheduler()
        super()._load_optimizer_and_scheduler(checkpoint)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if isinstance(self.lr_scheduler, AlignedScheduler):  # the user's own, wrapped by an earlier training
            self.lr_scheduler = self.lr_scheduler.scheduler
        prepared: tuple[Any, Any] = super()._prepare_for_training(*args, **kwargs)
        self._align_scheduler()
        self.callback_handler.lr_scheduler = self.lr_scheduler
        return prepared

    def _align_scheduler(self) -> None:
        if self._hiding is None or isinstance(self.lr_scheduler, AlignedScheduler):
            return
        if isinstance(self.lr_scheduler, (ReduceLROnPlateau, GreedyLR)):
            # Trainer steps these with a metric, not once per update: there is nothing to align or to compensate.
            self._hiding.compensate_learning_rate = False
            return
        self.lr_scheduler = AlignedScheduler(self.lr_scheduler, self.optimizer)

    # Trainer fixes an epoch's number of batches and updates once for all epochs and hands them in here.
    def _run_epoch(
        self,
        model: nn.Module,
        epoch: int,
        train_dataloader: Any,
        steps_in_epoch: int,
        num_update_steps_per_epoch: int,
        resume_from_checkpoint: str | None,
        epochs_trained: int,
        steps_trained_in_current_epoch: int,
        **kwargs: Any,
    ) -> None:
        def run_epoch(batches: int, updates: int) -> None:
            super(KakurenboMixin, self)._run_epoch(
                model=model,
                epoch=epoch,
                train_dataloader=train_dataloader,
                steps_in_epoch=batches,
                num_update_steps_per_epoch=updates,
                resume_from_checkpoint=resume_from_checkpoint,
                epochs_trained=epochs_trained,
                steps_trained_in_current_epoch=steps_trained_in_current_epoch,
                **kwargs,
            )

        if self._hiding is None:
            return run_epoch(steps_in_epoch, num_update_steps_per_epoch)
        run = self._hiding
        resumed = resume_from_checkpoint is not None and epoch == epochs_trained
        goes_on = resumed and run.epoch == epoch and not run.epoch_finished
        if not goes_on and 0 < self.args.max_steps <= self.state.global_step:
            self.control.should_training_stop = True
            return None
        batches_done = steps_trained_in_current_epoch if resumed else 0
        batches = self._begin_epoch(epoch, train_dataloader, batches_done, goes_on)
        updates = _ceil_div(batches, self.args.gradient_accumulation_steps)
        self._plan_epoch(epoch, updates, num_update_steps_per_epoch, keep_scheduler=goes_on)
        updates_done = _ceil_div(batches_done, self.args.gradient_accumulation_steps)
        complete = self.state.global_step >= self.state.max_steps
        self._generators_at_end = resume_from_checkpoint if goes_on and (complete or batches_done == batches) else None
        run.start_clock(batches)
        run_epoch(batches, updates_done if complete else updates)
        if complete:
            self.control.should_training_stop = True
        return None

    def _begin_epoch(self, epoch: int, train_dataloader: Any, batches_done: int, goes_on: bool) -> int:
        """Choose the visible samples, or take them over from the checkpoint; the number of batches on this rank."""
        run, sampler = self._run, self._epoch_sampler
        random_state = self._resumed.get("random_state") if goes_on else None
        if not goes_on:
            run.begin_epoch(epoch, self._progress(epoch))
            if batches_done:  # an epoch that a plain Trainer began
                run.hide_nothing()
                run.batches_done = batches_done
        sampler.begin_epoch(epoch, run.ledger.hidden, RandomState.from_json(random_state) if random_state else None)
        self._train_dataloader = train_dataloader
        if len(train_dataloader) == 0 and run.ledger.num_hidden:
            logger.warning("The visible samples do not fill one batch in epoch %d: nothing is hidden in it.", epoch)
            run.hide_nothing()
            sampler.begin_epoch(epoch, run.ledger.hidden)
        batches = len(train_dataloader)
        visible_digest = int.from_bytes(_digest(run.ledger.hidden), "little", signed=True)
        require_agreement(
            {"samples": len(run.ledger), "batches per epoch": batches, "digest of the visible set": visible_digest},
            self.args.device,
            f"before epoch {epoch}",
        )
        return batches

    def _progress(self, epoch: int) -> float:
        if self.args.max_steps > 0:
            return self.state.global_step / self.args.max_steps
        return epoch / self.args.num_train_epochs

    def _plan_epoch(self, epoch: int, updates: int, full_updates: int, keep_scheduler: bool) -> None:
        """Set the state's figures, the progress bar and the scheduler to an epoch of so many updates."""
        updates_done = _ceil_div(self._run.batches_done, self.args.gradient_accumulation_steps)
        steps_before = self.state.global_step - updates_done
        if self.args.max_steps > 0:
            planned = full = updates
            self.state.num_train_epochs = epoch + _ceil_div(self.args.max_steps - steps_before, max(updates, 1))
        else:
            remaining = math.ceil(self.args.num_train_epochs * full_updates) - epoch * full_updates
            full = min(full_updates, remaining)
            planned = _ceil_div(full * updates, full_updates)
            later = _ceil_div((remaining - full) * updates, full_updates)
            self.state.max_steps = steps_before + planned + later
        self._refit_ratios_and_bars()
        if isinstance(self.lr_scheduler, AlignedScheduler) and not keep_scheduler and planned > updates_done:
            self.lr_scheduler.begin_epoch(planned - updates_done, full - updates_done, self._run.lr_scale)

    def _refit_ratios_and_bars(self) -> None:
        for kind in ("logging", "eval", "save"):
            ratio = getattr(self.args, f"{kind}_steps")
            if ratio is not None and 0 < ratio < 1:
                setattr(self.state, f"{kind}_steps", math.ceil(self.state.max_steps * ratio))
        for callback in self.callback_handler.callbacks:
            # The progress bars of a terminal and of a notebook; both fixed their total when training began.
            for bar in (getattr(callback, "training_bar", None), getattr(callback, "training_tracker", None)):
                if bar is not None:
                    bar.total = self.state.max_steps

    def _end_epoch(self) -> None:
        run = self._run
        run.finish_epoch()
        if self._generators_at_end is not None:
            self._load_rng_state(self._generators_at_end)
        stops = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
        stops_anywhere = torch.cat(gather_rows(torch.tensor([stops], device=self.args.device)))
        if run.wants_refresh() and not bool(stops_anywhere.any()):
            self._refresh()
        self._report()

    def _report(self) -> None:
        run, should_log = self._run, self.control.should_log
        self.log(run.report())
        self.control.should_log = should_log  # `log` takes the request for the training loss as served
        self._epochs_hidden += run.ledger.num_hidden > 0
        if self._epochs_hidden == _EPOCHS_BEFORE_WARNING and run.time_saved < 0:
            logger.warning(
                "Hiding has cost %.1f s more than it saved so far: looking at the hidden samples takes longer than "
                'training on them would. Try a larger refresh_interval, or set hiding_policy="none".',
                -run.time_saved,
            )

    # Trainer's pass over an epoch ends with `on_epoch_end`, before it evaluates and saves.
    def _refresh(self) -> None:
        if self._refresh_loader is None:
            self._refresh_loader = self._make_refresh_loader()
        # DistributedDataParallel would overwrite buffers in a forward pass; `evaluate` runs the module below it too.
        model = self.model_wrapped if self.is_deepspeed_enabled or world_size() == 1 else self.model
        with self._run.refreshing(), untouched_random_state(self.args.device), _evaluation_mode(model), torch.no_grad():
            for batch in self._refresh_loader:
                inputs = self._prepare_inputs(batch)
                self._batch_ids = inputs.pop(self._id_name)
                with self.compute_loss_context_manager():
                    self.compute_loss(model, inputs)
                self._require_recorded()

    def _make_refresh_loader(self) -> Any:
        loader, accelerator = self._train_dataloader, self.accelerator
        hidden = DataLoader(
            loader.dataset,
            batch_size=loader.total_batch_size // accelerator.num_processes,
            sampler=HiddenSampler(self._run.ledger.hidden),
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            persistent_workers=loader.persistent_workers,
            prefetch_factor=loader.prefetch_factor,
            multiprocessing_context=loader.multiprocessing_context,
            worker_init_fn=loader.worker_init_fn,
        )
        # Evened out whatever the training loader does, so that every rank makes the same number of forward calls.
        return prepare_data_loader(
            hidden,
            device=accelerator.device,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            put_on_device=True,
            even_batches=True,
            dispatch_batches=False,
            non_blocking=accelerator.non_blocking,
        )

    # Trainer logs, evaluates and saves here, inside the epoch: time that hiding neither costs nor saves.
    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self._hiding is None or self._hiding.epoch_finished:
            return super()._maybe_log_save_evaluate(*args, **kwargs)
        with self._hiding.clock_stopped():
            return super()._maybe_log_save_evaluate(*args, **kwargs)

    # The ledger goes into the folder before anything else: once Trainer's last file is there, the checkpoint is whole.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._hiding is not None:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            tensors, scalars = self._hiding.state()
            sampler_state = self._epoch_sampler.random_state
            scalars["trainer"] = {
                "random_state": sampler_state.to_json() if sampler_state else None,
                "unlogged_loss": self.accelerator.gather(self._tr_loss).mean().item(),
                "last_logged_step": self._globalstep_last_logged,
            }
            if self.args.should_save:
                (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
                save_state(folder, tensors, scalars)
        super()._save_checkpoint(model, trial)

    # Trainer forgets, when it resumes, the loss of the steps since the last log; the next log would differ.
    def _restore_unlogged_loss(self) -> None:
        if self._resumed:
            self._tr_loss += self._resumed["unlogged_loss"]
            self._total_loss_scalar -= self._resumed["unlogged_loss"]  # its steps are not counted in this session
            self._globalstep_last_logged = self._resumed["last_logged_step"]

    # Trainer reports the throughput of full epochs.
    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> TrainOutput:
        if self._hiding is None:
            return super()._finalize_training(trial, num_train_samples, start_time)
        samples = num_train_samples_argument(self, self._hiding.samples_this_session)
        output = super()._finalize_training(trial, samples, start_time)
        output.metrics.update(self._hiding.totals())
        return output

    @property
    def _run(self) -> HidingRun:
        assert self._hiding is not None, "only called while a training hides"
        return self._hiding


class KakurenboTrainer(KakurenboMixin, Trainer):
    """`transformers.Trainer` that hides in every epoch the samples that the model already knows.

    Put it in the place of `Trainer`; nothing else in the script changes. With `KakurenboConfig` in the place of
    `TrainingArguments` the options of hiding become arguments and command-line flags.
    """


class _HidingCallback(TrainerCallback):
    """Called before every other callback, so that they see the epoch finished and refreshed."""

    def __init__(self, trainer: KakurenboMixin) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if self.trainer._hiding is not None:
            self.trainer._restore_unlogged_loss()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        if self.trainer._hiding is not None and not self.trainer._hiding.epoch_finished:
            self.trainer._end_epoch()


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return True


def _step_of(checkpoint: Path) -> int:
    step = checkpoint.name.rpartition("-")[2]
    return int(step) if step.isdigit() else -1


def _digest(mask: Tensor) -> bytes:
    return hashlib.blake2b(mask.numpy().tobytes(), digest_size=8).digest()


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
