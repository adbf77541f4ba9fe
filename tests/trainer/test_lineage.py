"""The mixin over something that is no `transformers.Trainer` is refused when the class is made."""

import pytest
import torch
from transformers import Seq2SeqTrainer, Trainer

from hf_kakurenbo import KakurenboMixin, KakurenboTrainer


class LoopOfItsOwn:
    """A trainer as other libraries write one: the name and the calls of Trainer's, and no hook of it."""

    def __init__(self, model=None, args=None, train_dataset=None):
        self.model = model

    def train(self, *args, **kwargs):
        raise AssertionError("it would train, and hide nothing")


class Lightning:
    def __init__(self, max_epochs=1):
        self.max_epochs = max_epochs

    def fit(self, model):
        raise AssertionError("it would train, and hide nothing")


class DescendedFromIt(LoopOfItsOwn):
    pass


class Helper:
    """No trainer: it adds something to one."""

    def train(self, *args, **kwargs):
        return super().train(*args, **kwargs)


@pytest.mark.parametrize("base", [LoopOfItsOwn, DescendedFromIt, Lightning, torch.nn.Module])
def test_what_is_no_trainer_is_refused_when_the_class_is_made(base):
    with pytest.raises(TypeError, match=r"Mine puts KakurenboMixin over no `transformers.Trainer`.*own.*docs"):
        type("Mine", (KakurenboMixin, base), {})


def test_the_message_names_what_trains():
    with pytest.raises(TypeError, match=rf"{__name__}\.LoopOfItsOwn is none"):
        type("Mine", (KakurenboMixin, DescendedFromIt), {})


def test_a_mixin_without_a_trainer_yet_is_made_and_not_constructed():
    part = type("Part", (KakurenboMixin, Helper), {})
    for made in (part, KakurenboMixin):
        with pytest.raises(TypeError, match=rf"{made.__name__} puts KakurenboMixin over no `transformers.Trainer`"):
            made(model=torch.nn.Linear(2, 2))
    assert issubclass(type("Whole", (part, Trainer), {}), Trainer)


@pytest.mark.parametrize(
    "bases", [(KakurenboMixin, Helper, Trainer), (KakurenboMixin, Seq2SeqTrainer), (KakurenboTrainer,)]
)
def test_trainers_of_transformers_are_not_refused(bases):
    assert issubclass(type("Mine", bases, {}), Trainer)
