"""The methods that are compared: each a few fields of `KakurenboConfig`, and how long and how fast it trains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..utils.names import did_you_mean
from .records import require_folder_name

_DECIDED_BY: Mapping[str, str] = {
    "num_train_epochs": "give `epochs`, a factor of the task's",
    "max_steps": "give `epochs`, a factor of the task's",
    "learning_rate": "give `learning_rate`, a factor of the task's, beside the options",
    "seed": "the seeds of the comparison are the same for every method",
    "output_dir": "a training of a comparison leaves nothing but its record",
}
"""Fields of `KakurenboConfig` that are not a method's to set, and what is to be done instead."""


@dataclass(frozen=True)
class Method:
    """A way of training, to be compared with others.

    Attributes:
        name: in tables and folders; letters, digits and `._=@+-`.
        options: fields of `KakurenboConfig`.
        epochs: factor of the task's epochs.
        learning_rate: factor of the task's learning rate.
        batch_size: factor of the task's batch size.
        share_of: name of a method of the same comparison that runs first; this one then hides, in each epoch, the
            fraction that the other hid on average (`max_hidden_fraction`, with a constant schedule).

    Raises:
        ValueError: the name cannot be that of a folder, a factor is not above 0, or an option is decided elsewhere.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: float = 1.0
    learning_rate: float = 1.0
    batch_size: float = 1.0
    share_of: str | None = None

    def __post_init__(self) -> None:
        require_folder_name("method", self.name)
        for factor in ("epochs", "learning_rate", "batch_size"):
            if not getattr(self, factor) > 0:
                raise ValueError(f"{factor}={getattr(self, factor)} of {self.name!r} is a factor, above 0.")
        for option, instead in _DECIDED_BY.items():
            if option in self.options:
                raise ValueError(f"{option} is no option of the method {self.name!r}: {instead}.")

    @property
    def hides(self) -> bool:
        """Whether it is one of hiding, and not a control that trains on everything."""
        return self.options.get("hiding_policy") != "none"


def _policy(name: str, policy: str, share_of: str | None = None, epochs: float = 1.0, **options: Any) -> Method:
    return Method(name, {"hiding_policy": policy, **options}, epochs, share_of=share_of)


def _kakurenbo(change: str, **options: Any) -> Method:
    return _policy(f"kakurenbo{change}", "kakurenbo", **options)


def _spaced(change: str, own: Mapping[str, Any] | None = None, epochs: float = 1.0, **options: Any) -> Method:
    given = {**options, "policy_options": dict(own)} if own else options
    return _policy(f"spaced_repetition{change}", "spaced_repetition", epochs=epochs, **given)


def _uncapped(change: str, own: Mapping[str, Any] | None = None, epochs: float = 1.0, **options: Any) -> Method:
    return _spaced(f"@cap=1{change}", {"max_resting_fraction": 1.0, **(own or {})}, epochs, **options)


def changed(method: Method, change: str, own: Mapping[str, Any] | None = None, **options: Any) -> Method:
    """A method with further options.

    Args:
        method: to be changed; it stays as it is.
        change: what is added to its name, such as `"+limit=1"`.
        own: further `policy_options`.
        **options: further fields of `KakurenboConfig`.
    """
    merged = {**method.options, **options}
    if own:
        merged["policy_options"] = {**method.options.get("policy_options", {}), **own}
    return replace(method, name=f"{method.name}{change}", options=merged)


NO_HIDING = Method("no-hiding", {"hiding_policy": "none"})
"""What every other method is compared with."""


def _control(epochs: float, learning_rate: float) -> Method:
    length = "no-hiding" if epochs == 1 else f"shorter-{epochs}"
    rate = "" if learning_rate == 1 else f"@{learning_rate}"
    return Method(f"{length}{rate}", NO_HIDING.options, epochs, learning_rate)


CONTROLS = (
    NO_HIDING,
    *(_control(1, rate) for rate in (1.4, 2)),
    *(_control(0.85, rate) for rate in (1, 1.4, 2)),
    *(_control(length, rate) for length in (0.7, 0.55, 0.4) for rate in (1, 1.4)),
)
"""Training on everything, for the whole time or a part of it, with the task's learning rate or `@` a factor of it."""

FIELD = (
    _kakurenbo(""),
    _spaced(""),
    _policy("coin", "coin"),
    _policy("random", "random", share_of="kakurenbo"),
    _policy("infobatch", "infobatch"),
    _policy("selective_backprop", "selective_backprop", lr_compensation=False),
    _policy("forgetting", "forgetting", lr_compensation=False),
    _policy("forgetting-online", "forgetting", policy_options={"online": True}, lr_compensation=False),
    _policy("importance", "importance"),
)
"""The policies: those of papers as these have them, our own, and hiding at random."""

