"""What a class with the mixin descends from: a `transformers.Trainer`, behind the mixin."""

from __future__ import annotations

from transformers import Trainer

# By one of these, in a class that can be constructed, a trainer is known that is not of Transformers.
_TRAINS = frozenset({"train", "fit"})


def require_trainer_behind(mixin: type, made: type) -> None:
    """Check a class with the mixin when it is made.

    Args:
        mixin: [`KakurenboMixin`].
        made: the class.

    Raises:
        TypeError: it names the mixin after the trainer, or what it names trains in a loop of its own.
    """
    lineage = made.__mro__
    if Trainer in lineage:
        if lineage.index(Trainer) < lineage.index(mixin):
            raise TypeError(
                f"{made.__name__} names KakurenboMixin after the trainer, so nothing would be hidden. Write "
                f"`class {made.__name__}(KakurenboMixin, {made.__bases__[0].__name__})`."
            )
        return
    for base in lineage:
        if not issubclass(base, mixin) and "__init__" in vars(base) and _TRAINS & vars(base).keys():
            raise TypeError(
                _no_trainer(made, f"{base.__module__}.{base.__qualname__} is none and has a loop of its own")
            )


def require_trainer(made: type) -> None:
    """Check a class with the mixin when a trainer of it is constructed.

    Raises:
        TypeError: it descends from no trainer of Transformers.
    """
    if not issubclass(made, Trainer):
        raise TypeError(_no_trainer(made, f"it descends from {', '.join(base.__name__ for base in made.__bases__)}"))


def _no_trainer(made: type, why: str) -> str:
    return (
        f"{made.__name__} puts KakurenboMixin over no `transformers.Trainer`: {why}, and the mixin hides in hooks of "
        "Trainer's. Use such a trainer without the mixin, or name a Trainer behind it: "
        f"`class {made.__name__}(KakurenboMixin, Trainer)`. In a loop of your own, `hf_kakurenbo.hiding` hides: see "
        "docs/method.md."
    )
