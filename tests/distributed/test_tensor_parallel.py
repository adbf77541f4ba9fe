"""A model split among ranks: those that share a batch are one rank for the samples, and measure as a whole one does.

Accelerate takes no processes on the CPU for tensor parallelism; once its check is passed over, Transformers' own, and
DeepSpeed's, train over gloo as on GPUs.
"""

import importlib.util
import itertools
import os
from importlib.metadata import version

import datasets
import pytest
import torch
from accelerate import ParallelismConfig
from packaging.version import Version
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForSequenceClassification,
)
from transformers.distributed import DistributedConfig

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.hiding.checkpoint import load_state
from processes import run_ranks
from toy import epochs, losses, make_trainer, pad, same_tensors, texts

pytestmark = pytest.mark.skipif(
    Version(version("accelerate")) < Version("1.13"), reason="Trainer cannot train a divided model with it"
)

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_labels": 4}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "attn_implementation": "eager"}
ZERO = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "train_batch_size": "auto"}
ZERO |= {"gradient_clipping": "auto", "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}

FIRST = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "num_train_epochs": 3}
COUNT, HIDDEN = 61, 18

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
needs_sizes = pytest.mark.skipif(
    not hasattr(DistributedConfig, "dp_size"), reason="this release of Transformers divides in one way only"
)

WAYS = {
    "tensor parallel": (2, {"tp_size": 2}),
    "data and tensor parallel": (4, {"tp_size": 2, "fsdp_size": 2}),
    "expert parallel": (2, {"tp_size": 2, "ep_size": 2}),
    "data and expert parallel": (2, {"fsdp_size": 2, "ep_size": 2}),
    "DeepSpeed": (2, {"autotp_size": 2}),
    "DeepSpeed, data parallel": (4, {"autotp_size": 2}),
}


def save_whole(folder, way):
    """Save a whole model to be divided; its folder and itself."""
    torch.manual_seed(0)
    if "expert" in way:
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
        model = MixtralForSequenceClassification(MixtralConfig(**SIZES, **experts))
    else:
        model = LlamaForSequenceClassification(LlamaConfig(**SIZES))
    model.save_pretrained(folder / "model")
    return folder / "model", model.eval()


def load_divided(folder, sizes):
    """This rank's part of a model."""
    torch.distributed.init_process_group("gloo")
    ParallelismConfig._validate_accelerator = lambda *_: None
    load = AutoModelForSequenceClassification.from_pretrained
    if hasattr(DistributedConfig, "dp_size"):
        return load(folder, distributed_config=DistributedConfig(**sizes))
    return load(folder, tp_plan="auto")


class Noting(KakurenboTrainer):
    """Notes the ids of the batches of this rank by epoch."""

    def training_step(self, model, inputs, *args, **kwargs):
        self.noted.setdefault(self._training.run.epoch, []).append(inputs["sample_id"].tolist())
        return super().training_step(model, inputs, *args, **kwargs)


def make_divided_trainer(output_dir, folder, way, options):
    """A trainer of a model that is divided in some way, or whole."""
    _, sizes = WAYS.get(way, (1, None))
    if sizes is None:
        load = AutoModelForSequenceClassification.from_pretrained
    elif "autotp_size" in sizes:
        os.environ["DS_ACCELERATOR"] = "cpu"
        load = AutoModelForSequenceClassification.from_pretrained
        options = {**options, "deepspeed": {**ZERO, "zero_optimization": {"stage": 1}, "tensor_parallel": sizes}}
    else:

        def load(folder):
            return load_divided(folder, sizes)

    # Made here: tensors would travel as open files.
    options = {**options, "dataset": options["dataset"]() if "dataset" in options else texts(COUNT)}
    defaults = {"per_device_train_batch_size": 8, "optim": "adamw_torch"}
    defaults["average_tokens_across_devices"] = False  # by which Trainer would count the loss once for each rank
    return make_trainer(
        output_dir,
        Noting,
        model=lambda: load(folder),
        trainer_options={"data_collator": pad},
        **{**defaults, **options},
    )


def outcome(output_dir, folder, way, options, resume_from_checkpoint=None):
    """Train, and bring home what the tests look at."""
    trainer = make_divided_trainer(output_dir, folder, way, options)
    trainer.noted = {}
    trainer.train(resume_from_checkpoint)
    run = trainer._training.run
    return {
        "hidden": trainer.watch.hidden,
        "losses": [entry["loss"] for entry in losses(trainer)],
        "rates": trainer.watch.rates,
        "noted": trainer.noted,
        "ledger": trainer.ledger.state_dict(),
        "visible": [entry["kakurenbo/visible_samples"] for entry in epochs(trainer)],
        "trained": run.trained_samples,
        "refreshed": run.refreshed_samples,
        "weights": {name: value.cpu() for name, value in local_weights(trainer.model)},
    }