_NO_FALL: Mapping[str, Any] = {"fraction_milestones": [0.0], "fraction_factors": [1.0]}

KAKURENBO_PARTS = (
    _kakurenbo(""),
    _kakurenbo("-no-move-back", move_back=False),
    _kakurenbo("-no-fall", **_NO_FALL),
    _kakurenbo("-no-compensation", lr_compensation=False),
    _kakurenbo("-no-refresh", refresh_interval=0),
    _kakurenbo("-no-parts", move_back=False, lr_compensation=False, refresh_interval=0, **_NO_FALL),
)
"""KAKURENBO with each of its parts left out, and with all of them left out."""

KAKURENBO_SETTINGS = (
    _kakurenbo("@tau=0.9", confidence_threshold=0.9),
    _kakurenbo("@F=0.5", max_hidden_fraction=0.5),
    _kakurenbo("@F=0.5+tau=0.9", max_hidden_fraction=0.5, confidence_threshold=0.9),
    _kakurenbo("@late-fall", fraction_milestones=[0.0, 0.8], fraction_factors=[1.0, 0.4]),
    _kakurenbo("@limit=2", refresh_interval=0, policy_options={"max_consecutive_hidden": 2}),
    _kakurenbo(
        "@F=0.5+limit=2", max_hidden_fraction=0.5, refresh_interval=0, policy_options={"max_consecutive_hidden": 2}
    ),
    _kakurenbo("@refresh=half", policy_options={"refreshed_fraction": 0.5}),
    _kakurenbo("@refresh=random-half", policy_options={"refreshed_fraction": 0.5, "refresh_first": "random"}),
    _kakurenbo("@initial-pass", hiding_warmup_epochs=0, initial_pass=True),
    _kakurenbo("@epochs=1.1", epochs=1.1),
)
"""Other settings of KAKURENBO, and more epochs for the time that it saves."""

SPACED_REPETITION_PARTS = (
    _uncapped(""),
    _uncapped("-no-threshold", confidence_threshold=0.0),
    _uncapped("-with-refresh", {"refreshes": True}),
    _uncapped("-no-random-pause", {"random_pause": False}),
    _uncapped("-no-growth", {"growing": False}),
    _uncapped("-no-compensation", lr_compensation=False),
)
"""Spaced repetition without its cap, and then with each of its other ideas left out."""

SPACED_REPETITION_SETTINGS = (
    _spaced(""),
    _spaced("@tau=0.95", confidence_threshold=0.95),
    _spaced("@warm-up=4", hiding_warmup_epochs=4),
    _spaced("@initial-pass", hiding_warmup_epochs=0, initial_pass=True),
    _spaced("@cap=0.5+K=4", {"max_resting_fraction": 0.5, "max_interval": 4}),
    _uncapped(""),
    _uncapped("+tau=0.8", confidence_threshold=0.8),
    _uncapped("+tau=0.95", confidence_threshold=0.95),
    _uncapped("+tau=0.98", confidence_threshold=0.98),
    _uncapped("+K=4", {"max_interval": 4}),
    _uncapped("+K=16", {"max_interval": 16}),
    _uncapped("+epochs=1.2", epochs=1.2),
)
"""Other settings of spaced repetition, and more epochs for the time that it saves."""

_BOLD = _kakurenbo("@F=0.5+no-fall", max_hidden_fraction=0.5, refresh_interval=0, **_NO_FALL)

SAVINGS = (
    _control(0.85, 1),
    *(_control(length, rate) for length in (0.7, 0.55) for rate in (1, 1.4)),
    _kakurenbo(""),
    changed(_BOLD, "+limit=2", {"max_consecutive_hidden": 2}),
    _spaced(""),
    _uncapped(""),
    _uncapped("+K=4", {"max_interval": 4}),
    _policy("random-as-spaced@cap=1", "random", share_of="spaced_repetition@cap=1"),
    _policy("infobatch", "infobatch"),
)
"""Rules that leave out a quarter of the samples and more, and what else costs as little: fewer epochs, random."""

