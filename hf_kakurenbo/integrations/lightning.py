"""A callback for Lightning: it begins and finishes the epochs of a run, refreshes, aligns the learning rate, saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from ..data import IdentifiedBatch, VisibleLoader
from ..hiding import AlignedScheduler, Prediction, SampleStatistics, forward_only
from ..utils.extras import requires_extra

with requires_extra("The Lightning callback", "lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class HidingCallback(Callback):
    """Makes a Lightning training leave out, epoch by epoch, the samples that the model already knows.

    The `training_step` gets `(ids, batch)`, and returns a dict with the `"loss"` and the `"statistics"` of the samples.
    Lightning has to ask for the loader's length in each epoch: `Trainer(reload_dataloaders_every_n_epochs=1)`. Its
    checkpoints hold the state of the run; one from within an epoch continues with the batch that was next.

    ```python
    run = HidingRun(len(dataset), KakurenboPolicy())
    loader = VisibleLoader(dataset, run, batch_size=64)
    hiding = HidingCallback(loader, lambda module, batch: single_label_statistics(module(batch[0]), batch[1]))
    trainer = Trainer(max_epochs=10, callbacks=[hiding], reload_dataloaders_every_n_epochs=1)
    trainer.fit(module, loader)
    ```

    Schedulers of the module are made for full epochs, as `trainer.estimated_stepping_batches` counts them; each becomes
    an [`AlignedScheduler`], but for `ReduceLROnPlateau`, which is left alone.

    Args:
        loader: the training loader, which is also given to `fit`; its run is what the callback drives.
        statistics: from the module and a batch, without ids, to the statistics of its samples; called in evaluation
            mode without gradients, when hidden samples are refreshed. Here and in `training_step` a [`Prediction`] does
            too.
    """

    def __init__(
        self, loader: VisibleLoader, statistics: Callable[[LightningModule, Any], SampleStatistics | Prediction]
    ) -> None:
        self.loader, self.run, self.statistics = loader, loader.run, statistics
        self._schedulers: list[tuple[AlignedScheduler, Callable[[int], int]]] = []
        self._own: list[AlignedScheduler] = []
        self._own_states: list[dict[str, Any]] = []
        self._global_step = 0
        self._is_new = True

    # ---- Begin ----

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what Lightning was told.

        Raises:
            ValueError: it would keep the first epoch's length.
        """
        every = trainer.reload_dataloaders_every_n_epochs
        if stage == "fit" and every != 1:
            raise ValueError(
                f"Lightning asks for the length of an epoch once (reload_dataloaders_every_n_epochs={every}), and "
                "epochs with hidden samples are shorter. Give its Trainer `reload_dataloaders_every_n_epochs=1`."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose what the first epoch hides, or take up the one that a checkpoint interrupts."""
        self.run.recorder.to(trainer.strategy.root_device)
        self._align_schedulers(trainer)
        self._is_new = self._begin_epoch(trainer)
        if trainer.train_dataloader is not None and trainer.num_training_batches != len(self.loader):
            # It was asked for its length when nothing was hidden yet, by `estimated_stepping_batches`.
            trainer.fit_loop._combined_loader = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the learning rate of the first epoch; by now Lightning has loaded optimizers and schedulers.

        Raises:
            RuntimeError: the run is of another training.
        """
        if self.run.epoch != trainer.current_epoch:
            raise RuntimeError(
                f"Lightning begins with epoch {trainer.current_epoch}, and the run with epoch {self.run.epoch}: it "
                "belongs to another training. Make a run, a loader and a callback for each, and load a checkpoint by "
                "`fit(ckpt_path=...)`."
            )
        for scheduler, state in zip(self._own, self._own_states, strict=False):
            scheduler.load_state_dict(state)
        if self._is_new:
            self._begin_schedules()
        self._require_length(trainer)
        self.run.start_clock()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that Lightning expects as many batches as there are."""
        self._require_length(trainer)
        self.run.start_clock()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hiding neither costs nor saves the time of a validation."""
        self.run.training_seconds = self.run.training_seconds

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training continues."""
        if not self.run.epoch_finished:
            self.run.start_clock()

    # ---- Batches ----

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the batch.

        Raises:
            TypeError: it is not of the callback's loader, or `training_step` returned no statistics.
        """
        if not isinstance(batch, IdentifiedBatch):
            raise TypeError(
                f"A training batch has no ids ({type(batch).__name__}): give `fit` the loader that the callback was "
                "made with."
            )
        statistics = outputs.get("statistics") if isinstance(outputs, Mapping) else None
        if not isinstance(statistics, SampleStatistics | Prediction):
            raise TypeError(
                'Hiding needs the statistics of each training batch: let `training_step` return `{"loss": loss, '
                f'"statistics": SampleStatistics(...)}}`; its "statistics" are {type(statistics).__name__}.'
            )
        self.run.record(batch.ids, statistics)
        self.run.batches_done += 1

    # ---- Epochs ----

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the epoch; if another follows, refresh what it hid, and choose what that hides.

        Callbacks that save come after this one, so a checkpoint of an epoch's end begins with the next.
        """
        self.run.finish_epoch()
        follows = not self._is_last(trainer)
        if follows and self.run.wants_refresh():
            self._refresh(trainer, pl_module)
        pl_module.log_dict({name: float(value) for name, value in self.run.report().items()}, sync_dist=True)
        self._global_step = trainer.global_step
        if follows:
            self._begin_epoch(trainer)
            self._begin_schedules()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take an epoch back that was begun and is not trained, after `EarlyStopping`; compensate no more."""
        if not self.run.epoch_finished and self.run.batches_done == 0:
            self.run.hide_nothing()
            self.run.epoch, self.run.epoch_finished = self.run.epoch - 1, True
        for scheduler, _ in self._schedulers:
            scheduler.close()

    def _begin_epoch(self, trainer: Trainer) -> bool:
        epoch = self.run.next_epoch
        of_steps = trainer.max_epochs is None or trainer.max_epochs < 1
        progress = self._global_step / trainer.max_steps if of_steps else epoch / trainer.max_epochs
        return self.loader.begin_epoch(epoch, max(0.0, min(progress, math.nextafter(1, 0))))

    def _is_last(self, trainer: Trainer) -> bool:
        epochs_end = trainer.max_epochs is not None and 0 < trainer.max_epochs <= self.run.epoch + 1
        steps_end = 0 <= trainer.max_steps <= trainer.global_step
        return epochs_end or steps_end or trainer.should_stop

    def _refresh(self, trainer: Trainer, module: LightningModule) -> None:
        with self.run.refreshing() as chosen, forward_only(module):
            for identified in self.loader.batches_of(chosen):
                converted = trainer.precision_plugin.convert_input(identified)
                ids, batch = trainer.strategy.batch_to_device(converted)
                with trainer.precision_plugin.forward_context():
                    self.run.record(ids, self.statistics(module, batch))

    def _require_length(self, trainer: Trainer) -> None:
        if trainer.num_training_batches != len(self.loader) and not trainer.fast_dev_run:
            raise RuntimeError(
                f"Lightning expects {trainer.num_training_batches} batches in epoch {self.run.epoch}, and the "
                f"callback's loader has {len(self.loader)}. Give `fit` that loader, and its Trainer neither "
                "`limit_train_batches` nor `overfit_batches`: a smaller dataset does the same."
            )

    # ---- Learning rate ----

    def _align_schedulers(self, trainer: Trainer) -> None:
        self._schedulers, self._own = [], []
        driven = []
        for config in trainer.lr_scheduler_configs:
            driven.append(config.scheduler.optimizer)
            if config.reduce_on_plateau:
                continue
            if not isinstance(config.scheduler, AlignedScheduler):
                config.scheduler = AlignedScheduler(config.scheduler, config.scheduler.optimizer)
            steps = _steps_of_epoch(config, trainer.accumulate_grad_batches)
            self._schedulers.append((config.scheduler, steps))
        for optimizer in trainer.optimizers:
            if not any(optimizer is one for one in driven):
                # A constant rate is compensated too.
                self._own.append(AlignedScheduler(LambdaLR(optimizer, _constant), optimizer))
        self._schedulers += [(scheduler, lambda batches: 1) for scheduler in self._own]

    def _begin_schedules(self) -> None:
        for scheduler, steps in self._schedulers:
            updates, full_updates = steps(len(self.loader)), steps(self.loader.full_batches)
            scheduler.begin_epoch(max(1, updates), full_updates, self.run.lr_scale)

    # ---- Checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """The state of the run; a collective call, as Lightning makes it on every rank."""
        own = [scheduler.state_dict() for scheduler in self._own]
        return {"run": self.run.state_dict(), "schedulers": own, "global_step": self._global_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; Lightning calls it before the training begins."""
        self.run.load_state_dict(state_dict["run"])
        self._own_states, self._global_step = state_dict["schedulers"], state_dict["global_step"]


def _constant(step: int) -> float:
    return 1.0


def _steps_of_epoch(config: Any, accumulation: int) -> Callable[[int], int]:
    """From the batches of an epoch to how often Lightning steps a scheduler in it.

    Args:
        config: Lightning's, of the scheduler.
        accumulation: how many batches make an update; the last batch makes one in any case.
    """
    if config.interval != "step":
        return lambda batches: 1

    def steps(batches: int) -> int:
        own_update = batches % accumulation != 0 and batches % config.frequency == 0
        return batches // math.lcm(config.frequency, accumulation) + own_update

    return steps