def local_weights(model):
    """What this rank has of each weight."""
    for name, weight in model.named_parameters():
        yield name, (weight.to_local() if isinstance(weight, DTensor) else weight).detach().clone()


@torch.no_grad()
def losses_of(model, dataset):
    """The loss of each sample by itself, of a whole model."""
    return torch.stack(
        [
            nn.functional.cross_entropy(model(sample["input_ids"][None]).logits, sample["labels"][None])
            for sample in dataset
        ]
    )


WIDE = pytest.mark.wide
EVERY_WAY = [
    "tensor parallel",
    pytest.param("data and tensor parallel", marks=[WIDE, needs_sizes]),
    pytest.param("expert parallel", marks=[WIDE, needs_sizes]),
    pytest.param("data and expert parallel", marks=[WIDE, needs_sizes]),
    pytest.param("DeepSpeed", marks=[WIDE, needs_deepspeed]),
    pytest.param("DeepSpeed, data parallel", marks=[WIDE, needs_deepspeed]),
]


@pytest.mark.wide
@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_group_measures_what_a_whole_model_does_and_counts_once(tmp_path, way):
    folder, whole = save_whole(tmp_path, way)
    processes, sizes = WAYS[way]
    ranks = run_ranks(processes, outcome, tmp_path, folder, way, {**FIRST, "learning_rate": 0.0})
    # At a rate of 0 every loss is that of the model as it was, whether it was trained on last or refreshed.
    expected = losses_of(whole, texts(COUNT))
    group = sizes.get("tp_size", sizes.get("autotp_size", 1))
    for number, rank in enumerate(ranks):
        torch.testing.assert_close(rank["ledger"]["loss"], expected, rtol=1e-4, atol=1e-5)
        assert same_tensors(rank["ledger"], ranks[0]["ledger"])
        assert rank["refreshed"] == HIDDEN
        assert rank["trained"] == COUNT + 2 * (COUNT - HIDDEN)
        assert rank["visible"] == [COUNT, COUNT - HIDDEN, COUNT - HIDDEN]
        assert rank["noted"] == ranks[number - number % group]["noted"], "a group has several batches"
        own = sum(weight.numel() for weight in rank["weights"].values())
        assert own < 0.8 * sum(weight.numel() for weight in whole.parameters()), "the model was not divided"
    for epoch in range(3):
        # What fills up the last batch of several groups comes from the start of the epoch.
        drawn = list(itertools.chain(*itertools.chain(*(rank["noted"][epoch] for rank in ranks[::group]))))
        assert set(drawn) == set(range(HIDDEN if epoch else 0, COUNT))
        assert len(drawn) <= -(-len(set(drawn)) // 16) * 16


def many():
    return texts(128)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("way", "batches"),
    [
        ("tensor parallel", {}),
        pytest.param("data and tensor parallel", {}, marks=needs_sizes),
        pytest.param("data and tensor parallel", {"split_batches": True}, marks=needs_sizes),
        pytest.param("data and expert parallel", {}, marks=needs_sizes),
        pytest.param("DeepSpeed", {}, marks=needs_deepspeed),
        pytest.param("DeepSpeed, data parallel", {}, marks=needs_deepspeed),
    ],
    ids=str,
)
def test_groups_hide_what_one_process_does(tmp_path, way, batches):
    folder, _ = save_whole(tmp_path, way)
    processes, sizes = WAYS[way]
    # Without incomplete batches, in which a sample weighs more (in Trainer too), the batches are the same.
    options = {"num_train_epochs": 6, "learning_rate": 1e-2, "dataloader_drop_last": True, "dataset": many}
    options["confidence_threshold"] = 0.3
    one = outcome(tmp_path / "one", folder, None, {**options, "per_device_train_batch_size": 16})
    groups = processes // sizes.get("tp_size", sizes.get("autotp_size", 1))
    options["per_device_train_batch_size"] = 16 if batches else 16 // groups
    options["accelerator_config"] = batches
    ranks = run_ranks(processes, outcome, tmp_path / "ranks", folder, way, options)
    assert sum(int(hidden.sum()) for hidden in one["hidden"]) > 20, "too little was hidden to compare"
    for rank in ranks:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], one["hidden"], strict=True))
        assert rank["trained"] == one["trained"]
        assert rank["refreshed"] == one["refreshed"]
        assert rank["rates"] == one["rates"]
        assert rank["losses"] == pytest.approx(one["losses"], rel=1e-3)
        assert same_tensors(rank["ledger"], ranks[0]["ledger"])
    torch.testing.assert_close(ranks[0]["ledger"]["loss"], one["ledger"]["loss"], rtol=1e-3, atol=1e-4)