# Nothing until 15 % of the training, more with each twentieth of it, 60 % from its half to 85 %, then nothing.
_RISING = [0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
_CAP_BY_PROGRESS: Mapping[str, Any] = {
    "max_resting_fraction": 0.6,
    "resting_milestones": [0.0, *_RISING, 0.85],
    "resting_factors": [0.0, *((index + 1) / len(_RISING) for index in range(len(_RISING))), 0.0],
}

RULES = (
    _uncapped(""),
    _uncapped("+K=4", {"max_interval": 4}),
    _uncapped("+K=16", {"max_interval": 16}),
    _spaced("@cap-by-progress", _CAP_BY_PROGRESS),
    _uncapped("+full-tail", {"resting_milestones": [0.0, 0.875], "resting_factors": [1.0, 0.0]}),
    _policy(
        "duty-cycle",
        "spaced_repetition",
        policy_options={
            "max_resting_fraction": 1.0,
            "max_interval": 2,
            "random_pause": False,
            "random_first_pause": True,
        },
    ),
    _policy("coin@p=0.5+weighted", "coin", policy_options={"hiding_probability": 0.5, "weighted": True}),
    *(changed(_BOLD, f"+limit={limit}", {"max_consecutive_hidden": limit}) for limit in (1, 2)),
    _policy(
        "rank-gate",
        "order_dp",
        policy_options={"drawn_fraction": 1.0, "kept_fraction": 0.85, "max_consecutive_hidden": 1},
    ),
    _policy("order_dp", "order_dp", lr_compensation=False),
    _policy("seta", "seta", lr_compensation=False),
    _policy("ies", "ies", lr_compensation=False),
)
"""Rules that hide more than KAKURENBO as published: this library's, and those of later papers as these have them."""

_CONSTANT: Mapping[str, Any] = {"hidden_epoch_updates": "constant"}

CONSTANT_UPDATES = (
    Method("shorter-0.7@batch=0.7", NO_HIDING.options, 0.7, batch_size=0.7),
    changed(_kakurenbo(""), "+constant", **_CONSTANT),
    *(changed(rule, "+constant", **_CONSTANT) for rule in (*RULES, _spaced(""), _policy("infobatch", "infobatch"))),
    replace(
        changed(_policy("random-as-spaced@cap=1", "random"), "+constant", **_CONSTANT),
        share_of="spaced_repetition@cap=1+constant",
    ),
)
"""The same rules with as many updates as without hiding, in smaller batches; fewer epochs and random likewise."""

GROUPS: Mapping[str, Sequence[Method]] = {
    "controls": CONTROLS,
    "field": FIELD,
    "kakurenbo-parts": KAKURENBO_PARTS,
    "kakurenbo-settings": KAKURENBO_SETTINGS,
    "spaced_repetition-parts": SPACED_REPETITION_PARTS,
    "spaced_repetition-settings": SPACED_REPETITION_SETTINGS,
    "savings": SAVINGS,
    "rules": RULES,
    "constant-updates": CONSTANT_UPDATES,
}
"""Methods that are asked for together, by the name of their group."""

METHODS: Mapping[str, Method] = {method.name: method for group in GROUPS.values() for method in group}
"""Every method that comes with the package, by its name."""


def find_methods(names: Iterable[str]) -> list[Method]:
    """The methods that some names stand for, each once, in that order; no hiding before them, asked for or not.

    Args:
        names: of groups, of methods, or of JSON files: a list of objects with the attributes of `Method`.

    Raises:
        ValueError: a name stands for nothing, a file holds something else, or two different methods have one name.
        FileNotFoundError: there is no such file.
    """
    found: dict[str, Method] = {NO_HIDING.name: NO_HIDING}
    for name in names:
        for method in _methods_of(name):
            if found.setdefault(method.name, method) != method:
                raise ValueError(f"{name!r} has another method of the name {method.name!r}: give it a name of its own.")
    return list(found.values())


def _methods_of(name: str) -> Sequence[Method]:
    if name.endswith(".json"):
        return _read(Path(name))
    if name in GROUPS:
        return GROUPS[name]
    if name in METHODS:
        return [METHODS[name]]
    hint = did_you_mean(name, [*GROUPS, *METHODS])
    raise ValueError(
        f"There is no method {name!r}.{hint} Groups of methods: {', '.join(GROUPS)}. Methods of your own go into a "
        '.json file: [{"name": "bold", "options": {"max_hidden_fraction": 0.6}}].'
    )


def _read(file: Path) -> list[Method]:
    try:
        return [Method(**each) for each in json.loads(file.read_text(encoding="utf-8"))]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no list of methods ({error}): write "
            '[{"name": "bold", "options": {"max_hidden_fraction": 0.6}}, ...].'
        ) from error
