"""Which hook of `transformers.Trainer` hands over to whom: the table of contents of this folder.

Every override of an internal says in a comment what of Trainer it is there for;
`tests/trainer/test_trainer_internals.py` fails when a release of Transformers moves one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from .._compat import num_train_samples_argument
from ..config import create_configured_policy, hiding_arguments
from ..data import IdentifyingCollator
from ..distributed.barrier import MonitoredBarrier
from ..hiding import SampleLedger
from ..integrations.registry import explain_arguments, make_training_loader, require_supported
from . import dataloaders, learning_rate, recording, reporting, resuming, saving
from .advice import warn_of_what_has_no_effect
from .checkpoints import unmark
from .epochs import end_epoch, put_first, run_epoch
from .lineage import require_trainer, require_trainer_behind
from .parallelism import warn_of_missing_processes
from .preemption import save_at_the_same_update
from .protecting import refuse_protection
from .row_origin import given_dataset
from .state import Training
from .tracking import log_hidden_samples
from .validation import refuse_switching, refuse_what_cannot_be_honoured, require_a_batch

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object


class KakurenboMixin(_Base):
    """Adds hiding to a subclass of `transformers.Trainer`; name it before the trainer.

    ```python
    class KakurenboSeq2SeqTrainer(KakurenboMixin, Seq2SeqTrainer): ...
    ```

    It takes the trainer's arguments. `args` may be a [`KakurenboConfig`], another subclass of `TrainingArguments` with
    [`HidingArguments`], or a plain `TrainingArguments`, which gets the default options.

    Attributes:
        never_hide: (N,) bool, an array or a tensor, the samples that are never hidden; to be set before `train`. None,
            as it is at first, for none beside those of `never_hide_column`.

    Raises:
        TypeError: a subclass names the mixin after the trainer, or puts it over no trainer of Transformers.
        ValueError: at construction, if an option is out of its range or the training cannot be done as asked: a
            dataset without a length, several GPUs under DataParallel, a sampling option that hiding cannot honour.
            Without a training dataset, as for evaluation alone, this is said when training begins.
    """

    data_collator: Any
    lr_scheduler: Any
    train_dataset: Any
    _barrier: MonitoredBarrier

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        require_trainer_behind(KakurenboMixin, cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_trainer(type(self))
        self._training: Training | None = None
        self._loaders: list[dataloaders.TrainingLoader] = []
        self._num_earlier_loaders = 0
        self._weights_folder: str | None = None
        self.never_hide: Any = None
        self._given_dataset = given_dataset(super().__init__, args, kwargs)
        try:
            super().__init__(*args, **kwargs)
        except TypeError as error:
            if "hiding_policy" not in str(error):
                raise
            raise explain_arguments(error, type(self)) from error
        self._place_callbacks()
        if self._hides() and self.train_dataset is not None:
            self._prepare_to_hide()  # what the constructor has set since, a loss for one
            warn_of_what_has_no_effect(self)

    @property
    def ledger(self) -> SampleLedger | None:
        """The per-sample record of the training under way, or of the last one; None without hiding."""
        return self._training.run.ledger if self._training else None

    def hiding_report(
        self, path: str | os.PathLike[str], dataset: Any = None, label_column: str | None = None
    ) -> Path | None:
        """Write what was hidden, in the training under way or the last one, into one HTML file that opens offline.

        With `ledger_history=True` it also says whether what was hidden is still known, and shows the samples that were
        never learnt. Where a sample has one class, the model at hand is asked for at most 2,000 of these, forward only,
        and the report shows what they are taken for. It needs the extra `report`:
        `pip install "hf-kakurenbo[report]"`.

        Args:
            path: the file.
            dataset: what to show samples of, with a row for each; by default the training dataset as it was given.
            label_column: its column with the class of a sample; by default found by its type or name.

        Returns:
            The file; None on the ranks that do not write.

        Raises:
            RuntimeError: matplotlib is not installed.
            ValueError: nothing was trained with hiding, or the dataset is another one.
        """
        return reporting.write_report_of(self, self._training, path, dataset, label_column)

    def _hides(self) -> bool:
        return create_configured_policy(hiding_arguments(self.args)) is not None

    # Trainer checks its arguments here, during construction and once it knows its device.
    def _validate_args(self) -> None:
        if self.train_dataset is not None:  # else it may be made to evaluate only
            self._prepare_to_hide()
        super()._validate_args()

    def _prepare_to_hide(self) -> None:
        if self._hides():
            require_supported(self, hiding_arguments(self.args).statistics_fn is not None)
            dataloaders.wrap_stream(self)
            refuse_what_cannot_be_honoured(self)
            refuse_protection(self)

    # An option may have been set since the trainer was made, as a hyperparameter search does.
    def _place_callbacks(self) -> None:
        put_first(self, self._hides())
        if self._hides():
            save_at_the_same_update(self)

    # ---- Data ----

    def get_train_dataloader(self) -> Any:
        """Trainer's training loader over the visible samples, each batch with the ids of its samples.

        Raises:
            ValueError: the dataset has no length, or the sampler yields no single indices.
        """
        self._prepare_to_hide()
        if self._hides():
            return make_training_loader(self, super().get_train_dataloader)
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
        parent = super()._get_dataloader
        if not (is_training and self._hides()):
            dataset = dataloaders.unwrapped(dataset)
            return parent(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        return dataloaders.make_training_loader(
            self, parent, dataset, description, batch_size, sampler_fn, dataloader_key
        )

    # Trainer would filter each example once more; the collator inside ours does it already.
    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if isinstance(data_collator, IdentifyingCollator):
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description=description)

    # ---- Loss ----

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Exactly Trainer's loss; beside it, the statistics of the batch are recorded.

        Only of a policy that gives weights the loss is another: see `hiding.weighting`.

        Raises:
            ValueError: there are no labels, or no rule gives the statistics of what the model returned, or the policy
                gives weights and the samples have no loss of their own.
        """
        training, parent = self._training, super().compute_loss
        if training is None or training.batch is None:
            return parent(model, inputs, return_outputs, *args, **kwargs)
        return recording.compute_recorded_loss(self, training, parent, model, inputs, return_outputs, *args, **kwargs)

    # ---- Begin and resume ----

    def train(
        self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """As `Trainer.train`. A checkpoint that was not written to its end is passed over for the one before it.

        Raises:
            ValueError: the ranks have different datasets, arguments or checkpoints, said on every rank; or there are
                checkpoints, but none was written to its end; or the one to resume from is of other rows, of another
                policy or, in the middle of an epoch, of another order.
        """
        resume_from_checkpoint = resuming.choose_checkpoint(self, resume_from_checkpoint, self._hides())
        self._prepare_to_hide()
        self._place_callbacks()
        if not self._hides():
            return super().train(resume_from_checkpoint, *args, **kwargs)
        warn_of_missing_processes(self.accelerator)
        self._training, self._num_earlier_loaders = None, len(self._loaders)
        with MonitoredBarrier() as self._barrier, recording.every_step_recorded(self):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    # Trainer sets the options of a search's trial here, when the training has begun.
    def _hp_search_setup(self, trial: Any) -> None:
        hides = self._hides()
        super()._hp_search_setup(trial)
        if self._hides() != hides:
            refuse_switching(self)

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple[Any, ...]:
        """As Trainer's. With `max_steps` the epochs are shorter than it expects, so more of them are allowed.

        Raises:
            RuntimeError: what `get_train_dataloader` returned is not one pass over one loader of Trainer's.
            ValueError: it has no batch.
        """
        if not self._hides():
            return super().set_initial_training_values(args, dataloader)
        self._loaders = [dataloaders.loader_of_training(self, dataloader)]
        require_a_batch(self, dataloader)
        values: tuple[Any, ...] = super().set_initial_training_values(args, dataloader)
        return (args.max_steps, *values[1:]) if args.max_steps > 0 else values

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
        policy = create_configured_policy(hiding_arguments(self.args))
        if policy is None:
            self._training = None
            unmark(self.state)
            return position
        return resuming.begin_training(
            self, policy, position, resume_from_checkpoint, max_steps, num_update_steps_per_epoch, num_train_epochs
        )

    # Trainer reads the weights of a checkpoint here and in the next one, some of them under names that do not fit.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._weights_folder = resume_from_checkpoint
        # Sentence Transformers' trainers take no model here.
        super()._load_from_checkpoint(resume_from_checkpoint, *([] if model is None else [model]))

    def _load_best_model(self) -> None:
        self._weights_folder = self.state.best_model_checkpoint
        super()._load_best_model()

    # Trainer warns here of the names that did not fit.
    def _issue_warnings_after_load(self, load_result: Any) -> None:
        super()._issue_warnings_after_load(
            resuming.load_weights_that_did_not_fit(self, load_result, self._weights_folder)
        )

    # ---- Learning rate ----

    # Trainer makes, or is given, the scheduler here.
    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        learning_rate.give_back_scheduler(self)
        prepared: tuple[Any, Any] = super()._prepare_for_training(*args, **kwargs)
        learning_rate.align_scheduler(self, self._training)
        self.callback_handler.lr_scheduler = self.lr_scheduler
        return prepared

    # Called from there before DeepSpeed loads a checkpoint.
    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As Trainer's."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        learning_rate.before_engine_loads(self, self._training)
        return scheduler

    # Called from there when the scheduler exists and before its state is loaded.
    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        learning_rate.before_loading(self, self._training)
        if not learning_rate.was_loaded_by_engine(self, self._training, checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    # Trainer logs what this returns after the optimizer's step, and LOMO steps with it.
    def _get_learning_rate(self) -> float:
        parent: Callable[[], float] = super()._get_learning_rate
        return parent() if self._training is None else learning_rate.current_rate(self, parent)

    # ---- Epochs ----

    # Trainer fixes the numbers of batches and updates once for all epochs, and hands them in here by name.
    def _run_epoch(self, **counts: Any) -> None:
        if self._training is None:
            super()._run_epoch(**counts)
        else:
            run_epoch(self, self._training, super()._run_epoch, **counts)

    # Trainer logs, evaluates and saves here, inside the epoch: time that hiding neither costs nor saves.
    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        does_something = self.control.should_log or self.control.should_evaluate or self.control.should_save
        if self._training is None or self._training.run.epoch_finished or not does_something:
            super()._maybe_log_save_evaluate(*args, **kwargs)
            return
        with self._training.run.clock_stopped():
            super()._maybe_log_save_evaluate(*args, **kwargs)

    # ---- Save and finish ----

    # Trainer writes a checkpoint folder here, its state last.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._training is None:
            super()._save_checkpoint(model, trial)
            return
        folder = saving.save_hiding_state(self, self._training, trial)
        with saving.flushed(self, self._training, folder):
            super()._save_checkpoint(model, trial)

    # Trainer writes the folder of a model here, within a checkpoint and elsewhere.
    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As Trainer's; beside the model goes the ledger, for `load_ledger` and `initial_ledger`."""
        super().save_model(output_dir, _internal_call)
        if self._training is not None:
            saving.save_ledger_beside(self, self._training, output_dir)

    # Trainer reports the throughput of full epochs from the number that is handed in here.
    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> TrainOutput:
        if self._training is None:
            return super()._finalize_training(trial, num_train_samples, start_time)
        run = self._training.run
        if not run.epoch_finished:
            end_epoch(self, self._training)
        learning_rate.end_compensation(self)
        log_hidden_samples(self, self._training, "end")
        samples = num_train_samples_argument(self, run.samples_this_session)
        output = super()._finalize_training(trial, samples, start_time)
        reporting.show_summary(self, self._training)
        return output

    # Trainer logs the totals of a training here, and returns the same dict.
    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As Trainer's, with the totals of hiding beside those of the training."""
        if self._training is not None and "train_runtime" in logs:
            logs.update(self._training.run.totals())
        super().log(logs, *args, **kwargs)

    # Trainer writes the model card anew here.
    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """As Trainer's, with a section on what was hidden."""
        super().create_model_card(*args, **kwargs)
        if self._training is not None:
            reporting.add_to_model_card(self, self._training)


class KakurenboTrainer(KakurenboMixin, Trainer):
    """`transformers.Trainer` that hides in every epoch the samples that the model already knows.

    Put it in the place of `Trainer`; nothing else in the script changes. With `KakurenboConfig` in the place of
    `TrainingArguments` the options of hiding become arguments and command-line flags.
    """
