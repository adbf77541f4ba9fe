"""The options of hiding, as fields of `TrainingArguments` and so as command-line flags."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, cast, get_type_hints

from transformers import TrainingArguments

from .hiding import HidingPolicy, StatisticsFunction, create_policy
from .hiding.compact_ledger import validate_precision
from .hiding.options import require_number, require_type
from .hiding.schedule import validate_updates
from .hiding.statistics import ACCURACY_THRESHOLD, TASKS
from .utils.names import did_you_mean

NO_HIDING = "none"
"""The `hiding_policy` that makes the trainer a plain one."""

TRACKED = ("end", "epoch", "no")
"""When trackers get the samples of the ledger."""


@dataclass
class HidingArguments:
    """The options of hiding alone, to add to another subclass of `TrainingArguments`.

    ```python
    @dataclass
    class KakurenboSeq2SeqConfig(HidingArguments, Seq2SeqTrainingArguments): ...
    ```
    """

    hiding_policy: str = field(
        default="kakurenbo",
        metadata={"help": "Name of the policy that chooses the samples to hide; 'none' makes it a plain Trainer."},
    )
    max_hidden_fraction: float = field(
        default=0.3, metadata={"help": "F: at most this fraction of the samples is hidden in an epoch, in [0, 1)."}
    )
    fraction_milestones: list[float] = field(
        default_factory=lambda: [0.0, 0.3, 0.6, 0.8],
        metadata={"help": "Fractions of the training at which the next factor of F starts; from 0, rising."},
    )
    fraction_factors: list[float] = field(
        default_factory=lambda: [1.0, 0.8, 0.6, 0.4],
        metadata={"help": "The factors of F, each in [0, 1], one for each milestone."},
    )
    hiding_warmup_epochs: int = field(
        default=1, metadata={"help": "Epochs at the start in which nothing is hidden, 0 or more."}
    )
    confidence_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Tau: a sample predicted with less confidence is not hidden, in [0, 1]. By default the policy's "
            "own: 0.7 for kakurenbo, 0.9 for spaced_repetition, 0.95 for coin."
        },
    )
    move_back: bool = field(
        default=True, metadata={"help": "Move wrong and unsure candidates back; off, the loss alone decides."}
    )
    accuracy_threshold: float = field(
        default=ACCURACY_THRESHOLD,
        metadata={
            "help": "A sample of many tokens or pixels counts as correct from this fraction of right ones on, "
            "in [0, 1]."
        },
    )
    lr_compensation: bool = field(
        default=True, metadata={"help": "Multiply the learning rate by 1 / (1 - the fraction hidden in the epoch)."}
    )
    hidden_epoch_updates: str = field(
        default="scaled",
        metadata={
            "help": "'scaled': an epoch that hides has fewer updates, at a compensated learning rate; 'constant': as "
            "many updates as with nothing hidden, in smaller batches, at the same rate."
        },
    )
    refresh_interval: int = field(
        default=1, metadata={"help": "Look at the hidden samples, forward only, every so many epochs; 0 for never."}
    )
    initial_pass: bool = field(
        default=False,
        metadata={
            "help": "Look at every sample, forward only, before the first epoch, so that hiding can start at once: for "
            "fine-tuning a model that already knows much. Set hiding_warmup_epochs to 0 with it."
        },
    )
    policy_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Options that the policy alone has, as JSON: '{\"max_interval\": 4}'. See docs/policies.md."},
    )
    ledger_precision: str = field(
        default="auto",
        metadata={
            "help": "'full': 12 bytes a sample and rank; 'compact': 6, loss and confidence in half precision; 'auto': "
            "compact from 100 million samples on."
        },
    )
    never_hide_column: str | None = field(
        default=None,
        metadata={"help": "A column of true or false in the training dataset: where true, a sample is never hidden."},
    )
    min_visible_per_class: int = field(
        default=0,
        metadata={"help": "Of each class at least so many samples stay visible in every epoch; 0 for no floor."},
    )
    ledger_history: bool = field(
        default=False,
        metadata={
            "help": "Keep loss, correctness and hiding of every sample in every epoch, in 2.25 bytes a sample and "
            "epoch, as `trainer.ledger.history` and in every checkpoint."
        },
    )
    initial_ledger: str | None = field(
        default=None,
        metadata={
            "help": "Begin with the ledger of an earlier training on the same samples, so that hiding can start at "
            "once: its checkpoint folder, or the folder of its saved model. Set hiding_warmup_epochs to 0 with it."
        },
    )
    log_hidden_samples: str = field(
        default="no",
        metadata={
            "help": "When TensorBoard, W&B, MLflow or Trackio get histograms of the samples' losses and confidences, "
            "and the samples that stand out, with their texts and images: 'no', 'end', or 'epoch' (after each one)."
        },
    )
    sample_id_column: str = field(
        default="sample_id", metadata={"help": "The entry of a batch, and the column of a stream, that names a sample."}
    )
    num_samples: int | None = field(
        default=None,
        metadata={"help": "How many samples a training stream has, if it does not say so itself; 1 or more."},
    )
    # `str` stands second on purpose: it is the type that HfArgumentParser takes for the flag.
    statistics_fn: Callable[..., Any] | str | None = field(
        default=None,
        metadata={
            "help": "What measures a sample where the model does not say: the name of a task with a built-in rule "
            "('causal_language_modeling', ...), a function (outputs, inputs) -> SampleStatistics, or "
            "'package.module:function'."
        },
    )

    def __post_init__(self) -> None:
        validate_hiding(self)
        parent = getattr(super(), "__post_init__", None)
        if parent is not None:
            parent()

    def to_dict(self) -> dict[str, Any]:
        """As `TrainingArguments.to_dict`, a `statistics_fn` by its name, so that trackers can write it down."""
        options = cast(dict[str, Any], super().to_dict())  # type: ignore[misc]
        if callable(options["statistics_fn"]):
            options["statistics_fn"] = _name_of(options["statistics_fn"])
        return options


@dataclass
class KakurenboConfig(HidingArguments, TrainingArguments):
    """`TrainingArguments` with the options of hiding. A plain `TrainingArguments` gets the defaults of all of them.

    Args:
        hiding_policy: name of the policy that chooses the samples to hide; `"none"` makes it a plain `Trainer`.
        max_hidden_fraction: F, the largest fraction of the samples hidden in an epoch, in [0, 1).
        fraction_milestones: fractions of the training at which the next factor of F starts; from 0, rising, below 1.
        fraction_factors: the factors of F, each in [0, 1], one for each milestone.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden, 0 or more.
        confidence_threshold: tau, in [0, 1]; a sample predicted with less confidence is not hidden. None for the
            policy's own: 0.7 for `"kakurenbo"`, 0.9 for `"spaced_repetition"`, 0.95 for `"coin"`.
        move_back: off, the loss alone decides.
        accuracy_threshold: the fraction of right tokens (token classification, language modelling) or pixels
            (segmentation) from which on a sample counts as predicted correctly, in [0, 1].
        lr_compensation: multiply the learning rate by 1 / (1 − the fraction hidden in the epoch).
        hidden_epoch_updates: `"scaled"`, an epoch that hides has fewer updates, at a compensated learning rate;
            `"constant"`, it has as many as with nothing hidden, in batches of round(B · (1 − the fraction hidden))
            samples a rank, at the same rate.
        refresh_interval: look at the hidden samples, forward only, every so many epochs; 0 for never.
        initial_pass: look at every sample, forward only, before the first epoch, so that hiding can start at once: for
            fine-tuning a model that already knows much. It needs `hiding_warmup_epochs=0`.
        policy_options: options that the policy alone has, by name, or the JSON of such a dict; see `docs/policies.md`.
        ledger_precision: `"full"`, 12 bytes a sample and rank; `"compact"`, 6 bytes, loss and confidence in half
            precision; `"auto"`, compact from 100 million samples on.
        never_hide_column: a column of true or false in the training dataset: where true, a sample is never hidden. A
            mask can be given as `trainer.never_hide`.
        min_visible_per_class: of each class at least so many samples stay visible in every epoch, or all if it has
            fewer; 0 for no floor.
        ledger_history: keep loss, correctness and hiding of every sample in every epoch, in 2.25 bytes a sample and
            epoch, as `trainer.ledger.history` and in every checkpoint.
        initial_ledger: begin with the ledger of an earlier training on the same samples, so that hiding can start at
            once: its checkpoint folder, or the folder of its saved model. It needs `hiding_warmup_epochs=0`.
        log_hidden_samples: when the trackers of `report_to` get histograms of the samples' losses and confidences, and
            the samples hidden most, hidden least and never learnt, with their texts and images: at the `"end"` of the
            training, after each `"epoch"`, or `"no"`, so that training data go to no tracker unless that is asked for.
            TensorBoard, W&B, MLflow and Trackio take them.
        sample_id_column: the column of a stream with the ids of its samples, integers from 0, and the entry of a batch
            under which ids travel.
        num_samples: N, how many samples a training stream has, if it does not say so itself; at least 1.
        statistics_fn: what measures a sample where the model does not say: the name of a task that has a built-in rule
            (`"causal_language_modeling"`, see `docs/tasks.md`), or, for models that no built-in rule fits, a function
            (outputs, inputs) → `SampleStatistics` or its name as `"package.module:function"`.

    Raises:
        ValueError: a value is of another type or out of its range; the message names it and what was expected.
    """


def hiding_arguments(args: TrainingArguments) -> HidingArguments:
    """The options of hiding in some training arguments: theirs, or the defaults."""
    return args if isinstance(args, HidingArguments) else _default_arguments()


@cache
def _default_arguments() -> HidingArguments:
    # One for all plain arguments: they are asked for in each training step of some trainers.
    return HidingArguments()


def default_options() -> dict[str, Any]:
    """The default of each option of hiding, by name."""
    return {
        option.name: option.default if option.default_factory is MISSING else option.default_factory()
        for option in fields(HidingArguments)
    }


@cache
def _expected_types() -> list[tuple[str, Any, str]]:
    """Of each option its name, its type and what an error says of its meaning."""
    kinds, defaults = get_type_hints(HidingArguments), default_options()
    return [
        (option.name, kinds[option.name], f" {option.metadata['help']} By default {defaults[option.name]!r}.")
        for option in fields(HidingArguments)
    ]


def create_configured_policy(options: HidingArguments) -> HidingPolicy | None:
    """The policy that the options describe, or None for `"none"`.

    Raises:
        ValueError: no policy has the name, or a value is out of its range.
    """
    if options.hiding_policy == NO_HIDING:
        return None
    # The policy's random numbers follow the seed that the order of the samples follows.
    given = vars(options)
    data_seed = given.get("data_seed")
    seed = given.get("seed") if data_seed is None else data_seed
    return create_policy(options.hiding_policy, {**given, "seed": seed}, _policy_options(options))


def _policy_options(options: HidingArguments) -> dict[str, Any]:
    given = options.policy_options
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError as error:
        raise ValueError(
            f"policy_options={given!r} is no JSON ({error}): write it as '{{\"name\": value}}'."
        ) from error
    if parsed is not None and not isinstance(parsed, dict):
        raise ValueError(f"policy_options={given!r} must be a dict of the policy's own options, by name.")
    return parsed or {}


def named_task(options: HidingArguments) -> str | None:
    """The task whose built-in rule `statistics_fn` names, if it names one."""
    name = options.statistics_fn
    return name if isinstance(name, str) and name in TASKS else None


def resolve_statistics_function(statistics_fn: StatisticsFunction | str | None) -> StatisticsFunction | None:
    """The function that `statistics_fn` names or is; None if it is not given or names a task with a built-in rule.

    Raises:
        ValueError: it names neither, or it is a function that cannot be saved with the training arguments.
    """
    if statistics_fn is None:
        return None
    if isinstance(statistics_fn, str):
        return None if statistics_fn in TASKS else _import_function(statistics_fn)
    try:
        pickle.dumps(statistics_fn)
    except Exception as error:
        raise ValueError(
            f"statistics_fn={statistics_fn!r} cannot be pickled, and every checkpoint saves the training arguments: "
            "define it at the top level of a module, not as a lambda or inside a function."
        ) from error
    return statistics_fn


def validate_hiding(options: HidingArguments) -> None:
    """Check every option.

    Raises:
        ValueError: a value is of another type or out of its range.
    """
    for name, kind, note in _expected_types():
        require_type(name, getattr(options, name), kind, note)
    policy = create_configured_policy(options)
    resolve_statistics_function(options.statistics_fn)
    require_number(
        "accuracy_threshold",
        options.accuracy_threshold,
        "[0, 1]",
        "the fraction of right tokens or pixels from which on a sample counts as correct, "
        f"{ACCURACY_THRESHOLD} by default",
    )
    if options.initial_pass and policy is not None and policy.warmup_epochs > 0:
        raise ValueError(
            f"initial_pass=True with hiding_warmup_epochs={policy.warmup_epochs} would measure every sample for "
            "nothing, since nothing is hidden in the first epoch. Set hiding_warmup_epochs=0, or leave initial_pass "
            "out."
        )
    if options.initial_ledger is not None:
        _validate_initial_ledger(options, policy)
    validate_updates(options.hidden_epoch_updates)
    validate_precision(options.ledger_precision)
    if options.never_hide_column == "":
        raise ValueError("never_hide_column='' is empty: give the name of a column of true or false, or leave it out.")
    if options.min_visible_per_class < 0:
        raise ValueError(
            f"min_visible_per_class={options.min_visible_per_class} must be a number of samples, 0 or more; 0 for no "
            "floor."
        )
    if options.log_hidden_samples not in TRACKED:
        raise ValueError(
            f"log_hidden_samples={options.log_hidden_samples!r} must be one of {', '.join(map(repr, TRACKED))}."
            f"{did_you_mean(options.log_hidden_samples, TRACKED)}"
        )
    if not options.sample_id_column:
        raise ValueError("sample_id_column='' is empty: give the name of the entry that holds the sample ids.")
    if options.num_samples is not None and options.num_samples < 1:
        raise ValueError(f"num_samples={options.num_samples} must be at least 1: it is the length of the stream.")


def _validate_initial_ledger(options: HidingArguments, policy: HidingPolicy | None) -> None:
    if options.initial_pass:
        raise ValueError(
            f"initial_ledger={options.initial_ledger!r} with initial_pass=True would measure at once what it has just "
            "taken over. Leave one of them out."
        )
    if policy is not None and policy.warmup_epochs > 0:
        raise ValueError(
            f"initial_ledger={options.initial_ledger!r} with hiding_warmup_epochs={policy.warmup_epochs} would be "
            "read for nothing, since nothing is hidden in the first epoch and every sample is measured in it. Set "
            "hiding_warmup_epochs=0, or leave initial_ledger out."
        )


def _name_of(function: Callable[..., Any]) -> str:
    """As `"package.module:function"`; what has no name of its own, such as a `functools.partial`, by its `repr`."""
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{function.__module__}:{name}"


def _import_function(name: str) -> StatisticsFunction:
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(
            f"statistics_fn={name!r} is no task with a built-in rule.{did_you_mean(name, TASKS)} They are "
            f"{', '.join(TASKS)}. Write a function as 'package.module:function'."
        )
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"statistics_fn={name!r} names no function that can be imported ({error}): write it as "
            "'package.module:function'."
        ) from error
    if not callable(found):
        raise ValueError(
            f"statistics_fn={name!r} names a {type(found).__name__}, and must name a function (outputs, inputs) -> "
            "SampleStatistics: write it as 'package.module:function'."
        )
    return cast(StatisticsFunction, found)
