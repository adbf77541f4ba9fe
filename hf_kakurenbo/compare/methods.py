"""The methods that are compared: each a few fields of `KakurenboConfig`, and how long and how fast it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A way of training, to be compared with others.

    Attributes:
        name: in tables and folders; letters, digits and `._-=@`.
        options: fields of `KakurenboConfig`.
        epochs: factor of the task's epochs.
        learning_rate: factor of the task's learning rate.
        share_of: name of a method of the same comparison that runs first; this one then hides, in each epoch, the share
            that the other hid on average (`max_hidden_fraction`, with a constant schedule).
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: float = 1.0
    learning_rate: float = 1.0
    share_of: str | None = None

    @property
    def hides(self) -> bool:
        """Whether it is one of hiding, and not a control that trains on everything."""
        return self.options.get("hiding_policy") != "none"


NO_HIDING = Method("no-hiding", {"hiding_policy": "none"})
"""What every other method is compared with."""
