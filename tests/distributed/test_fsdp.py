"""Weights sharded among ranks (FSDP2), and DeepSpeed's: the same hidden, the same ledger as with whole copies (DDP).

On the CPU Accelerate quietly takes plain DDP when asked for FSDP. Its own FSDP2 path, through PyTorch's `fully_shard`,
works over gloo all the same, once the accelerator is told that it is to be taken.
"""

import importlib.util

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor

from hf_kakurenbo import KakurenboTrainer
from processes import run_ranks
from toy import (
    NUM_CLASSES,
    NUM_FEATURES,
    LinearClassifier,
    losses,
    make_trainer,
    same_tensors,
    samples,
    skip_where_ranks_cannot_resume,
)


class Layers(nn.Module):
    """Two layers to shard, and nothing in them that depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NUM_FEATURES, 32), nn.ReLU(), nn.Linear(32, NUM_CLASSES))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layers(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Sharded(KakurenboTrainer):
    """Takes Accelerate's FSDP2 path on the CPU too; each layer is a unit of its own."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.state.distributed_type = DistributedType.FSDP
        self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            cpu_ram_efficient_loading=False,
            auto_wrap_policy="size_based_wrap",
            min_num_params=1,
            state_dict_type="SHARDED_STATE_DICT",
        )
        self.is_fsdp_enabled = True


def outcome(output_dir, trainer, options, resume_from_checkpoint=None):
    """Train, and bring home what the tests look at."""
    options = {"model": Layers, "per_device_train_batch_size": 8, "learning_rate": 0.02, **options}
    made = make_trainer(output_dir, trainer, **options)
    calls = {"training": 0, "refresh": 0}

    def count(module, *_):
        calls["training" if module.training else "refresh"] += 1

    made.model.register_forward_pre_hook(count)
    made.train(resume_from_checkpoint)
    weights = dict(made.model.named_parameters())
    return {
        "hidden": made.watch.hidden,
        "ledger": made.ledger.state_dict(),
        "losses": losses(made),
        "calls": calls,
        "sharded": [isinstance(weight, DTensor) for weight in weights.values()],
        "weights": {
            name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()
            for name, weight in weights.items()
        },
    }


@pytest.mark.wide
def test_sharded_weights_hide_what_whole_copies_do(tmp_path):
    options = {"num_train_epochs": 6, "gradient_accumulation_steps": 2}
    whole = run_ranks(2, outcome, tmp_path / "whole", KakurenboTrainer, options)
    sharded = run_ranks(2, outcome, tmp_path / "sharded", Sharded, options)
    assert sum(int(hidden.sum()) for hidden in whole[0]["hidden"]) > 50, "too little was hidden to compare"
    for rank in range(2):
        assert all(sharded[rank]["sharded"]), "the weights were not sharded"
        assert not any(whole[rank]["sharded"])
        assert all(torch.equal(a, b) for a, b in zip(sharded[rank]["hidden"], whole[0]["hidden"], strict=True))
        torch.testing.assert_close(sharded[rank]["weights"], whole[0]["weights"])
        assert same_tensors(sharded[rank]["ledger"], sharded[0]["ledger"])
    for name, tensor in whole[0]["ledger"].items():
        torch.testing.assert_close(sharded[0]["ledger"][name], tensor, equal_nan=True)


@pytest.mark.parametrize(
    "count", [pytest.param(0, marks=pytest.mark.wide), 1, pytest.param(17, marks=pytest.mark.wide)]
)
def test_every_rank_makes_as_many_forward_passes_in_the_refresh(tmp_path, count):
    options = {
        "num_train_epochs": 3,
        "dataset": samples(64 + count),
        "hiding_policy": "first_ids",
        "max_hidden_fraction": (count + 0.5) / (64 + count),
    }
    ranks = run_ranks(2, outcome, tmp_path, Sharded, options)
    assert ranks[0]["calls"] == ranks[1]["calls"]
    # One refresh, after the second of three epochs, in batches of 8 on each of 2 ranks.
    assert ranks[0]["calls"]["refresh"] == -(-count // 16)
    assert same_tensors(ranks[0]["ledger"], ranks[1]["ledger"])
    assert bool(ranks[0]["ledger"]["loss"].isfinite().all())


@pytest.mark.wide
def test_a_sharded_training_goes_on_from_a_checkpoint(tmp_path):
    skip_where_ranks_cannot_resume()
    options = {"num_train_epochs": 4, "hiding_policy": "first_ids", "save_strategy": "epoch"}
    whole = run_ranks(2, outcome, tmp_path, Sharded, options)
    step = 13 + len(whole[0]["losses"][13:]) // 3
    resumed = run_ranks(2, outcome, tmp_path / "resumed", Sharded, options, str(tmp_path / f"checkpoint-{step}"))
    for rank in range(2):
        assert same_tensors(resumed[rank]["weights"], whole[rank]["weights"])
        assert same_tensors(resumed[rank]["ledger"], whole[rank]["ledger"])
        assert resumed[rank]["losses"] == whole[rank]["losses"]


ZERO = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"}


@pytest.mark.wide
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_hides_what_whole_copies_do(tmp_path, stage):
    options = {"num_train_epochs": 6, "model": LinearClassifier, "use_cpu": False}
    whole = run_ranks(2, outcome, tmp_path / "whole", KakurenboTrainer, options)
    options["deepspeed"] = {**ZERO, "zero_optimization": {"stage": stage}}
    zero = run_ranks(2, outcome, tmp_path / "zero", KakurenboTrainer, options)
    assert same_tensors(zero[0]["ledger"], zero[1]["ledger"])
    torch.testing.assert_close(zero[0]["ledger"]["loss"], whole[0]["ledger"]["loss"], rtol=1e-3, atol=1e-3)
