"""Where ranks part they would wait for each other for ever; they are told so within a minute."""

import os
import time

import pytest
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_kakurenbo.distributed.barrier import MonitoredBarrier
from processes import run_ranks
from toy import make_trainer, samples


class OnTheSecondRank(TrainerCallback):
    """Sets a flag of the control on the second rank alone, in the middle of the second epoch."""

    def __init__(self, flag):
        self.flag = flag

    def on_step_end(self, args, state, control, **kwargs):
        if os.environ["RANK"] == "1" and state.global_step == 20:
            setattr(control, self.flag, True)


class Damaged(Dataset):
    """Cannot be read on the second rank, from some moment on."""

    def __init__(self):
        self.samples, self.read = samples(), 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.read += 1
        if os.environ["RANK"] == "1" and self.read > 150:
            raise OSError("the disk is gone")
        return self.samples[index]


def error(output_dir, flag=None, damaged=False):
    """Train, and bring home the error that it ends with."""
    dataset = Damaged() if damaged else None
    callbacks = [OnTheSecondRank(flag)] if flag else []
    trainer_options = {"callbacks": callbacks}
    trainer = make_trainer(output_dir, dataset=dataset, per_device_train_batch_size=8, trainer_options=trainer_options)
    with pytest.raises((RuntimeError, OSError)) as raised:
        trainer.train()
    return str(raised.value)


@pytest.mark.parametrize(
    "flag",
    [
        "should_training_stop",
        pytest.param("should_epoch_stop", marks=pytest.mark.wide),
        pytest.param("should_save", marks=pytest.mark.wide),
    ],
)
def test_a_rank_that_parts_from_the_others_is_told_so(tmp_path, flag):
    other, message = run_ranks(2, error, tmp_path, flag)
    place = "about to save a checkpoint" if flag == "should_save" else "at the end of epoch 1"
    assert "The ranks are out of sync and would wait for each other forever" in message
    assert f"Rank 1 is {place}, after 20 steps; rank 0 is in step 21." in message
    assert other, "the first rank ended as if nothing had been"


@pytest.mark.wide
def test_an_error_on_one_rank_ends_the_others(tmp_path):
    other, message = run_ranks(2, error, tmp_path, None, True)
    assert message == "the disk is gone"
    assert other, "the first rank ended as if nothing had been"


def meet(_, places):
    """Meet once at the place of this rank, and bring home the message of the error, if any."""
    torch.distributed.init_process_group("gloo")
    with MonitoredBarrier() as barrier:
        try:
            barrier.wait(places[int(os.environ["RANK"])])
        except RuntimeError as error:
            return str(error)
        finally:
            time.sleep(1)  # the first rank keeps the words of all
        return None


def test_ranks_that_come_to_different_places_are_told_so(tmp_path):
    assert run_ranks(2, meet, tmp_path, ["here", "here"]) == [None, None]
    first, second = run_ranks(2, meet, tmp_path, ["here", "there"])
    late, early = (second, first) if "another rank" in second else (first, second)
    assert {place for place in ("here", "there") if f"is {place}, after 0 steps" in late} == {"here", "there"}
    assert early, "who came first went on alone"


def leave(_):
    """Meet where the second rank does not come, since it leaves with an error, and bring home the messages."""
    torch.distributed.init_process_group("gloo")
    try:
        with MonitoredBarrier() as barrier:
            if os.environ["RANK"] == "1":
                raise OSError("the disk is gone")
            barrier.wait("here")
    except (OSError, RuntimeError) as error:
        time.sleep(12 if os.environ["RANK"] == "1" else 0)  # it lives on
        return str(error)


@pytest.mark.wide
def test_a_rank_that_has_left_is_not_waited_for(tmp_path):
    first, _ = run_ranks(2, leave, tmp_path)
    assert "Rank 0 is here, after 0 steps; rank 1 has left the training: OSError: the disk is gone." in first
