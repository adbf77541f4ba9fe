"""A learning-rate scheduler that DeepSpeed's engine owns and steps; nothing here imports DeepSpeed."""

from __future__ import annotations

from typing import Any

from accelerate.utils.deepspeed import DeepSpeedSchedulerWrapper  # without DeepSpeed not in `accelerate.utils`
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR

_WAY_OUT = 'Take the "{block}" block out of the DeepSpeed configuration, or set hiding_policy="none".'


class ParkedScheduler:
    """Stands in the engine for a scheduler that the trainer steps: it saves and loads, and steps nothing.

    So a checkpoint of DeepSpeed's has the scheduler's own state, whoever steps it.

    Args:
        scheduler: what the engine had.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def step(self, *args: Any, **kwargs: Any) -> None:
        """The engine's step, after each of its optimizer's."""

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own state."""
        state: dict[str, Any] = self.scheduler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the scheduler's own state."""
        self.scheduler.load_state_dict(state)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "scheduler":
            raise AttributeError(name)
        return getattr(self.scheduler, name)


def refuse_zenflow(trainer: Any) -> None:
    """Refuse, at construction, the mode of DeepSpeed whose steps cannot be kept in step with the epochs.

    Raises:
        ValueError: the DeepSpeed configuration has a `zenflow` block.
    """
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and "zenflow" in plugin.deepspeed_config.get("zero_optimization", {}):
        raise ValueError(
            "DeepSpeed's ZenFlow updates weights between the steps of the optimizer, and steps the learning rate with "
            "the batches and not with the updates, so neither can be kept in step with epochs that hide samples. "
            + _WAY_OUT.format(block="zenflow")
        )


def owns_scheduler(trainer: Any) -> bool:
    """Whether the trainer's scheduler is the one that DeepSpeed's engine made: it steps, saves and loads it."""
    return isinstance(trainer.lr_scheduler, DeepSpeedSchedulerWrapper)


def take_scheduler_from_engine(trainer: Any) -> None:
    """Make the trainer's scheduler the only one, stepped by Trainer once per update as without DeepSpeed.

    A `scheduler` block in the DeepSpeed configuration makes one that the engine steps, an `optimizer` block has the
    engine step Trainer's.

    Raises:
        ValueError: the engine drives the rate in a way that cannot be kept in step with the epochs.
    """
    engine = trainer.accelerator.deepspeed_engine_wrapped.engine
    config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
    if owns_scheduler(trainer):
        trainer.lr_scheduler = trainer.lr_scheduler.scheduler
        if isinstance(trainer.lr_scheduler, (ReduceLROnPlateau, GreedyLR)):
            block = "scheduler" if "scheduler" in config else "optimizer"
            raise ValueError(
                f"{type(trainer.lr_scheduler).__name__} goes by a metric, and DeepSpeed steps it without one. "
                + _WAY_OUT.format(block=block)
            )
    if engine.lr_scheduler is not None and not isinstance(engine.lr_scheduler, ParkedScheduler):
        engine.lr_scheduler = ParkedScheduler(engine.lr_scheduler)


def has_parked_scheduler(trainer: Any) -> bool:
    """Whether the engine holds, and so loads, the scheduler that the trainer steps in its place."""
    if not trainer.is_deepspeed_enabled:
        return False
    parked = trainer.accelerator.deepspeed_engine_wrapped.engine.lr_scheduler
    aligned = trainer.lr_scheduler
    return isinstance(parked, ParkedScheduler) and parked.scheduler is getattr(aligned, "scheduler", aligned)


def give_scheduler_back_to_engine(trainer: Any) -> None:
    """Let the engine step its scheduler again, for whoever continues with it after the training."""
    engine = trainer.accelerator.deepspeed_engine_wrapped.engine
    if isinstance(engine.lr_scheduler, ParkedScheduler):
        engine.lr_scheduler = engine.lr_scheduler.scheduler