def streamed(seed=3):
    """As a stream, the same order on every rank; each text of as many tokens, so that any batch fits any other."""
    table = [{"input_ids": text["input_ids"][:3].tolist(), "labels": int(text["labels"])} for text in texts(COUNT)]
    stream = datasets.Dataset.from_list([{**row, "sample_id": number} for number, row in enumerate(table)])
    return stream.to_iterable_dataset(num_shards=3).shuffle(seed=seed, buffer_size=10).with_format("torch")


def streamed_in_another_order():
    return streamed(seed=int(os.environ["RANK"]))


STREAM = {"num_samples": COUNT, "accelerator_config": {"dispatch_batches": False}}


@pytest.mark.wide
@pytest.mark.parametrize(
    "way",
    [
        "tensor parallel",
        pytest.param("data and tensor parallel", marks=needs_sizes),
        pytest.param("DeepSpeed, data parallel", marks=needs_deepspeed),
    ],
)
def test_a_stream_is_shared_by_groups(tmp_path, way):
    folder, _ = save_whole(tmp_path, way)
    processes, _ = WAYS[way]
    options = {**FIRST, **STREAM, "dataset": streamed}
    one = outcome(tmp_path / "one", folder, None, {**options, "per_device_train_batch_size": 8 * processes // 2})
    ranks = run_ranks(processes, outcome, tmp_path / "ranks", folder, way, options)
    for number, rank in enumerate(ranks):
        assert rank["noted"] == ranks[number - number % 2]["noted"]
        assert rank["trained"] == one["trained"]
        assert same_tensors(rank["ledger"], ranks[0]["ledger"])
    for epoch, batches in one["noted"].items():
        together = [
            list(itertools.chain(*parts)) for parts in zip(*(r["noted"][epoch] for r in ranks[::2]), strict=True)
        ]
        assert [ids[: len(alone)] for ids, alone in zip(together, batches, strict=True)] == batches
    assert bool(ranks[0]["ledger"]["loss"].isfinite().all())


def error(*args):
    """Train, and bring home the message of the error that it ends with."""
    with pytest.raises(RuntimeError) as raised:
        outcome(*args)
    return str(raised.value)


@pytest.mark.wide
def test_a_group_whose_ranks_read_in_another_order_is_told_on_every_rank(tmp_path):
    folder, _ = save_whole(tmp_path, "tensor parallel")
    options = {**FIRST, **STREAM, "dataset": streamed_in_another_order}
    messages = run_ranks(2, error, tmp_path, folder, "tensor parallel", options)
    assert messages[0] == messages[1]
    assert "Ranks 0 to 1 share each batch" in messages[0]
    assert "`stream.shuffle(seed=0)`" in messages[0]


@pytest.mark.wide
@needs_deepspeed
@pytest.mark.parametrize("way", ["DeepSpeed", "DeepSpeed, data parallel"])
def test_resumed_is_never_interrupted(tmp_path, way):
    folder, _ = save_whole(tmp_path, way)
    processes, _ = WAYS[way]
    options = {**FIRST, "learning_rate": 5e-3, "save_strategy": "steps", "save_steps": 1}
    whole = run_ranks(processes, outcome, tmp_path, folder, way, options)
    groups = processes // 2
    first, second = -(-COUNT // (8 * groups)), -(-(COUNT - HIDDEN) // (8 * groups))
    for step in (first + 1, first + second):
        checkpoint = tmp_path / f"checkpoint-{step}"
        position = load_state(checkpoint)[1]["trainer"]["position"]
        assert position[:3] == [min((step - first) * 8 * groups, COUNT - HIDDEN), COUNT - HIDDEN, 8 * groups]
        resumed = run_ranks(processes, outcome, tmp_path / f"resumed-{step}", folder, way, options, str(checkpoint))
        for rank in range(processes):
            assert same_tensors(resumed[rank]["weights"], whole[rank]["weights"])
            assert same_tensors(resumed[rank]["ledger"], whole[rank]["ledger"])
            assert resumed[rank]["losses"] == whole[rank]["losses"]
            assert resumed[rank]["trained"] == whole[rank]["trained"]
